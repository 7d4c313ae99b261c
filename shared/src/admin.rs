//! `/health`, `/ready` and `/metrics`. Readiness is what background probes last saw, so an answer
//! never waits for a server. Routes that change something are behind a token.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::header::{
    ALLOW, AUTHORIZATION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::secrets::{Rotating, Secret};
use crate::status::{self, SetAsides};
use crate::telemetry;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const LOG_LEVEL: &str = "/log-level";
/// A filter names a few modules.
const LONGEST_LEVEL: usize = 1024;
/// Connections that are open at the same time: probes, Prometheus, people.
const MOST_CONNECTIONS: usize = 128;
/// The problem of a server that no probe has seen yet.
const UNPROBED: &str = "not probed yet";

/// What the probes last saw of each server.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    seen: Arc<Mutex<BTreeMap<&'static str, ProbeState>>>,
    up: Family<Server, Gauge>,
    /// One server that is well is enough.
    any: bool,
    leaving: Arc<AtomicBool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Server {
    server: &'static str,
}

#[derive(Debug, Clone)]
struct ProbeState {
    problem: Option<String>,
    notes: Vec<String>,
    at: Instant,
    /// `None`: it is well.
    away_since: Option<SystemTime>,
}

impl Readiness {
    /// Servers that must be well before the program is ready; none has been seen yet.
    pub fn of(servers: impl IntoIterator<Item = &'static str>) -> Self {
        let readiness = Self::default();
        for server in servers {
            readiness.set(server, Some(UNPROBED.to_owned()));
        }
        readiness
    }

    /// The same as a metric.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "whatsapp_server_up",
            "Whether a server that this program needs is well, as its probe last saw it",
            self.up.clone(),
        );
    }

    /// Servers of which one must be well, once all have been probed.
    pub fn of_any(servers: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            any: true,
            ..Self::of(servers)
        }
    }

    /// From now on it is not ready, whatever probes see: it is about to stop.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Records what a probe saw: `None` is well.
    pub fn set(&self, server: &'static str, problem: Option<String>) {
        let well = i64::from(problem.is_none());
        self.up.get_or_create(&Server { server }).set(well);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.remove(server);
        if let Some(before) = &before {
            match (before.problem.as_deref(), &problem) {
                (None | Some(UNPROBED), Some(problem)) => {
                    tracing::warn!(server, problem, "a server is not ready");
                }
                (Some(_), None) => tracing::info!(server, "a server is ready"),
                (None, None) | (Some(_), Some(_)) => {}
            }
        }
        let away_since = before.as_ref().and_then(|before| before.away_since);
        let away_since = problem
            .as_ref()
            .map(|_| away_since.unwrap_or_else(SystemTime::now));
        let state = ProbeState {
            problem,
            notes: before.map(|before| before.notes).unwrap_or_default(),
            at: Instant::now(),
            away_since,
        };
        seen.insert(server, state);
    }

    /// Remarks on a server that don't make it unready, such as unsafe settings.
    pub fn note(&self, server: &'static str, notes: Vec<String>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = seen.get_mut(server) {
            seen.notes = notes;
        }
    }

    /// Whether the servers that must be well are, and the report; why not, and what is unsafe, only with
    /// `details`.
    pub fn report(&self, details: bool) -> (bool, serde_json::Value) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let well = |seen: &ProbeState| seen.problem.is_none();
        let probed = |seen: &ProbeState| seen.problem.as_deref() != Some(UNPROBED);
        let servers_are = if self.any {
            seen.values().all(probed) && seen.values().any(well)
        } else {
            seen.values().all(well)
        };
        let ready = servers_are && !self.leaving.load(Ordering::Relaxed);
        let servers: serde_json::Map<_, _> = seen
            .iter()
            .map(|(server, seen)| {
                let mut report = serde_json::json!({
                    "ok": seen.problem.is_none(),
                    "ageMs": seen.at.elapsed().as_millis() as u64,
                    "awaySinceMs": seen.away_since.map(since_1970_ms),
                });
                if details {
                    report["problem"] = seen.problem.clone().into();
                    report["warnings"] = seen.notes.clone().into();
                }
                ((*server).to_owned(), report)
            })
            .collect();
        (
            ready,
            serde_json::json!({"ready": ready, "servers": servers}),
        )
    }
}

