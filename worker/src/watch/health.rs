//! How accounts, numbers and templates are, by what webhooks said and what is asked now and then; and the
//! event of each change. Redis holds those that are not well, and what of them was told.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use redis::RedisResult;
use serde::{Deserialize, Serialize};
use shared::keys::Keys;
use shared::redis::Connection;

use super::broker::WatchBroker;
use super::polls::Polls;
use crate::ask::tenants::Tenants;
use crate::item::event::health::{HealthChange, health_event};
use crate::item::health::HealthNote;
use crate::item::tenant::{Tenant, Verdict};
use crate::metrics::HealthMetrics;

/// Notes of webhooks that are taken at once, and those that are kept for the next look.
const NOTES_AT_ONCE: isize = 100;
const MOST_NOTES: isize = 10_000;

/// A state that isn't well, or that was and is told now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KnownHealth {
    #[serde(flatten)]
    note: HealthNote,
    told: bool,
    /// Whose it is, once that was asked.
    tenant: Option<String>,
}

/// What is to be known after something was seen, if that is another thing.
fn changed(before: Option<&KnownHealth>, seen: &HealthNote) -> Option<KnownHealth> {
    let same = match before {
        Some(before) => before.note.state == seen.state,
        None => seen.is_well(),
    };
    (!same).then(|| KnownHealth {
        note: seen.clone(),
        told: false,
        tenant: before.and_then(|before| before.tenant.clone()),
    })
}

/// Writes what this worker's webhooks said, for whoever watches.
pub(super) async fn write(
    connection: &Connection,
    keys: &Keys,
    notes: &[HealthNote],
) -> RedisResult<()> {
    let texts = notes.iter().map(serde_json::to_string);
    let texts: Vec<String> = texts.filter_map(Result::ok).collect();
    if texts.is_empty() {
        return Ok(());
    }
    let mut pipe = redis::pipe();
    pipe.rpush(keys.health_notes(), texts).ignore();
    pipe.ltrim(keys.health_notes(), -MOST_NOTES, -1).ignore();
    pipe.query_async(&mut connection.clone()).await
}

/// What of accounts, numbers and templates isn't well.
///
/// # Errors
/// A Redis command failed.
pub(crate) async fn unwell(connection: &Connection, keys: &Keys) -> RedisResult<Vec<HealthNote>> {
    let known = known(connection, keys).await?;
    let notes = known.into_values().map(|it| it.note);
    Ok(notes.filter(|note| !note.is_well()).collect())
}

/// What is known, by what it is of.
async fn known(connection: &Connection, keys: &Keys) -> RedisResult<BTreeMap<String, KnownHealth>> {
    let mut all = redis::cmd("HGETALL");
    all.arg(keys.health());
    let all: HashMap<String, String> = all.query_async(&mut connection.clone()).await?;
    let read = all.into_iter().filter_map(|(key, text)| {
        let known = serde_json::from_str(&text).ok()?;
        Some((key, known))
    });
    Ok(read.collect())
}

pub(super) struct HealthWatch {
    connection: Connection,
    keys: Keys,
    tenants: Arc<Tenants>,
    polls: Polls,
    metrics: HealthMetrics,
}

impl HealthWatch {
    pub(super) fn new(
        (connection, keys): (Connection, Keys),
        tenants: Arc<Tenants>,
        polls: Polls,
        metrics: HealthMetrics,
    ) -> Self {
        Self {
            connection,
            keys,
            tenants,
            polls,
            metrics,
        }
    }

    /// Looks once, and tells each change before it sees the next one.
    ///
    /// # Errors
    /// A Redis command failed: what is left is done by the next look.
    pub(super) async fn look(&mut self, broker: &mut WatchBroker) -> RedisResult<()> {
        let mut known = known(&self.connection, &self.keys).await?;
        let told = self.tell_all(&mut known, broker).await;
        self.show(known.values());
        told
    }

