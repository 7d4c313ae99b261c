//! Events into RabbitMQ. Some tasks, each the only user of its own channel: it publishes what was handed
//! over together and what waits beside it as a batch, awaits every confirm, and only then looks which
//! messages came back as unroutable, by their `message_id` (lapin hands a return to whichever confirm
//! resolves next).
//!
//! A broker that is away is waited for here, for ever; what can't be known (a time-out, a broken
//! channel) is published again with the same `message_id`. A channel that the broker closed over the
//! size of one event tells nothing of the others: [`sizes`] finds the one.

mod sizes;
mod socket;
mod unroutable;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_lapin::{Manager, Object, Pool};
use futures::future::join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Confirmation, Connection, PublisherConfirm};
use shared::admin::Readiness;
use shared::secrets::{Rotating, Secret};
use shared::tasks::Tasks;
use shared::trace;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Span;

use crate::item::event::{Event, SCHEMA_VERSION};
use crate::metrics::{ChannelState, Metrics, PublishStatus};
use crate::out::topology::{self, AmqpArgs, TopologyError};
use crate::read::leases::Tenure;
use crate::retry::Backoff;
use sizes::Sizes;
pub(crate) use sizes::refuses_size;
use socket::SocketRuntime;
use unroutable::Unroutable;

/// `delivery_mode` of a message that survives the broker.
const PERSISTENT: u8 = 2;
/// The largest frame in bytes unless the URL names another: RabbitMQ's own. A broker may name none, and
/// lapin sets aside 64 times as much for a connection.
const FRAME_MAX: u32 = 131_072;
/// The same for connections that only publish: events have 2 KB, and larger ones go in several frames.
const FRAME_MAX_TO_PUBLISH: u32 = 32_768;
/// A blocked connection is looked at again this often.
const BLOCKED_POLL: Duration = Duration::from_millis(100);
const BLOCKED: &str = "the broker blocks publishers";
/// Bytes of events that lapin gets before what it has is written: it copies them.
const SENT_AT_ONCE: usize = 256 * 1024;
/// How often events may be handed over to a channel that has its hands full, before one waits.
const WAITING: usize = 16;
/// How often the connection is looked at while there is nothing to publish.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Why an event is not in a queue, although the broker is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotPublished {
    #[error("no queue is bound for its routing key")]
    Unroutable,
    #[error("the queue refused it")]
    Refused,
    #[error("it is larger than the broker's max_message_size")]
    TooLarge,
    #[error("the partition's lease is gone")]
    LeaseLost,
}

/// The URL, if it is one, with a limit of frames, and with `/` for a virtual host that is written as
/// nothing, as other clients of RabbitMQ read it.
///
/// # Errors
/// It isn't; the message does not repeat it.
pub fn url(url: &Secret) -> Result<Secret, String> {
    let wrong = || "is no amqp:// or amqps:// URL".to_owned();
    let (scheme, rest) = url.expose().split_once("://").ok_or_else(wrong)?;
    // In a host, or behind it, stands none of these.
    if let Some((login, _)) = rest.rsplit_once('@')
        && let Some(raw) = login.chars().find(|c| matches!(c, '#' | '@' | '/' | '?'))
    {
        return Err(format!(
            "has a `{raw}` in its user or password that must be written as %{:02X}",
            u32::from(raw)
        ));
    }
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, format!("?{query}")),
        None => (rest, String::new()),
    };
    let with_vhost = match place.strip_suffix('/') {
        Some(host) if !host.contains('/') => format!("{scheme}://{host}/%2f{query}"),
        Some(_) | None => url.expose().to_owned(),
    };
    let read: AMQPUri = with_vhost.parse().map_err(|_| wrong())?;
    let mut limited: url::Url = with_vhost.parse().map_err(|_| wrong())?;
    if read.query.frame_max.is_none() {
        limited
            .query_pairs_mut()
            .append_pair("frame_max", &FRAME_MAX.to_string());
    }
    limited.as_str().parse().map_err(|_| wrong())
}

/// A [`url`] for connections that only publish.
fn url_to_publish(url: &str) -> String {
    let name = |frame_max: u32| format!("frame_max={frame_max}");
    url.replace(&name(FRAME_MAX), &name(FRAME_MAX_TO_PUBLISH))
}

