//! The services that a worker asks, played over real HTTP on one listener: Tenant Service, State
//! Manager, Graph API and the host that its media URLs point to.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /tenants/by-business-account/{waba}` | the tenant `tenant-<waba>`; every account is known |
//! | `GET /state/mapping/{waId}` | `{"conversationId": "conversation-<waId>"}` |
//! | `POST /state/message` | 204; remembered |
//! | `GET /{version}/{media id}` | size, digest and URL of the media; any id of digits is known |
//! | `GET /{version}/{phone number id}?fields=…` | the number; without the query too for those that tenants list |
//! | `GET /{version}/{waba}/subscribed_apps` | one app |
//! | `GET /{version}/app` | that app: every token is of it |
//! | `GET /_download/{media id}` | the bytes, with any token that isn't refused |
//! | `GET /_control` | faults and counts, for people |
//! | `POST /_control/{service}?fault=…` | sets a fault: `none`, `status:500`, `hang`, `slow:200ms`, `close`, `cut:10`, `garbage`, `drip:1s` |

mod media;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::ports;

pub use self::media::Content;

/// How many requests are remembered with their headers and body.
const REMEMBERED: usize = 50_000;

/// Id and name of the app that tokens are of and accounts are subscribed to.
const APP: (&str, &str) = ("670843887433847", "Jaspers Market");

/// One of the services; each has its own fault and its own count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    Tenants,
    State,
    Graph,
    Download,
}

impl Service {
    pub const ALL: [Self; 4] = [Self::Tenants, Self::State, Self::Graph, Self::Download];

    pub fn name(self) -> &'static str {
        match self {
            Self::Tenants => "tenants",
            Self::State => "state",
            Self::Graph => "graph",
            Self::Download => "download",
        }
    }
}

/// How a service misbehaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// Answers this status and an error body.
    Status(u16),
    /// Answers 503 and asks to wait for so many seconds.
    RetryAfter(u64),
    /// Takes the request and never answers.
    Hang,
    /// Answers rightly, this much later.
    Slow(Duration),
    /// Closes the connection instead of answering.
    Close,
    /// Promises the whole answer and closes the connection after so many bytes of it.
    Cut(usize),
    /// An answer of the right length and type, but of other bytes.
    Garbage,
    /// One byte of a file at a time, this far apart.
    Drip(Duration),
}

/// What one request for a media id gets instead of the right answer.
#[derive(Debug, Clone)]
pub enum Turn {
    Fault(Fault),
    Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: String,
    },
}

impl Turn {
    /// An error of the Graph API.
    pub fn graph_error(status: u16, code: i64) -> Self {
        let error = json!({"message": "on demand", "type": "OAuthException", "code": code});
        Self::json(status, &json!({ "error": error }))
    }

    pub fn json(status: u16, body: &Value) -> Self {
        Self::Answer {
            status,
            headers: vec![("content-type", "application/json".to_owned())],
            body: body.to_string(),
        }
    }

    pub fn status(status: u16) -> Self {
        Self::Fault(Fault::Status(status))
    }
}

/// The turns of a media id.
#[derive(Debug, Default)]
struct Script {
    turns: VecDeque<Turn>,
    /// The last one holds for good.
    for_good: bool,
}

