//! The one write of a webhook: a script per account that is atomic in Redis, and the retries around
//! it. The same call twice is safe: the second finds the marks.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use redis::aio::ConnectionManager;
use redis::{RedisError, Script};
use shared::keys::Keys;
use shared::webhook::Identity;

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
    Fresh { items: usize },
    Duplicate,
}

/// Redis could not take it within the patience.
#[derive(Debug, thiserror::Error)]
#[error("Redis can't take it: {0}")]
pub struct Unavailable(RedisError);

/// Writes deliveries into the stream.
pub struct Intake {
    connection: ConnectionManager,
    script: Script,
    keys: Keys,
    dedup_ttl: Duration,
    patience: Duration,
}

impl Intake {
    pub fn new(
        connection: ConnectionManager,
        keys: Keys,
        dedup_ttl: Duration,
        patience: Duration,
    ) -> Self {
        Self {
            connection,
            script: Script::new(include_str!("intake.lua")),
            keys,
            dedup_ttl,
            patience,
        }
    }

    /// Stores one delivery, trying again until the patience is over.
    ///
    /// # Errors
    /// [`Unavailable`]: the outcome is unknown, and the sender must send it again.
    pub async fn store(
        &self,
        delivery: &Delivery,
        envelope: &Envelope,
    ) -> Result<Stored, Unavailable> {
        let give_up = tokio::time::Instant::now() + self.patience;
        let mut pause = Duration::from_millis(20);
        loop {
            match self.call(delivery, envelope).await {
                Ok(stored) => return Ok(stored),
                Err(error) => {
                    let next = tokio::time::Instant::now() + pause;
                    if next >= give_up {
                        return Err(Unavailable(error));
                    }
                    tokio::time::sleep_until(next).await;
                    pause *= 2;
                }
            }
        }
    }

    async fn call(&self, delivery: &Delivery, envelope: &Envelope) -> redis::RedisResult<Stored> {
        let partition = self.keys.partition_of(&delivery.waba_id);
        let mut call = self.script.key(self.keys.stream(partition));
        call.key(self.keys.seen(partition))
            .key(self.keys.rate(partition))
            .arg(self.dedup_ttl.as_secs().max(1))
            .arg(0)
            .arg(&delivery.waba_id)
            .arg(&envelope.correlation_id)
            .arg(ms_since_epoch(envelope.received_at))
            .arg(&delivery.body[..])
            .arg(&envelope.signature)
            .arg(&envelope.traceparent)
            .arg(delivery.unreadable.as_deref().unwrap_or_default())
            .arg(u8::from(delivery.whole_body));
        for identity in &delivery.identities {
            call.arg(&identity.0[..14]);
        }
        let (outcome, items): (String, usize) =
            call.invoke_async(&mut self.connection.clone()).await?;
        Ok(match outcome.as_str() {
            "stored" => Stored::Fresh { items },
            _ => Stored::Duplicate,
        })
    }
}

fn ms_since_epoch(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}
