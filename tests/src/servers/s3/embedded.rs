//! An S3 in this program: protocol and signatures are those of `s3s`. It runs on threads of its own, so that
//! a test whose thread is busy has a store all the same.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::S3Access;
use super::objects::Objects;

/// The server and what it holds.
#[derive(Debug)]
pub(super) struct Embedded {
    port: u16,
    service: S3Service,
    frozen: Arc<watch::Sender<bool>>,
    serving: Option<Serving>,
}

#[derive(Debug)]
struct Serving {
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl Embedded {
    pub(super) fn start(access: &S3Access, port: u16) -> anyhow::Result<Self> {
        let mut service = S3ServiceBuilder::new(Objects::default());
        service.set_auth(SimpleAuth::from_single(
            access.access_key.clone(),
            access.secret_key.clone(),
        ));
        let mut embedded = Self {
            port,
            service: service.build(),
            frozen: Arc::new(watch::Sender::new(false)),
            serving: None,
        };
        embedded.restart()?;
        Ok(embedded)
    }

    /// Closes every connection; what was acknowledged stays.
    pub(super) fn kill(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.stop.cancel();
            // It only fails if a request panicked, which its client has seen.
            drop(serving.thread.join());
        }
        self.frozen.send_replace(false);
    }

    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).context("port of S3")?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let stop = CancellationToken::new();
        let serving = serve(listener, self.service.clone(), self.frozen.clone());
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            // With the runtime all connections go.
            runtime.block_on(stopped.run_until_cancelled(serving));
        });
        self.serving = Some(Serving { stop, thread });
        Ok(())
    }

    pub(super) fn signal(&mut self, signal: &str) {
        match signal {
            "STOP" => drop(self.frozen.send_replace(true)),
            "CONT" => drop(self.frozen.send_replace(false)),
            _ => self.kill(),
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn serve(listener: TcpListener, service: S3Service, frozen: Arc<watch::Sender<bool>>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
        return;
    };
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            // Without this a small object takes 40 ms. It only fails on a connection that is gone.
            drop(stream.set_nodelay(true));
            let frozen = frozen.subscribe();
            tokio::spawn(serve_connection(stream, service.clone(), frozen));
        }
    }
}

async fn serve_connection(stream: TcpStream, service: S3Service, frozen: watch::Receiver<bool>) {
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (mut frozen, service) = (frozen.clone(), &service);
        async move {
            drop(frozen.wait_for(|frozen| !frozen).await);
            service.call(request.map(s3s::Body::from)).await
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
    // A client that hangs up ends here too.
    drop(served);
}
