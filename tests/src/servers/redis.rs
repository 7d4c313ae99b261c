//! A private Redis that keeps what it acknowledges.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use crate::ports;
use crate::process::{Process, command};

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
}

/// One redis-server: AOF with fsync on every write, no snapshots, no eviction.
#[derive(Debug)]
pub struct Redis {
    pub port: u16,
    options: RedisOptions,
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
        let process = launch(port, &options, &folder)?;
        let mut redis = Self {
            port,
            options,
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

    /// Starts again on the same port and data; stops it first if it runs.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        if self.process.is_running() {
            self.stop().await;
        }
        self.process = launch(self.port, &self.options, &self.folder)?;
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
            .ready_when(Duration::from_secs(20), async || pings(&url).await.is_ok())
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

async fn pings(url: &str) -> redis::RedisResult<()> {
    let mut connection = redis::Client::open(url)?
        .get_multiplexed_async_connection()
        .await?;
    // Answers an error while the AOF is being loaded.
    redis::cmd("PING").query_async(&mut connection).await
}

fn launch(port: u16, options: &RedisOptions, folder: &TempDir) -> anyhow::Result<Process> {
    let mut server = match options.most_bytes_of_a_file {
        Some(bytes) => {
            let mut limited = command("prlimit");
            limited.arg(format!("--fsize={bytes}")).arg("redis-server");
            limited
        }
        None => command("redis-server"),
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
    if let Some(ms) = options.fsync_ms {
        server.env("LD_PRELOAD", slow_fsync(folder)?);
        server.env("FSYNC_MS", ms.to_string());
    }
    Process::spawn("redis", server, folder.path())
}

/// Builds the library that makes fsync slow.
fn slow_fsync(folder: &TempDir) -> anyhow::Result<PathBuf> {
    let library = folder.path().join("slow_fsync.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/servers/slow_fsync.c");
    let built = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .args([source, "-ldl"])
        .status()
        .context("cc")?;
    anyhow::ensure!(built.success(), "cc can't build slow_fsync.c");
    Ok(library)
}