/// An event that is about to be published.
pub(crate) struct EventToPublish {
    event: Event,
    /// Until its outcome is known.
    span: Span,
}

impl EventToPublish {
    /// Its span is part of the current one.
    pub(crate) fn new(mut event: Event) -> Self {
        let span = tracing::debug_span!("publish", otel.kind = "producer", event_id = %event.id);
        if let Some(traceparent) = trace::traceparent(&span) {
            event.traceparent = traceparent;
        }
        Self { event, span }
    }
}

struct Publication {
    event: Event,
    /// Its place among those it was handed over with.
    place: usize,
    tenure: Arc<Tenure>,
    reply: mpsc::Sender<Vec<(usize, PublishResult)>>,
    /// Until its outcome is known.
    _span: Span,
    /// It, or another one beside it, closed a channel over its size.
    suspected: bool,
}

/// What became of an event.
pub(crate) type PublishResult = Result<(), NotPublished>;

/// The outcomes of events that were handed over together.
pub(crate) struct Outcomes {
    replies: mpsc::Receiver<Vec<(usize, PublishResult)>>,
    /// How many are not told yet.
    left: usize,
}

impl Outcomes {
    /// Waits for some more of them, each with its event's place: `Ok` once it lies in its queue, on the
    /// broker's disk. None: nothing more will be told.
    pub(crate) async fn next(&mut self) -> Vec<(usize, PublishResult)> {
        if self.left == 0 {
            return Vec::new();
        }
        let some = self.replies.recv().await.unwrap_or_default();
        self.left -= some.len();
        some
    }
}

/// Hands events to the publishing tasks.
pub struct Publisher {
    tasks: Vec<mpsc::Sender<Vec<Publication>>>,
    next: AtomicUsize,
}

impl Publisher {
    /// Waits for the broker, sees to the topology and starts the tasks.
    ///
    /// # Errors
    /// A URL that can't be used, or a topology that differs: the message names the difference.
    pub async fn start(
        args: &AmqpArgs,
        url: &Arc<Rotating<Secret>>,
        metrics: &Metrics,
        readiness: &Readiness,
        tasks: &Tasks,
    ) -> anyhow::Result<Self> {
        let unroutable = Arc::new(Unroutable::default());
        let problems = ChannelProblems::new(readiness);
        let link = |n| ChannelTask {
            n,
            url: url.clone(),
            pool: None,
            args: args.clone(),
            problems: problems.clone(),
            metrics: metrics.clone(),
            state: None,
            open: None,
            unroutable: unroutable.clone(),
            sizes: Sizes::default(),
        };
        let mut first = link(0);
        let mut backoff = Backoff::for_server();
        while let Err(error) = first.connect().await {
            if let ConnectError::Topology(TopologyError::Refused(said)) = &error {
                anyhow::bail!(
                    "RabbitMQ refuses the topology: {said}. Delete or migrate what differs, or set \
                     AMQP_DECLARE_TOPOLOGY=false if it is meant to be so"
                );
            }
            tracing::warn!(class = error.class(), %error, "connecting to RabbitMQ failed, will retry");
            backoff.wait().await;
        }
        topology::warn_of_classic(args);
        let links = std::iter::once(first).chain((1..args.amqp_channels).map(link));
        let tasks = links
            .map(|link| {
                let (send, receive) = mpsc::channel(WAITING);
                tasks.spawn("publisher", link.publish(receive));
                send
            })
            .collect();
        Ok(Self {
            tasks,
            next: AtomicUsize::new(0),
        })
    }

    /// Hands over events of one partition, to be published together. A broker that is away is no error,
    /// it is waited for.
    pub(crate) async fn publish(
        &self,
        events: Vec<EventToPublish>,
        tenure: &Arc<Tenure>,
    ) -> Outcomes {
        let left = events.len();
        let (reply, replies) = mpsc::channel(left.max(1));
        let publications = events.into_iter().enumerate();
        let publications =
            publications.map(|(place, EventToPublish { event, span })| Publication {
                event,
                place,
                tenure: tenure.clone(),
                reply: reply.clone(),
                _span: span,
                suspected: false,
            });
        let publications = publications.collect();
        let task = self.next.fetch_add(1, Ordering::Relaxed) % self.tasks.len();
        // If it has ended, nothing is told of them.
        if left > 0 {
            drop(self.tasks[task].send(publications).await);
        }
        Outcomes { replies, left }
    }

