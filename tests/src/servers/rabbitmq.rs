//! A private RabbitMQ node, and the vhosts that keep tests apart on a shared one.

use std::io::{Read, Write};
use std::net::TcpStream as BlockingTcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context, ensure};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::ports;
use crate::process::{Process, command};
use crate::waiting::poll;

const USER: &str = "guest";
const PASSWORD: &str = "guest";
const READY: Duration = Duration::from_secs(90);
/// In the log of a node that didn't start since another one of its cluster was starting.
const GAVE_UP: &str = "incompatible_feature_flags";
const COOKIE: &str = ".erlang.cookie";
/// `guest:guest` in base64.
const BASIC_CREDENTIALS: &str = "Z3Vlc3Q6Z3Vlc3Q=";

/// Where a node can be reached.
#[derive(Debug, Clone)]
pub struct Broker {
    /// `amqp://guest:guest@127.0.0.1:<port>`, without a vhost
    pub amqp_url: String,
    /// `http://127.0.0.1:<port>`; user and password `guest`
    pub management_url: String,
}

impl Broker {
    /// URL of a vhost, `%2f` being the default one.
    pub fn amqp_url(&self, vhost: &str) -> String {
        format!("{}/{vhost}", self.amqp_url)
    }

    /// Creates a vhost with a name of its own.
    ///
    /// # Errors
    /// The management API can't be reached or refuses.
    pub async fn vhost(&self) -> anyhow::Result<Vhost> {
        let vhost = Vhost {
            broker: self.clone(),
            name: format!("test-{}", uuid::Uuid::new_v4().simple()),
        };
        vhost.create().await?;
        Ok(vhost)
    }

    /// Asks the management API, for example `/api/queues/<vhost>`. Its counts are some seconds old.
    ///
    /// # Errors
    /// It can't be reached, or answers anything but success.
    pub async fn get(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        let request = client()?.get(format!("{}{path}", self.management_url));
        let answer = request.basic_auth(USER, Some(PASSWORD)).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    /// Tells the management API something, for example `/api/policies/<vhost>/<name>`.
    ///
    /// # Errors
    /// It can't be reached, or refuses.
    pub async fn put(&self, path: &str, body: &serde_json::Value) -> anyhow::Result<()> {
        let request = client()?.put(format!("{}{path}", self.management_url));
        let request = request.basic_auth(USER, Some(PASSWORD)).json(body);
        let answer = request.send().await.context("RabbitMQ's management API")?;
        ensure!(
            answer.status().is_success(),
            "RabbitMQ's management API answers {} to PUT {path}",
            answer.status()
        );
        Ok(())
    }
}

fn client() -> anyhow::Result<reqwest::Client> {
    crate::install_tls_provider();
    Ok(reqwest::Client::builder()
        .timeout(Duration::from_secs(20))
        .build()?)
}

/// A vhost, deleted when dropped.
#[derive(Debug)]
pub struct Vhost {
    broker: Broker,
    pub name: String,
}

impl Vhost {
    pub fn url(&self) -> String {
        self.broker.amqp_url(&self.name)
    }

    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Creates it again, empty, after [`Vhost::delete`].
    ///
    /// # Errors
    /// The management API can't be reached or refuses.
    pub async fn create(&self) -> anyhow::Result<()> {
        let (broker, name) = (&self.broker, &self.name);
        let everything = serde_json::json!({"configure": ".*", "write": ".*", "read": ".*"});
        broker
            .put(&format!("/api/vhosts/{name}"), &serde_json::json!({}))
            .await?;
        broker
            .put(&format!("/api/permissions/{name}/{USER}"), &everything)
            .await
    }