fn since_1970_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}

/// What the admin routes show.
#[derive(Clone)]
pub struct Admin {
    /// What it is called on the status page.
    pub program: &'static str,
    pub readiness: Readiness,
    pub registry: Arc<Registry>,
    pub set_asides: SetAsides,
    /// `None`: there are no such routes.
    pub token_routes: Option<TokenRoutes>,
    /// `None`: nothing of the kind.
    pub mounted: Option<Mounted>,
}

/// What answers all paths below a prefix, whatever their method.
#[derive(Clone)]
pub struct Mounted {
    /// Without a slash at its end.
    pub prefix: &'static str,
    pub answer: MountedAnswer,
}

/// By request and whose it is, an answer that may go on for as long as the connection does.
pub type MountedAnswer = Arc<
    dyn Fn(Request<hyper::body::Incoming>, SocketAddr) -> BoxFuture<'static, Response<MountedBody>>
        + Send
        + Sync,
>;
pub type MountedBody = UnsyncBoxBody<Bytes, std::io::Error>;

impl Mounted {
    fn has(&self, path: &str) -> bool {
        let below = path.strip_prefix(self.prefix);
        below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// Routes that only whoever has the token may use.
#[derive(Clone)]
pub struct TokenRoutes {
    pub token: Arc<Rotating<Secret>>,
    pub routes: Routes,
}

/// By method and path, what answers; `None`: there is no such route.
pub type Routes =
    Arc<dyn Fn(&Method, &str) -> Option<BoxFuture<'static, Response<Bytes>>> + Send + Sync>;

impl TokenRoutes {
    fn allows(&self, head: &hyper::HeaderMap) -> bool {
        let value = head.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let given = value.and_then(|value| value.strip_prefix(b"Bearer "));
        given.is_some_and(|given| self.token.current().is(given))
    }

    /// The answer of a guarded route; `None` if there is no such route.
    fn answer(
        &self,
        request: &Request<hyper::body::Incoming>,
    ) -> Option<BoxFuture<'static, Response<Bytes>>> {
        let answer = (self.routes)(request.method(), request.uri().path())?;
        if self.allows(request.headers()) {
            return Some(answer);
        }
        Some(Box::pin(std::future::ready(unauthorized())))
    }
}

impl Admin {
    /// `/health` and `/ready` as the public listener has them: strangers don't learn what a server
    /// said. `None` for other paths.
    pub fn public_probe(&self, path: &str) -> Option<Response<Bytes>> {
        self.probe(path, false)
    }

    fn probe(&self, path: &str, details: bool) -> Option<Response<Bytes>> {
        match path {
            "/health" => Some(json(StatusCode::OK, &serde_json::json!({"status": "ok"}))),
            "/ready" => {
                let (ready, report) = self.readiness.report(details);
                let status = if ready {
                    StatusCode::OK
                } else {
                    StatusCode::SERVICE_UNAVAILABLE
                };
                Some(json(status, &report))
            }
            _ => None,
        }
    }

    fn answer(&self, request: &Request<hyper::body::Incoming>) -> Response<Bytes> {
        let (method, path) = (request.method(), request.uri().path());
        let known = ["/", "/status.json", "/metrics", "/health", "/ready"].contains(&path);
        // The answer of HEAD is that of GET: its body is left out where it is written.
        if ![Method::GET, Method::HEAD].contains(method) && known {
            return not_allowed("GET, HEAD");
        }
        if path == "/" {
            return self.page();
        }
        if path == "/status.json" {
            let report = status::report(
                self.program,
                &self.registry,
                &self.readiness,
                &self.set_asides,
            );
            return json(StatusCode::OK, &report.unwrap_or_default());
        }
        if path == "/metrics" {
            let mut text = String::new();
            return match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
                Ok(()) => body(StatusCode::OK, OPEN_METRICS, text),
                Err(_) => plain(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "metrics can't be written\n",
                ),
            };
        }
        self.probe(path, true)
            .unwrap_or_else(|| plain(StatusCode::NOT_FOUND, "/, /metrics, /health, /ready\n"))
    }