    /// Returns once the event lies in its queue.
    ///
    /// # Errors
    /// [`NotPublished`]
    pub(crate) async fn publish_one(&self, event: Event, tenure: &Arc<Tenure>) -> PublishResult {
        let events = vec![EventToPublish::new(event)];
        let outcomes = self.publish(events, tenure).await.next().await;
        let outcome = outcomes.first().map(|(_, outcome)| *outcome);
        outcome.unwrap_or(Err(NotPublished::LeaseLost))
    }
}

#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error(transparent)]
    Pool(#[from] deadpool_lapin::PoolError),
    #[error(transparent)]
    Build(#[from] deadpool_lapin::BuildError),
    #[error(transparent)]
    Topology(#[from] TopologyError),
    #[error(transparent)]
    Lapin(#[from] lapin::Error),
    #[error("it took too long")]
    Timeout,
}

impl ConnectError {
    /// How it failed, in one word.
    fn class(&self) -> &'static str {
        match self {
            Self::Build(_) => "pool",
            Self::Topology(TopologyError::Refused(_)) => "topology",
            Self::Pool(_) | Self::Lapin(_) | Self::Topology(TopologyError::Broker(_)) => {
                "connection"
            }
            Self::Timeout => "timeout",
        }
    }
}

/// What keeps channels from publishing. RabbitMQ is ready while no channel has a problem: a connection over
/// which nothing goes looks sound for long though the broker hangs.
#[derive(Clone)]
struct ChannelProblems {
    readiness: Readiness,
    all: Arc<Mutex<BTreeMap<u16, String>>>,
}

impl ChannelProblems {
    fn new(readiness: &Readiness) -> Self {
        Self {
            readiness: readiness.clone(),
            all: Arc::default(),
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u16, String>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, channel: u16) -> bool {
        self.all().contains_key(&channel)
    }

    fn set(&self, channel: u16, problem: Option<String>) {
        let mut all = self.all();
        match problem {
            Some(problem) => drop(all.insert(channel, problem)),
            None => drop(all.remove(&channel)),
        }
        self.readiness.set("rabbitmq", all.values().next().cloned());
    }
}

/// One connection and its only channel.
struct ChannelTask {
    n: u16,
    url: Arc<Rotating<Secret>>,
    /// For the version of the URL that it was made of; what it connected ends with it.
    pool: Option<(u64, Pool, DropGuard)>,
    args: AmqpArgs,
    /// Of all links.
    problems: ChannelProblems,
    metrics: Metrics,
    state: Option<ChannelState>,
    open: Option<(Object, Channel)>,
    /// Of all links.
    unroutable: Arc<Unroutable>,
    sizes: Sizes,
}

/// What became of one message of a batch.
enum PublicationOutcome {
    Settled(Result<(), NotPublished>),
    Unknown,
}

/// How a round of publishing ended.
enum BatchRound {
    /// All are settled.
    Sound,
    /// The channel is a new one: the broker closed the other over the size of an event.
    OneTooLarge,
    /// The connection is of no use any more.
    Broken,
}

/// What became of a batch.
struct BatchOutcome {
    /// As many as messages, in their order.
    outcomes: Vec<PublicationOutcome>,
    /// The broker closed the channel over the size of one whose outcome isn't known.
    one_too_large: bool,
}

impl ChannelTask {
    fn pool(&mut self) -> Result<Pool, ConnectError> {
        let version = self.url.version();
        if let Some((made_for, pool, _)) = &self.pool
            && *made_for == version
        {
            return Ok(pool.clone());
        }
        let properties = || {
            lapin::ConnectionProperties::default().with_connection_name("whatsapp-worker".into())
        };
        let given_up = CancellationToken::new();
        let runtime = async_rs::Runtime::new(SocketRuntime::new(given_up.clone()));
        let url = url_to_publish(self.url.current().expose());
        let manager = Manager::new(url, properties, runtime);
        let pool = Pool::builder(manager).max_size(1).build()?;
        self.pool = Some((version, pool.clone(), given_up.drop_guard()));
        Ok(pool)
    }

    async fn connect(&mut self) -> Result<(), ConnectError> {
        let pool = self.pool()?;
        let opened = timeout(self.args.confirm_timeout, async {
            let connection = pool.get().await?;
            topology::ensure(&connection, &self.args).await?;
            let channel = confirming_channel(&connection).await?;
            Ok::<_, ConnectError>((connection, channel))
        })
        .await
        .unwrap_or(Err(ConnectError::Timeout));
        let problem = opened.as_ref().err().map(ToString::to_string);
        self.problems.set(self.n, problem);
        match opened {
            Ok(open) => {
                self.open = Some(open);
                self.become_state(ChannelState::Open);
                Ok(())
            }
            Err(error) => {
                // With what it has open: a connection that doesn't answer would be handed out again.
                self.pool = None;
                self.become_state(ChannelState::Closed);
                Err(error)
            }
        }
    }

    fn become_state(&mut self, state: ChannelState) {
        let before = self.state.replace(state);
        if before != Some(state) {
            self.metrics.channel(before, state);
        }
    }

    /// `None` if the confirms take too long or the connection is gone. The time for which the broker
    /// blocks it doesn't count: what was sent lies in front of the broker, and a new connection for each
    /// try would put the same there again and again.
    async fn while_served<T>(
        &mut self,
        connection: &Connection,
        confirmed: impl Future<Output = T>,
    ) -> Option<T> {
        let mut confirmed = std::pin::pin!(confirmed);
        let within = self.args.confirm_timeout;
        let mut give_up = Instant::now() + within;
        loop {
            let status = connection.status();
            if !status.connected() || Instant::now() >= give_up {
                return None;
            }
            if status.blocked() {
                self.problems.set(self.n, Some(BLOCKED.to_owned()));
                self.become_state(ChannelState::Blocked);
                give_up = Instant::now() + within;
                tokio::time::sleep(BLOCKED_POLL).await;
                continue;
            }
            tokio::select! {
                outcome = &mut confirmed => return Some(outcome),
                () = tokio::time::sleep(BLOCKED_POLL) => {}
            }
        }
    }

    /// Lets go of a connection that failed; the pool must not hand it out again.
    fn disconnect(&mut self) {
        self.become_state(ChannelState::Closed);
        if let Some((connection, _)) = self.open.take() {
            drop(Object::take(connection));
        }
        self.pool = None;
    }

    /// A new channel in place of one that the broker closed.
    async fn renew_channel(&mut self) {
        let renewed = match &self.open {
            Some((connection, _)) => {
                let opening = confirming_channel(connection);
                timeout(self.args.confirm_timeout, opening).await
            }
            None => return,
        };
        match (renewed, &mut self.open) {
            (Ok(Ok(new)), Some((_, channel))) => *channel = new,
            (Ok(Err(_)) | Err(_), _) | (_, None) => self.disconnect(),
        }
    }

    /// Waits for messages. One of the channels looks after the connection meanwhile, and each that has a
    /// problem, so that `/ready` is true where there is nothing to publish.
    async fn next_batch(
        &mut self,
        messages: &mut mpsc::Receiver<Vec<Publication>>,
        batch: &mut Vec<Publication>,
    ) -> bool {
        loop {
            match timeout(PROBE_INTERVAL, messages.recv()).await {
                Ok(Some(received)) => batch.extend(received),
                Ok(None) => return false,
                Err(_) => {
                    if self.n == 0 || self.problems.has(self.n) {
                        self.probe().await;
                    }
                    continue;
                }
            }
            while batch.len() < usize::from(self.args.publish_batch)
                && let Ok(more) = messages.try_recv()
            {
                batch.extend(more);
            }
            return true;
        }
    }

    async fn probe(&mut self) {
        let status = self
            .open
            .as_ref()
            .map(|(connection, _)| connection.status());
        match status {
            Some(status) if status.connected() => {
                let problem = status.blocked().then(|| BLOCKED.to_owned());
                self.problems.set(self.n, problem);
            }
            Some(_) | None => {
                self.disconnect();
                // Said by `/ready`.
                drop(self.connect().await);
            }
        }
    }

    /// Declares again what was deleted, where that is this worker's to do, on a channel of its own: other
    /// events go on over this connection. `false`: the connection is of no use any more.
    async fn mend_topology(&self) -> bool {
        let Some((connection, _)) = &self.open else {
            return false;
        };
        let mending = topology::ensure(connection, &self.args);
        let mended = timeout(self.args.confirm_timeout, mending).await;
        match mended {
            Ok(Ok(())) => true,
            Ok(Err(TopologyError::Refused(said))) => {
                tracing::warn!(channel = self.n, said, "the topology can't be mended");
                true
            }
            Ok(Err(TopologyError::Broker(error))) => {
                tracing::warn!(channel = self.n, %error, "looking at the topology failed");
                false
            }
            Err(_) => {
                tracing::warn!(channel = self.n, "looking at the topology took too long");
                false
            }
        }
    }

    async fn publish(mut self, mut messages: mpsc::Receiver<Vec<Publication>>) {
        let mut batch = Vec::new();
        let mut backoff = Backoff::for_server();
        while self.next_batch(&mut messages, &mut batch).await {
            while !batch.is_empty() {
                // Nobody waits for these any more, or the partition is another worker's.
                batch.retain(|message: &Publication| !message.reply.is_closed());
                let (mine, lost): (Vec<_>, Vec<_>) =
                    batch.drain(..).partition(|message| message.tenure.holds());
                let lost = lost.into_iter();
                settle(lost.map(|message| (message, Err(NotPublished::LeaseLost))));
                batch = mine;
                if self.open.is_none()
                    && let Err(error) = self.connect().await
                {
                    let class = error.class();
                    tracing::warn!(
                        channel = self.n,
                        class,
                        %error,
                        "connecting to RabbitMQ failed, will retry"
                    );
                    backoff.wait().await;
                    continue;
                }
                let sizes = batch.iter();
                let sizes = sizes.map(|it| (it.event.body.len(), it.suspected));
                let together = self.sizes.together(sizes);
                let most = usize::from(self.args.publish_batch);
                let later = batch.split_off(together.min(most));
                match self.publish_once(&mut batch).await {
                    BatchRound::Sound => {
                        backoff.reset();
                        self.problems.set(self.n, None);
                    }
                    BatchRound::OneTooLarge => {}
                    BatchRound::Broken if batch.is_empty() => backoff.reset(),
                    BatchRound::Broken => {
                        tracing::warn!(
                            channel = self.n,
                            again = batch.len(),
                            "confirms are missing"
                        );
                        backoff.wait().await;
                    }
                }
                batch.extend(later);
            }
        }
    }

    /// Publishes these once, side by side. What isn't settled by that stays in `batch`.
    async fn publish_once(&mut self, batch: &mut Vec<Publication>) -> BatchRound {
        let Some((connection, channel)) = self.open.take() else {
            return BatchRound::Broken;
        };
        let exchange = self.args.amqp_exchange.clone();
        let publishing = publish_batch(&channel, batch, &exchange);
        let published = self.while_served(&connection, publishing).await;
        let published = published.unwrap_or_else(|| unknown(batch));
        self.open = Some((connection, channel));
        let (mut sound, mut mend) = (true, false);
        let mut settled = Vec::with_capacity(batch.len());
        for (message, outcome) in std::mem::take(batch).into_iter().zip(published.outcomes) {
            match outcome {
                PublicationOutcome::Settled(result) => {
                    self.metrics.published(status(result));
                    if result == Err(NotPublished::Unroutable) {
                        let routing_key = &message.event.routing_key;
                        mend |= self.unroutable.came_back(routing_key);
                    }
                    self.sizes.note_taken(message.event.body.len());
                    settled.push((message, result));
                }
                PublicationOutcome::Unknown => {
                    sound = false;
                    batch.push(message);
                }
            }
        }
        settle(settled);
        if published.one_too_large {
            self.find_too_large(batch);
            self.renew_channel().await;
            return BatchRound::OneTooLarge;
        }
        for _ in &*batch {
            self.metrics.published(PublishStatus::Unknown);
        }
        if sound && mend {
            sound = self.mend_topology().await;
        }
        if !sound {
            self.disconnect();
            return BatchRound::Broken;
        }
        self.become_state(ChannelState::Open);
        BatchRound::Sound
    }

    /// The broker closed the channel over one of these: the only one, or each is a suspect.
    fn find_too_large(&mut self, unconfirmed: &mut Vec<Publication>) {
        if let [only] = unconfirmed.as_slice() {
            let size_bytes = only.event.body.len();
            tracing::warn!(
                channel = self.n,
                size_bytes,
                "an event is larger than RabbitMQ's max_message_size"
            );
            self.sizes.refused(size_bytes);
            self.metrics.published(PublishStatus::TooLarge);
            let too_large = unconfirmed.drain(..);
            settle(too_large.map(|message| (message, Err(NotPublished::TooLarge))));
            return;
        }
        for message in unconfirmed {
            message.suspected = true;
            self.metrics.published(PublishStatus::Unknown);
        }
    }
}

async fn confirming_channel(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    let options = ConfirmSelectOptions::default();
    channel.confirm_select(options).await?;
    Ok(channel)
}

fn status(outcome: Result<(), NotPublished>) -> PublishStatus {
    match outcome {
        Ok(()) => PublishStatus::Confirmed,
        Err(NotPublished::Unroutable) => PublishStatus::Unroutable,
        Err(NotPublished::Refused) => PublishStatus::Refused,
        Err(NotPublished::TooLarge) => PublishStatus::TooLarge,
        Err(NotPublished::LeaseLost) => PublishStatus::LeaseLost,
    }
}

fn unknown(batch: &[Publication]) -> BatchOutcome {
    BatchOutcome {
        outcomes: batch.iter().map(|_| PublicationOutcome::Unknown).collect(),
        one_too_large: false,
    }
}

/// Tells what became of messages: of those that were handed over together and end together at once,
/// so that what follows from them is done once too.
fn settle(messages: impl IntoIterator<Item = (Publication, PublishResult)>) {
    let mut messages = messages.into_iter().peekable();
    while let Some((first, outcome)) = messages.next() {
        let mut together = vec![(first.place, outcome)];
        let is_beside = |(other, _): &(Publication, _)| other.reply.same_channel(&first.reply);
        while let Some((message, outcome)) = messages.next_if(is_beside) {
            together.push((message.place, outcome));
        }
        // There is a place for each of them.
        if first.reply.try_send(together).is_err() {
            // The partition is gone: the entry is pending, and the next owner's.
            tracing::debug!(event = %first.event.id, "nobody waits for a confirm any more");
        }
    }
}

/// Publishes all, then awaits every confirm.
async fn publish_batch(channel: &Channel, batch: &[Publication], exchange: &str) -> BatchOutcome {
    let mut one_too_large = false;
    let mut failed = None;
    let mut returned = HashSet::new();
    let mut acknowledged = Vec::with_capacity(batch.len());
    for sent in send_all(channel, batch, exchange).await {
        let confirmed = match sent {
            Ok(confirm) => confirm.await,
            Err(error) => {
                one_too_large |= refuses_size(&error);
                failed.get_or_insert(error);
                acknowledged.push(None);
                continue;
            }
        };
        let (outcome, message) = match confirmed {
            Ok(Confirmation::Ack(message)) => (Some(true), message),
            Ok(Confirmation::Nack(message)) => (Some(false), message),
            // Not a success, even if it isn't an error to lapin.
            Ok(Confirmation::NotRequested) => (None, None),
            Err(error) => {
                one_too_large |= refuses_size(&error);
                (None, None)
            }
        };
        if let Some(id) = message.and_then(|m| m.delivery.properties.message_id().clone()) {
            returned.insert(id.to_string());
        }
        acknowledged.push(outcome);
    }
    if let Some(error) = failed.filter(|_| !one_too_large) {
        tracing::warn!(%error, "publishing failed");
    }
    let outcomes = batch.iter().zip(acknowledged);
    let outcomes = outcomes.map(|(message, acknowledged)| match acknowledged {
        _ if !returned.is_empty() && returned.contains(&message.event.id.to_string()) => {
            PublicationOutcome::Settled(Err(NotPublished::Unroutable))
        }
        Some(true) => PublicationOutcome::Settled(Ok(())),
        Some(false) => PublicationOutcome::Settled(Err(NotPublished::Refused)),
        None => PublicationOutcome::Unknown,
    });
    BatchOutcome {
        outcomes: outcomes.collect(),
        one_too_large,
    }
}

/// Sends all, in their order. lapin's thread tells when it has written a message: who waits for each before
/// the next wakes that thread, and RabbitMQ, for each.
async fn send_all(
    channel: &Channel,
    batch: &[Publication],
    exchange: &str,
) -> Vec<lapin::Result<PublisherConfirm>> {
    let mut all = Vec::with_capacity(batch.len());
    let mut left = batch;
    while !left.is_empty() {
        let mut bytes = 0;
        let fit = left.iter().take_while(|message| {
            let fits = bytes < SENT_AT_ONCE;
            bytes += message.event.body.len();
            fits
        });
        let (now, later) = left.split_at(fit.count());
        let sending = now.iter();
        let sending = sending.map(|message| send(channel, &message.event, exchange));
        all.extend(join_all(sending).await);
        left = later;
    }
    all
}

async fn send(channel: &Channel, event: &Event, exchange: &str) -> lapin::Result<PublisherConfirm> {
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    channel
        .basic_publish(
            short(exchange),
            short(&event.routing_key),
            options,
            &event.body,
            properties(event),
        )
        .await
}

pub(crate) fn properties(event: &Event) -> BasicProperties {
    let id = event.id.to_string();
    let mut headers = FieldTable::default();
    let mut header = |name: &str, value: &str| {
        headers.insert(short(name), AMQPValue::LongString(LongString::from(value)));
    };
    header("x-schema-version", SCHEMA_VERSION);
    header("x-deduplication-header", &id);
    for (name, value) in [
        ("x-tenant-id", &event.tenant_id),
        ("traceparent", &event.traceparent),
        ("x-replay-id", &event.replay_id),
    ] {
        if !value.is_empty() {
            header(name, value);
        }
    }
    if let Some(follows) = event.follows {
        header(topology::FOLLOWS, follows);
    }
    BasicProperties::default()
        .with_content_type(short("application/json"))
        .with_delivery_mode(PERSISTENT)
        .with_message_id(short(&id))
        .with_correlation_id(short(&event.correlation_id))
        .with_type(short(event.kind))
        .with_timestamp(event.occurred_at)
        .with_headers(headers)
}

/// AMQP's short strings have 255 bytes at most; lapin panics on a longer one. Ours are ids, and
/// routing keys built of short words.
pub(crate) fn short(text: &str) -> ShortString {
    ShortString::try_new(text.to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<AMQPUri, String> {
        let url = url(&text.parse().expect("not empty"))?;
        url.expose().parse()
    }

    #[test]
    fn who_only_publishes_asks_for_smaller_frames_unless_the_url_names_others() {
        for (text, frame_max) in [
            ("amqp://host", FRAME_MAX_TO_PUBLISH),
            ("amqps://user:word@host/v?heartbeat=5", FRAME_MAX_TO_PUBLISH),
            ("amqp://host?frame_max=65536", 65_536),
        ] {
            let url = url(&text.parse().expect("not empty")).expect("a URL");
            let to_publish: AMQPUri = url_to_publish(url.expose()).parse().expect("a URL");
            assert_eq!(to_publish.query.frame_max, Some(frame_max), "{text}");
        }
    }

    #[test]
    fn a_virtual_host_that_is_not_written_is_the_default_one() {
        for (text, vhost) in [
            ("amqp://host", "/"),
            ("amqp://host:5672/", "/"),
            ("amqp://host:5672/?heartbeat=5", "/"),
            ("amqps://user:pass@host/", "/"),
            ("amqp://user:pass@host:5672/%2f", "/"),
            ("amqp://user:p%40ss@host/my-vhost", "my-vhost"),
            ("amqp://host/a%2fb", "a/b"),
        ] {
            assert_eq!(read(text).expect(text).vhost, vhost, "{text}");
        }
    }

    #[test]
    fn a_login_that_is_not_encoded_is_refused_with_what_to_write() {
        for (text, encoded) in [
            ("amqp://user:plum#jam@host/", "%23"),
            ("amqp://user:12#jam@host/", "%23"),
            ("amqp://user:plum@jam@host/", "%40"),
            ("amqp://user:plum/jam@host/", "%2F"),
            ("amqp://user:plum?jam@host/", "%3F"),
        ] {
            let told = read(text).expect_err(text);
            assert!(told.contains(encoded), "{told}");
            assert!(!told.contains("plum") && !told.contains("jam"), "{told}");
        }
        assert!(read("http://host/").is_err() && read("host:5672").is_err());
    }
}
