//! What ingress is measured against: the same work in Node as a developer would do it there, and a server
//! that only reads and answers.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use crate::ports;
use crate::process::{Process, command};
use crate::programs::APP_SECRET;

const START: Duration = Duration::from_secs(20);
/// Where `bench.sh` has npm put express, fastify and ioredis.
pub const MODULES: &str = "BENCH_NODE_MODULES";

/// A running baseline.
#[derive(Debug)]
pub struct Baseline {
    pub address: String,
    process: Process,
    _folder: TempDir,
}

impl Baseline {
    /// `express` or `fastify`, with a script that does less than ingress' own.
    ///
    /// # Errors
    /// Node or its modules are missing.
    pub async fn node(framework: &str, redis_url: &str) -> anyhow::Result<Self> {
        let modules = std::env::var(MODULES)
            .with_context(|| format!("{MODULES} must name the folder of node_modules"))?;
        let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
        let port = ports::free();
        let mut node = command("node");
        node.arg(sources.join("baselines/server.mjs"))
            .arg(framework)
            .env("PORT", port.to_string())
            .env("MODULES", modules)
            .env("REDIS_URL", redis_url)
            .env("SECRET", APP_SECRET);
        Self::start(framework, node, port).await
    }

    /// A server of hyper alone.
    ///
    /// # Errors
    /// It doesn't start.
    pub async fn bare() -> anyhow::Result<Self> {
        let port = ports::free();
        let mut lab = command(std::env::current_exe()?);
        lab.args(["bare", &port.to_string()]);
        Self::start("bare", lab, port).await
    }

    async fn start(name: &str, program: std::process::Command, port: u16) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut process = Process::spawn(name, program, folder.path())?;
        let address = format!("127.0.0.1:{port}");
        let listens = async || TcpStream::connect(&address).await.is_ok();
        process.ready_when(START, listens).await?;
        Ok(Self {
            address,
            process,
            _folder: folder,
        })
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

/// Reads each body and answers 200, for ever.
///
/// # Errors
/// It can't listen.
pub async fn serve_bare(port: u16) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(read))
                .await;
            // Clients hang up.
            drop(connection);
        });
    }
}

async fn read(request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    drop(request.into_body().collect().await);
    Ok(Response::new(Empty::new()))
}
