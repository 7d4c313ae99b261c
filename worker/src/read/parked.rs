//! Entries of accounts whose tenant isn't known yet: the first ones whole, of the others only their ids,
//! so that very many can wait without holding up other accounts. Once the tenant is known they return in
//! the order of the stream, the accounts taking turns; what is newer of the same account waits behind
//! them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::entry_id::EntryId;

/// Entries of this worker that wait for their tenant; beyond, a partition that has some isn't read. One of
/// which only the id is kept takes about 70 bytes.
pub const MOST_PARKED: usize = 1_000_000;

/// Entries of an account that return together.
#[derive(Debug, PartialEq, Eq)]
pub enum ReturningEntries<E> {
    Kept(Vec<E>),
    /// They must be fetched.
    Ids(Vec<EntryId>),
}

/// Of an account, in the order of the stream. Most are only ids, and these must be small.
type ParkedOfAccount<E> = VecDeque<(EntryId, Option<Box<E>>)>;

/// What waits in one partition; `E` is an entry as it was read.
#[derive(Debug)]
pub struct Parked<E> {
    /// Those that wait, and those that return and aren't taken in yet.
    ids: HashSet<EntryId>,
    accounts: HashMap<String, ParkedOfAccount<E>>,
    /// How many of `accounts` are only ids.
    only_ids: usize,
    /// Accounts whose tenant is known.
    turns: VecDeque<String>,
    /// Of all partitions of this worker.
    total: Arc<AtomicUsize>,
}

