//! A task that is the only user of its connection and channel. It publishes what was handed over together
//! and what waits beside it as one batch.
//!
//! A broker that is away is waited for here, for ever. What can't be known (a time-out, a broken channel)
//! is published again with the same `message_id`. A channel that the broker closed over the size of one
//! event tells nothing of the others: [`Sizes`] finds the one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_lapin::{Manager, Object, Pool};
use lapin::options::ConfirmSelectOptions;
use lapin::{Channel, Connection};
use shared::admin::Readiness;
use shared::secrets::{Rotating, Secret};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::batch::{PublicationOutcome, publish_batch, unknown};
use super::sizes::Sizes;
use super::socket::SocketRuntime;
use super::unroutable::Unroutable;
use super::{NotPublished, Publication, PublishResult, broker_url};
use crate::metrics::{ChannelState, Metrics, PublishStatus};
use crate::out::topology::{self, AmqpArgs, TopologyError};
use crate::retry::Backoff;

/// A blocked connection is looked at again this often.
const BLOCKED_POLL: Duration = Duration::from_millis(100);
const BLOCKED: &str = "the broker blocks publishers";
/// How often the connection is looked at while there is nothing to publish.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
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
    pub(super) fn class(&self) -> &'static str {
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
pub(super) struct ChannelProblems {
    readiness: Readiness,
    all: Arc<Mutex<BTreeMap<u16, String>>>,
}

impl ChannelProblems {
    pub(super) fn new(readiness: &Readiness) -> Self {
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
pub(super) struct ChannelTask {
    n: u16,
    url: Arc<Rotating<Secret>>,
    /// For the version of the URL that it was made of; what it connected ends with it.
    pool: Option<(u64, Pool, DropGuard)>,
    args: AmqpArgs,
    /// Of all channels.
    problems: ChannelProblems,
    metrics: Metrics,
    state: Option<ChannelState>,
    open: Option<(Object, Channel)>,
    /// Of all channels.
    unroutable: Arc<Unroutable>,
    sizes: Sizes,
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

impl ChannelTask {
    /// Not connected yet. `problems` and `unroutable` are those of all channels.
    pub(super) fn new(
        n: u16,
        (url, args): (&Arc<Rotating<Secret>>, &AmqpArgs),
        problems: &ChannelProblems,
        unroutable: &Arc<Unroutable>,
        metrics: &Metrics,
    ) -> Self {
        Self {
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
        }
    }

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
        let url = broker_url::to_publish(self.url.current().expose());
        let manager = Manager::new(url, properties, runtime);
        let pool = Pool::builder(manager).max_size(1).build()?;
        self.pool = Some((version, pool.clone(), given_up.drop_guard()));
        Ok(pool)
    }

    pub(super) async fn connect(&mut self) -> Result<(), ConnectError> {
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

    /// Runs until no more is handed over.
    pub(super) async fn run(mut self, mut messages: mpsc::Receiver<Vec<Publication>>) {
        let mut batch = Vec::new();
        let mut backoff = Backoff::for_server();
        while self.next_batch(&mut messages, &mut batch).await {
            while !batch.is_empty() {
                self.hold_back(&mut batch);
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

    /// Lets go of those that must not be published now, and of those for which nobody waits any more:
    /// RabbitMQ may have been away since they were handed over.
    fn hold_back(&self, batch: &mut Vec<Publication>) {
        let mut held_back = Vec::new();
        for message in std::mem::take(batch) {
            let why = match &message.tenure {
                _ if message.reply.is_closed() => continue,
                tenure if !tenure.holds() => Err(NotPublished::LeaseLost),
                tenure if tenure.redis_failed() => Err(NotPublished::RedisAway),
                _ => {
                    batch.push(message);
                    continue;
                }
            };
            self.metrics.published(status(why));
            held_back.push((message, why));
        }
        settle(held_back);
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
        Err(NotPublished::RedisAway) => PublishStatus::RedisAway,
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