    /// Deletes it with everything in it, and closes its connections.
    ///
    /// # Errors
    /// The management API can't be reached.
    pub async fn delete(&self) -> anyhow::Result<()> {
        let (url, name) = (self.broker.management_url.clone(), self.name.clone());
        tokio::task::spawn_blocking(move || delete_vhost(&url, &name)).await??;
        Ok(())
    }
}

impl Drop for Vhost {
    fn drop(&mut self) {
        let (url, name) = (self.broker.management_url.clone(), self.name.clone());
        // On its own: dropping can't wait for a future, deleting takes up to a second, and at the
        // end of a run the node goes anyway.
        thread::spawn(move || drop(delete_vhost(&url, &name)));
    }
}

fn delete_vhost(management_url: &str, name: &str) -> std::io::Result<()> {
    let address = management_url.trim_start_matches("http://");
    let mut stream = BlockingTcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "DELETE /api/vhosts/{name} HTTP/1.1\r\nHost: {address}\r\n\
         Authorization: Basic {BASIC_CREDENTIALS}\r\nConnection: close\r\n\r\n"
    )?;
    // The server gives up on a request whose client hangs up.
    stream.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// One node of its own, with management plugin, cookie and port mapper (epmd).
#[derive(Debug)]
pub struct RabbitMq {
    pub amqp_port: u16,
    pub management_port: u16,
    distribution_port: u16,
    epmd_port: u16,
    folder: TempDir,
    node: Process,
    // After the node, which signs off there.
    epmd: Arc<Process>,
}

impl RabbitMq {
    /// Starts an empty node; ready when this returns (6 to 10 s).
    ///
    /// # Errors
    /// rabbitmq-server is not installed or does not become ready.
    pub async fn start() -> anyhow::Result<Self> {
        Self::with_settings("").await
    }

    /// The same with more lines of `rabbitmq.conf`.
    ///
    /// # Errors
    /// As [`RabbitMq::start`].
    pub async fn with_settings(more: &str) -> anyhow::Result<Self> {
        let epmd_port = ports::free();
        let folder = tempfile::tempdir().context("temporary folder")?;
        let mut epmd = program("epmd");
        epmd.args(["-address", "127.0.0.1", "-port", &epmd_port.to_string()]);
        let epmd = Arc::new(Process::spawn("epmd", epmd, folder.path())?);
        let cookie = uuid::Uuid::new_v4().simple().to_string();
        Self::launched(folder, epmd_port, epmd, &cookie, None, more).await
    }

    /// Starts a cluster of empty nodes; all have joined when this returns (10 to 20 s).
    ///
    /// # Errors
    /// As [`RabbitMq::start`].
    pub async fn start_cluster(nodes: usize) -> anyhow::Result<Vec<Self>> {
        let first = Self::start().await?;
        let joining = (1..nodes).map(|_| first.join());
        let others = futures::future::try_join_all(joining).await?;
        let mut cluster = vec![first];
        cluster.extend(others);
        Ok(cluster)
    }

    /// Starts a node in this one's cluster.
    async fn join(&self) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("temporary folder")?;
        let cookie = fs::read_to_string(self.folder.path().join(COOKIE))?;
        let (epmd, first) = (self.epmd.clone(), node_name(self.distribution_port));
        Self::launched(folder, self.epmd_port, epmd, &cookie, Some(&first), "").await
    }

    async fn launched(
        folder: TempDir,
        epmd_port: u16,
        epmd: Arc<Process>,
        cookie: &str,
        first: Option<&str>,
        more: &str,
    ) -> anyhow::Result<Self> {
        let [amqp_port, management_port, distribution_port] =
            std::array::from_fn(|_| ports::free());
        let cluster = first.map(|first| [first.to_owned(), node_name(distribution_port)]);
        write_settings(folder.path(), amqp_port, management_port, cluster, more)?;
        write_cookie(folder.path(), cookie)?;
        let node = launch(folder.path(), distribution_port, epmd_port)?;
        let mut rabbitmq = Self {
            amqp_port,
            management_port,
            distribution_port,
            epmd_port,
            folder,
            node,
            epmd,
        };
        rabbitmq.ready().await?;
        // A vhost that another node creates just before never runs on this one.
        let complete = async || rabbitmq.log().contains("startup complete").then_some(());
        poll(READY, complete).await.context("RabbitMQ starts on")?;
        Ok(rabbitmq)
    }

