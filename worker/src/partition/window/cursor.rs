//! What is read next: first what is pending, then what is new.
//!
//! A read of new entries says which entry it expects to be the last one delivered, and Redis refuses it
//! if that isn't so. So a read whose answer was lost, and that Redis runs late, hides nothing: either it
//! came first, then the next one is refused and what it took is read as pending; or it is refused itself.

use super::ReadEntry;
use crate::read::entry_id::EntryId;

/// What a read asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::partition) enum Next {
    /// Entries that were delivered and not acknowledged, after this one.
    Pending(EntryId),
    /// New ones, if this one was the last to be delivered.
    New(EntryId),
}

/// How a read ended.
#[derive(Debug)]
pub(in crate::partition) enum ReadEnd<B> {
    Entries {
        entries: Vec<ReadEntry<B>>,
        /// The last entry ever delivered.
        delivered: EntryId,
        /// How many entries are delivered and not acknowledged.
        pending: usize,
    },
    /// Nothing was read: another entry than the expected one was the last to be delivered.
    Moved,
    /// Nobody knows whether it was done.
    Failed,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Read(Next),
    Sleep(EntryId),
}

#[derive(Debug)]
pub(super) struct Cursor {
    next: Next,
    /// The last entry that was delivered, as far as is known here.
    delivered: EntryId,
    /// A read or a sleep is under way.
    busy: bool,
    /// Nothing new was there: the next step is to sleep.
    empty: bool,
}

impl Default for Cursor {
    fn default() -> Self {
        Self {
            next: Next::Pending(EntryId::ZERO),
            delivered: EntryId::ZERO,
            busy: false,
            empty: false,
        }
    }
}

impl Cursor {
    pub(super) fn delivered(&self) -> EntryId {
        self.delivered
    }

    /// A read or a sleep is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }

    /// The next step, unless one is under way.
    pub(super) fn go_on(&mut self) -> Option<Step> {
        if self.busy {
            return None;
        }
        self.busy = true;
        Some(match std::mem::take(&mut self.empty) {
            true => Step::Sleep(self.delivered),
            false => Step::Read(self.next),
        })
    }

    pub(super) fn woke(&mut self) {
        self.busy = false;
    }

    /// The entries of a read that ended; `known`: how many pending entries are known here.
    pub(super) fn read_ended<B>(
        &mut self,
        end: ReadEnd<B>,
        known: usize,
    ) -> Option<Vec<ReadEntry<B>>> {
        self.busy = false;
        let (entries, delivered, pending) = match end {
            ReadEnd::Entries {
                entries,
                delivered,
                pending,
            } => (entries, delivered, pending),
            ReadEnd::Moved => {
                // What was delivered without an answer lies behind what is known.
                if let Next::New(expected) = self.next {
                    self.next = Next::Pending(expected);
                }
                return None;
            }
            // The same again.
            ReadEnd::Failed => return None,
        };
        self.delivered = delivered;
        self.next = match (entries.last(), self.next) {
            (Some(last), Next::Pending(_)) => Next::Pending(last.id),
            (Some(_), Next::New(_)) | (None, Next::Pending(_)) => Next::New(delivered),
            // Something is pending that never arrived here.
            (None, Next::New(_)) if pending > known => Next::Pending(EntryId::ZERO),
            (None, Next::New(_)) => {
                self.empty = true;
                Next::New(delivered)
            }
        };
        Some(entries)
    }
}