impl Script {
    fn next(&mut self) -> Option<Turn> {
        if self.for_good && self.turns.len() == 1 {
            return self.turns.front().cloned();
        }
        self.turns.pop_front()
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, detail) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "none" => Ok(Self::None),
            "hang" => Ok(Self::Hang),
            "close" => Ok(Self::Close),
            "garbage" => Ok(Self::Garbage),
            "cut" => detail
                .parse()
                .map(Self::Cut)
                .map_err(|_| "write the bytes after which to cut: cut:10".to_owned()),
            "status" => match detail.parse() {
                Ok(status @ 200..=599) => Ok(Self::Status(status)),
                Ok(_) | Err(_) => Err(format!("no HTTP status: {detail}")),
            },
            "retry-after" => detail
                .parse()
                .map(Self::RetryAfter)
                .map_err(|_| "write the seconds: retry-after:60".to_owned()),
            "drip" => humantime::parse_duration(detail)
                .map(Self::Drip)
                .map_err(|error| format!("{error}; write drip:1s")),
            "slow" => humantime::parse_duration(detail)
                .map(Self::Slow)
                .map_err(|error| format!("{error}; write slow:200ms")),
            _ => Err(
                "one of none, status:500, retry-after:60, hang, slow:200ms, close, cut:10, garbage, \
                 drip:1s"
                    .to_owned(),
            ),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Status(status) => write!(f, "status:{status}"),
            Self::RetryAfter(seconds) => write!(f, "retry-after:{seconds}"),
            Self::Hang => f.write_str("hang"),
            Self::Slow(delay) => write!(f, "slow:{}", humantime::format_duration(*delay)),
            Self::Close => f.write_str("close"),
            Self::Cut(after) => write!(f, "cut:{after}"),
            Self::Garbage => f.write_str("garbage"),
            Self::Drip(pause) => write!(f, "drip:{}", humantime::format_duration(*pause)),
        }
    }
}

/// What the Tenant Service says of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Tenant {
    #[default]
    Active,
    Suspended,
    /// 404
    Unknown,
    /// Exactly this body
    Custom(Value),
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    pub service: Service,
    pub method: Method,
    /// With the query
    pub path: String,
    /// Names in lower case
    pub headers: BTreeMap<String, String>,
    /// `null` if there was none, or no JSON
    pub body: Value,
}

#[derive(Debug, Default)]
struct State {
    faults: HashMap<Service, Fault>,
    /// Of requests with this text in their path, query, token or body.
    faults_about: Vec<(Service, String, Fault)>,
    counts: HashMap<Service, usize>,
    received: VecDeque<Received>,
    tenants: HashMap<String, Tenant>,
    mappings: HashMap<String, Option<Value>>,
    media: HashMap<String, Option<Media>>,
    scripts: HashMap<(Service, String), Script>,
    refused_tokens: HashSet<String>,
    taken: Vec<Value>,
}

#[derive(Debug, Clone)]
struct Media {
    mime_type: String,
    content: Content,
    digest: String,
}

/// The services, listening. Dropping it closes everything.
#[derive(Debug)]
pub struct Neighbours {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: DropGuard,
}

impl Neighbours {
    /// # Errors
    /// It can't listen.
    pub async fn start() -> anyhow::Result<Self> {
        Self::listen((Ipv4Addr::LOCALHOST, ports::free()).into()).await
    }

    /// On a thread and runtime of its own, which ends when this is dropped.
    ///
    /// # Errors
    /// No thread or runtime, or it can't listen.
    pub fn on_a_thread() -> anyhow::Result<Self> {
        let (started, starting) = std::sync::mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new().spawn(move || {
            runtime.block_on(async {
                let neighbours = Self::start().await;
                let stop = neighbours.as_ref().ok().map(Self::stopped);
                drop(started.send(neighbours));
                if let Some(stop) = stop {
                    stop.cancelled().await;
                }
            });
        })?;
        starting.recv().context("the thread ended")?
    }

