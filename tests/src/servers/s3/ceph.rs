//! Ceph's gateway on one monitor and one object server that keeps everything in memory.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use object_store::ObjectStoreExt;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::timeout;

use super::S3Access;
use crate::ports;
use crate::process::{Process, command};
use crate::store::Store;

/// How long one step of the set-up may take.
const STEP: Duration = Duration::from_secs(60);

/// The three daemons.
#[derive(Debug)]
pub(super) struct Ceph {
    endpoint: String,
    // Clients before what they talk to.
    gateway: Process,
    _object_server: Process,
    _monitor: Process,
    folder: TempDir,
}

impl Ceph {
    /// About 6 s.
    pub(super) async fn start(access: &S3Access, port: u16) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("temporary folder")?;
        let cluster = Cluster::new(folder.path(), ports::free(), port)?;
        let monitor = cluster.monitor().await?;
        let object_server = cluster.object_server().await?;
        cluster.user(access).await?;
        let gateway = cluster.gateway()?;
        let mut ceph = Self {
            endpoint: access.endpoint.clone(),
            gateway,
            _object_server: object_server,
            _monitor: monitor,
            folder,
        };
        ceph.ready().await?;
        warm_up(access).await?;
        Ok(ceph)
    }

    pub(super) fn signal(&self, signal: &str) {
        self.gateway.signal(signal);
    }

    pub(super) fn kill(&mut self) {
        self.gateway.kill();
    }

    pub(super) async fn restart(&mut self) -> anyhow::Result<()> {
        self.gateway.kill();
        self.gateway = launch(self.folder.path(), "radosgw", &["-n", "client.rgw"])?;
        self.ready().await
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        crate::install_tls_provider();
        let client = reqwest::Client::builder()
            .timeout(Duration::from_secs(5))
            .build()?;
        let endpoint = &self.endpoint;
        self.gateway
            .ready_when(STEP, async || client.get(endpoint).send().await.is_ok())
            .await
    }
}

/// The first bucket and the first object take seconds, since their pools are created then.
async fn warm_up(access: &S3Access) -> anyhow::Result<()> {
    let store = Store::new(access, "warm-up");
    store.create_bucket().await?;
    let key = "object".into();
    store.client().put(&key, "warm".into()).await?;
    Ok(store.client().delete(&key).await?)
}

/// The steps of the set-up; each daemon and tool reads `ceph.conf` in the folder.
struct Cluster<'a> {
    folder: &'a Path,
    id: uuid::Uuid,
    monitor_port: u16,
}

impl<'a> Cluster<'a> {
    fn new(folder: &'a Path, monitor_port: u16, gateway_port: u16) -> anyhow::Result<Self> {
        let id = uuid::Uuid::new_v4();
        for name in ["monitor", "osd", "gateway", "run"] {
            fs::create_dir(folder.join(name))?;
        }
        fs::write(folder.join("keyring"), "")?;
        let settings = settings(
            &folder.display().to_string(),
            id,
            monitor_port,
            gateway_port,
        );
        fs::write(folder.join("ceph.conf"), settings)?;
        Ok(Self {
            folder,
            id,
            monitor_port,
        })
    }

    async fn monitor(&self) -> anyhow::Result<Process> {
        let address = format!("[v2:127.0.0.1:{}/0]", self.monitor_port);
        let map = self.path("monmap");
        let id = self.id.to_string();
        let arguments = ["--create", "--fsid", &id, "--addv", "a", &address, &map];
        self.tool("monmaptool", &arguments).await?;
        let arguments = ["--mkfs", "-i", "a", "--monmap", &map];
        self.tool("ceph-mon", &arguments).await?;
        launch(self.folder, "ceph-mon", &["-i", "a"])
    }

    async fn object_server(&self) -> anyhow::Result<Process> {
        let id = uuid::Uuid::new_v4().to_string();
        let number = self.tool("ceph", &["osd", "new", &id]).await?;
        let arguments = ["-i", &number, "--mkfs", "--osd-uuid", &id];
        self.tool("ceph-osd", &arguments).await?;
        launch(self.folder, "ceph-osd", &["-i", &number])
    }

    async fn user(&self, access: &S3Access) -> anyhow::Result<()> {
        let keys = [
            format!("--access-key={}", access.access_key),
            format!("--secret-key={}", access.secret_key),
        ];
        let [access_key, secret_key] = &keys;
        let names = ["user", "create", "--uid=lab", "--display-name=lab"];
        let arguments = [&names[..], &[access_key, secret_key]].concat();
        self.tool("radosgw-admin", &arguments).await.map(drop)
    }

    fn gateway(&self) -> anyhow::Result<Process> {
        launch(self.folder, "radosgw", &["-n", "client.rgw"])
    }

    /// Runs a tool to its end; its standard output without surrounding space.
    async fn tool(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut tool = Command::from(command(program));
        tool.args(arguments).args(["-c", &self.path("ceph.conf")]);
        let output = timeout(STEP, tool.kill_on_drop(true).output())
            .await
            .with_context(|| format!("{program} did not end"))?
            .with_context(|| format!("{program} can't be started"))?;
        ensure!(
            output.status.success(),
            "{program} {}:\n{}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

fn launch(folder: &Path, program: &str, arguments: &[&str]) -> anyhow::Result<Process> {
    let mut daemon = command(program);
    daemon
        .args(arguments)
        .arg("-c")
        .arg(folder.join("ceph.conf"))
        .arg("-f");
    Process::spawn(program, daemon, folder)
}

/// `ceph.conf`: no authentication among the daemons, one copy of everything, loopback only, nothing
/// outside `folder`.
fn settings(folder: &str, id: uuid::Uuid, monitor_port: u16, gateway_port: u16) -> String {
    format!(
        "[global]
fsid = {id}
mon host = [v2:127.0.0.1:{monitor_port}/0]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr1 = false
auth cluster required = none
auth service required = none
auth client required = none
keyring = {folder}/keyring
run dir = {folder}/run
crash dir = {folder}/run
admin socket = {folder}/run/$name.asok
log file = {folder}/$name.log
debug ms = 0
debug mon = 0
debug osd = 0
debug rgw = 1
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000

[mon]
mon data = {folder}/monitor
mon cluster log file = {folder}/cluster.log
mon data avail warn = 1
mon data avail crit = 1
paxos propose interval = 0.02
paxos min wait = 0.01

[osd]
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = 16G
osd op num shards = 1
osd memory target = 1G

[client]
ms mon client mode = crc secure
rgw data = {folder}/gateway
rgw frontends = beast endpoint=127.0.0.1:{gateway_port} tcp_nodelay=1
rgw enable apis = s3
rgw thread pool size = 32
rgw num rados handles = 1
rgw rados pool pg num min = 4
rgw run sync thread = false
rgw gc obj min wait = 1
rgw gc processor period = 5
rgw enable ops log = false
rgw relaxed region enforcement = true
"
    )
}
