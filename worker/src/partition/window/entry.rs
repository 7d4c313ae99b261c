//! An entry of the window, from when its bytes were read until Redis knows that it is done.

use std::collections::BTreeSet;

use crate::item::tenant::Verdict;
use crate::out::error::{Decision, Failure, Reason};
use crate::out::store;
use crate::read::entry_id::EntryId;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: EntryId,
    pub(super) account: String,
    /// Of its body; part of [`super::Window::bytes`] unless that is away.
    pub(super) bytes: usize,
    pub(super) body: Body,
    /// Items that are in a queue.
    pub(super) published: Vec<usize>,
    /// How many of them Redis knows of.
    pub(super) recorded: usize,
    pub(super) phase: Phase,
}

#[derive(Debug)]
pub(super) enum Phase {
    Open(Open),
    /// All its items have ended; its archive write is under way.
    Archiving,
    /// Its record is under way, or the next one's.
    Finished,
}

/// An entry of which something has not ended.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) tenant: TenantOf,
    pub(super) only_for: Option<String>,
    pub(super) has_no_account: bool,
    /// It was told that it begins.
    pub(super) begun: bool,
    /// No item of it was left when it was opened.
    pub(super) empty: bool,
    /// Items that have not ended.
    pub(super) left: BTreeSet<usize>,
    /// Of `left`: behind no other in their lanes, and not started.
    pub(super) ready: Vec<usize>,
    /// Of `left`: started.
    pub(super) running: usize,
    pub(super) archive: Archive,
}

/// What is known of an entry's tenant.
#[derive(Debug)]
pub(super) enum TenantOf {
    Unknown,
    /// Its account is in [`super::Window::asked`].
    Asked,
    /// Known, and perhaps to be noted before the entry is given to it.
    Known(Verdict),
    Given(Verdict),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Archive {
    Due,
    Running,
    /// Written, owed, or not needed.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Here,
    Loading,
    /// Nothing of it can run, and memory is short.
    Away,
    /// Somebody else has deleted it: what is left of its entry ends, each item in its turn.
    Gone,
}

impl Entry {
    /// One of which nothing goes out.
    pub(super) fn over(id: EntryId) -> Self {
        Self {
            id,
            account: String::new(),
            bytes: 0,
            body: Body::Away,
            published: Vec::new(),
            recorded: 0,
            phase: Phase::Finished,
        }
    }

    pub(super) fn open(&mut self) -> Option<&mut Open> {
        match &mut self.phase {
            Phase::Open(open) => Some(open),
            Phase::Archiving | Phase::Finished => None,
        }
    }

    /// How many publications Redis doesn't know of: as many turns are this entry's.
    pub(super) fn unrecorded(&self) -> usize {
        self.published.len() - self.recorded
    }
}

impl Open {
    /// Whose it is: an account that nobody knows may be none.
    pub(super) fn whose(&self, verdict: &Verdict) -> Verdict {
        match verdict {
            Verdict::Unknown if self.has_no_account => Verdict::platform(),
            Verdict::Active(_) | Verdict::Suspended(_) | Verdict::Unknown | Verdict::Unusable => {
                verdict.clone()
            }
        }
    }

    /// Why all that is left of it goes to the failed store; `None`: it goes out.
    pub(super) fn reason_to_set_aside(&self, verdict: &Verdict) -> Option<Reason> {
        let failure = match (&self.only_for, verdict.tenant_id()) {
            (Some(folder), Some(tenant_id)) if *folder != store::segment(tenant_id) => {
                Failure::TenantChanged
            }
            (Some(_), _) | (None, _) => Failure::Tenant(verdict.clone()),
        };
        match failure.decide() {
            Decision::SetAside(reason) => Some(reason),
            Decision::GoOn | Decision::Retry | Decision::Leave => None,
        }
    }
}