    /// # Errors
    /// It can't listen there.
    pub async fn listen(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("can't listen on {address}"))?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State::default()));
        let stop = CancellationToken::new();
        let (serving, stopped) = (serve(listener, state.clone()), stop.clone());
        tokio::spawn(async move { stopped.run_until_cancelled(serving).await });
        Ok(Self {
            address,
            state,
            stop: stop.drop_guard(),
        })
    }

    fn stopped(&self) -> CancellationToken {
        self.stop.token().clone()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://host:port`, the base URL of all of them.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn set_fault(&self, service: Service, fault: Fault) {
        self.state().faults.insert(service, fault);
    }

    /// A fault of the requests that have a text (an account, a tenant, a token) in their path, query,
    /// token or body; it goes before the service's own.
    pub fn set_fault_about(&self, service: Service, text: &str, fault: Fault) {
        let mut state = self.state();
        state
            .faults_about
            .retain(|(of, about, _)| (*of, &**about) != (service, text));
        state.faults_about.push((service, text.to_owned(), fault));
    }

    /// Requests that a service got, those answered with a fault included.
    pub fn requests(&self, service: Service) -> usize {
        self.state().counts.get(&service).copied().unwrap_or(0)
    }

    /// The last requests of a service, oldest first.
    pub fn received(&self, service: Service) -> Vec<Received> {
        let state = self.state();
        let of_service = state.received.iter().filter(|one| one.service == service);
        of_service.cloned().collect()
    }

    /// Bodies posted to the State Manager, those answered with a fault included.
    pub fn state_posts(&self) -> Vec<Value> {
        let state = self.received(Service::State).into_iter();
        let posts = state.filter(|request| request.method == Method::POST);
        posts.map(|request| request.body).collect()
    }

    /// Bodies posted to the State Manager that it took: answered without a fault.
    pub fn state_taken(&self) -> Vec<Value> {
        self.state().taken.clone()
    }

    pub fn set_tenant(&self, waba_id: &str, tenant: Tenant) {
        self.state().tenants.insert(waba_id.to_owned(), tenant);
    }

    /// What the State Manager has for a customer; `None`: 404.
    pub fn set_mapping(&self, wa_id: &str, mapping: Option<Value>) {
        self.state().mappings.insert(wa_id.to_owned(), mapping);
    }

    /// Makes the Graph API know a media object.
    pub fn set_media(&self, media_id: &str, mime_type: &str, bytes: impl Into<Bytes>) {
        self.set_content(media_id, mime_type, Content::Bytes(bytes.into()));
    }

    /// The same with bytes that are made when they are asked for.
    pub fn set_content(&self, media_id: &str, mime_type: &str, content: Content) {
        let media = Media {
            mime_type: mime_type.to_owned(),
            digest: content.digest(),
            content,
        };
        self.state().media.insert(media_id.to_owned(), Some(media));
    }

    /// What the next requests for a media id get, of the Graph API or the download host.
    pub fn script(&self, service: Service, media_id: &str, turns: impl IntoIterator<Item = Turn>) {
        self.set_script(service, media_id, turns.into_iter().collect(), false);
    }

    /// What every request for a media id gets from now on.
    pub fn always(&self, service: Service, media_id: &str, turn: Turn) {
        self.set_script(service, media_id, VecDeque::from([turn]), true);
    }

    /// All requests for a media id get the right answer again.
    pub fn heal(&self, media_id: &str) {
        let mut state = self.state();
        state.scripts.retain(|(_, id), _| id != media_id);
    }

    fn set_script(&self, service: Service, media_id: &str, turns: VecDeque<Turn>, for_good: bool) {
        let script = Script { turns, for_good };
        let mut state = self.state();
        state.scripts.insert((service, media_id.to_owned()), script);
    }

    /// The Graph API and the download host take this token no more.
    pub fn refuse_token(&self, token: &str) {
        self.state().refused_tokens.insert(token.to_owned());
    }

    /// They take it again.
    pub fn take_token(&self, token: &str) {
        self.state().refused_tokens.remove(token);
    }

    /// Where the Graph API says that a media object lies.
    pub fn download_url(&self, media_id: &str) -> String {
        format!("{}/_download/{media_id}", self.url())
    }

    /// Makes the Graph API answer as it does for an expired or foreign id.
    pub fn forget_media(&self, media_id: &str) {
        self.state().media.insert(media_id.to_owned(), None);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dropping the returned future drops every connection with it.
async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    let tracker = TaskTracker::new();
    let all = CancellationToken::new();
    let _close_all = all.clone().drop_guard();
    let Ok(address) = listener.local_addr() else {
        return;
    };
    let base_url = format!("http://{address}");
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        // Without this a small file takes 40 ms. It only fails on a connection that is gone.
        drop(stream.set_nodelay(true));
        let connection = serve_connection(stream, state.clone(), base_url.clone());
        let closed = all.clone();
        tracker.spawn(async move { closed.run_until_cancelled(connection).await });
    }
}

async fn serve_connection(stream: TcpStream, state: Arc<Mutex<State>>, base_url: String) {
    let service = service_fn(|request| answer(request, &state, &base_url));
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
    // A client that hangs up and our own `Close` end here too.
    drop(served);
}

