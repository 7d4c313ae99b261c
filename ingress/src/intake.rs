//! The one write of a webhook: a script per account that is atomic in Redis, and the retries around
//! it. The same call twice is safe: the second finds the marks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use redis::RedisError;
use shared::keys::Keys;
use shared::redis::{Connection, Trouble};
use shared::script::{Call, Script};
use shared::webhook::{Identity, NO_WABA};

use crate::queue::Queue;

/// One account's part of a body, ready to be stored.
#[derive(Debug)]
pub struct Delivery {
    pub waba_id: String,
    pub body: Bytes,
    /// In item order; of a body without items, or an unreadable one, the body's own.
    pub identities: Vec<Identity>,
    /// The identity is the whole body's: there are no items to number.
    pub whole_body: bool,
    /// Why the body can't be read.
    pub unreadable: Option<String>,
}

/// What all deliveries of a request share.
#[derive(Debug, Clone)]
pub struct Envelope {
    pub correlation_id: String,
    pub signature: String,
    pub traceparent: String,
    pub received_at: SystemTime,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    Fresh {
        items: usize,
        /// `None` where nothing is limited.
        window: Option<Window>,
    },
    Duplicate,
}

/// An account's last minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Webhooks per minute.
    pub limit: u32,
    pub remaining: u32,
    /// Until the oldest webhook leaves the minute, and there is room for one more.
    pub resets_in: Duration,
    /// Beyond the limit.
    pub over: bool,
}

/// Why a delivery was not stored.
#[derive(Debug, thiserror::Error)]
pub enum NotStored {
    #[error("Redis can't take it: {0}")]
    Redis(RedisError),
    #[error("too many webhooks wait to be stored")]
    Busy,
    #[error("the business account has sent its {} webhooks of this minute", .0.limit)]
    Limited(Window),
}

/// Webhooks per minute of an account; a tenant's own limit takes its place.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// 0: no limit.
    pub per_minute: u32,
    /// Refuse what is beyond; else only tell.
    pub refuse: bool,
}

/// Writes deliveries into the stream.
pub struct Intake {
    connection: Connection,
    script: Script,
    keys: Keys,
    dedup_ttl: Duration,
    limit: Limit,
    patience: Duration,
    short_of_memory: AtomicBool,
    /// By partition.
    queues: Vec<Queue>,
}

impl Intake {
    pub fn new(
        connection: Connection,
        keys: Keys,
        dedup_ttl: Duration,
        limit: Limit,
        patience: Duration,
    ) -> Self {
        Self {
            connection,
            script: Script::new(include_str!("intake.lua")),
            queues: (0..keys.partitions()).map(|_| Queue::default()).collect(),
            keys,
            dedup_ttl,
            limit,
            patience,
            short_of_memory: AtomicBool::new(false),
        }
    }

    /// While Redis is short of memory, items are remembered for an hour only.
    pub fn set_short_of_memory(&self, short: bool) {
        self.short_of_memory.store(short, Ordering::Relaxed);
    }

    /// Writes what is fresh of a delivery, trying again for the patience where that may help.
    ///
    /// # Errors
    /// [`NotStored`]. After one of Redis it may be stored or not; a retry of the sender settles it.
    pub async fn store(
        &self,
        delivery: &Delivery,
        envelope: &Envelope,
    ) -> Result<Stored, NotStored> {
        let partition = self.keys.partition_of(&delivery.waba_id);
        let _place = self.queues[usize::from(partition)]
            .join()
            .ok_or(NotStored::Busy)?;
        let give_up = tokio::time::Instant::now() + self.patience;
        let mut pause = Duration::from_millis(20);
        // What names no account has no limit in common either.
        let limit = match delivery.waba_id.as_str() {
            NO_WABA => 0,
            _ => self.limit.per_minute,
        };
        let call = self.call(partition, delivery, envelope, limit);
        loop {
            let error = match call.run(&mut self.connection.clone()).await {
                Ok(reply) => return outcome(reply),
                Err(error) => error,
            };
            let next = tokio::time::Instant::now() + pause;
            if next >= give_up || !Trouble::of(&error).passes() {
                return Err(NotStored::Redis(error));
            }
            tokio::time::sleep_until(next).await;
            pause *= 2;
        }
    }

    fn call(
        &self,
        partition: u16,
        delivery: &Delivery,
        envelope: &Envelope,
        limit: u32,
    ) -> Call<'_> {
        let waba_id = &delivery.waba_id;
        let call = self
            .script
            .call([
                self.keys.stream(partition),
                self.keys.seen(partition),
                self.keys.rate(partition, waba_id),
            ])
            .arg(self.dedup_ttl.as_secs().max(1))
            .arg(limit)
            .arg(u8::from(self.limit.refuse))
            .arg(u8::from(self.short_of_memory.load(Ordering::Relaxed)))
            .arg(waba_id)
            .arg(&envelope.correlation_id)
            .arg(ms_since_epoch(envelope.received_at))
            .arg(&delivery.body[..])
            .arg(&envelope.signature)
            .arg(&envelope.traceparent)
            .arg(delivery.unreadable.as_deref().unwrap_or_default())
            .arg(u8::from(delivery.whole_body));
        delivery
            .identities
            .iter()
            .fold(call, |call, identity| call.arg(&identity.0[..14]))
    }
}

fn outcome(
    (outcome, items, remaining, resets_in_ms, limit): (String, usize, u32, u64, u32),
) -> Result<Stored, NotStored> {
    let window = Window {
        limit,
        remaining,
        resets_in: Duration::from_millis(resets_in_ms),
        over: matches!(outcome.as_str(), "over" | "limited"),
    };
    match outcome.as_str() {
        "limited" => Err(NotStored::Limited(window)),
        "duplicate" => Ok(Stored::Duplicate),
        _ => Ok(Stored::Fresh {
            items,
            window: Some(window).filter(|_| limit > 0),
        }),
    }
}

fn ms_since_epoch(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}