    async fn tell_all(
        &mut self,
        known: &mut BTreeMap<String, KnownHealth>,
        broker: &mut WatchBroker,
    ) -> RedisResult<()> {
        let untold = known.iter().filter(|(_, it)| !it.told);
        let untold: Vec<_> = untold.map(|(key, _)| key.clone()).collect();
        for key in untold {
            if !self.tell(known, &key, broker).await? {
                return Ok(());
            }
        }
        let (said, taken) = self.said().await?;
        for (n, note) in &said {
            if !self.see(known, note, broker).await? {
                return self.drop_said(n + 1).await;
            }
        }
        self.drop_said(taken).await?;
        let unwell: Vec<_> = known.values().map(|it| it.note.clone()).collect();
        let seen = self.polls.look(&unwell).await;
        for note in &seen {
            if !self.see(known, note, broker).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The oldest notes of webhooks with their places in the list, and how many places were read: a note
    /// that can't be read has one too.
    async fn said(&self) -> RedisResult<(Vec<(usize, HealthNote)>, usize)> {
        let mut range = redis::cmd("LRANGE");
        range
            .arg(self.keys.health_notes())
            .arg(0)
            .arg(NOTES_AT_ONCE - 1);
        let texts: Vec<String> = range.query_async(&mut self.connection.clone()).await?;
        let notes = texts
            .iter()
            .enumerate()
            .filter_map(|(n, text)| Some((n, serde_json::from_str(text).ok()?)));
        Ok((notes.collect(), texts.len()))
    }

    async fn drop_said(&self, taken: usize) -> RedisResult<()> {
        if taken == 0 {
            return Ok(());
        }
        let mut trim = redis::cmd("LTRIM");
        trim.arg(self.keys.health_notes()).arg(taken).arg(-1);
        trim.query_async(&mut self.connection.clone()).await
    }

    /// Writes a change down before it is told, so that it is told with the same id after a crash. False: the
    /// broker takes nothing.
    async fn see(
        &self,
        known: &mut BTreeMap<String, KnownHealth>,
        seen: &HealthNote,
        broker: &mut WatchBroker,
    ) -> RedisResult<bool> {
        let key = seen.key();
        let Some(change) = changed(known.get(&key), seen) else {
            return Ok(true);
        };
        self.write_known(&key, &change).await?;
        known.insert(key.clone(), change);
        self.tell(known, &key, broker).await
    }

    async fn write_known(&self, key: &str, known: &KnownHealth) -> RedisResult<()> {
        let mut set = redis::cmd("HSET");
        set.arg(self.keys.health()).arg(key);
        set.arg(serde_json::to_string(known).unwrap_or_default());
        set.query_async(&mut self.connection.clone()).await
    }

    async fn forget(&self, key: &str) -> RedisResult<()> {
        let mut del = redis::cmd("HDEL");
        del.arg(self.keys.health()).arg(key);
        del.query_async(&mut self.connection.clone()).await
    }

    /// Publishes a change. One whose tenant can't be asked for is told by the next look. False: the broker
    /// takes nothing.
    async fn tell(
        &self,
        known: &mut BTreeMap<String, KnownHealth>,
        key: &str,
        broker: &mut WatchBroker,
    ) -> RedisResult<bool> {
        let Some(change) = known.get_mut(key) else {
            return Ok(true);
        };
        let tenant = match self.tenants.ask(&change.note.account).await {
            Ok(Verdict::Active(tenant) | Verdict::Suspended(tenant)) => tenant,
            // Nobody's: there is nobody to tell.
            Ok(Verdict::Unknown | Verdict::Unusable) => {
                known.remove(key);
                self.forget(key).await?;
                return Ok(true);
            }
            Err(error) => {
                tracing::debug!(%error, "a health event waits for its tenant");
                return Ok(true);
            }
        };
        if !publish(&change.note, &tenant, broker).await {
            return Ok(false);
        }
        if change.note.is_well() {
            known.remove(key);
            self.forget(key).await?;
            return Ok(true);
        }
        change.told = true;
        change.tenant = Some(tenant.id.clone());
        let change = change.clone();
        self.write_known(key, &change).await?;
        Ok(true)
    }

    fn show<'a>(&self, known: impl Iterator<Item = &'a KnownHealth>) {
        let unwell = known.filter(|it| !it.note.is_well());
        let whose = unwell.filter_map(|it| Some((it.tenant.as_deref()?, it.note.kind.name())));
        self.metrics.unwell(whose);
    }

    /// Another worker watches.
    pub(super) fn leave(&mut self) {
        self.polls.begin_anew();
        self.metrics.clear();
    }
}

async fn publish(note: &HealthNote, tenant: &Tenant, broker: &mut WatchBroker) -> bool {
    let change = HealthChange {
        kind: note.kind,
        business_account_id: &note.account,
        subject: note.subject.as_deref(),
        state: &note.state,
        since_ms: note.at_ms,
        detail: note.detail.as_deref(),
    };
    match health_event(&change, tenant) {
        Ok(event) => broker.publish(&event).await,
        Err(error) => {
            tracing::error!(%error, "a health event can't be written");
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::event::health::HealthKind;

    fn seen(state: &str) -> HealthNote {
        HealthNote {
            kind: HealthKind::Token,
            account: "1".to_owned(),
            subject: None,
            state: state.to_owned(),
            detail: None,
            at_ms: 7,
            until: None,
        }
    }

    #[test]
    fn only_a_change_of_state_is_told_and_who_was_never_unwell_is_not_well_again() {
        assert_eq!(changed(None, &seen("accepted")), None);
        let refused = changed(None, &seen("refused")).expect("a change");
        assert!(!refused.told);
        assert_eq!(changed(Some(&refused), &seen("refused")), None);
        let accepted = changed(Some(&refused), &seen("accepted")).expect("a change");
        assert!(accepted.note.is_well());
        assert_eq!(changed(Some(&accepted), &seen("accepted")), None);
    }
}
