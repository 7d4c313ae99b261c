//! The whole program: accepts connections, bounds what a request may take, and leads it through
//! signature, ids and intake to its answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_ENCODING, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use shared::admin::{Admin, Readiness};
use shared::keys::Keys;
use shared::redis::StartCheck;
use shared::webhook::Unreadable;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::config::Config;
use crate::error::Refusal;
use crate::ids;
use crate::intake::{Delivery, Envelope, Intake, Stored};
use crate::metrics::Metrics;
use crate::signature::{self, Verifier};

const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
const TRACEPARENT: &str = "traceparent";
/// Meta sends about ten headers; more than this is not Meta.
const MAX_HEADERS: usize = 64;
/// Per connection; hyper's default would be 400 KB.
const READ_BUFFER_BYTES: usize = 32 * 1024;
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The two listeners, bound before anything is logged as started.
pub struct Listeners {
    pub public: TcpListener,
    pub admin: TcpListener,
}

impl Listeners {
    /// Binds both.
    ///
    /// # Errors
    /// An address that is taken or isn't this machine's; the message names its setting.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        let public = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("INGRESS_LISTEN (--listen) {}", config.listen))?;
        let admin = TcpListener::bind(config.admin_listen)
            .await
            .with_context(|| {
                format!(
                    "INGRESS_ADMIN_LISTEN (--admin-listen) {}",
                    config.admin_listen
                )
            })?;
        Ok(Self { public, admin })
    }
}

/// What a request needs.
struct Ingress {
    config: Config,
    verifier: Verifier,
    intake: Intake,
    in_flight: Semaphore,
    /// Partition count and settings of Redis have been checked: before that nothing is stored.
    checked: AtomicBool,
    admin: Admin,
    metrics: Metrics,
}

/// Runs until `shutdown`, then answers what is in work.
///
/// # Errors
/// Settings that can't be used, a partition count that isn't the deployment's, or (if required) a
/// Redis that may lose what it acknowledged. A Redis that is away is waited for.
pub async fn run(
    config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    config.check()?;
    let client = shared::redis::client(&config.redis)?;
    let connection = shared::redis::shared_connection(&client, config.request_deadline)?;
    let keys = Keys::new(
        &config.redis.redis_key_prefix,
        config.redis.stream_partitions,
    );
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let admin = Admin {
        readiness: Readiness::of(["redis"]),
        registry: Arc::new(registry),
    };
    let ingress = Arc::new(Ingress {
        verifier: Verifier::new(&config.app_secrets),
        intake: Intake::new(
            connection.clone(),
            keys.clone(),
            config.dedup_ttl,
            config.redis_patience,
        ),
        in_flight: Semaphore::new(config.max_in_flight),
        checked: AtomicBool::new(false),
        admin: admin.clone(),
        metrics,
        config,
    });
    let tasks = TaskTracker::new();
    tasks.spawn(admin.serve(listeners.admin, shutdown.clone()));
    let check = StartCheck {
        connection,
        keys,
        required: ingress.config.redis.require_durable_redis,
    };
    let mut probe = tasks.spawn(watch_redis(check, ingress.clone(), shutdown.clone()));
    tasks.spawn(accept(ingress.clone(), listeners.public, shutdown.clone()));
    tasks.close();
    tracing::info!(listen = %ingress.config.listen, path = ingress.config.webhook_path, "ingress is up");

    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(()),
        ended = &mut probe => ended.context("the probe of Redis died").and_then(|checked| checked),
    };
    shutdown.cancel();
    if tokio::time::timeout(ingress.config.shutdown_grace, tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!("some requests were still in work when the grace was over");
    }
    outcome
}

/// Checks Redis once it is there, then keeps `/ready` true. Ends early only with the reason why
/// this deployment must not run.
async fn watch_redis(
    mut check: StartCheck,
    ingress: Arc<Ingress>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let readiness = &ingress.admin.readiness;
    while !shutdown.is_cancelled() {
        let seen = if ingress.checked.load(Ordering::Relaxed) {
            shared::redis::ping(&mut check.connection).await
        } else {
            match check.run().await? {
                Ok(warnings) => {
                    ingress.checked.store(true, Ordering::Relaxed);
                    readiness.note("redis", warnings);
                    Ok(())
                }
                Err(away) => Err(away),
            }
        };
        readiness.set("redis", seen.err().map(|error| error.to_string()));
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(PROBE_INTERVAL) => {}
        }
    }
    Ok(())
}

