//! What an erasure found, and how the command ends.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{anyhow, ensure};
use serde::Serialize;
use shared::telemetry::CommandError;

/// What there is, or was.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Erasure {
    pub(super) erased: bool,
    /// Payloads that go, by folder.
    pub(super) payloads: BTreeMap<String, usize>,
    /// Payloads of which a part goes.
    pub(super) rewritten: usize,
    pub(super) media: usize,
    /// Accounts of which Redis forgets tenant, token, limit and traffic.
    pub(super) accounts: BTreeSet<String>,
    /// Still on its way: streams, spool.
    pub(super) waiting: usize,
    /// Other ids of the customer, seen beside the one that was asked for.
    pub(super) other_ids: BTreeSet<String>,
    /// Objects that stay although they may be theirs.
    pub(super) left: BTreeSet<LeftObject>,
    /// Folders and accounts that could not be looked into, and why.
    pub(super) unseen: BTreeMap<String, String>,
    /// Accounts without a tenant that have payloads, and may be anybody's.
    pub(super) unowned: BTreeSet<String>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct LeftObject {
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) why: String,
}

impl Erasure {
    /// How many objects it is about.
    pub(super) fn objects(&self) -> u64 {
        let payloads: usize = self.payloads.values().sum();
        (payloads + self.rewritten + self.media) as u64
    }

    /// # Errors
    /// What is to be done next.
    pub(super) fn verdict(&self) -> anyhow::Result<()> {
        if !self.unseen.is_empty() {
            let unseen = self.unseen.len();
            let why =
                anyhow!("{unseen} folders or accounts could not be looked into: run this again");
            return Err(CommandError(why).into());
        }
        ensure!(
            self.left.is_empty(),
            "{} objects were left alone, all others are done: run this again for those that were \
             moved or didn't answer; look at those that are damaged, and delete them by hand",
            self.left.len()
        );
        ensure!(
            !self.erased || self.waiting == 0,
            "{} are still on their way and were left alone: run this again once they are through \
             (`worker inspect`)",
            self.waiting
        );
        ensure!(!self.is_nothing(), "nothing was found");
        Ok(())
    }

    fn is_nothing(&self) -> bool {
        let counts = [
            self.rewritten,
            self.media,
            self.waiting,
            self.accounts.len(),
        ];
        self.payloads.is_empty() && counts.iter().all(|count| *count == 0)
    }

    pub(super) fn count(&mut self, folder: &str, done: ErasedPayload) {
        let (media, other_ids) = match done {
            ErasedPayload::Untouched => return,
            ErasedPayload::Deleted { media, other_ids } => {
                *self.payloads.entry(folder.to_owned()).or_default() += 1;
                (media, other_ids)
            }
            ErasedPayload::Rewritten { media, other_ids } => {
                self.rewritten += 1;
                (media, other_ids)
            }
        };
        self.media += media;
        self.other_ids.extend(other_ids);
    }
}

/// What became of a payload.
pub(super) enum ErasedPayload {
    Untouched,
    Deleted {
        media: usize,
        other_ids: BTreeSet<String>,
    },
    Rewritten {
        media: usize,
        other_ids: BTreeSet<String>,
    },
}