    pub fn broker(&self) -> Broker {
        Broker {
            amqp_url: format!("amqp://{USER}:{PASSWORD}@127.0.0.1:{}", self.amqp_port),
            management_url: self.management(),
        }
    }

    /// URL of a vhost, `%2f` being the default one.
    pub fn amqp_url(&self, vhost: &str) -> String {
        self.broker().amqp_url(vhost)
    }

    /// URL of the management API.
    pub fn management(&self) -> String {
        format!("http://127.0.0.1:{}", self.management_port)
    }

    /// `127.0.0.1:<AMQP port>`, for a proxy in front.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.amqp_port)
    }

    /// A fresh vhost, deleted when dropped.
    ///
    /// # Errors
    /// The node is away.
    pub async fn vhost(&self) -> anyhow::Result<Vhost> {
        self.broker().vhost().await
    }

    /// Sends `TERM`, `STOP` (frozen: connections stay, nothing answers) or `CONT`.
    pub fn signal(&self, signal: &str) {
        self.node.signal(signal);
    }

    /// Orderly shutdown.
    pub async fn stop(&mut self) {
        self.node.stop(Duration::from_secs(20)).await;
    }

    /// `kill -9`. A quorum queue that was declared within the last second may then have no leader for
    /// five minutes after a restart (seen with RabbitMQ 3.10: `leader not known` in the log).
    pub fn kill(&mut self) {
        self.node.kill();
    }

    /// Starts again on the same ports and data; stops it first if it runs. A node of RabbitMQ 3.10 that
    /// asks another for its feature flags while that one starts too gives up: it is started once more,
    /// as whatever watches over nodes would do.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        if self.node.is_running() {
            self.stop().await;
        }
        let last_start = Instant::now() + READY;
        loop {
            let told = self.log().len();
            self.node = launch(self.folder.path(), self.distribution_port, self.epmd_port)?;
            let ready = self.ready().await;
            let log = self.log();
            let gave_up = log.get(told..).unwrap_or_default().contains(GAVE_UP);
            if ready.is_ok() || !gave_up || self.node.is_running() || Instant::now() > last_start {
                return ready;
            }
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.node.is_running()
    }

    pub fn log(&self) -> String {
        self.node.log()
    }

    /// Runs `rabbitmqctl` with the node (about 2 s).
    ///
    /// # Errors
    /// The node is away, or refuses.
    pub async fn control(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let mut control = program(script("rabbitmqctl")?);
        environment(
            &mut control,
            self.folder.path(),
            self.distribution_port,
            self.epmd_port,
        );
        control.args(arguments);
        let control = tokio::process::Command::from(control).output();
        let output = timeout(Duration::from_secs(60), control).await??;
        ensure!(
            output.status.success(),
            "rabbitmqctl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let (address, broker) = (self.address(), self.broker());
        self.node
            .ready_when(READY, async || {
                speaks_amqp(&address).await && broker.get("/api/overview").await.is_ok()
            })
            .await
    }
}

/// Whether the node answers the protocol header with a method frame (Connection.Start). The port
/// alone is open earlier.
async fn speaks_amqp(address: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else {
        return false;
    };
    let asked = stream.write_all(b"AMQP\x00\x00\x09\x01").await;
    asked.is_ok() && matches!(stream.read_u8().await, Ok(1))
}

