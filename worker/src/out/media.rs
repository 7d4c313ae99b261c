//! Media of messages and calls: fetched once, verified, streamed into the object store.
//!
//! A message with media starts a *flight* when its entry is read ([`MediaFetcher::begin`]): tries until the
//! file is stored, given up, or the message's deadline is over. What isn't there then goes on from
//! what is owed (`owed/media.rs`), one flight at a time. Any number may wait for the same flight.
//! [`outcome`] decides what a fault means, [`crate::read::gate`] whose turn it is, [`safety`] where a token may
//! go, [`transfer`] and [`verify`] move the bytes, [`names`] says what they are called.

pub mod names;
pub mod outcome;
pub mod refused_hosts;
pub mod safety;
pub mod transfer;
pub mod verify;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use chrono::Utc;
use futures::FutureExt;
use futures::future::Shared;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use reqwest::{Client, Response};
use shared::outgoing;
use shared::private::Hashed;
use shared::secrets::Secret;
use shared::webhook::Identity;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, field};
use url::Url;

use self::outcome::{Fault, FaultAction, MediaFailure};
use self::refused_hosts::RefusedHosts;
use self::safety::{AllowedHost, AllowedHosts};
use self::transfer::Transfer;
use self::verify::Declared;
use crate::ask::graph::{Graph, GraphCall, MediaId, digest};
use crate::ask::neighbour::{Trace, USER_AGENT, retry_after};
use crate::ask::tenants::tokens::Tokens;
use crate::item::event::media::{MediaPlace, MediaPlaces, MediaRef};
use crate::metrics::Metrics;
use crate::out::store::Store;
use crate::read::gate::{Gate, TransferPace};
use crate::retry::Backoff;
use clap::Args;
use shared::config::duration;

/// Files of messages.
#[derive(Args, Debug, Clone)]
pub struct MediaArgs {
    /// A message waits no longer for its media, from when its entry was read
    #[arg(long, env = "MEDIA_DEADLINE", default_value = "3s", value_parser = duration)]
    pub media_deadline: Duration,
    /// Whose files are fetched; call: recordings and transcripts; history: what was written before a number
    /// joined the API, months of it
    #[arg(
        long,
        env = "MEDIA_PLACES",
        value_enum,
        default_value = "message,call,echo,standby,edit",
        value_delimiter = ','
    )]
    pub media_places: Vec<MediaPlace>,
    /// Transfers at once of received messages; beside them a quarter as many of other places, and a quarter of
    /// history
    #[arg(long, env = "MEDIA_CONCURRENCY", default_value_t = 16)]
    pub media_concurrency: usize,
    /// Larger media is not stored; Meta takes 100 MB of any kind from people
    #[arg(long, env = "MEDIA_MAX_BYTES", default_value_t = 104_857_600)]
    pub media_max_bytes: u64,
    /// Hosts beside the Graph API's that get a token, exactly and by https; an entry that begins with a
    /// dot (.fbcdn.net) allows every host below that name; one written as an origin
    /// (http://127.0.0.1:9090) allows just that one, for tests
    #[arg(
        long,
        env = "MEDIA_ALLOWED_HOSTS",
        default_value = "lookaside.fbsbx.com",
        value_delimiter = ','
    )]
    pub media_allowed_hosts: Vec<AllowedHost>,
}

