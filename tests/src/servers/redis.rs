//! A private Redis that keeps what it acknowledges.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use crate::ports;
use crate::preload::Preload;
use crate::process::{self, Process, command};

/// File in the server's folder that says what is on its disk.
const FSYNC_RECORD: &str = "fsynced";

/// What a test may want differently.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// `64mb` and the like; default `4gb`
    pub maxmemory: Option<String>,
    /// Further arguments of redis-server, such as `["--appendfsync", "no"]`; they win.
    pub arguments: Vec<String>,
    /// As if the disk were full when a file has so many bytes.
    pub most_bytes_of_a_file: Option<u64>,
    /// As if the disk took so much longer for each fsync.
    pub fsync_ms: Option<u64>,
    /// A disk of its own (a tmpfs, which only root may make) of so many megabytes, to be filled.
    pub disk_mb: Option<u32>,
    /// Keeps a record of what is on the disk for sure, for [`Redis::lose_power`].
    pub records_fsync: bool,
}

impl RedisOptions {
    /// For measurements of ingress alone. Nobody empties its streams, so the AOF would be written anew
    /// again and again with gigabytes of entries, as it never is where workers keep up.
    #[must_use]
    pub fn without_rewrites() -> Self {
        let arguments = ["--auto-aof-rewrite-percentage", "0"].map(str::to_owned);
        Self {
            arguments: arguments.to_vec(),
            ..Self::default()
        }
    }
}

/// One redis-server: AOF with fsync on every write, no snapshots, no eviction.
#[derive(Debug)]
pub struct Redis {
    pub port: u16,
    options: RedisOptions,
    preload: Option<Preload>,
    // Before the disk that it writes to.
    process: Process,
    disk: Option<Disk>,
    folder: TempDir,
}

impl Redis {
    /// Starts an empty server; ready when this returns (about 30 ms).
    ///
    /// # Errors
    /// redis-server is not installed or does not become ready.
    pub async fn start(options: RedisOptions) -> anyhow::Result<Self> {
        let port = ports::free();
        let folder = tempfile::tempdir().context("temporary folder")?;
        let disk = match options.disk_mb {
            Some(megabytes) => Some(Disk::mount(folder.path(), megabytes)?),
            None => None,
        };
        let preloads = options.fsync_ms.is_some() || options.records_fsync;
        let preload = preloads.then(|| Preload::build("disk")).transpose()?;
        let process = launch(port, &options, &folder, preload.as_ref())?;
        let mut redis = Self {
            port,
            options,
            preload,
            process,
            disk,
            folder,
        };
        redis.ready().await?;
        Ok(redis)
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// `127.0.0.1:<port>`, for a proxy in front.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A connection for looking and for setting things up; answers may take 30 s.
    ///
    /// # Panics
    /// If the server is away.
    pub async fn connection(&self) -> MultiplexedConnection {
        self.try_connection()
            .await
            .expect("a connection to the test's Redis")
    }

    /// Sends `TERM`, `STOP` (frozen: connections stay, nothing answers) or `CONT`.
    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// Orderly shutdown; what was written is kept for [`Redis::restart`].
    pub async fn stop(&mut self) {
        self.process.stop(Duration::from_secs(10)).await;
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// The power fails: `kill -9`, and of its files there is what an fsync covered.
    ///
    /// # Errors
    /// It keeps no record, or the files can't be cut.
    pub fn lose_power(&mut self) -> anyhow::Result<()> {
        self.kill();
        let record = fs::read_to_string(self.folder.path().join(FSYNC_RECORD))?;
        let lines = record.lines().filter_map(|line| line.split_once(' '));
        let kept: HashMap<&str, &str> = lines.collect();
        for file in fs::read_dir(self.folder.path().join("appendonlydir"))? {
            let file = file?;
            let inode = file.metadata()?.ino().to_string();
            // Its name is sure, since Redis flushes the folder too.
            let length = kept.get(inode.as_str()).unwrap_or(&"0");
            let length = length.parse::<u64>()?.min(file.metadata()?.len());
            File::options()
                .write(true)
                .open(file.path())?
                .set_len(length)?;
        }
        Ok(())
    }

    /// Starts again on the same port and data; stops it first if it runs.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        if self.process.is_running() {
            self.stop().await;
        }
        let preload = self.preload.as_ref();
        self.process = launch(self.port, &self.options, &self.folder, preload)?;
        self.ready().await
    }

