//! A private Alertmanager with the configuration that is shipped, and whoever it notifies.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::ports;
use crate::process::{Process, command};

const START: Duration = Duration::from_secs(90);
/// The receiver that the shipped configuration names.
const SHIPPED_RECEIVER: &str = "http://alerts:8099";

/// What a notification says of one alert.
#[derive(Debug, Clone)]
pub struct Notified {
    pub at: Instant,
    /// The receiver's name: `pages`, `tickets` or `heartbeat`.
    pub receiver: String,
    /// `firing` or `resolved`.
    pub status: String,
    pub labels: BTreeMap<String, String>,
    pub summary: String,
}

impl Notified {
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// The body of a notification, as far as it is looked at.
#[derive(Deserialize)]
struct Notification {
    receiver: String,
    alerts: Vec<NotifiedAlert>,
}

#[derive(Deserialize)]
struct NotifiedAlert {
    status: String,
    labels: BTreeMap<String, String>,
    annotations: Annotations,
}

#[derive(Deserialize)]
struct Annotations {
    summary: String,
}

/// One Alertmanager, and the receiver of all its notifications.
#[derive(Debug)]
pub struct Alertmanager {
    port: u16,
    notified: Arc<Mutex<Vec<Notified>>>,
    _process: Process,
    _folder: TempDir,
    _stop: DropGuard,
}

impl Alertmanager {
    /// Starts it with a configuration file whose receivers are this one. `change` is made to its text.
    ///
    /// # Errors
    /// It is not installed, refuses its configuration, or does not become ready.
    pub async fn start(file: &Path, change: impl Fn(String) -> String) -> anyhow::Result<Self> {
        crate::install_tls_provider();
        let (receiver, notified, stop) = receive().await?;
        let folder = tempfile::tempdir().context("temporary folder")?;
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        anyhow::ensure!(text.contains(SHIPPED_RECEIVER), "no {SHIPPED_RECEIVER}");
        let text = change(text.replace(SHIPPED_RECEIVER, &format!("http://{receiver}")));
        let configuration = folder.path().join("alertmanager.yaml");
        fs::write(&configuration, text)?;
        let port = ports::free();
        let data = folder.path().join("data");
        let mut server = command("prometheus-alertmanager");
        server
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.path={}", data.display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=");
        let mut process = Process::spawn("prometheus-alertmanager", server, folder.path())?;
        let ready = format!("http://127.0.0.1:{port}/-/ready");
        process
            .ready_when(START, async || {
                let answer = reqwest::get(&ready).await;
                answer.is_ok_and(|answer| answer.status().is_success())
            })
            .await?;
        Ok(Self {
            port,
            notified,
            _process: process,
            _folder: folder,
            _stop: stop,
        })
    }

    /// `host:port`, for Prometheus.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The notifications so far.
    pub fn notified(&self) -> Vec<Notified> {
        let notified = self.notified.lock().unwrap_or_else(PoisonError::into_inner);
        notified.clone()
    }

    /// The first notification of this status and of an alert with these labels after `since`.
    pub fn first(&self, since: Instant, status: &str, labels: &[(&str, &str)]) -> Option<Notified> {
        let mut notified = self.notified().into_iter();
        notified.find(|it| {
            let is_of = labels.iter().all(|(name, value)| it.label(name) == *value);
            it.at >= since && it.status == status && is_of
        })
    }
}

type Kept = Arc<Mutex<Vec<Notified>>>;

async fn receive() -> anyhow::Result<(SocketAddr, Kept, DropGuard)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr().context("own address")?;
    let (notified, stop) = (Kept::default(), CancellationToken::new());
    let (kept, stopped) = (notified.clone(), stop.clone());
    let keep = move |it| {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(it);
    };
    tokio::spawn(stopped.run_until_cancelled_owned(notify(listener, keep)));
    Ok((address, notified, stop.drop_guard()))
}

/// Takes notifications, whatever their path, and tells each alert of them.
pub async fn notify(
    listener: TcpListener,
    tell: impl Fn(Notified) + Clone + Send + Sync + 'static,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let tell = tell.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| take(request, &tell));
            let http = hyper::server::conn::http1::Builder::new();
            // A client may leave when it likes.
            drop(http.serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn take(
    request: Request<Incoming>,
    tell: &(impl Fn(Notified) + Sync),
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    if let Ok(notification) = serde_json::from_slice::<Notification>(&body) {
        let at = Instant::now();
        for alert in notification.alerts {
            tell(Notified {
                at,
                receiver: notification.receiver.clone(),
                status: alert.status,
                labels: alert.labels,
                summary: alert.annotations.summary,
            });
        }
    }
    Ok(Response::new(Full::default()))
}