/// Transfers of one tenant that wait for their turn at most. What is more is tried later.
const MOST_WAITING_OF_TENANT: usize = 1024;
/// Meta keeps what a webhook's media id stands for this long.
const MEDIA_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// A URL in a webhook works for this long from when Meta sent it…
const URL_LIFE: Duration = Duration::from_secs(300);
/// …and isn't begun with when so little is left.
const URL_MARGIN: Duration = Duration::from_secs(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// From the request to the head of the answer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const NO_TOKEN_PAUSE: Duration = Duration::from_secs(15);
/// Tries to get the bytes that were declared, before media is given up.
const REREADS: u32 = 3;

/// The media of one message, and what its transfer needs to know.
#[derive(Debug, Clone)]
pub struct MediaTransfer {
    pub media: MediaRef,
    pub tenant_id: String,
    pub waba_id: String,
    pub phone_number_id: Option<String>,
    /// The message's.
    pub message_id: Option<String>,
    /// What the message's objects are called.
    pub message_name: String,
    pub identity: Identity,
    /// When ingress took it; the day of the key.
    pub received_at_ms: i64,
    /// When Meta says that it was sent.
    pub sent_at_ms: i64,
    pub correlation_id: String,
    pub traceparent: String,
}

impl MediaTransfer {
    /// When Meta deletes it, in ms since 1970.
    pub fn gone_at_ms(&self) -> u64 {
        self.sent_at_ms.max(0) as u64 + MEDIA_LIFE.as_millis() as u64
    }

    /// How urgent it is.
    pub fn pace(&self) -> TransferPace {
        match self.media.place {
            MediaPlace::Message | MediaPlace::Edit => TransferPace::Inbound,
            MediaPlace::Echo | MediaPlace::Standby | MediaPlace::Call => TransferPace::Beside,
            MediaPlace::History => TransferPace::History,
        }
    }

    /// Whether Meta has deleted it by now.
    fn is_too_old(&self) -> bool {
        let age_ms = Utc::now()
            .timestamp_millis()
            .saturating_sub(self.sent_at_ms);
        age_ms > MEDIA_LIFE.as_millis() as i64
    }

    /// What a fault means at the age of the media: once Meta has deleted it, any is its end. What was
    /// not tried is none.
    pub fn at_its_age(&self, fault: Fault) -> Fault {
        let untried = matches!(fault.reason, MediaFailure::Busy | MediaFailure::Stopping);
        if untried || !self.is_too_old() {
            return fault;
        }
        Fault {
            next: FaultAction::GiveUp,
            ..fault
        }
    }
}

/// Who asks for a flight.
#[derive(Debug, Clone, Copy)]
pub enum TransferRequester {
    /// A message that waits until then: it tries so long, at least once.
    Message(Instant),
    /// A piece that is owed, which asks again: it tries once.
    Owed,
}

/// A media object in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMedia {
    pub key: String,
    pub size_bytes: u64,
    pub sha256: [u8; 32],
    /// As declared.
    pub mime_type: String,
    /// The type that its first bytes tell.
    pub detected_mime_type: Option<String>,
}

/// How a flight ended. `Err` with [`FaultAction::GiveUp`] is the media's end.
pub type TransferResult = Result<Arc<StoredMedia>, Fault>;

/// A flight that can be waited for. An error means that it panicked; see [`ended`].
pub type TransferHandle = Shared<oneshot::Receiver<TransferResult>>;

/// Waits for a flight's end, however it comes.
pub async fn ended(flight: TransferHandle) -> TransferResult {
    flight.await.unwrap_or(Err(MediaFailure::Crashed.into()))
}

/// Takes a flight off the list when it ends, also by a panic: the next one would join it for ever. A
/// panic is logged here, within the flight's span.
struct TransferGuard {
    media: Arc<MediaFetcher>,
    identity: Identity,
}

impl Drop for TransferGuard {
    fn drop(&mut self) {
        self.media.flights().remove(&self.identity);
        if std::thread::panicking() {
            tracing::error!("fetching media panicked");
            self.media
                .metrics
                .media_ended(Some(MediaFailure::Crashed.text()));
        }
    }
}

/// The turns of files, by pace: those that are less urgent have few, and others never wait for them.
struct Gates {
    inbound: Arc<Gate>,
    beside: Arc<Gate>,
    history: Arc<Gate>,
}

impl Gates {
    fn new(most: usize) -> Self {
        let of = |most| Gate::new(most, MOST_WAITING_OF_TENANT);
        let fewer = most.div_ceil(4);
        Self {
            inbound: of(most),
            beside: of(fewer),
            history: of(fewer),
        }
    }

    fn of(&self, pace: TransferPace) -> &Arc<Gate> {
        match pace {
            TransferPace::Inbound => &self.inbound,
            TransferPace::Beside => &self.beside,
            TransferPace::History => &self.history,
        }
    }
}

/// Fetches media.
pub struct MediaFetcher {
    graph: Arc<Graph>,
    store: Arc<Store>,
    tokens: Tokens,
    client: Client,
    allowed: AllowedHosts,
    refused_hosts: RefusedHosts,
    gates: Gates,
    places: MediaPlaces,
    max_bytes: u64,
    deadline: Duration,
    flights: Mutex<HashMap<Identity, TransferHandle>>,
    runtime: Handle,
    tracker: TaskTracker,
    stop: CancellationToken,
    metrics: Metrics,
}