async fn accept(ingress: Arc<Ingress>, listener: TcpListener, shutdown: CancellationToken) {
    let connections = Arc::new(Semaphore::new(ingress.config.max_connections));
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: some close soon.
                tracing::warn!(%error, "can't accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Beyond the limit a connection is closed at once: waiting would only fill the backlog.
        let Ok(permit) = connections.clone().try_acquire_owned() else {
            continue;
        };
        let (ingress, shutdown) = (ingress.clone(), shutdown.clone());
        tasks.spawn(async move {
            ingress.serve(stream, shutdown).await;
            drop(permit);
        });
    }
    // New connections are refused while the open ones finish.
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

impl Ingress {
    async fn serve(self: Arc<Self>, stream: TcpStream, shutdown: CancellationToken) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.config.header_timeout)
            .max_headers(MAX_HEADERS)
            .max_buf_size(READ_BUFFER_BYTES);
        let service = service_fn(|request| {
            let ingress = self.clone();
            async move { Ok::<_, Infallible>(ingress.answer(request).await) }
        });
        let connection = http.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let correlation_id = correlation_id(request.headers());
        let path = request.uri().path();
        let mut response = if path == self.config.webhook_path {
            self.metrics.in_flight.inc();
            let response = match self.webhook(request, &correlation_id).await {
                Ok(()) => Response::new(Full::default()),
                Err(refusal) => refusal.answer(&correlation_id),
            };
            self.metrics.in_flight.dec();
            self.metrics.answered(response.status().as_u16());
            response
        } else {
            match self.admin.probe(path) {
                Some(_) if request.method() != Method::GET => {
                    Refusal::Method { allowed: "GET" }.answer(&correlation_id)
                }
                Some(probe) => probe,
                None => Refusal::NotFound.answer(&correlation_id),
            }
        };
        if let Ok(value) = HeaderValue::from_str(&correlation_id) {
            response.headers_mut().insert(CORRELATION_ID, value);
        }
        response
    }

    /// One webhook, from its headers to the moment it is durable.
    async fn webhook(
        &self,
        request: Request<Incoming>,
        correlation_id: &str,
    ) -> Result<(), Refusal> {
        if request.method() != Method::POST {
            return Err(Refusal::Method { allowed: "POST" });
        }
        let (head, body) = request.into_parts();
        if head.headers.contains_key(CONTENT_ENCODING) {
            return Err(Refusal::Encoded);
        }
        if !self.checked.load(Ordering::Relaxed) {
            return Err(Refusal::Unchecked);
        }
        let _permit = self.in_flight.try_acquire().map_err(|_| Refusal::TooBusy)?;
        let body = self.collect(body).await?;
        let arrived = Instant::now();
        let signed = !self.config.app_secrets.is_empty();
        if signed {
            self.verifier.verify(&head.headers, &body)?;
        }
        let envelope = Envelope {
            correlation_id: correlation_id.to_owned(),
            signature: header(&head.headers, signature::HEADER, 71),
            traceparent: header(&head.headers, TRACEPARENT, 55),
            received_at: SystemTime::now(),
        };
        let deliveries = match ids::deliveries(&body) {
            Ok(deliveries) => deliveries,
            Err(reason @ (Unreadable::NotJson | Unreadable::OtherObject)) if !signed => {
                return Err(Refusal::Unreadable(reason));
            }
            Err(reason) => vec![ids::unreadable(&body, &reason)],
        };
        let asked = Instant::now();
        let stored = tokio::time::timeout(
            self.config.request_deadline,
            self.store(&deliveries, &envelope),
        )
        .await
        .map_err(|_| Refusal::Deadline)?;
        self.metrics.took(arrived.elapsed(), asked.elapsed());
        stored
    }

    /// All of them, or the sender must send the body again: what was stored is a duplicate then.
    async fn store(&self, deliveries: &[Delivery], envelope: &Envelope) -> Result<(), Refusal> {
        for delivery in deliveries {
            match self.intake.store(delivery, envelope).await? {
                Stored::Fresh { items } => self.metrics.stored_items.inc_by(items as u64),
                Stored::Duplicate => self.metrics.duplicates.inc(),
            };
        }
        Ok(())
    }

    async fn collect(&self, body: Incoming) -> Result<Bytes, Refusal> {
        let limit = self.config.max_body_bytes;
        if body.size_hint().lower() > limit as u64 {
            return Err(Refusal::TooLarge { limit });
        }
        // The time-out is around the whole body: hyper has none, and one byte a second is one too.
        match tokio::time::timeout(
            self.config.body_timeout,
            Limited::new(body, limit).collect(),
        )
        .await
        {
            Err(_) => Err(Refusal::BodyTimeout),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::TooLarge { limit }),
            Ok(Err(_)) => Err(Refusal::BodyBroken),
            Ok(Ok(body)) => Ok(body.to_bytes()),
        }
    }
}

/// The caller's, if it is a well-formed UUID v4, or a new one.
fn correlation_id(headers: &HeaderMap) -> String {
    headers
        .get(CORRELATION_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|text| text.len() == 36)
        .and_then(|text| Uuid::try_parse(text).ok())
        .filter(|id| id.get_version_num() == 4)
        .unwrap_or_else(Uuid::new_v4)
        .to_string()
}

/// A header's text, empty if it is missing or longer than it can rightly be.
fn header(headers: &HeaderMap, name: &str, longest: usize) -> String {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .filter(|text| text.len() <= longest)
        .unwrap_or_default()
        .to_owned()
}
