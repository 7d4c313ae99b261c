//! What this process remembers, by account. Bounded.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Accounts remembered at once.
const MOST: usize = 100_000;

/// Something remembered.
#[derive(Debug, Clone)]
pub(super) struct Cached<T> {
    pub value: T,
    pub fresh_until: Instant,
    /// Longer, while nothing better can be had.
    pub usable_until: Instant,
    pub used: Instant,
}

pub(super) struct AccountCache<T>(Mutex<HashMap<String, Cached<T>>>);

impl<T> Default for AccountCache<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> AccountCache<T> {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Cached<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is up to date.
    pub(super) fn fresh(&self, waba_id: &str, now: Instant) -> Option<T> {
        let mut all = self.all();
        let found = all.get_mut(waba_id)?;
        found.used = now;
        (now < found.fresh_until).then(|| found.value.clone())
    }

    /// What is up to date or may be used while nothing better can be had.
    pub(super) fn usable(&self, waba_id: &str, now: Instant) -> Option<T> {
        let all = self.all();
        let found = all.get(waba_id)?;
        (now < found.usable_until).then(|| found.value.clone())
    }

    pub(super) fn insert(&self, waba_id: &str, remembered: Cached<T>) {
        let mut all = self.all();
        if all.len() >= MOST && !all.contains_key(waba_id) {
            let now = Instant::now();
            all.retain(|_, old| now < old.fresh_until);
            // Any will do: a map's order is random.
            if all.len() >= MOST
                && let Some(any) = all.keys().next().cloned()
            {
                all.remove(&any);
            }
        }
        let used = all.get(waba_id).map_or(remembered.used, |old| old.used);
        all.insert(waba_id.to_owned(), Cached { used, ..remembered });
    }

    /// What is out of date counts until `until` all the same.
    pub(super) fn prolong(&self, waba_id: &str, value: &T, until: Instant) {
        let mut all = self.all();
        match all.get_mut(waba_id) {
            Some(found) => found.fresh_until = found.fresh_until.max(until),
            None => {
                drop(all);
                let remembered = Cached {
                    value: value.clone(),
                    fresh_until: until,
                    usable_until: until,
                    used: Instant::now(),
                };
                self.insert(waba_id, remembered);
            }
        }
    }

    pub(super) fn remove(&self, waba_id: &str) -> Option<T> {
        self.all().remove(waba_id).map(|found| found.value)
    }

    /// Nothing counts as up to date any more.
    pub(super) fn doubt_all(&self, now: Instant) {
        for remembered in self.all().values_mut() {
            remembered.fresh_until = remembered.fresh_until.min(now);
        }
    }

    /// Accounts that were used after `since`.
    pub(super) fn used_since(&self, since: Instant) -> Vec<String> {
        let all = self.all();
        let used = all.iter().filter(|(_, found)| found.used > since);
        used.map(|(waba_id, _)| waba_id.clone()).collect()
    }

    /// Accounts that were used lately and are out of date within `soon`.
    pub(super) fn ending(&self, now: Instant, soon: Duration, lately: Duration) -> Vec<String> {
        let all = self.all();
        let ending = all.iter().filter(|(_, found)| {
            found.fresh_until < now + soon && now.duration_since(found.used) < lately
        });
        ending.map(|(waba_id, _)| waba_id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remembered(fresh_until: Instant) -> Cached<u8> {
        Cached {
            value: 1,
            fresh_until,
            usable_until: fresh_until,
            used: Instant::now(),
        }
    }

    #[test]
    fn it_never_holds_more_than_its_bound() {
        let memory = AccountCache::default();
        let late = Instant::now() + Duration::from_secs(60);
        for n in 0..MOST + 10 {
            memory.insert(&n.to_string(), remembered(late));
        }
        assert_eq!(memory.all().len(), MOST);
        assert_eq!(
            memory.fresh(&(MOST + 9).to_string(), Instant::now()),
            Some(1)
        );
    }

    #[test]
    fn only_what_is_used_is_refreshed() {
        let memory = AccountCache::default();
        let now = Instant::now();
        let soon = Duration::from_secs(10);
        memory.insert("1", remembered(now + soon / 2));
        memory.insert("2", remembered(now + soon * 2));
        assert_eq!(memory.ending(now, soon, soon), ["1"]);
        assert_eq!(memory.ending(now + soon / 3, soon, Duration::ZERO), [""; 0]);
    }
}