/// What [`MediaFetcher`] works with.
pub struct MediaParts {
    pub graph: Arc<Graph>,
    pub store: Arc<Store>,
    pub tokens: Tokens,
    pub allowed: AllowedHosts,
    pub refused_hosts: RefusedHosts,
    /// Files are fetched on its threads.
    pub runtime: Handle,
    pub tracker: TaskTracker,
    pub stop: CancellationToken,
    pub metrics: Metrics,
}

impl MediaFetcher {
    /// # Errors
    /// The HTTP client can't be built.
    pub fn new(args: &MediaArgs, parts: MediaParts) -> anyhow::Result<Self> {
        let client = outgoing::client()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(parts.allowed.resolver())
            .build()
            .context("the client of media downloads")?;
        Ok(Self {
            graph: parts.graph,
            store: parts.store,
            tokens: parts.tokens,
            client,
            allowed: parts.allowed,
            refused_hosts: parts.refused_hosts,
            gates: Gates::new(args.media_concurrency),
            places: args.media_places.iter().copied().collect(),
            max_bytes: args.media_max_bytes,
            deadline: args.media_deadline,
            flights: Mutex::default(),
            runtime: parts.runtime,
            tracker: parts.tracker,
            stop: parts.stop,
            metrics: parts.metrics,
        })
    }

