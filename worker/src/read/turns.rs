//! Who goes next: so many at once, of one account (or tenant) at most three quarters of them, and those
//! who wait take turns by account. It decides only; [`super::gate`] makes tasks wait for it.

use std::collections::{HashMap, VecDeque};

/// Turns that are taken, and what waits for one.
#[derive(Debug)]
pub struct Turns<T> {
    most: usize,
    most_of_account: usize,
    taken: usize,
    /// Adds up to `taken`; no zeros.
    taken_of: HashMap<String, usize>,
    /// No empty queues.
    waiting: HashMap<String, VecDeque<T>>,
    /// The accounts of `waiting`, each once, in the order of their turns.
    order: VecDeque<String>,
}

impl<T> Turns<T> {
    /// `most` at once, at least 1.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            most_of_account: (most * 3).div_ceil(4),
            taken: 0,
            taken_of: HashMap::new(),
            waiting: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// How many of an account wait.
    pub fn waiting_of(&self, account: &str) -> usize {
        self.waiting.get(account).map_or(0, VecDeque::len)
    }

    /// How many turns are taken.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Whether [`Turns::take`] would give a turn to somebody.
    pub fn may_take(&self) -> bool {
        let has_turn = |account: &String| {
            let taken = self.taken_of.get(account);
            taken.is_none_or(|taken| *taken < self.most_of_account)
        };
        self.taken < self.most && self.order.iter().any(has_turn)
    }

    /// Nothing is taken and nobody waits.
    pub fn is_idle(&self) -> bool {
        self.taken == 0 && self.waiting.is_empty()
    }

    /// Puts `what` behind all of its account that wait.
    pub fn wait(&mut self, account: &str, what: T) {
        match self.waiting.get_mut(account) {
            Some(waiting) => waiting.push_back(what),
            None => {
                self.order.push_back(account.to_owned());
                self.waiting.insert(account.to_owned(), [what].into());
            }
        }
    }

    /// Takes a turn for who goes next, if somebody may. [`Turns::end`] ends it.
    pub fn take(&mut self) -> Option<(String, T)> {
        if self.taken >= self.most {
            return None;
        }
        for _ in 0..self.order.len() {
            let account = self.order.pop_front()?;
            let taken = self.taken_of.get(&account).copied().unwrap_or(0);
            if taken >= self.most_of_account {
                self.order.push_back(account);
                continue;
            }
            let waiting = self.waiting.get_mut(&account)?;
            let next = waiting.pop_front()?;
            if waiting.is_empty() {
                self.waiting.remove(&account);
            } else {
                self.order.push_back(account.clone());
            }
            self.taken += 1;
            *self.taken_of.entry(account.clone()).or_default() += 1;
            return Some((account, next));
        }
        None
    }

    /// A turn of an account is over.
    pub fn end(&mut self, account: &str) {
        let Some(taken) = self.taken_of.get_mut(account) else {
            return;
        };
        self.taken -= 1;
        *taken -= 1;
        if *taken == 0 {
            self.taken_of.remove(account);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accounts_take_turns_and_none_has_them_all() {
        let mut turns = Turns::new(4);
        (0..4).for_each(|n| turns.wait("a", n));
        let taken: Vec<_> = std::iter::from_fn(|| turns.take()).collect();
        assert_eq!(taken.len(), 3, "all but one at most");
        turns.wait("b", 10);
        turns.wait("b", 11);
        assert_eq!(turns.take(), Some(("b".to_owned(), 10)));
        assert_eq!(turns.take(), None, "all are taken");
        turns.end("a");
        assert_eq!(turns.take(), Some(("a".to_owned(), 3)), "whose turn it is");
    }

    #[test]
    fn accounts_go_in_the_order_in_which_they_came() {
        let mut turns = Turns::new(9);
        for account in ["a", "b", "a", "c"] {
            turns.wait(account, ());
        }
        let accounts: Vec<_> = std::iter::from_fn(|| turns.take()).collect();
        let accounts: Vec<_> = accounts.iter().map(|(account, ())| &**account).collect();
        assert_eq!(accounts, ["a", "b", "c", "a"]);
    }

    proptest! {
        /// No account has more than its share, each gets what it waits for in its order, and in the end
        /// nothing is left.
        #[test]
        fn each_goes_once_and_in_order(
            asked in prop::collection::vec((0usize..4, any::<bool>()), 1..80),
            most in 1usize..6,
        ) {
            let accounts = ["a", "b", "c", "d"];
            let mut turns = Turns::new(most);
            let mut running: Vec<String> = Vec::new();
            let mut went: HashMap<String, Vec<usize>> = HashMap::new();
            for (n, (account, ends)) in asked.iter().enumerate() {
                turns.wait(accounts[*account], n);
                if *ends && let Some(account) = running.pop() {
                    turns.end(&account);
                }
                while let Some((account, n)) = turns.take() {
                    went.entry(account.clone()).or_default().push(n);
                    running.push(account);
                }
                prop_assert!(running.len() <= most && running.len() == turns.taken());
                let waiting: usize = accounts.iter().map(|of| turns.waiting_of(of)).sum();
                prop_assert_eq!(turns.is_idle(), running.is_empty() && waiting == 0);
                for account in accounts {
                    let of = running.iter().filter(|of| *of == account).count();
                    prop_assert!(of <= (most * 3).div_ceil(4));
                }
            }
            while let Some(account) = running.pop() {
                turns.end(&account);
                while let Some((account, n)) = turns.take() {
                    went.entry(account.clone()).or_default().push(n);
                    running.push(account);
                }
            }
            prop_assert!(turns.is_idle() && turns.order.is_empty());
            prop_assert!(turns.waiting.is_empty() && turns.taken_of.is_empty());
            prop_assert_eq!(went.values().map(Vec::len).sum::<usize>(), asked.len());
            prop_assert!(went.values().all(|went| went.is_sorted()));
        }
    }
}
