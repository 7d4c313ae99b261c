//! Puts what ingress left in the spool into the stream: an owner its partition's, in order of receipt,
//! through the script that ingress uses, and deletes it then. Whatever happens in between, or whoever
//! does the same at the same time, the dedup makes one of two.

#![deny(clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, FuturesUnordered, StreamExt};
use rand::Rng;
use shared::intake::{IntakeRow, IntakeScript, Terms};
use shared::keys::Keys;
use shared::redis::{Connection, FailureKind};
use shared::spool::{Spooled, UndecodableObject, decode, received_at_ms};
use shared::webhook::{Identity, NO_WABA};
use shared::write_probe::WriteProbe;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::out::error::Reason;
use crate::out::store::{self, SpoolObject, Store, StoreError, StoreResult};
use crate::read::leases::Tenure;

/// Each worker asks the store this often what is in the spool: one request while it is empty.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// The same while it is not.
const BUSY_INTERVAL: Duration = Duration::from_secs(2);
/// Objects of a partition that are counted: one request's.
const MOST_COUNTED: usize = 1000;
/// Objects of a partition that are read, or deleted, side by side.
const AT_ONCE: usize = 8;
/// Memory for objects, all partitions together.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// Above this share of Redis' memory the spool stays as it is: what comes in now goes first.
const MOST_MEMORY: f64 = 0.70;
/// Redis is asked for its memory before each so many objects.
const BETWEEN_LOOKS: usize = 64;

/// What emptying the spool takes.
pub struct Spool {
    /// Sent after each look.
    waiting: watch::Sender<BTreeSet<u16>>,
    script: IntakeScript,
    well: WriteProbe,
    connection: Connection,
    keys: Keys,
    store: Arc<Store>,
    metrics: Metrics,
    bytes: Arc<Semaphore>,
}

impl Spool {
    pub fn new(
        (connection, keys): (Connection, Keys),
        store: Arc<Store>,
        metrics: Metrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            waiting: watch::Sender::default(),
            script: IntakeScript::new(keys.clone()),
            well: WriteProbe::new(connection.clone(), keys.clone()),
            connection,
            keys,
            store,
            metrics,
            bytes: Arc::new(Semaphore::new(MOST_BYTES)),
        })
    }

    /// Looks into the spool again and again, until `stop`.
    pub async fn look(self: Arc<Self>, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let mut interval = LOOK_INTERVAL;
            match look(&self.store, &self.metrics).await {
                Ok(partitions) => {
                    if !partitions.is_empty() {
                        interval = BUSY_INTERVAL;
                    }
                    self.waiting.send_replace(partitions);
                }
                Err(error) => {
                    tracing::debug!(%error, "the spool can't be listed");
                }
            }
            // Several workers look at different times.
            let pause = interval.mul_f64(rand::rng().random_range(0.75..1.25));
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Folders whose objects the owner of `partition` takes. The first one has those of partitions
    /// that aren't there, which an ingress with another count has left before it knew.
    fn folders_of(&self, partition: u16) -> Vec<u16> {
        let count = self.keys.partitions();
        let waiting = self.waiting.borrow();
        let of = |folder: u16| if folder < count { folder } else { 0 };
        let folders = waiting.iter().copied();
        folders.filter(|folder| of(*folder) == partition).collect()
    }
}

async fn look(store: &Store, metrics: &Metrics) -> StoreResult<BTreeSet<u16>> {
    let partitions = store.spooled_partitions().await?;
    let mut count = 0;
    for partition in &partitions {
        count += store.count_spooled(*partition, MOST_COUNTED).await?;
    }
    metrics.spool_objects.set(count as i64);
    Ok(partitions)
}

/// Empties the spool of a partition whenever something is in it, for as long as it is polled.
pub async fn empty(spool: &Arc<Spool>, tenure: &Tenure) {
    let mut looks = spool.waiting.subscribe();
    looks.mark_changed();
    let mut waits = false;
    // The sender lives as long as `spool`.
    while looks.changed().await.is_ok() {
        for folder in spool.folders_of(tenure.partition) {
            let took = pass(spool, tenure, folder).await;
            if took.stored > 0 {
                let (stored, left) = (took.stored, took.left);
                tracing::info!(folder, stored, left, "took webhooks out of the spool");
            }
            if took.left > 0 {
                let (left, why) = (took.left, &took.left_why);
                tracing::warn!(folder, left, why, "webhooks stay in the spool");
            }
            if let Some(why) = &took.ended
                && !waits
            {
                tracing::warn!(folder, why, "the spool must wait");
            }
            waits = took.ended.is_some();
        }
    }
}

