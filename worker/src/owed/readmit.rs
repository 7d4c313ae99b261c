//! The one way back into the stream, past the dedup: of what was set aside for want of a tenant, once
//! there is one, and of what `worker replay` chooses.
//!
//! The object stays where it is while it is an entry again; the worker that acknowledges the entry owes
//! its move in the same step (see [`crate::read::owed::OwedSettle`]). Meanwhile `returning` in Redis has its key,
//! so that nobody puts it back a second time. When the object has moved, the key leaves `returning`: whoever
//! has read the object before is kept from putting it back by [`Readmit::check`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};
use redis::{FromRedisValue, RedisError, RedisResult, Value};
use shared::entry::{self, EntryFields, EntryHeader, format_numbers};
use shared::keys::Keys;
use shared::redis::Connection;
use shared::script::Script;
use shared::webhook::{self, NO_WABA};
use strum::EnumString;
use tokio::time::sleep;
use uuid::Uuid;

use crate::out::error::Reason;
use crate::out::store::{self, ReadError, Store, StoredObject};
use crate::read::owed::settled_field;

/// Objects in work side by side; each may have some MB.
const AT_ONCE: usize = 8;
/// Entries of a partition that nobody has read yet, beyond which it is waited for: live webhooks queue
/// behind them.
pub const MOST_UNREAD: usize = 64;
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// A partition that stays busy for so many pauses is left for the next time.
const MOST_PAUSES: usize = 200;
/// A list of items this long may have been cut off in the object's metadata: then all go out.
const LONGEST_LIST: usize = 480;

/// Puts entries back.
#[derive(Clone)]
pub struct Readmit {
    store: Arc<Store>,
    connection: Connection,
    keys: Keys,
    script: Arc<Script>,
}

/// An object as an entry.
#[derive(Debug)]
pub struct Returning {
    source: String,
    waba_id: String,
    fields: Fields,
    attempts: usize,
    /// What the object said of itself: another one if it was set aside again.
    described: BTreeMap<String, String>,
}

/// An object that still was what had been read of it, when as much had been settled.
#[derive(Debug)]
pub struct CheckedObject<'a> {
    returning: &'a Returning,
    /// What [`Keys::settled`] counts in the object's field.
    settled: u64,
}

/// Why an object can't be put back now.
#[derive(Debug, thiserror::Error)]
pub enum PutBackError {
    #[error("Redis: {0}")]
    Redis(#[from] RedisError),
    #[error(transparent)]
    Store(ReadError),
}

/// Why an object can't be an entry again. It stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum NotReturnable {
    #[error(transparent)]
    Unread(#[from] ReadError),
    #[error("its body can't be read: {0}")]
    Unreadable(#[from] webhook::UnreadableBody),
    #[error("its body is of several business accounts")]
    SeveralAccounts,
    #[error("there is nothing in it to publish")]
    Nothing,
    #[error("it says not when it came")]
    NoTime,
    #[error("the entry that it was can't be restored")]
    NoEntry,
}

/// What became of putting an object back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum PutBack {
    Put,
    /// It is an entry already, or about to be moved.
    UnderWay,
    /// This replay has put it back before.
    Before,
    /// The partition's workers are behind.
    Busy,
    /// Something was settled meanwhile, perhaps this object: it must be looked at again.
    Unsure,
    /// It isn't what was read any more: settled since, and perhaps set aside again.
    #[strum(disabled)]
    Changed,
    /// A later replay has begun.
    Over,
}

impl FromRedisValue for PutBack {
    fn from_redis_value(value: Value) -> Result<Self, redis::ParsingError> {
        let name: String = redis::from_redis_value(value)?;
        name.parse()
            .map_err(|_| redis::ParsingError::from("an answer of another version's script"))
    }
}

impl Returning {
    /// Key of the object.
    pub fn source(&self) -> &str {
        &self.source
    }
}

impl Readmit {
    pub fn new(store: Arc<Store>, connection: Connection, keys: Keys) -> Self {
        Self {
            store,
            connection,
            keys,
            script: Arc::new(Script::new(include_str!("../lua/put_back.lua"))),
        }
    }