/// `cluster`: the node that is there, and this one.
fn write_settings(
    folder: &Path,
    amqp_port: u16,
    management_port: u16,
    cluster: Option<[String; 2]>,
    more: &str,
) -> anyhow::Result<()> {
    let mut settings = format!(
        "listeners.tcp.default = 127.0.0.1:{amqp_port}\n\
         management.tcp.ip = 127.0.0.1\n\
         management.tcp.port = {management_port}\n\
         disk_free_limit.absolute = 64MB\n\
         log.file = false\n\
         log.console = true\n\
         {more}"
    );
    if let Some([first, this]) = cluster {
        settings += &format!(
            "cluster_formation.peer_discovery_backend = classic_config\n\
             cluster_formation.classic_config.nodes.1 = {first}\n\
             cluster_formation.classic_config.nodes.2 = {this}\n"
        );
    }
    fs::write(folder.join("rabbitmq.conf"), settings)?;
    // A dead letter that could not be routed is tried again after this time; the default is 3 minutes.
    let retry = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 1000}]}].\n";
    fs::write(folder.join("advanced.config"), retry)?;
    fs::write(folder.join("enabled_plugins"), "[rabbitmq_management].\n")?;
    Ok(())
}

fn write_cookie(folder: &Path, cookie: &str) -> anyhow::Result<()> {
    let path = folder.join(COOKIE);
    fs::write(&path, cookie)?;
    // Erlang refuses a cookie that others can read.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400))?;
    Ok(())
}

/// The distribution port is a name that no other node has.
fn node_name(distribution_port: u16) -> String {
    format!("lab{distribution_port}@localhost")
}

fn launch(folder: &Path, distribution_port: u16, epmd_port: u16) -> anyhow::Result<Process> {
    let mut node = program(script("rabbitmq-server")?);
    environment(&mut node, folder, distribution_port, epmd_port);
    Process::spawn("rabbitmq", node, folder)
}

fn environment(
    node: &mut std::process::Command,
    folder: &Path,
    distribution_port: u16,
    epmd_port: u16,
) {
    // Where a node that dies leaves what was in its memory.
    node.current_dir(folder)
        .env("ERL_CRASH_DUMP", folder.join("erl_crash.dump"))
        .env("HOME", folder)
        .env("LANG", "C.UTF-8")
        // Makes the script become the node instead of waiting for it, so that signals and the
        // death of this program reach the node itself.
        .env("RUNNING_UNDER_SYSTEMD", "true")
        // Nothing of the machine's own RabbitMQ is read or written.
        .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
        .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
        .env("RABBITMQ_ADVANCED_CONFIG_FILE", folder.join("advanced.config"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("enabled_plugins"))
        .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", folder)
        .env("RABBITMQ_PID_FILE", folder.join("pid"))
        .env("RABBITMQ_GENERATED_CONFIG_DIR", folder.join("config"))
        .env("RABBITMQ_SCHEMA_DIR", folder.join("schema"))
        .env("RABBITMQ_NODENAME", node_name(distribution_port))
        .env("RABBITMQ_DIST_PORT", distribution_port.to_string())
        .env("ERL_EPMD_PORT", epmd_port.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env(
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            // Schedulers that spin while idle take the cores from everything else under test.
            "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false +sbwt none +sbwtdcpu none +sbwtdio none",
        );
}

/// The root of another system whose RabbitMQ and Erlang are used instead of this machine's. Our temporary
/// folders must be at the same paths in it.
fn tree() -> Option<PathBuf> {
    std::env::var_os("LAB_RABBITMQ_TREE").map(PathBuf::from)
}

/// A program of RabbitMQ's or Erlang's.
fn program(path: impl AsRef<Path>) -> std::process::Command {
    let Some(tree) = tree() else {
        return command(path);
    };
    let mut program = command("chroot");
    program.arg(tree).arg(path.as_ref());
    program.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    program
}

/// A script of the server's own. Debian's, in front of it in `/usr/sbin`, insist on the machine's user
/// and folders.
fn script(name: &str) -> anyhow::Result<PathBuf> {
    let root = tree().unwrap_or_else(|| PathBuf::from("/"));
    let script = fs::read_dir(root.join("usr/lib/rabbitmq/lib"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("sbin").join(name))
        .filter(|script| script.exists())
        .max()
        .context("rabbitmq-server is not installed (nothing in /usr/lib/rabbitmq/lib)")?;
    Ok(Path::new("/").join(script.strip_prefix(root)?))
}
