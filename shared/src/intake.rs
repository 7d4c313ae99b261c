//! What comes in, and the one write that takes it: a script per account that is atomic in Redis. Both
//! programs use it: ingress as it comes in, the worker for what came through the spool. The same call
//! twice is safe: the second finds the marks.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::keys::Keys;
use crate::script::{Script, ScriptCall};
use crate::webhook::Identity;

/// How many of an identity's bytes mark it.
const MARK_BYTES: usize = 14;

/// One account's part of a body, ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub waba_id: String,
    pub body: Bytes,
    /// In item order; of a body without items, or an unreadable one, the body's own.
    pub identities: Vec<Identity>,
    /// The identity is the whole body's: there are no items to number.
    pub whole_body: bool,
    /// Why the body can't be read.
    pub unreadable: Option<String>,
    /// It counts as received this much later than its body: objects are named after their time and a
    /// message id, and an account that stands earlier in the body has one of the same id.
    pub apart: Duration,
}

/// What all deliveries of a request share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub correlation_id: String,
    pub signature: String,
    pub traceparent: String,
    pub received_at: SystemTime,
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntakeOutcome {
    Fresh {
        items: usize,
        /// `None` where nothing is limited.
        window: Option<RateWindow>,
    },
    Duplicate,
    /// Not in the stream: Redis can't take it now.
    Spooled,
}

/// An account's last minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateWindow {
    /// Webhooks per minute.
    pub limit: u32,
    pub remaining: u32,
    /// Until the oldest webhook leaves the minute, and there is room for one more.
    pub resets_in: Duration,
    /// Beyond the limit.
    pub over: bool,
}

/// How a delivery is taken.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// How long its items are remembered.
    pub dedup_ttl: Duration,
    /// Webhooks per minute of its account; 0: no limit, whatever its tenant's own is.
    pub per_minute: u32,
    /// Refuse what is beyond; else only tell.
    pub refuse: bool,
    /// Remember its items for an hour only.
    pub short_of_memory: bool,
}

/// What the script answers.
pub type Reply = (String, usize, u32, u64, u32);

/// The script.
pub struct IntakeScript {
    script: Script,
    keys: Keys,
}

impl IntakeScript {
    pub fn new(keys: Keys) -> Self {
        Self {
            script: Script::new(include_str!("intake.lua")),
            keys,
        }
    }

    /// The call that stores what is fresh of a delivery in its account's partition. [`outcome`] reads
    /// its [`Reply`].
    pub fn call(
        &self,
        partition: u16,
        delivery: &Delivery,
        envelope: &Envelope,
        terms: Terms,
    ) -> ScriptCall<'_> {
        let waba_id = &delivery.waba_id;
        let call = self
            .script
            .call([
                self.keys.stream(partition),
                self.keys.seen(partition),
                self.keys.rate(partition, waba_id),
            ])
            .arg(terms.dedup_ttl.as_secs().max(1))
            .arg(terms.per_minute)
            .arg(u8::from(terms.refuse))
            .arg(u8::from(terms.short_of_memory))
            .arg(waba_id)
            .arg(&envelope.correlation_id)
            .arg(envelope.received_at_ms())
            .arg(&delivery.body[..])
            .arg(&envelope.signature)
            .arg(&envelope.traceparent)
            .arg(delivery.unreadable.as_deref().unwrap_or_default())
            .arg(u8::from(delivery.whole_body))
            .arg(self.keys.partitions());
        delivery
            .identities
            .iter()
            .fold(call, |call, identity| call.arg(&identity.0[..MARK_BYTES]))
    }
}

/// What became of a delivery; `Err` if it is refused beyond its account's limit.
///
/// # Errors
/// The account's last minute.
pub fn outcome(
    (outcome, items, remaining, resets_in_ms, limit): Reply,
) -> Result<IntakeOutcome, RateWindow> {
    let window = RateWindow {
        limit,
        remaining,
        resets_in: Duration::from_millis(resets_in_ms),
        over: matches!(outcome.as_str(), "over" | "limited"),
    };
    match outcome.as_str() {
        "limited" => Err(window),
        "duplicate" => Ok(IntakeOutcome::Duplicate),
        _ => Ok(IntakeOutcome::Fresh {
            items,
            window: Some(window).filter(|_| limit > 0),
        }),
    }
}

impl Envelope {
    /// That of one delivery of the request.
    pub fn of(&self, delivery: &Delivery) -> Self {
        Self {
            received_at: self.received_at + delivery.apart,
            ..self.clone()
        }
    }

    /// Ms since 1970.
    pub fn received_at_ms(&self) -> u64 {
        let since = self.received_at.duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as u64)
    }
}
