//! Entries of pieces that are owed: each is fetched and read once for many of its pieces.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use shared::entry::{EntryFields, StreamEntry};
use tokio::sync::OnceCell;

use crate::item::payload::Payload;
use crate::metrics::OwedKind;
use crate::read::stream::RawEntry;
use crate::read::suspects::BytesLock;

/// Bodies of a kind in memory, and one more: each may have 3 MB.
const BYTES: usize = 2 * 1024 * 1024;
/// From so many on those that nobody works on are dropped.
const ENTRIES: usize = 64;

/// An entry of pieces in work.
pub(super) struct OwingEntry {
    pub(super) id: String,
    pub(super) content: OwingContent,
    bytes: usize,
}

pub(super) enum OwingContent {
    Fields(EntryFields),
    Body(Box<LazyPayload>),
    /// Somebody deleted it.
    Gone,
}

/// A body that is read when its first piece needs it.
pub(super) struct LazyPayload {
    /// `None` once it was begun to read them.
    fields: Mutex<Option<EntryFields>>,
    payload: OnceCell<Option<Payload>>,
}

impl LazyPayload {
    fn new(fields: EntryFields) -> Self {
        Self {
            fields: Mutex::new(Some(fields)),
            payload: OnceCell::new(),
        }
    }

    /// What the body says; `None`: this version can't read it, or it made the first who tried panic.
    pub(super) async fn read(&self, bytes_lock: &BytesLock) -> Option<&Payload> {
        self.read_by(bytes_lock, |fields| {
            Payload::open(StreamEntry::decode(&fields).ok()?).ok()
        })
        .await
    }

    async fn read_by(
        &self,
        bytes_lock: &BytesLock,
        open: impl FnOnce(EntryFields) -> Option<Payload>,
    ) -> Option<&Payload> {
        let read = self.payload.get_or_init(async || {
            let _bytes = bytes_lock.shared().await;
            let fields = self.fields.lock().map(|mut fields| fields.take());
            fields.ok().flatten().and_then(open)
        });
        read.await.as_ref()
    }
}

impl OwingEntry {
    pub(super) fn new(kind: OwedKind, raw: RawEntry) -> Self {
        let fields = raw.fields.iter().flat_map(EntryFields::values);
        Self {
            id: raw.id,
            bytes: fields.map(Bytes::len).sum(),
            content: match (raw.fields, kind) {
                (None, _) => OwingContent::Gone,
                (Some(fields), OwedKind::Put | OwedKind::Settle) => OwingContent::Fields(fields),
                (Some(fields), OwedKind::State | OwedKind::Media | OwedKind::OtherMedia) => {
                    OwingContent::Body(Box::new(LazyPayload::new(fields)))
                }
            },
        }
    }
}

/// The entries of one kind: those of pieces in work, and the last ones before.
#[derive(Default)]
pub(super) struct Bodies(VecDeque<Arc<OwingEntry>>);

impl Bodies {
    /// Bytes that may be fetched.
    pub(super) fn room(&self) -> usize {
        BYTES.saturating_sub(self.0.iter().map(|entry| entry.bytes).sum())
    }

    /// Something may be fetched, or something that is here may be worked on.
    pub(super) fn may_go_on(&self) -> bool {
        self.room() > 0 || self.0.iter().any(|entry| Arc::strong_count(entry) == 1)
    }

    /// Drops entries that nobody works on, the oldest first, until there is room; but not this one.
    pub(super) fn make_room(&mut self, but: &str) {
        let unused = |entry: &Arc<OwingEntry>| Arc::strong_count(entry) == 1 && entry.id != but;
        while (self.room() == 0 || self.0.len() >= ENTRIES)
            && let Some(n) = self.0.iter().position(unused)
        {
            self.0.remove(n);
        }
    }

    /// Nothing is owed any more.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn ids(&self) -> Vec<String> {
        self.0.iter().map(|entry| entry.id.clone()).collect()
    }

    pub(super) fn add(&mut self, entry: OwingEntry) -> Arc<OwingEntry> {
        let entry = Arc::new(entry);
        self.0.push_back(entry.clone());
        entry
    }

    pub(super) fn find(&self, id: &str) -> Option<Arc<OwingEntry>> {
        self.0.iter().find(|entry| entry.id == id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use futures::FutureExt;
    use shared::tasks::Tasks;
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn raw(id: &str, bytes: usize) -> RawEntry {
        RawEntry {
            id: id.to_owned(),
            fields: Some(EntryFields::from([("b".to_owned(), vec![0; bytes].into())])),
        }
    }

    #[tokio::test]
    async fn a_body_that_makes_its_reader_panic_is_unreadable_for_the_next() {
        let bytes_lock = BytesLock::new(Tasks::new(CancellationToken::new()));
        let body = LazyPayload::new(raw("1-0", 1).fields.expect("fields"));
        let first = body.read_by(&bytes_lock, |_| panic!("on purpose"));
        assert!(AssertUnwindSafe(first).catch_unwind().await.is_err());
        assert!(body.read(&bytes_lock).await.is_none());
        assert!(bytes_lock.try_shared().is_some(), "others read on");
    }

    #[test]
    fn the_last_entries_stay_as_long_as_there_is_room_and_those_in_work_anyway() {
        let mut bodies = Bodies::default();
        let large = |id| OwingEntry::new(OwedKind::State, raw(id, BYTES));
        let in_work = bodies.add(large("1-0"));
        bodies.make_room("2-0");
        assert!(!bodies.may_go_on() && bodies.find("1-0").is_some());
        drop(in_work);
        bodies.make_room("1-0");
        assert!(
            bodies.may_go_on() && bodies.find("1-0").is_some(),
            "it is the next one's"
        );
        bodies.make_room("2-0");
        assert_eq!((bodies.ids(), bodies.room()), (Vec::new(), BYTES));
        for n in 0..2 * ENTRIES {
            bodies.make_room("");
            bodies.add(OwingEntry::new(OwedKind::Put, raw(&format!("{n}-0"), 1)));
        }
        assert_eq!(bodies.ids().len(), ENTRIES);
    }
}