    /// Until when a message that is read now waits for its media.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.deadline
    }

    /// Whose media is fetched.
    pub fn places(&self) -> MediaPlaces {
        self.places
    }

    /// Joins the flight of a job, or starts one.
    pub fn begin(
        self: &Arc<Self>,
        job: &Arc<MediaTransfer>,
        asked_by: TransferRequester,
    ) -> TransferHandle {
        let mut flights = self.flights();
        if let Some(flight) = flights.get(&job.identity) {
            return flight.clone();
        }
        let (tell, ended) = oneshot::channel();
        let flight = ended.shared();
        flights.insert(job.identity, flight.clone());
        let (media, job) = (self.clone(), job.clone());
        let span = tracing::error_span!(
            "media",
            correlation_id = job.correlation_id,
            tenant_id = job.tenant_id,
            wamid = job.message_id.as_deref().map(|id| field::debug(Hashed(id)))
        );
        let guard = TransferGuard {
            media: self.clone(),
            identity: job.identity,
        };
        let flying = async move {
            let outcome = tokio::select! {
                outcome = Box::pin(media.run(&job, asked_by)) => outcome,
                () = media.stop.cancelled() => Err(MediaFailure::Stopping.into()),
            };
            drop(guard);
            // Nobody may be waiting any more: what is owed asks again.
            drop(tell.send(outcome));
        };
        self.tracker
            .spawn_on(flying.instrument(span), &self.runtime);
        flight
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Identity, TransferHandle>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self, job: &MediaTransfer, asked_by: TransferRequester) -> TransferResult {
        let until = match asked_by {
            TransferRequester::Message(until) => until,
            TransferRequester::Owed => Instant::now(),
        };
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let mut rereads = 0;
        loop {
            let began = Instant::now();
            let fault = match self.attempt(job, asked_by).await {
                Ok(stored) => return Ok(Arc::new(stored)),
                Err(fault) => fault,
            };
            let fault = self.fault_of(job, fault, &mut rereads);
            let media_id = MediaId::parse(&job.media.id);
            tracing::info!(
                media_id = media_id.as_ref().map_or("-", MediaId::text),
                tenant_id = job.tenant_id,
                kind = job.media.kind.name(),
                reason = fault.reason.text(),
                given_up = fault.next == FaultAction::GiveUp,
                duration_ms = began.elapsed().as_millis() as u64,
                "media was not stored"
            );
            self.metrics.media_ended(Some(fault.reason.text()));
            let pause = match fault.next {
                FaultAction::GiveUp | FaultAction::Seldom => return Err(fault),
                FaultAction::Reread => backoff.pause(),
                FaultAction::Again(least) => {
                    let pause = backoff.pause().max(least);
                    let alone = fault.reason == MediaFailure::GraphLeftAlone;
                    if alone || pause >= until.saturating_duration_since(Instant::now()) {
                        return Err(fault);
                    }
                    pause
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// What a fault means for this job: what is too old, or came wrong too often, is given up.
    fn fault_of(&self, job: &MediaTransfer, fault: Fault, rereads: &mut u32) -> Fault {
        if fault.next == FaultAction::Reread {
            *rereads += 1;
        }
        if *rereads >= REREADS {
            return Fault {
                next: FaultAction::GiveUp,
                ..fault
            };
        }
        job.at_its_age(fault)
    }

    async fn attempt(
        &self,
        job: &MediaTransfer,
        asked_by: TransferRequester,
    ) -> Result<StoredMedia, Fault> {
        let id = MediaId::parse(&job.media.id).ok_or(MediaFailure::InvalidId)?;
        if self.graph.breaker_refuses(&job.waba_id) && self.shortcut(job).is_none() {
            return Err(MediaFailure::GraphLeftAlone.into());
        }
        let gate = self.gates.of(job.pace());
        let turn = match asked_by {
            // It may be the last try, and few that are owed are tried at once.
            TransferRequester::Owed if job.is_too_old() => {
                gate.turn_in_any_case(&job.tenant_id).await
            }
            TransferRequester::Owed | TransferRequester::Message(_) => {
                gate.turn(&job.tenant_id).await
            }
        };
        let _turn = turn.map_err(|_| MediaFailure::Busy)?;
        let key = match &job.media.mime_type {
            None => None,
            Some(mime_type) => match self.upload_target(job, mime_type).await? {
                UploadTarget::Taken(stored) => return Ok(stored),
                UploadTarget::Free(key) => Some(key),
            },
        };
        let token = self.tokens.get(&job.waba_id).await;
        // It has none, or nobody can be asked now.
        let token = token.ok_or(Fault::after(MediaFailure::Token, NO_TOKEN_PAUSE))?;
        match self.fetch(job, &id, key.clone(), &token).await {
            Err(fault) if fault.reason == MediaFailure::Token => {
                let fresh = self.tokens.refused(&job.waba_id, &token).await;
                self.fetch(job, &id, key, &*fresh.ok_or(fault)?).await
            }
            ended => ended,
        }
    }

    /// Fetches by the URL of the webhook while it is fresh, else by one that the Graph API gives.
    /// `key`: where it goes, if its type was known before.
    async fn fetch(
        &self,
        job: &MediaTransfer,
        id: &MediaId,
        key: Option<String>,
        token: &Secret,
    ) -> Result<StoredMedia, Fault> {
        let mut declared = Declared {
            sha256: job.media.sha256,
            size_bytes: job.media.file_size,
            mime_type: job.media.mime_type.clone(),
        };
        if let Some(url) = self.shortcut(job) {
            let declared = declared.clone();
            match self.download(job, &url, key.clone(), declared, token).await {
                // Whatever its host says: the Graph API knows better.
                Err(fault) if is_of_url(fault.reason) => {}
                ended => return ended,
            }
        }
        let call = graph_call(job, token);
        let mut tries = 0;
        loop {
            let info = self.graph.media(id, call).await?;
            declared.sha256 = declared.sha256.or(info.sha256);
            declared.size_bytes = declared.size_bytes.or(info.size_bytes);
            declared.mime_type = declared.mime_type.or(info.mime_type);
            tries += 1;
            let url: Url = info.url.parse().map_err(|_| MediaFailure::UrlRefused)?;
            let (key, declared) = (key.clone(), declared.clone());
            match self.download(job, &url, key, declared, token).await {
                Err(fault) if fault.reason == MediaFailure::NotFound && tries < 2 => {}
                ended => return ended,
            }
        }
    }

    /// The webhook's own URL, if a token may go there and time is left to begin.
    fn shortcut(&self, job: &MediaTransfer) -> Option<Url> {
        let url: Url = job.media.url.as_ref()?.parse().ok()?;
        let expiry = url.query_pairs().find(|(name, _)| name == "ext");
        let expiry = expiry.and_then(|(_, seconds)| seconds.parse::<i64>().ok());
        let sent_ms = job.sent_at_ms.min(job.received_at_ms);
        let until_ms = match expiry {
            Some(seconds) => seconds.saturating_mul(1000),
            None => sent_ms.saturating_add(URL_LIFE.as_millis() as i64),
        };
        let fresh = Utc::now().timestamp_millis() + (URL_MARGIN.as_millis() as i64) < until_ms;
        (fresh && self.allowed.allow(&url)).then_some(url)
    }

    async fn download(
        &self,
        job: &MediaTransfer,
        url: &Url,
        key: Option<String>,
        declared: Declared,
        token: &Secret,
    ) -> Result<StoredMedia, Fault> {
        self.check_allowed(url, &declared).await?;
        let mime_type = declared.mime_type.clone().unwrap_or_default();
        let key = match key {
            Some(key) => key,
            None => match self.upload_target(job, &mime_type).await? {
                UploadTarget::Taken(stored) => return Ok(stored),
                UploadTarget::Free(key) => key,
            },
        };
        self.graph.place(graph_call(job, token)).await?;
        let began = Instant::now();
        let span = tracing::debug_span!("download", otel.kind = "client");
        let response = self.request(url, token).instrument(span).await?;
        check(&response)?;
        let served = response.headers().get(CONTENT_TYPE);
        let served = served.and_then(|served| served.to_str().ok());
        let is_page = served.is_some_and(|it| verify::is_page_instead_of(&mime_type, it.trim()));
        let transfer = Transfer {
            response,
            declared,
            max_bytes: self.max_bytes,
            key: &key,
            filename: job.media.filename.as_deref(),
            metadata: vec![
                ("media-id", job.media.id.clone()),
                ("phone-number-id", number(job).to_owned()),
            ],
            is_page,
        };
        let uploading = Instant::now();
        let span = tracing::debug_span!("minio put", otel.kind = "client", bucket = "media");
        let Some(transferred) = transfer.run(&self.store).instrument(span).await? else {
            return match self.upload_target(job, &mime_type).await? {
                UploadTarget::Taken(stored) => Ok(stored),
                UploadTarget::Free(_) => Err(MediaFailure::Store.into()),
            };
        };
        let verified = transferred.verified;
        self.note_stored(
            job,
            verified.size_bytes,
            (began.elapsed(), uploading.elapsed()),
        );
        Ok(StoredMedia {
            key,
            size_bytes: verified.size_bytes,
            sha256: verified.sha256,
            mime_type,
            detected_mime_type: transferred.detected.map(str::to_owned),
        })
    }

    fn note_stored(
        &self,
        job: &MediaTransfer,
        size_bytes: u64,
        (took, upload_took): (Duration, Duration),
    ) {
        self.metrics.media_ended(None);
        self.metrics.media_stored(size_bytes, took, upload_took);
        tracing::info!(
            media_id = job.media.id,
            tenant_id = job.tenant_id,
            kind = job.media.kind.name(),
            size_bytes,
            duration_ms = took.as_millis() as u64,
            "media was stored"
        );
    }

    /// Refuses a host that may not get a token, and what is said to be too large.
    async fn check_allowed(&self, url: &Url, declared: &Declared) -> Result<(), Fault> {
        if !self.allowed.allow(url) {
            let host = url.host_str().unwrap_or_default();
            tracing::warn!(
                host,
                "media lies at a host that isn't allowed (MEDIA_ALLOWED_HOSTS)"
            );
            self.refused_hosts.note(host).await;
            return Err(MediaFailure::UrlRefused.into());
        }
        let is_too_large = |size| size > self.max_bytes;
        // With a digest, its host has the last word.
        if declared.sha256.is_none() && declared.size_bytes.is_some_and(is_too_large) {
            return Err(MediaFailure::TooLarge.into());
        }
        Ok(())
    }

    async fn request(&self, url: &Url, token: &Secret) -> Result<Response, Fault> {
        let asked = self
            .client
            .get(url.clone())
            .bearer_auth(token.expose())
            .send();
        let response = tokio::time::timeout(HEAD_TIMEOUT, asked).await;
        let response = response.map_err(|_| MediaFailure::Unavailable)?;
        response.map_err(|_| MediaFailure::Unavailable.into())
    }

    /// Whether the media is in the store already; else where it goes. The same message id under a
    /// second number goes to a key of its own.
    async fn upload_target(
        &self,
        job: &MediaTransfer,
        mime_type: &str,
    ) -> Result<UploadTarget, Fault> {
        let second = format!("{}.{}", job.message_name, job.identity.short());
        let mut free = None;
        for name in [&job.message_name, &second] {
            let key = names::key(
                &job.tenant_id,
                job.media.kind.name(),
                job.received_at_ms,
                name,
                mime_type,
                job.media.filename.as_deref(),
            );
            let found = self.store.media_found(&key).await.map_err(|error| {
                tracing::warn!(
                    %error,
                    "reading the metadata of a media object failed"
                );
                MediaFailure::Store
            })?;
            let Some(found) = found else {
                free.get_or_insert(key);
                break;
            };
            let is = |name: &str, value: &str| {
                found.metadata.get(name).is_some_and(|found| found == value)
            };
            if !(is("media-id", &job.media.id) && is("phone-number-id", number(job))) {
                continue;
            }
            let known = found.metadata.get("sha256");
            let sha256 = match known.and_then(|sha256| digest(sha256)) {
                Some(sha256) => sha256,
                None => self.digest_of(&key).await?,
            };
            return Ok(UploadTarget::Taken(StoredMedia {
                key,
                size_bytes: found.size_bytes,
                sha256,
                mime_type: mime_type.to_owned(),
                detected_mime_type: found.metadata.get(transfer::DETECTED).cloned(),
            }));
        }
        // Both taken by others: eight hex digits collided, or somebody else writes here.
        free.map(UploadTarget::Free)
            .ok_or_else(|| MediaFailure::Store.into())
    }

    async fn digest_of(&self, key: &str) -> Result<[u8; 32], Fault> {
        self.store.media_sha256(key).await.map_err(|error| {
            tracing::warn!(%error, "a media object can't be read");
            MediaFailure::Store.into()
        })
    }
}

enum UploadTarget {
    Taken(StoredMedia),
    Free(String),
}

fn number(job: &MediaTransfer) -> &str {
    job.phone_number_id.as_deref().unwrap_or("-")
}

fn graph_call<'a>(job: &'a MediaTransfer, token: &'a Secret) -> GraphCall<'a> {
    GraphCall {
        token,
        waba_id: &job.waba_id,
        phone_number_id: job.phone_number_id.as_deref(),
        pace: job.pace(),
        trace: Trace {
            correlation_id: &job.correlation_id,
            traceparent: &job.traceparent,
        },
    }
}

/// Whether a fault may be the URL's alone, so that another one is worth call for.
fn is_of_url(reason: MediaFailure) -> bool {
    match reason {
        MediaFailure::Token
        | MediaFailure::NotFound
        | MediaFailure::UrlRefused
        | MediaFailure::Redirected
        | MediaFailure::Refused
        | MediaFailure::Unavailable
        | MediaFailure::Encoded
        | MediaFailure::NoLength
        | MediaFailure::ContentMismatch => true,
        MediaFailure::InvalidId
        | MediaFailure::TooLarge
        | MediaFailure::NotDownloadable
        | MediaFailure::SizeMismatch
        | MediaFailure::DigestMismatch
        | MediaFailure::Throttled
        | MediaFailure::GraphLeftAlone
        | MediaFailure::CutOff
        | MediaFailure::TooSlow
        | MediaFailure::Store
        | MediaFailure::Busy
        | MediaFailure::Crashed
        | MediaFailure::Stopping => false,
    }
}

/// Whether an answer to a download is the file.
fn check(response: &Response) -> Result<(), Fault> {
    let header = |name| {
        let value = response.headers().get(name)?;
        value.to_str().ok().map(str::trim)
    };
    let wait = retry_after(response.headers()).unwrap_or_default();
    match response.status().as_u16() {
        200 => {}
        300..=399 => return Err(MediaFailure::Redirected.into()),
        401 => return Err(MediaFailure::Token.into()),
        404 | 410 => return Err(MediaFailure::NotFound.into()),
        429 => return Err(Fault::after(MediaFailure::Throttled, wait)),
        403 => return Err(MediaFailure::Refused.into()),
        _ => return Err(Fault::after(MediaFailure::Unavailable, wait)),
    }
    if header(CONTENT_ENCODING).is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(MediaFailure::Encoded.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use prometheus_client::registry::Registry;
    use shared::keys::Keys;

    use super::*;
    use crate::ask::tenants::Tenants;
    use crate::cli::Cli;
    use crate::clients;
    use crate::item::event::media::MediaKind;

    /// Nobody that it could ask is there.
    fn media() -> anyhow::Result<Arc<MediaFetcher>> {
        // An error means that another test did so.
        drop(rustls::crypto::ring::default_provider().install_default());
        let config = Cli::try_parse_from([
            "worker",
            "--redis-url=redis://127.0.0.1:1",
            "--minio-endpoint=http://127.0.0.1:1",
            "--minio-access-key=access",
            "--minio-secret-key=secret",
            "--tenant-service-url=http://127.0.0.1:1",
            "--graph-base-url=http://127.0.0.1:1",
            "--media-concurrency=1",
        ])?
        .config;
        let secrets = config.secrets();
        let secrets = secrets.map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        let keys = Keys::new("whatsapp", 1);
        let connection = secrets.redis.connection(Duration::from_secs(1));
        let metrics = Metrics::new(&mut Registry::default());
        let store_keys = secrets.store.clone().context("keys")?;
        let redis = || (connection.clone(), keys.clone());
        let tenants = Arc::new(Tenants::new(
            &config.tenants,
            &secrets.tenants,
            clients::tenant_service(&metrics)?,
            redis(),
            metrics.caches.clone(),
        ));
        let parts = MediaParts {
            graph: Arc::new(clients::graph(&config, &metrics, redis())?),
            store: Arc::new(Store::new(&config.store, &config.objects, store_keys)?),
            tokens: Tokens::new(tenants),
            allowed: clients::allowed_hosts(&config),
            refused_hosts: RefusedHosts::new(connection.clone(), keys.clone()),
            runtime: Handle::current(),
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            metrics,
        };
        Ok(Arc::new(MediaFetcher::new(&config.media, parts)?))
    }

    fn job(name: &str, age: Duration) -> Arc<MediaTransfer> {
        let received_at_ms = Utc::now().timestamp_millis() - age.as_millis() as i64;
        Arc::new(MediaTransfer {
            media: MediaRef {
                place: MediaPlace::Message,
                kind: MediaKind::Image,
                id: "1".to_owned(),
                mime_type: None,
                sha256: None,
                url: None,
                filename: None,
                file_size: None,
            },
            tenant_id: "tenant".to_owned(),
            waba_id: "1".to_owned(),
            phone_number_id: None,
            message_id: None,
            message_name: name.to_owned(),
            identity: Identity::of(&[name.as_bytes()]),
            received_at_ms,
            sent_at_ms: received_at_ms,
            correlation_id: String::new(),
            traceparent: String::new(),
        })
    }

    const OLD: Duration = Duration::from_secs(8 * 24 * 3600);

    #[tokio::test]
    async fn a_file_that_never_found_a_turn_has_one_after_seven_days_and_is_given_up() {
        let media = media().expect("its settings are right");
        let running = media.gates.inbound.turn("tenant").await.expect("a turn");
        let turns =
            (0..MOST_WAITING_OF_TENANT).map(|_| Box::pin(media.gates.inbound.turn("tenant")));
        let mut waiting: Vec<_> = turns.collect();
        for turn in &mut waiting {
            assert!(turn.now_or_never().is_none(), "it waits");
        }
        let of_message = TransferRequester::Message(Instant::now());
        for (name, asked_by, age) in [
            ("young", TransferRequester::Owed, Duration::ZERO),
            ("of a message", of_message, OLD),
        ] {
            let ended = ended(media.begin(&job(name, age), asked_by)).await;
            let fault = ended.expect_err("none has a turn");
            assert_eq!(fault, MediaFailure::Busy.into(), "{name} was not tried");
        }
        let mut last = media.begin(&job("old", OLD), TransferRequester::Owed);
        tokio::task::yield_now().await;
        assert_eq!((&mut last).now_or_never(), None, "it waits for its turn");
        drop((waiting, running));
        let fault = ended(last).await.expect_err("nobody is there");
        assert_eq!(
            (fault.reason, fault.next),
            (MediaFailure::Token, FaultAction::GiveUp)
        );
    }

    #[test]
    fn whatever_was_tried_is_an_end_after_seven_days() {
        let (old, young) = (
            job("old", OLD),
            job("young", Duration::from_secs(6 * 24 * 3600)),
        );
        for reason in [
            MediaFailure::Unavailable,
            MediaFailure::Throttled,
            MediaFailure::Crashed,
            MediaFailure::Store,
        ] {
            assert_eq!(
                old.at_its_age(reason.into()).next,
                FaultAction::GiveUp,
                "{reason:?}"
            );
            assert_eq!(young.at_its_age(reason.into()), reason.into());
        }
        for untried in [MediaFailure::Busy, MediaFailure::Stopping] {
            assert_eq!(old.at_its_age(untried.into()), untried.into());
        }
    }
}
