//! A private Redis that keeps what it acknowledges.

use std::path::PathBuf;
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
}

/// One redis-server: AOF with fsync on every write, no snapshots, no eviction.
#[derive(Debug)]
pub struct Redis {
    pub port: u16,
    options: RedisOptions,
    folder: TempDir,
    process: Process,
}

impl Redis {
    /// Starts an empty server; ready when this returns (about 30 ms).
    ///
    /// # Errors
    /// redis-server is not installed or does not become ready.
    pub async fn start(options: RedisOptions) -> anyhow::Result<Self> {
        let port = ports::free();
        let folder = tempfile::tempdir().context("temporary folder")?;
        let process = launch(port, &options, &folder)?;
        let mut redis = Self {
            port,
            options,
            folder,
            process,
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
