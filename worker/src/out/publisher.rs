//! Events into RabbitMQ. Some tasks publish, each on its own [`channel`]; a batch is written, and its
//! confirms are awaited, in [`batch`].

mod batch;
pub mod broker_url;
mod channel;
mod sizes;
mod socket;
mod unroutable;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shared::admin::Readiness;
use shared::secrets::{Rotating, Secret};
use shared::tasks::Tasks;
use shared::trace;
use tokio::sync::mpsc;
use tracing::Span;

pub(crate) use self::batch::{properties, short};
use self::channel::{ChannelProblems, ChannelTask, ConnectError};
pub(crate) use self::sizes::refuses_size;
use self::unroutable::Unroutable;
use crate::item::event::Event;
use crate::metrics::Metrics;
use crate::out::topology::{self, AmqpArgs, TopologyError};
use crate::read::leases::Tenure;
use crate::retry::Backoff;

/// How often events may be handed over to a channel that has its hands full, before one waits.
const WAITING: usize = 16;

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
    #[error("Redis doesn't answer")]
    RedisAway,
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
        let channel = |n| ChannelTask::new(n, (url, args), &problems, &unroutable, metrics);
        let mut first = channel(0);
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
        let channels = std::iter::once(first).chain((1..args.amqp_channels).map(channel));
        let tasks = channels
            .map(|channel| {
                let (send, receive) = mpsc::channel(WAITING);
                tasks.spawn("publisher", channel.run(receive));
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