/// The base URL as the client has it, where they listen on all addresses: none of those is one that a
/// client could be sent to.
fn reached_at(head: &hyper::http::request::Parts, base_url: &str) -> String {
    let everywhere = ["http://0.0.0.0:", "http://[::]:"];
    let asked = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    match asked {
        Some(host) if everywhere.iter().any(|it| base_url.starts_with(it)) => {
            format!("http://{host}")
        }
        Some(_) | None => base_url.to_owned(),
    }
}

/// Why a connection is closed without an answer.
#[derive(Debug)]
struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("closed on demand")
    }
}

impl std::error::Error for Closed {}

type Reply = Response<Full<Bytes>>;

enum Served {
    Answer(Reply),
    File(Media),
}

async fn answer(
    request: Request<Incoming>,
    state: &Mutex<State>,
    base_url: &str,
) -> Result<Response<BoxBody<Bytes, Closed>>, Closed> {
    let (head, body) = request.into_parts();
    let base_url = &reached_at(&head, base_url);
    let body = body.collect().await.map_err(|_| Closed)?.to_bytes();
    let path = head.uri.path().to_owned();
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    if let ["_control", rest @ ..] = &segments[..] {
        let query = head.uri.query();
        return Ok(whole(control(&head.method, rest, query, &mut lock(state))));
    }
    let service = match segments[..] {
        ["tenants", ..] => Service::Tenants,
        ["state", ..] => Service::State,
        ["_download", ..] => Service::Download,
        _ => Service::Graph,
    };
    let (fault, served) = {
        let mut state = lock(state);
        state.remember(service, &head, &body);
        let id = segments.get(1).copied().unwrap_or_default();
        let turn = match state.scripts.get_mut(&(service, id.to_owned())) {
            Some(script) => script.next(),
            None => None,
        };
        let (fault, served) = match turn {
            Some(Turn::Answer {
                status,
                headers,
                body,
            }) => (
                Fault::None,
                Served::Answer(scripted(status, &headers, body)),
            ),
            Some(Turn::Fault(fault)) => (fault, state.serve(service, &head, &segments, base_url)),
            None => (
                state.fault(service, &head, &body),
                state.serve(service, &head, &segments, base_url),
            ),
        };
        // An answer of which the body is spoilt may be whole to its reader: this one has none.
        let spoilt = matches!(fault, Fault::Cut(_) | Fault::Garbage);
        let taken = spoilt || matches!(fault, Fault::None | Fault::Slow(_));
        if taken && service == Service::State && head.method == Method::POST {
            state
                .taken
                .push(serde_json::from_slice(&body).unwrap_or_default());
        }
        (fault, served)
    };
    let media = match served {
        Served::Answer(reply) => return misbehave(fault, reply).await,
        Served::File(media) => media,
    };
    let body = match fault {
        Fault::None => media.content.body(None),
        Fault::Slow(delay) => {
            tokio::time::sleep(delay).await;
            media.content.body(None)
        }
        Fault::Cut(after) => media.content.body(Some(after)),
        Fault::Garbage => Content::Sized(media.content.len(), 255).body(None),
        Fault::Drip(pause) => media.content.dripping(pause),
        Fault::Status(_) | Fault::RetryAfter(_) | Fault::Hang | Fault::Close => {
            return misbehave(fault, not_found()).await;
        }
    };
    let mut reply = Response::new(body);
    let headers = reply.headers_mut();
    headers.insert(CONTENT_LENGTH, media.content.len().into());
    if let Ok(mime_type) = HeaderValue::from_str(&media.mime_type) {
        headers.insert(CONTENT_TYPE, mime_type);
    }
    Ok(reply)
}