    fn page(&self) -> Response<Bytes> {
        let mut page = body(
            StatusCode::OK,
            "text/html; charset=utf-8",
            status::page().to_owned(),
        );
        let headers = page.headers_mut();
        let policy = HeaderValue::from_static(status::policy());
        headers.insert(CONTENT_SECURITY_POLICY, policy);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        page
    }

    /// `GET /log-level` tells what is logged, `PUT` changes it; behind the token.
    async fn log_level(&self, request: Request<hyper::body::Incoming>) -> Response<Bytes> {
        let Some(guarded) = &self.token_routes else {
            return plain(StatusCode::NOT_FOUND, "no admin token is set\n");
        };
        if !guarded.allows(request.headers()) {
            return unauthorized();
        }
        match *request.method() {
            Method::GET => {}
            Method::PUT => {
                let body = Limited::new(request.into_body(), LONGEST_LEVEL).collect();
                let Ok(body) = body.await.map(Collected::to_bytes) else {
                    return plain(StatusCode::PAYLOAD_TOO_LARGE, "that is no level\n");
                };
                let level = std::str::from_utf8(&body).unwrap_or_default().trim();
                if let Err(error) = telemetry::set_level(level) {
                    let problem = serde_json::json!({"error": error.to_string()});
                    return json(StatusCode::BAD_REQUEST, &problem);
                }
            }
            _ => return not_allowed("GET, PUT"),
        }
        let level = serde_json::json!({"level": telemetry::level()});
        json(StatusCode::OK, &level)
    }

    /// Serves until `shutdown`. Of too many connections the oldest is closed, so that whoever holds many
    /// open keeps no probe out.
    pub async fn serve(self, listener: TcpListener, shutdown: CancellationToken) {
        let tracker = TaskTracker::new();
        let mut open: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            let (stream, peer) = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "admin listener can't accept");
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            open.retain(|connection| !connection.is_finished());
            if open.len() >= MOST_CONNECTIONS
                && let Some(oldest) = open.pop_front()
            {
                oldest.abort();
            }
            let connection = self
                .clone()
                .serve_connection((stream, peer), shutdown.clone());
            open.push_back(tracker.spawn(connection).abort_handle());
        }
        tracker.close();
        tracker.wait().await;
    }

    async fn serve_connection(
        self,
        (stream, peer): (TcpStream, SocketAddr),
        shutdown: CancellationToken,
    ) {
        let service = service_fn(|request: Request<hyper::body::Incoming>| {
            let mounted = self.mounted.as_ref();
            let mounted = mounted.filter(|mounted| mounted.has(request.uri().path()));
            let guarded = self.token_routes.as_ref();
            let guarded = guarded.and_then(|guarded| guarded.answer(&request));
            let admin = &self;
            async move {
                if let Some(mounted) = mounted {
                    let answer = (mounted.answer)(request, peer).await;
                    return Ok::<_, Infallible>(answer);
                }
                let response = match guarded {
                    Some(answer) => answer.await,
                    None if request.uri().path() == LOG_LEVEL => admin.log_level(request).await,
                    None => admin.answer(&request),
                };
                Ok(response.map(|body| {
                    let body = Full::new(body).map_err(|never: Infallible| match never {});
                    body.boxed_unsync()
                }))
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(std::time::Duration::from_secs(5))
            .serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            served = connection => drop(served),
            () = shutdown.cancelled() => {}
        }
    }
}

fn unauthorized() -> Response<Bytes> {
    let mut refused = plain(
        StatusCode::UNAUTHORIZED,
        "this route needs the admin token\n",
    );
    let bearer = HeaderValue::from_static("Bearer");
    refused.headers_mut().insert(WWW_AUTHENTICATE, bearer);
    refused
}

/// An answer in JSON.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Response<Bytes> {
    body(status, "application/json", value.to_string())
}

fn not_allowed(methods: &'static str) -> Response<Bytes> {
    let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, methods);
    let allow = HeaderValue::from_static(methods);
    refused.headers_mut().insert(ALLOW, allow);
    refused
}

fn plain(status: StatusCode, text: &'static str) -> Response<Bytes> {
    body(status, "text/plain; charset=utf-8", text.to_owned())
}

fn body(status: StatusCode, content_type: &'static str, text: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