    /// From the next start on the disk has room.
    pub fn give_room(&mut self) {
        self.options.most_bytes_of_a_file = None;
    }

    /// Fills its disk, so that its next write ends it.
    ///
    /// # Errors
    /// It has no disk of its own.
    pub fn fill_disk(&self) -> anyhow::Result<()> {
        self.disk.as_ref().context("no disk of its own")?.fill();
        Ok(())
    }

    /// Gives the room back that [`Redis::fill_disk`] took.
    ///
    /// # Errors
    /// It has no disk of its own.
    pub fn empty_disk(&self) -> anyhow::Result<()> {
        self.disk.as_ref().context("no disk of its own")?.empty();
        Ok(())
    }

    /// The file that every write is appended to.
    ///
    /// # Errors
    /// There is none.
    pub fn append_only_file(&self) -> anyhow::Result<PathBuf> {
        let folder = self.folder.path().join("appendonlydir");
        let files = std::fs::read_dir(folder)?.flatten().map(|file| file.path());
        files
            .into_iter()
            .find(|path| path.to_string_lossy().ends_with(".incr.aof"))
            .context("an append-only file")
    }

    /// Of its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    /// As [`Redis::connection`].
    ///
    /// # Errors
    /// The server is away.
    pub async fn try_connection(&self) -> redis::RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(2)))
            .set_response_timeout(Some(Duration::from_secs(30)));
        redis::Client::open(self.url())?
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let url = self.url();
        self.process
            .ready_when(Duration::from_secs(90), async || pings(&url).await.is_ok())
            .await
    }
}

/// Whether this program may make disks.
pub fn can_mount() -> bool {
    let folder = tempfile::tempdir();
    folder.is_ok_and(|folder| Disk::mount(folder.path(), 1).is_ok())
}

/// A tmpfs, gone when dropped.
#[derive(Debug)]
struct Disk {
    folder: PathBuf,
}

impl Disk {
    fn mount(folder: &Path, megabytes: u32) -> anyhow::Result<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"]);
        let mounted = mount.arg(folder).output().context("mount")?;
        anyhow::ensure!(
            mounted.status.success(),
            "a tmpfs can't be mounted, which takes root: {}",
            String::from_utf8_lossy(&mounted.stderr).trim()
        );
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    fn fill(&self) {
        let Ok(mut ballast) = File::create(self.ballast()) else {
            return;
        };
        // The error of the last one is what was wanted.
        for size in [1 << 20, 4096] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn empty(&self) {
        drop(std::fs::remove_file(self.ballast()));
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, since a process that is ending may still have a file open.
        drop(Command::new("umount").arg("-l").arg(&self.folder).output());
    }
}

/// This machine's redis-server, or what `LAB_REDIS_SERVER` names: another version, or a Valkey.
///
/// # Errors
/// It is not installed.
pub fn program() -> anyhow::Result<PathBuf> {
    match std::env::var_os("LAB_REDIS_SERVER") {
        Some(named) => Ok(PathBuf::from(named)),
        None => process::installed("redis-server"),
    }
}

async fn pings(url: &str) -> redis::RedisResult<()> {
    let mut connection = redis::Client::open(url)?
        .get_multiplexed_async_connection()
        .await?;
    // Answers an error while the AOF is being loaded.
    redis::cmd("PING").query_async(&mut connection).await
}

fn launch(
    port: u16,
    options: &RedisOptions,
    folder: &TempDir,
    preload: Option<&Preload>,
) -> anyhow::Result<Process> {
    let mut server = match options.most_bytes_of_a_file {
        Some(bytes) => {
            let mut limited = command("prlimit");
            limited.arg(format!("--fsize={bytes}")).arg(program()?);
            limited
        }
        None => command(program()?),
    };
    server
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .arg("--dir")
        .arg(folder.path())
        .args([
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--save",
            "",
        ])
        .args(["--maxmemory-policy", "noeviction", "--maxmemory"])
        .arg(options.maxmemory.as_deref().unwrap_or("4gb"))
        .args(&options.arguments);
    if let Some(preload) = preload {
        server.env("LD_PRELOAD", preload.path());
    }
    if let Some(ms) = options.fsync_ms {
        server.env("FSYNC_MS", ms.to_string());
    }
    if options.records_fsync {
        server.env("FSYNC_RECORD", folder.path().join(FSYNC_RECORD));
    }
    Process::spawn("redis", server, folder.path())
}