    /// Puts back what an account has for want of a tenant; how many objects that were, with those that
    /// are on their way already.
    ///
    /// # Errors
    /// The store is away, or a Redis command failed.
    pub async fn all_of(&self, waba_id: &str) -> anyhow::Result<usize> {
        let failed = format!("{}{}", store::FAILED, store::folder(None, waba_id));
        let keys = self.store.keys_below(&failed, None);
        keys.map(|key| key.context("the failed store can't be listed"))
            .map_ok(async |key| self.one_without_tenant(&key).await)
            .try_buffer_unordered(AT_ONCE)
            .try_fold(0, async |count, found| Ok(count + usize::from(found)))
            .await
    }

    async fn one_without_tenant(&self, key: &str) -> anyhow::Result<bool> {
        match self.store.described(key).await {
            Ok(described) if waits_for_a_tenant(&described) => {}
            // Settled since it was listed.
            Ok(_) | Err(ReadError::Gone) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let kept = self.store.read(key).await.map_err(NotReturnable::from);
        match kept.and_then(|kept| returning(key, &kept)) {
            Ok(returning) => {
                for _ in 0..MOST_PAUSES {
                    match self.put_back(&returning, "").await? {
                        PutBack::Busy | PutBack::Unsure => sleep(BUSY_PAUSE).await,
                        PutBack::Put
                        | PutBack::UnderWay
                        | PutBack::Before
                        | PutBack::Changed
                        | PutBack::Over => break,
                    }
                }
                Ok(true)
            }
            Err(NotReturnable::Unread(ReadError::Gone)) => Ok(false),
            // The store is away; else it is this one object, and those behind it go on.
            Err(NotReturnable::Unread(error @ ReadError::Store(_)))
                if self.store.probe().await.is_err() =>
            {
                Err(error.into())
            }
            Err(error) => {
                tracing::error!(%error, "an object in the failed store can't be put back");
                Ok(false)
            }
        }
    }

    /// Makes an object an entry again, once. `replay_id` is empty for what comes back by itself.
    ///
    /// # Errors
    /// See [`PutBackError`]. It may have been done.
    pub async fn put_back(
        &self,
        returning: &Returning,
        replay_id: &str,
    ) -> Result<PutBack, PutBackError> {
        match self.check(returning).await? {
            Some(checked) => Ok(self.put_checked(&checked, replay_id).await?),
            None => Ok(PutBack::Changed),
        }
    }

    /// Whether an object still is what was read; `None` if not. What was settled before this is seen in the
    /// store, where it is moved, removed or written anew first; what is settled after it, by
    /// [`Readmit::put_checked`].
    ///
    /// # Errors
    /// See [`PutBackError`].
    pub async fn check<'a>(
        &self,
        returning: &'a Returning,
    ) -> Result<Option<CheckedObject<'a>>, PutBackError> {
        let partition = self.keys.partition_of(&returning.waba_id);
        let mut count = redis::cmd("HGET");
        count.arg(self.keys.settled(partition));
        count.arg(settled_field(&returning.source));
        let settled: Option<u64> = count.query_async(&mut self.connection.clone()).await?;
        match self.store.described(&returning.source).await {
            Ok(described) if described == returning.described => Ok(Some(CheckedObject {
                returning,
                settled: settled.unwrap_or(0),
            })),
            Ok(_) | Err(ReadError::Gone) => Ok(None),
            Err(error) => Err(PutBackError::Store(error)),
        }
    }

    /// Makes an object an entry again, once, unless it may have been settled since it was checked.
    ///
    /// # Errors
    /// A Redis command failed. It may have been done.
    pub async fn put_checked(
        &self,
        checked: &CheckedObject<'_>,
        replay_id: &str,
    ) -> RedisResult<PutBack> {
        let returning = checked.returning;
        let partition = self.keys.partition_of(&returning.waba_id);
        let call = self.script.call([
            self.keys.stream(partition),
            self.keys.returning(partition),
            self.keys.replayed(partition),
            self.keys.settled(partition),
            self.keys.owed(partition),
        ]);
        let call = call.arg(replay_id).arg(&returning.source).arg(MOST_UNREAD);
        let call = call.arg(settled_field(&returning.source));
        let call = call.arg(checked.settled);
        let call = returning
            .fields
            .iter()
            .fold(call, |call, (name, value)| call.arg(name).arg(&**value));
        let call = call.arg("o").arg(&returning.source);
        let call = call.arg("x").arg(replay_id);
        let call = call.arg("a").arg(returning.attempts);
        call.run(&mut self.connection.clone()).await
    }
}