/// A small answer, with a fault.
async fn misbehave(fault: Fault, reply: Reply) -> Result<Response<BoxBody<Bytes, Closed>>, Closed> {
    let reply = match fault {
        Fault::None | Fault::Drip(_) => reply,
        Fault::Status(status) => json_reply(status, &json!({"error": {"message": "on demand"}})),
        Fault::RetryAfter(seconds) => {
            let mut reply = json_reply(503, &json!({"error": {"message": "on demand"}}));
            reply.headers_mut().insert(RETRY_AFTER, seconds.into());
            reply
        }
        Fault::Hang => std::future::pending().await,
        Fault::Slow(delay) => {
            tokio::time::sleep(delay).await;
            reply
        }
        Fault::Close => return Err(Closed),
        Fault::Cut(after) => return Ok(cut(reply, after).await),
        Fault::Garbage => {
            let (head, body) = reply.into_parts();
            let length = body.size_hint().exact().unwrap_or(0) as usize;
            Response::from_parts(head, Full::from(vec![b'#'; length]))
        }
    };
    Ok(whole(reply))
}

fn scripted(status: u16, headers: &[(&'static str, String)], body: String) -> Reply {
    let mut answer = reply(status, "application/octet-stream", body.into());
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            answer.headers_mut().insert(*name, value);
        }
    }
    answer
}

fn whole(reply: Reply) -> Response<BoxBody<Bytes, Closed>> {
    reply.map(|body| body.map_err(|never| match never {}).boxed())
}

async fn cut(reply: Reply, after: usize) -> Response<BoxBody<Bytes, Closed>> {
    let (mut head, body) = reply.into_parts();
    let Ok(body) = body.collect().await;
    let body = body.to_bytes();
    head.headers.insert(CONTENT_LENGTH, body.len().into());
    let pieces = [
        Ok(Frame::data(body.slice(..after.min(body.len())))),
        Err(Closed),
    ];
    // The first piece is written before the error closes the connection.
    let pieces = futures::stream::iter(pieces).then(async |piece| {
        tokio::task::yield_now().await;
        piece
    });
    Response::from_parts(head, BodyExt::boxed(StreamBody::new(Box::pin(pieces))))
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn remember(&mut self, service: Service, head: &hyper::http::request::Parts, body: &[u8]) {
        *self.counts.entry(service).or_default() += 1;
        if self.received.len() == REMEMBERED {
            self.received.pop_front();
        }
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = head.headers.iter();
        self.received.push_back(Received {
            service,
            method: head.method.clone(),
            path: head.uri.to_string(),
            headers: headers
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
            body: serde_json::from_slice(body).unwrap_or_default(),
        });
    }

    fn fault(&self, service: Service, head: &hyper::http::request::Parts, body: &[u8]) -> Fault {
        let token = head.headers.get(AUTHORIZATION);
        let token = token.and_then(|token| token.to_str().ok());
        let body = String::from_utf8_lossy(body);
        let asked = format!("{} {} {body}", head.uri, token.unwrap_or_default());
        let mut about = self.faults_about.iter();
        let about = about.find(|(of, text, _)| *of == service && asked.contains(text.as_str()));
        let own = self.faults.get(&service).copied();
        about.map_or(own.unwrap_or_default(), |(_, _, fault)| *fault)
    }

    fn tenant(&self, segments: &[&str]) -> Reply {
        let ["tenants", "by-business-account", waba_id] = segments else {
            return not_found();
        };
        let status = match self.tenants.get(*waba_id) {
            None | Some(Tenant::Active) => "active",
            Some(Tenant::Suspended) => "suspended",
            Some(Tenant::Unknown) => return not_found(),
            Some(Tenant::Custom(body)) => return json_reply(200, body),
        };
        let tenant = json!({
            "tenantId": format!("tenant-{waba_id}"),
            "name": format!("Tenant {waba_id}"),
            "status": status,
            "businessAccountId": waba_id,
            "accessToken": format!("token-{waba_id}"),
            "phoneNumberIds": [format!("7{waba_id}")],
        });
        json_reply(200, &tenant)
    }

    fn conversation(&self, method: &Method, segments: &[&str]) -> Reply {
        match segments {
            ["state", "message"] if method == Method::POST => {
                reply(204, "application/json", Bytes::new())
            }
            ["state", "mapping", wa_id] => match self.mappings.get(*wa_id) {
                Some(Some(mapping)) => json_reply(200, mapping),
                Some(None) => not_found(),
                None => {
                    let conversation = format!("conversation-{wa_id}");
                    json_reply(200, &json!({"conversationId": conversation}))
                }
            },
            _ => not_found(),
        }
    }

    fn graph(&self, segments: &[&str], query: Option<&str>, base_url: &str) -> Reply {
        if let [_version, _waba_id, "subscribed_apps"] = segments {
            let app = json!({"id": APP.0, "name": APP.1});
            return json_reply(200, &json!({"data": [{"whatsapp_business_api_data": app}]}));
        }
        let [_version, id] = segments else {
            return not_found();
        };
        // The app that the token is of.
        if *id == "app" {
            let app = json!({"id": APP.0, "name": APP.1, "category": "Business"});
            return json_reply(200, &app);
        }
        let query = query.unwrap_or_default();
        let asks_for_media = query.contains("phone_number_id=") || self.media.contains_key(*id);
        // Without a query only the ids tell: the tenants' numbers are their account's id behind a 7.
        let is_number = query.contains("fields=") || (id.len() > 15 && id.starts_with('7'));
        if is_number && !asks_for_media {
            return json_reply(200, &phone_number(id));
        }
        match self.media(id) {
            Some(media) => json_reply(200, &describe(id, &media, base_url)),
            None => unsupported_get(id),
        }
    }

    fn serve(
        &self,
        service: Service,
        head: &hyper::http::request::Parts,
        segments: &[&str],
        base_url: &str,
    ) -> Served {
        let authorized = self.takes_token(head);
        Served::Answer(match service {
            Service::Tenants => self.tenant(segments),
            Service::State => self.conversation(&head.method, segments),
            Service::Graph | Service::Download if !authorized => unauthorized(),
            Service::Graph => self.graph(segments, head.uri.query(), base_url),
            Service::Download => match segments.get(1).and_then(|id| self.media(id)) {
                Some(media) => return Served::File(media),
                None => not_found(),
            },
        })
    }

    fn takes_token(&self, head: &hyper::http::request::Parts) -> bool {
        let token = head.headers.get(AUTHORIZATION);
        let token = token.and_then(|token| token.to_str().ok()?.strip_prefix("Bearer "));
        token.is_some_and(|token| !self.refused_tokens.contains(token))
    }

    fn media(&self, id: &str) -> Option<Media> {
        match self.media.get(id) {
            Some(media) => media.clone(),
            None if id.bytes().all(|byte| byte.is_ascii_digit()) => {
                let content = Content::Bytes(format!("media {id}").into());
                Some(Media {
                    mime_type: "image/jpeg".to_owned(),
                    digest: content.digest(),
                    content,
                })
            }
            None => None,
        }
    }
}