/// What one pass through a folder came to.
#[derive(Debug, Default)]
struct SpoolPass {
    stored: usize,
    /// Of those looked at, what stays for the next pass.
    left: usize,
    /// Why the last of those does.
    left_why: String,
    /// Why it ended before all were looked at.
    ended: Option<String>,
}

/// Why an object stays in the spool.
enum NotTaken {
    /// Somebody else has deleted it.
    Gone,
    /// It can't be had or stored now; those behind it may.
    Alone(String),
    /// None can.
    All(String),
}

/// An object in memory.
struct Fetched {
    object: SpoolObject,
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// Goes through a folder once. An object that can't be stored stays, and holds up none behind it.
async fn pass(spool: &Arc<Spool>, tenure: &Tenure, folder: u16) -> SpoolPass {
    let mut objects = spool.store.spooled(folder);
    let mut next = objects.next().await;
    let mut fetching: FuturesOrdered<BoxFuture<'static, Result<Fetched, NotTaken>>> =
        FuturesOrdered::new();
    let mut removing: FuturesUnordered<BoxFuture<'static, Result<(), NotTaken>>> =
        FuturesUnordered::new();
    let mut took = SpoolPass::default();
    let mut looked_at = 0;
    while took.ended.is_none() {
        while let Some(object) = &next
            && fetching.len() < AT_ONCE
            && let Some(room) = room(spool, object, fetching.is_empty()).await
        {
            let object = std::mem::replace(&mut next, objects.next().await);
            fetching.extend(object.map(|object| fetch(spool.clone(), object, room).boxed()));
        }
        let Some(fetched) = fetching.next().await else {
            break;
        };
        match take_in(spool, tenure, looked_at, fetched).await {
            Ok(key) => removing.push(remove(spool.clone(), key).boxed()),
            Err(stays) => took.count(Err(stays)),
        }
        looked_at += 1;
        while removing.len() >= AT_ONCE
            && let Some(removed) = removing.next().await
        {
            took.count(removed);
        }
    }
    while let Some(removed) = removing.next().await {
        took.count(removed);
    }
    took
}

impl SpoolPass {
    fn count(&mut self, removed: Result<(), NotTaken>) {
        match removed {
            Ok(()) => self.stored += 1,
            Err(NotTaken::Gone) => {}
            Err(NotTaken::Alone(why)) => {
                self.left += 1;
                self.left_why = why;
            }
            Err(NotTaken::All(why)) => self.ended = Some(why),
        }
    }
}

fn away(error: StoreError) -> NotTaken {
    NotTaken::All(error.to_string())
}

/// Memory for an object, or `None` if there is none and it needn't be waited for; one that is larger
/// than all of it has it alone.
async fn room(
    spool: &Spool,
    found: &StoreResult<SpoolObject>,
    wait: bool,
) -> Option<OwnedSemaphorePermit> {
    let size_bytes = found.as_ref().map_or(0, |object| object.size_bytes);
    let bytes = size_bytes.clamp(1, MOST_BYTES as u64) as u32;
    let all = spool.bytes.clone();
    // The semaphore is never closed.
    if wait {
        all.acquire_many_owned(bytes).await.ok()
    } else {
        all.try_acquire_many_owned(bytes).ok()
    }
}

async fn fetch(
    spool: Arc<Spool>,
    found: StoreResult<SpoolObject>,
    room: OwnedSemaphorePermit,
) -> Result<Fetched, NotTaken> {
    let object = found.map_err(away)?;
    match spool.store.spool_object(&object).await {
        Ok(Some(bytes)) => Ok(Fetched {
            object,
            bytes,
            _room: room,
        }),
        Ok(None) => Err(NotTaken::Gone),
        Err(error) => Err(match spool.store.probe().await {
            Ok(()) => NotTaken::Alone(error.to_string()),
            Err(_) => away(error),
        }),
    }
}

/// Puts an object into the stream, or into the failed store if it is none of ours; its key then.
async fn take_in(
    spool: &Spool,
    tenure: &Tenure,
    n: usize,
    fetched: Result<Fetched, NotTaken>,
) -> Result<String, NotTaken> {
    let Fetched {
        object,
        bytes,
        _room,
    } = fetched?;
    may_go(spool, tenure, n).await?;
    match decode(&bytes) {
        Ok(spooled) => put(spool, &spooled).await?,
        // A worker of that version takes it, or the store has the right bytes the next time.
        Err(later @ (UndecodableObject::Version(_) | UndecodableObject::Corrupt)) => {
            return Err(NotTaken::Alone(later.to_string()));
        }
        Err(undecodable @ (UndecodableObject::Headless | UndecodableObject::Identity)) => {
            set_aside(spool, &object, bytes, undecodable).await?
        }
    }
    Ok(object.key)
}

async fn may_go(spool: &Spool, tenure: &Tenure, n: usize) -> Result<(), NotTaken> {
    if !tenure.holds() {
        return Err(NotTaken::All("the partition is another's now".to_owned()));
    }
    if !n.is_multiple_of(BETWEEN_LOOKS) {
        return Ok(());
    }
    let used = spool.well.memory_used(tenure.partition).await;
    match used {
        Ok(used) if used < MOST_MEMORY => Ok(()),
        Ok(used) => {
            let percent = 100.0 * used;
            Err(NotTaken::All(format!(
                "{percent:.0} % of Redis' memory is used"
            )))
        }
        Err(error) => Err(NotTaken::All(error.to_string())),
    }
}

async fn put(spool: &Spool, spooled: &Spooled) -> Result<(), NotTaken> {
    let delivery = &spooled.delivery;
    let terms = Terms {
        dedup_ttl: spooled.dedup_ttl,
        per_minute: 0,
        refuse: false,
        short_of_memory: false,
    };
    let partition = spool.keys.partition_of(&delivery.waba_id);
    let row = IntakeRow::new(delivery, &spooled.envelope);
    let mut connection = spool.connection.clone();
    let rows = [&row];
    let stored = spool.script.run(&mut connection, partition, &rows, terms);
    match stored.await {
        Ok(_) => Ok(()),
        Err(error) => Err(match FailureKind::of(&error) {
            FailureKind::NeedsRepair => NotTaken::Alone(error.to_string()),
            FailureKind::NoAnswer
            | FailureKind::Recovering
            | FailureKind::OutOfMemory
            | FailureKind::ReadOnly => NotTaken::All(error.to_string()),
        }),
    }
}

/// Keeps what isn't ours whole in the failed store. Twice is the same.
async fn set_aside(
    spool: &Spool,
    object: &SpoolObject,
    bytes: Bytes,
    undecodable: UndecodableObject,
) -> Result<(), NotTaken> {
    // What a store answers once may be anything, and the object is deleted after this.
    let again = spool.store.spool_object(object).await.map_err(away)?;
    if again.is_none_or(|again| again != bytes) {
        return Err(NotTaken::Alone(
            "the store gives other bytes each time".to_owned(),
        ));
    }
    let key = object.key.as_str();
    let name = format!("spool.{}", Identity::of_body(key.as_bytes()).short());
    let received_at_ms = received_at_ms(key);
    let folder = store::folder(None, NO_WABA);
    let failed = store::failed_key(&folder, received_at_ms as i64, &name);
    let described = BTreeMap::from([
        ("reason".to_owned(), Reason::Undecodable.name().to_owned()),
        ("error".to_owned(), undecodable.to_string()),
        ("received-at".to_owned(), received_at_ms.to_string()),
        ("spooled-as".to_owned(), key.to_owned()),
    ]);
    spool
        .store
        .put(&failed, &described, bytes)
        .await
        .map_err(away)?;
    tracing::error!(key, %undecodable, "an object of the spool can't be decoded: it is set aside");
    spool.metrics.entry_set_aside(1, Reason::Undecodable.name());
    Ok(())
}

async fn remove(spool: Arc<Spool>, key: String) -> Result<(), NotTaken> {
    match spool.store.remove(&key).await {
        Ok(()) => {
            spool.metrics.unspooled.inc();
            Ok(())
        }
        Err(error) if error.is_not_found() => {
            spool.metrics.unspooled.inc();
            Ok(())
        }
        Err(error) => Err(NotTaken::Alone(error.to_string())),
    }
}
