//! Which items may run. An item waits for every earlier unfinished item that shares a customer id
//! with it: one person can appear by phone and by business-scoped id, and a `system` item joins an
//! old id and a new one.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// An item: its entry's number in the window, and its own in the body.
pub type ItemId = (u64, usize);

/// A customer id within its number, hashed. Two that collide only wait for each other.
pub type LaneKey = u64;

/// Hashes the parts of lane keys.
#[derive(Debug, Default, Clone)]
pub struct LaneHasher(RandomState);

impl LaneHasher {
    pub fn key(&self, parts: &[&str]) -> LaneKey {
        self.0.hash_one(parts)
    }
}

#[derive(Debug, Default)]
struct WaitingItem {
    /// How many unfinished items this one waits for, by each key that they share.
    before: usize,
    after: Vec<ItemId>,
    keys: Vec<LaneKey>,
}

/// The unfinished items of a partition, in the order they were added.
#[derive(Debug, Default)]
pub struct Lanes {
    items: HashMap<ItemId, WaitingItem>,
    last: HashMap<LaneKey, ItemId>,
}

impl Lanes {
    /// Adds an item behind all that share a key with it; true if it may run now.
    pub fn add(&mut self, item: ItemId, mut keys: Vec<LaneKey>) -> bool {
        keys.sort_unstable();
        keys.dedup();
        // One that shares several keys is waited for, and ends, as often.
        let waits_for: Vec<ItemId> = keys
            .iter()
            .filter_map(|key| self.last.insert(*key, item))
            .collect();
        for before in &waits_for {
            if let Some(before) = self.items.get_mut(before) {
                before.after.push(item);
            }
        }
        let waiting = WaitingItem {
            before: waits_for.len(),
            after: Vec::new(),
            keys,
        };
        self.items.insert(item, waiting);
        waits_for.is_empty()
    }

    /// An item is finished; returns those that may run now.
    pub fn finish(&mut self, item: ItemId) -> Vec<ItemId> {
        let Some(done) = self.items.remove(&item) else {
            return Vec::new();
        };
        for key in done.keys {
            if self.last.get(&key) == Some(&item) {
                self.last.remove(&key);
            }
        }
        done.after
            .into_iter()
            .filter(|after| {
                self.items.get_mut(after).is_some_and(|waiting| {
                    waiting.before -= 1;
                    waiting.before == 0
                })
            })
            .collect()
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever runs when: no item runs while an earlier one that shares a key is unfinished,
        /// and all run in the end.
        #[test]
        fn items_that_share_an_id_run_in_order(
            items in prop::collection::vec(prop::collection::vec(0u64..6, 1..5), 1..60),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 60),
        ) {
            let mut lanes = Lanes::default();
            let mut ready = Vec::new();
            for (n, keys) in items.iter().enumerate() {
                if lanes.add((0, n), keys.clone()) {
                    ready.push((0, n));
                }
            }
            let mut finished = Vec::new();
            for pick in picks {
                if ready.is_empty() {
                    break;
                }
                let item = ready.swap_remove(pick.index(ready.len()));
                for earlier in 0..item.1 {
                    if items[earlier].iter().any(|key| items[item.1].contains(key)) {
                        prop_assert!(finished.contains(&earlier));
                    }
                }
                finished.push(item.1);
                ready.extend(lanes.finish(item));
                prop_assert_eq!(lanes.len(), items.len() - finished.len());
                prop_assert_eq!(lanes.is_empty(), finished.len() == items.len());
            }
            prop_assert_eq!(finished.len(), items.len());
            prop_assert!(lanes.is_empty() && lanes.last.is_empty());
        }
    }
}