fn describe(id: &str, media: &Media, base_url: &str) -> Value {
    json!({
        "url": format!("{base_url}/_download/{id}"),
        "mime_type": media.mime_type,
        "sha256": media.digest,
        "file_size": media.content.len(),
        "id": id,
        "messaging_product": "whatsapp",
    })
}

fn phone_number(id: &str) -> Value {
    json!({
        "id": id,
        "display_phone_number": "+1 555-078-3881",
        "verified_name": "Lucky Shrub",
        "quality_rating": "GREEN",
        "code_verification_status": "NOT_VERIFIED",
        "account_mode": "SANDBOX",
        "status": "CONNECTED",
    })
}

/// What the Graph API answers for an id that is unknown, expired or another number's.
fn unsupported_get(id: &str) -> Reply {
    let message = format!(
        "Unsupported get request. Object with ID '{id}' does not exist, cannot be loaded due to \
         missing permissions, or does not support this operation."
    );
    let error = json!({
        "message": message,
        "type": "GraphMethodException",
        "code": 100,
        "error_subcode": 33,
        "fbtrace_id": "AfakeTrace",
    });
    json_reply(400, &json!({"error": error}))
}

fn unauthorized() -> Reply {
    let error = json!({
        "message": "An access token is required to request this resource.",
        "type": "OAuthException",
        "code": 190,
        "fbtrace_id": "AfakeTrace",
    });
    json_reply(401, &json!({"error": error}))
}

