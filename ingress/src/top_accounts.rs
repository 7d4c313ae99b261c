//! A counter by account whose labels are few however many accounts there are: those that are counted
//! most have series of their own, the others share one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

/// Accounts with a series of their own.
const NAMED: usize = 20;
/// Accounts whose counts are estimated (space-saving: a new one takes the place of the least).
const ESTIMATED: usize = 200;
/// All estimates are halved after so many counts, so that an account of the past makes room.
const HALVED_AFTER: u64 = 10_000;
const OTHER: &str = "other";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct AccountLabels {
    account: String,
}

/// Counts by account.
pub(crate) struct TopAccounts {
    family: Family<AccountLabels, Counter>,
    other: Counter,
    seen: Mutex<Seen>,
}

/// How often an account was counted: surely, and at most so often more, since it has taken the place of
/// one that was counted so often.
#[derive(Clone, Copy, Default)]
struct Estimate {
    surely: u64,
    more: u64,
}

#[derive(Default)]
struct Seen {
    estimates: HashMap<String, Estimate>,
    named: HashMap<String, Counter>,
    since_halved: u64,
}

impl Seen {
    /// Counts it; how often it was counted for sure.
    fn estimate(&mut self, account: &str) -> u64 {
        self.since_halved += 1;
        if self.since_halved > HALVED_AFTER {
            self.since_halved = 0;
            for estimate in self.estimates.values_mut() {
                estimate.surely /= 2;
                estimate.more /= 2;
            }
        }
        if let Some(estimate) = self.estimates.get_mut(account) {
            estimate.surely += 1;
            return estimate.surely;
        }
        let mut more = 0;
        if self.estimates.len() >= ESTIMATED {
            // Those with a series keep their place, or each newcomer would be counted more than they.
            let of_others = self.estimates.iter();
            let of_others = of_others.filter(|(account, _)| !self.named.contains_key(*account));
            let sums = of_others.map(|(account, it)| (it.surely + it.more, account.clone()));
            if let Some((sum, least)) = sums.min() {
                self.estimates.remove(&least);
                more = sum;
            }
        }
        self.estimates
            .insert(account.to_owned(), Estimate { surely: 1, more });
        1
    }

    /// The account of those with a series that is counted least, and how much that is.
    fn least_named(&self) -> Option<(String, u64)> {
        let of = |account: &String| self.estimates.get(account).map_or(0, |it| it.surely);
        let named = self.named.keys().map(|account| (account, of(account)));
        let least = named.min_by_key(|(_, count)| *count);
        least.map(|(account, count)| (account.clone(), count))
    }
}

impl TopAccounts {
    pub(crate) fn new() -> Self {
        let family = Family::<AccountLabels, Counter>::default();
        let other = family.get_or_create(&labels(OTHER)).clone();
        Self {
            family,
            other,
            seen: Mutex::default(),
        }
    }

    /// What is registered.
    pub(crate) fn family(&self) -> Family<AccountLabels, Counter> {
        self.family.clone()
    }

    pub(crate) fn count(&self, account: &str) {
        // Signed, but a text of any length.
        if account.is_empty()
            || account.len() > 32
            || !account.bytes().all(|byte| byte.is_ascii_digit())
        {
            self.other.inc();
            return;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let count = seen.estimate(account);
        if let Some(counter) = seen.named.get(account) {
            counter.inc();
            return;
        }
        if seen.named.len() >= NAMED {
            // Twice as often: else two of the same rate would take each other's place all the time.
            let Some((least, _)) = seen.least_named().filter(|(_, of)| count > 2 * of) else {
                self.other.inc();
                return;
            };
            seen.named.remove(&least);
            self.family.remove(&labels(&least));
        }
        let counter = self.family.get_or_create(&labels(account)).clone();
        counter.inc();
        seen.named.insert(account.to_owned(), counter);
    }
}

fn labels(account: &str) -> AccountLabels {
    AccountLabels {
        account: account.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(top: &TopAccounts) -> usize {
        let seen = top.seen.lock().expect("a lock");
        seen.named.len() + 1
    }

    fn of(top: &TopAccounts, account: &str) -> Option<u64> {
        let seen = top.seen.lock().expect("a lock");
        seen.named.get(account).map(Counter::get)
    }

    #[test]
    fn the_accounts_that_are_counted_most_have_series_and_the_others_share_one() {
        let top = TopAccounts::new();
        for n in 0..10_000 {
            top.count(&format!("{n}"));
        }
        assert_eq!((series(&top), of(&top, "19")), (NAMED + 1, Some(1)));
        assert!(top.other.get() > 9000);
        // One that comes late and often gets a place.
        for _ in 0..1000 {
            top.count("777");
        }
        assert!(of(&top, "777").is_some_and(|count| count > 500));
        assert_eq!(series(&top), NAMED + 1);
    }

    #[test]
    fn what_is_no_account_makes_no_series() {
        let top = TopAccounts::new();
        for odd in ["", "x\"}", &"9".repeat(33), "１２"] {
            top.count(odd);
        }
        assert_eq!((series(&top), top.other.get()), (1, 4));
    }
}