impl<E> Parked<E> {
    pub fn new(total: Arc<AtomicUsize>) -> Self {
        Self {
            ids: HashSet::new(),
            accounts: HashMap::new(),
            only_ids: 0,
            turns: VecDeque::new(),
            total,
        }
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// How many wait in all partitions of this worker.
    pub fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    pub fn contains(&self, id: EntryId) -> bool {
        self.ids.contains(&id)
    }

    /// Whether something of the account waits or returns: what is newer must wait behind it.
    pub fn holds(&self, waba_id: &str) -> bool {
        self.accounts.contains_key(waba_id)
    }

    /// Whether the tenant of some is known.
    pub fn may_return(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Whether nothing that waits has to be fetched.
    pub fn is_kept(&self) -> bool {
        self.only_ids == 0
    }

    /// An entry waits, behind what its account has here.
    pub fn park(&mut self, waba_id: &str, id: EntryId, kept: Option<E>) {
        self.only_ids += usize::from(kept.is_none());
        let entry = (id, kept.map(Box::new));
        match self.accounts.get_mut(waba_id) {
            Some(waiting) => waiting.push_back(entry),
            None => drop(self.accounts.insert(waba_id.to_owned(), [entry].into())),
        }
        if self.ids.insert(id) {
            self.total.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The account's tenant is known.
    pub fn release(&mut self, waba_id: &str) {
        if self.holds(waba_id) && !self.turns.iter().any(|turn| turn == waba_id) {
            self.turns.push_back(waba_id.to_owned());
        }
    }

    /// The first entries of the account whose turn it is. [`Parked::returned`] ends its turn.
    pub fn next(&mut self, most: usize) -> Option<(String, ReturningEntries<E>)> {
        loop {
            let waba_id = self.turns.pop_front()?;
            let Some(waiting) = self.accounts.get_mut(&waba_id) else {
                continue;
            };
            let is_kept = matches!(waiting.front(), Some((_, Some(_))));
            let alike = waiting.iter().take(most);
            let alike = alike.take_while(|(_, kept)| kept.is_some() == is_kept);
            let first = alike.count();
            let first = waiting.drain(..first);
            if is_kept {
                let kept = first.filter_map(|(_, kept)| kept.map(|it| *it)).collect();
                return Some((waba_id, ReturningEntries::Kept(kept)));
            }
            let ids: Vec<EntryId> = first.map(|(id, _)| id).collect();
            self.only_ids -= ids.len();
            return Some((waba_id, ReturningEntries::Ids(ids)));
        }
    }

    /// Entries of the account's turn that can't return yet, or not all at once.
    pub fn put_back(
        &mut self,
        waba_id: &str,
        entries: impl DoubleEndedIterator<Item = (EntryId, Option<E>)>,
    ) {
        let waiting = self.accounts.entry(waba_id.to_owned()).or_default();
        for (id, kept) in entries.rev() {
            self.only_ids += usize::from(kept.is_none());
            waiting.push_front((id, kept.map(Box::new)));
        }
    }

    /// A returning entry is taken in.
    pub fn taken_in(&mut self, id: EntryId) {
        if self.ids.remove(&id) {
            self.total.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// All that returned in the account's turn is taken in.
    pub fn returned(&mut self, waba_id: &str) {
        if self.accounts.get(waba_id).is_some_and(VecDeque::is_empty) {
            self.accounts.remove(waba_id);
        } else {
            self.release(waba_id);
        }
    }
}

impl<E> Drop for Parked<E> {
    fn drop(&mut self) {
        self.total.fetch_sub(self.ids.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_return_in_turn_and_in_order() {
        let total = Arc::new(AtomicUsize::new(0));
        let mut parked = Parked::<()>::new(total.clone());
        let ids =
            |of: &str, ids: &[EntryId]| Some((of.to_owned(), ReturningEntries::Ids(ids.to_vec())));
        for n in 0..3 {
            parked.park("a", EntryId::new(1, n), None);
            parked.park("b", EntryId::new(2, n), None);
        }
        assert!(parked.next(2).is_none());
        parked.release("a");
        parked.release("b");
        parked.release("a");
        assert_eq!(
            parked.next(2),
            ids("a", &[EntryId::new(1, 0), EntryId::new(1, 1)])
        );
        // What comes meanwhile is behind; one of the two could not return yet.
        parked.park("a", EntryId::new(1, 3), None);
        parked.put_back("a", [(EntryId::new(1, 1), None)].into_iter());
        parked.taken_in(EntryId::new(1, 0));
        parked.returned("a");
        assert_eq!(
            parked.next(9),
            ids(
                "b",
                &[EntryId::new(2, 0), EntryId::new(2, 1), EntryId::new(2, 2)]
            )
        );
        (0..3).for_each(|n| parked.taken_in(EntryId::new(2, n)));
        parked.returned("b");
        assert!(
            !parked.holds("b")
                && parked.contains(EntryId::new(1, 1))
                && !parked.contains(EntryId::new(1, 0))
        );
        assert!(!parked.is_kept());
        assert_eq!(
            parked.next(9),
            ids(
                "a",
                &[EntryId::new(1, 1), EntryId::new(1, 2), EntryId::new(1, 3)]
            )
        );
        assert_eq!((parked.len(), parked.total()), (3, 3));
        assert!(!parked.is_empty() && parked.is_kept());
        drop(parked);
        assert_eq!(total.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_is_kept_returns_as_it_was_read_and_in_its_order() {
        let mut parked = Parked::new(Arc::default());
        for (n, kept) in [(0, Some('p')), (1, Some('q')), (2, None), (3, Some('r'))] {
            parked.park("a", EntryId::new(1, n), kept);
        }
        let mut returned = Vec::new();
        parked.release("a");
        while let Some((account, returning)) = parked.next(9) {
            returned.push(returning);
            parked.returned(&account);
        }
        let kept = |entries: &[char]| ReturningEntries::Kept(entries.to_vec());
        let fetched = ReturningEntries::Ids(vec![EntryId::new(1, 2)]);
        assert_eq!(returned, [kept(&['p', 'q']), fetched, kept(&['r'])]);
        assert!(!parked.holds("a"));
    }

    #[test]
    fn an_id_is_read_as_it_was_written() {
        let id = EntryId::new(1_764_412_345_678, 9);
        assert_eq!(EntryId::parse(&id.to_string()), Some(id));
        assert_eq!(EntryId::parse("1764412345678"), None);
    }
}