fn control(method: &Method, path: &[&str], query: Option<&str>, state: &mut State) -> Reply {
    let fault = query.and_then(|query| query.strip_prefix("fault="));
    match (method, path, fault) {
        (&Method::GET, [] | [""], _) => json_reply(200, &state.overview()),
        (&Method::POST, [name], Some(fault)) => {
            let service = Service::ALL.into_iter().find(|one| one.name() == *name);
            let (Some(service), Ok(fault)) = (service, fault.parse()) else {
                return usage();
            };
            state.faults.insert(service, fault);
            json_reply(200, &state.overview())
        }
        _ => usage(),
    }
}

impl State {
    fn overview(&self) -> Value {
        let services = Service::ALL.into_iter().map(|service| {
            let fault = self.faults.get(&service).copied().unwrap_or_default();
            let count = self.counts.get(&service).copied().unwrap_or(0);
            let report = json!({"fault": fault.to_string(), "requests": count});
            (service.name().to_owned(), report)
        });
        Value::Object(services.collect())
    }
}

fn usage() -> Reply {
    let text = "GET /_control\n\
                POST /_control/{tenants|state|graph|download}?fault={none|status:500|hang|slow:200ms|close|cut:10|garbage|drip:1s}\n";
    reply(400, "text/plain; charset=utf-8", text.into())
}

fn not_found() -> Reply {
    json_reply(404, &json!({"error": "not found"}))
}

fn json_reply(status: u16, body: &Value) -> Reply {
    reply(status, "application/json", body.to_string().into())
}

fn reply(status: u16, content_type: &str, body: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        reply.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_survive_their_text() {
        let slow = Fault::Slow(Duration::from_millis(200));
        for fault in [
            Fault::None,
            Fault::Status(503),
            Fault::RetryAfter(u64::MAX),
            Fault::Hang,
            slow,
            Fault::Close,
            Fault::Cut(10),
            Fault::Garbage,
            Fault::Drip(Duration::from_secs(1)),
        ] {
            assert_eq!(fault.to_string().parse(), Ok(fault));
        }
        assert!("status:9".parse::<Fault>().is_err());
        assert!("slow".parse::<Fault>().is_err());
    }

    #[tokio::test]
    async fn who_listens_everywhere_names_the_address_that_it_was_asked_at() {
        crate::install_tls_provider();
        let everywhere = "0.0.0.0:0".parse().expect("an address");
        let neighbours = Neighbours::listen(everywhere).await.expect("neighbours");
        let asked_at = format!("http://localhost:{}", neighbours.address().port());
        let request = reqwest::Client::new().get(format!("{asked_at}/v26.0/123?phone_number_id=1"));
        let answer = request
            .bearer_auth("token")
            .send()
            .await
            .expect("an answer");
        let media: Value = answer.json().await.expect("JSON");
        let url = media["url"].as_str().expect("a URL");
        assert!(url.starts_with(&format!("{asked_at}/_download/")), "{url}");
    }

    #[tokio::test]
    async fn a_cut_answer_breaks_off_and_garbage_is_none() {
        crate::install_tls_provider();
        let neighbours = Neighbours::start().await.expect("neighbours");
        let url = format!("{}/state/mapping/1", neighbours.url());
        let ask = async || reqwest::get(&url).await.expect("a head").bytes().await;
        let right = ask().await.expect("a body");
        neighbours.set_fault(Service::State, Fault::Cut(5));
        assert!(ask().await.is_err());
        neighbours.set_fault(Service::State, Fault::Garbage);
        let garbage = ask().await.expect("a body");
        assert_eq!(garbage.len(), right.len());
        assert!(serde_json::from_slice::<Value>(&garbage).is_err());
    }

    #[tokio::test]
    async fn what_was_told_is_taken_though_its_answer_is_spoilt() {
        crate::install_tls_provider();
        let neighbours = Neighbours::start().await.expect("neighbours");
        let url = format!("{}/state/message", neighbours.url());
        for fault in [Fault::Cut(5), Fault::Garbage] {
            neighbours.set_fault(Service::State, fault);
            let told = reqwest::Client::new().post(&url).body("{}").send().await;
            // It has no body that could be spoilt.
            assert!(told.expect("an answer").status().is_success());
        }
        assert_eq!(neighbours.state_taken().len(), 2);
    }
}