fn waits_for_a_tenant(described: &BTreeMap<String, String>) -> bool {
    let reason: Option<Reason> = described.get("reason").and_then(|it| it.parse().ok());
    reason.is_some_and(Reason::ends_with_a_tenant)
}

/// An object of the failed store or the archive as an entry.
///
/// # Errors
/// See [`NotReturnable`].
pub fn returning(key: &str, kept: &StoredObject) -> Result<Returning, NotReturnable> {
    let attempts = kept.of("attempts").parse().unwrap_or(0);
    let source = key.to_owned();
    let described = kept.described.clone();
    if kept.of("reason") == Reason::Undecodable.name() {
        let (waba_id, fields) = undumped(&kept.body).ok_or(NotReturnable::NoEntry)?;
        return Ok(Returning {
            source,
            waba_id,
            fields,
            attempts,
            described,
        });
    }
    let (waba_id, count) = account(&kept.body)?;
    if count == 0 {
        return Err(NotReturnable::Nothing);
    }
    let items = kept.of("items");
    let named = key.starts_with(store::FAILED) && !items.is_empty() && items.len() < LONGEST_LIST;
    let items = if named {
        items.to_owned()
    } else {
        format_numbers(0..count)
    };
    let received_at = received_at(key, kept).ok_or(NotReturnable::NoTime)?;
    let correlation_id = match kept.of("correlation-id") {
        "" => Uuid::new_v4().to_string(),
        known => known.to_owned(),
    };
    let header = EntryHeader {
        waba_id: waba_id.clone(),
        correlation_id,
        received_at_ms: received_at,
        signature: kept.of("signature").to_owned(),
        traceparent: kept.of("traceparent").to_owned(),
        unreadable: None,
        items: count,
    };
    let fields = [
        ("h", Bytes::from(header.pack())),
        ("b", kept.body.clone()),
        ("n", items.into()),
    ];
    Ok(Returning {
        source,
        fields: fields.map(|(name, value)| (name.to_owned(), value)).into(),
        waba_id,
        attempts,
        described,
    })
}

/// When ingress took an object, in ms since 1970: it says so itself, and in its name.
fn received_at(key: &str, kept: &StoredObject) -> Option<i64> {
    kept.of("received-at")
        .parse()
        .ok()
        .or_else(|| received_at_of(key))
}

/// The time in an object's key, in ms since 1970.
pub fn received_at_of(key: &str) -> Option<i64> {
    let (_, name) = key.rsplit_once('/')?;
    name.split_once('-')?.0.parse().ok()
}

/// The one account that a body is of, and how many items it has.
fn account(body: &[u8]) -> Result<(String, usize), NotReturnable> {
    let webhook = webhook::read(body)?;
    let accounts: BTreeSet<&str> = webhook.entries.iter().map(|it| &*it.waba_id).collect();
    let count = webhook.entries.iter().map(|entry| entry.items.len()).sum();
    let mut accounts = accounts.into_iter();
    match (accounts.next(), accounts.next()) {
        (account, None) => Ok((account.unwrap_or(NO_WABA).to_owned(), count)),
        (_, Some(_)) => Err(NotReturnable::SeveralAccounts),
    }
}

/// The fields of an entry that is put back, by name.
type Fields = Vec<(String, Bytes)>;

/// The account and the fields of an entry that could not be decoded.
fn undumped(body: &[u8]) -> Option<(String, Fields)> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Dumped {
        Text(String),
        Bytes(Vec<u8>),
    }
    let fields: HashMap<String, Dumped> = serde_json::from_slice(body).ok()?;
    let fields = fields.into_iter().map(|(name, value)| match value {
        Dumped::Text(text) => (name, text.into_bytes().into()),
        Dumped::Bytes(bytes) => (name, bytes.into()),
    });
    let fields: EntryFields = fields.collect();
    let waba_id = entry::account(&fields).unwrap_or_else(|| NO_WABA.to_owned());
    // These are written anew.
    let fields = fields.into_iter();
    let fields = fields.filter(|(name, _)| !matches!(&**name, "o" | "x" | "a"));
    Some((waba_id, fields.collect()))
}
