//! What comes in, and the one write that takes it: a script that is atomic in Redis, for one or many
//! deliveries of a partition. Both programs use it: ingress as it comes in, the worker for what came through
//! the spool. The same call twice is safe: the second finds the marks.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use redis::aio::ConnectionLike;
use redis::{ErrorKind, RedisError, RedisResult};

use crate::entry::EntryHeader;
use crate::keys::Keys;
use crate::script::Script;
use crate::webhook::{Identity, NO_WABA};

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

impl Delivery {
    /// Whether it is a test from Meta's dashboard: items of no account.
    pub fn is_test(&self) -> bool {
        self.waba_id == NO_WABA && !self.whole_body
    }
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

/// How deliveries are taken.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// How long their items are remembered.
    pub dedup_ttl: Duration,
    /// Webhooks per minute of an account; 0: no limit, whatever a tenant's own is.
    pub per_minute: u32,
    /// Refuse what is beyond; else only tell.
    pub refuse: bool,
    /// Remember their items for an hour only.
    pub short_of_memory: bool,
}

/// A delivery as the script takes it.
#[derive(Debug)]
pub struct IntakeRow {
    waba_id: String,
    header: Vec<u8>,
    body: Bytes,
    items: usize,
    /// Bytes that mark an item, by bucket and each once.
    identities: Vec<u8>,
    /// Numbers of their items, two bytes each.
    numbers: Vec<u8>,
}

impl IntakeRow {
    pub fn new(delivery: &Delivery, envelope: &Envelope) -> Self {
        let items = match delivery.whole_body {
            true => 0,
            false => delivery.identities.len(),
        };
        let marked = |(number, identity): (usize, &Identity)| {
            let mut mark = [0; MARK_BYTES];
            mark.copy_from_slice(&identity.0[..MARK_BYTES]);
            // A body has fewer items than two bytes can count.
            (mark, number as u16)
        };
        let mut marks: Vec<_> = delivery.identities.iter().enumerate().map(marked).collect();
        // Those of one hash stand side by side, and of those that repeat each other the first one stays.
        marks.sort_unstable();
        marks.dedup_by_key(|(mark, _)| *mark);
        Self {
            waba_id: delivery.waba_id.clone(),
            header: EntryHeader::of_delivery(delivery, envelope, items).pack(),
            body: delivery.body.clone(),
            items,
            identities: marks.iter().flat_map(|(mark, _)| *mark).collect(),
            numbers: marks.iter().flat_map(|(_, n)| n.to_be_bytes()).collect(),
        }
    }

    /// What it adds to a call.
    pub fn size_bytes(&self) -> usize {
        self.header.len() + self.body.len() + self.identities.len() + self.numbers.len()
    }
}

/// What became of a delivery; `Err` if it is refused beyond its account's limit.
pub type RowOutcome = Result<IntakeOutcome, RateWindow>;

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

    /// Stores what is fresh of deliveries of a partition, and tells what became of each.
    ///
    /// # Errors
    /// What Redis says. Each of them may be stored or not then.
    pub async fn run(
        &self,
        connection: &mut impl ConnectionLike,
        partition: u16,
        rows: &[&IntakeRow],
        terms: Terms,
    ) -> RedisResult<Vec<RowOutcome>> {
        let mut accounts: Vec<&str> = Vec::new();
        let mut numbers = Vec::with_capacity(rows.len());
        for row in rows {
            let known = accounts.iter().position(|it| *it == row.waba_id);
            numbers.push(1 + known.unwrap_or(accounts.len()));
            if known.is_none() {
                accounts.push(&row.waba_id);
            }
        }
        let rates = accounts.iter().map(|id| self.keys.rate(partition, id));
        let keys = [self.keys.stream(partition), self.keys.seen(partition)];
        let keys: Vec<String> = keys.into_iter().chain(rates).collect();
        let mut call = self
            .script
            .call(keys)
            .arg(terms.dedup_ttl.as_secs().max(1))
            .arg(terms.per_minute)
            .arg(u8::from(terms.refuse))
            .arg(u8::from(terms.short_of_memory))
            .arg(self.keys.partitions());
        for waba_id in &accounts {
            // What names no account has no limit in common either.
            call = match *waba_id {
                NO_WABA => call.arg(""),
                waba_id => call.arg(Keys::own_limit(waba_id)),
            };
        }
        for (row, number) in rows.iter().zip(numbers) {
            call = call
                .arg(number)
                .arg(&row.header[..])
                .arg(&row.body[..])
                .arg(row.items)
                .arg(&row.identities[..])
                .arg(&row.numbers[..]);
        }
        let reply: Vec<u64> = call.run(connection).await?;
        let (outcomes, rest) = reply.as_chunks::<5>();
        if outcomes.len() != rows.len() || !rest.is_empty() {
            let what = "not an answer for each webhook";
            return Err(RedisError::from((ErrorKind::UnexpectedReturnType, what)));
        }
        Ok(outcomes.iter().map(row_outcome).collect())
    }
}

/// Reads the script's five numbers of a delivery.
fn row_outcome([outcome, items, remaining, resets_in_ms, limit]: &[u64; 5]) -> RowOutcome {
    let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let window = RateWindow {
        limit: number(*limit),
        remaining: number(*remaining),
        resets_in: Duration::from_millis(*resets_in_ms),
        over: *outcome > 1,
    };
    match outcome {
        0 => Ok(IntakeOutcome::Duplicate),
        3 => Err(window),
        _ => Ok(IntakeOutcome::Fresh {
            items: *items as usize,
            window: Some(window).filter(|_| *limit > 0),
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
