//! Reads an entry's bytes: what the window is told of it, and what it is made of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use shared::entry::{EntryFields, Returned, StreamEntry, parse_numbers};

use super::content::{Content, Head};
use super::window::{Items, Opened};
use crate::context::WorkerContext;
use crate::item::customer::Customer;
use crate::item::payload::Payload;
use crate::item::tenant::Verdict;
use crate::item::traffic;
use crate::out::error::Reason;
use crate::out::media::outcome::UnstoredMedia;
use crate::out::store;
use crate::read::lanes::{LaneHasher, LaneKey};
use crate::read::stream::{Notes, RawEntry};

/// What the bytes of an entry say, read by [`read`] alone.
#[derive(Debug)]
pub(super) enum Decoded {
    /// A pending entry was deleted by somebody else.
    Gone,
    Undecodable(String),
    Unreadable(StreamEntry, String),
    /// With the keys of each item's lanes.
    Payload(Payload, Vec<(usize, Vec<LaneKey>)>),
}

/// Reads an entry's bytes. What takes a process down does it here or where events are made.
pub(super) fn read(raw: &RawEntry, hasher: &LaneHasher) -> Decoded {
    let Some(fields) = &raw.fields else {
        return Decoded::Gone;
    };
    let entry = match StreamEntry::decode(fields) {
        Ok(entry) => entry,
        Err(error) => return Decoded::Undecodable(error.to_string()),
    };
    if let Some(reason) = entry.unreadable.clone() {
        return Decoded::Unreadable(entry, reason);
    }
    let payload = match Payload::open(entry) {
        Ok(payload) => payload,
        Err(unopened) => {
            return Decoded::Unreadable(unopened.entry, unopened.unreadable.to_string());
        }
    };
    let fresh = payload.entry.fresh.iter();
    let lanes = fresh.map(|n| {
        let item = payload.items.get(*n);
        let keys = item.map(|item| Customer::of(&payload, item).lane_keys(hasher, &payload, item));
        (*n, keys.unwrap_or_default())
    });
    let lanes = lanes.collect();
    Decoded::Payload(payload, lanes)
}

/// What former tenures noted of one entry.
#[derive(Debug, Default)]
pub(super) struct FormerNotes {
    /// Items that are done.
    done: BTreeSet<usize>,
    /// What the first publications of its items said of media that wasn't stored.
    said: BTreeMap<usize, UnstoredMedia>,
    /// Crashes at which it was pending.
    pub(super) crashes: usize,
    /// Processes that died while they read its bytes.
    deaths: usize,
}

impl FormerNotes {
    /// Takes what the notes have of an entry.
    pub(super) fn take(notes: &mut Notes, id: &str) -> Self {
        let done = notes.progress.remove(id);
        let done = done.and_then(|numbers| parse_numbers(&numbers));
        Self {
            done: done.unwrap_or_default().into_iter().collect(),
            said: UnstoredMedia::read(&notes.media.remove(id).unwrap_or_default()),
            crashes: notes.crashes.get(id).copied().unwrap_or(0),
            deaths: notes.deaths.get(id).copied().unwrap_or(0),
        }
    }

    /// It is set aside unread: too many processes died over its bytes. If events of it went out, its
    /// bytes could be read once, and are read again for what those events promised (a file that follows,
    /// the raw body), until twice as many have died.
    pub(super) fn gives_up(&self, most: usize) -> bool {
        self.deaths >= most && (self.done.is_empty() || self.deaths >= 2 * most)
    }
}

/// What an entry that is given up unread is made of.
pub(super) fn given_up(
    work: &WorkerContext,
    raw: &RawEntry,
    former: &FormerNotes,
    held_by: impl FnOnce(&str, Verdict) -> Verdict,
) -> (Opened, Content) {
    let entry = raw.fields.as_ref().map(StreamEntry::decode);
    let Some(Ok(entry)) = entry else {
        return opened(
            work,
            raw,
            Decoded::Undecodable("unread".to_owned()),
            FormerNotes::default(),
        );
    };
    let head = Head::of(&raw.id, &entry, store::body_name(&entry.body));
    let (waba_id, name) = (head.waba_id.clone(), head.name.clone());
    let mut content = Content::new(raw.id.clone(), head);
    content.deaths = former.deaths;
    let verdict = work.tenants.remembered(&waba_id);
    content.verdict = verdict.map(|verdict| held_by(&waba_id, verdict));
    let fresh = entry.fresh.iter().copied();
    let open: Vec<usize> = fresh.filter(|n| !former.done.contains(n)).collect();
    give_up(work, &mut content, Reason::Crashes, open, name, None);
    (Opened::Over, content)
}

/// What the window is told of an entry, and what it is made of.
pub(super) fn opened(
    work: &WorkerContext,
    raw: &RawEntry,
    bytes: Decoded,
    former: FormerNotes,
) -> (Opened, Content) {
    let id = || raw.id.clone();
    match bytes {
        Decoded::Gone => {
            tracing::error!(
                entry = raw.id,
                "a pending entry was deleted by somebody else"
            );
            (Opened::Over, Content::new(id(), Head::nobody(&raw.id)))
        }
        Decoded::Undecodable(error) => {
            tracing::error!(entry = raw.id, error, "an entry can't be decoded");
            let mut content = Content::new(id(), Head::nobody(&raw.id));
            if let Some(fields) = &raw.fields {
                content.head.returned = Returned::decode(fields);
            }
            let reason = Reason::Undecodable;
            give_up(work, &mut content, reason, Vec::new(), id(), Some(error));
            (Opened::Over, content)
        }
        Decoded::Unreadable(entry, error) => {
            let head = Head::of(&raw.id, &entry, store::body_name(&entry.body));
            let mut content = Content::new(id(), head);
            content
                .span()
                .in_scope(|| tracing::warn!(reason = error, "a body can't be read"));
            let name = content.head.name.clone();
            let reason = Reason::Unreadable;
            give_up(work, &mut content, reason, Vec::new(), name, Some(error));
            (Opened::Over, content)
        }
        Decoded::Payload(payload, lanes) => items(work, raw, payload, lanes, former),
    }
}

fn items(
    work: &WorkerContext,
    raw: &RawEntry,
    payload: Payload,
    lanes: Vec<(usize, Vec<LaneKey>)>,
    former: FormerNotes,
) -> (Opened, Content) {
    work.traffic.note(&payload);
    work.health.note(&payload, traffic::now_ms());
    let head = Head::of(&raw.id, &payload.entry, store::entry_name(&payload));
    let mut content = Content::new(raw.id.clone(), head);
    let (done, mut open): (Vec<_>, Vec<_>) = lanes
        .into_iter()
        .partition(|(n, _)| former.done.contains(n));
    let done: Vec<usize> = done.into_iter().map(|(n, _)| n).collect();
    let pending = |n: &usize| former.said.get(n) == Some(&UnstoredMedia::Pending);
    content.formerly_pending = done.iter().copied().filter(pending).collect();
    content.said = former.said;
    content.deaths = former.deaths;
    if former.deaths >= work.max_deliveries {
        let name = content.head.name.clone();
        let left = open.drain(..).map(|(n, _)| n).collect();
        give_up(work, &mut content, Reason::Crashes, left, name, None);
    }
    content.media_until = work.media.deadline();
    content.open = open.iter().map(|(n, _)| *n).collect();
    let items = Items {
        account: content.head.waba_id.clone(),
        bytes: bytes_of(raw),
        open,
        done,
        archive: work.store.archives(),
        only_for: content.head.only_for().map(str::to_owned),
        has_no_account: payload.has_no_account(),
        verdict: work.tenants.remembered(&content.head.waba_id),
    };
    content.payload = Some(Arc::new(payload));
    (Opened::Items(items), content)
}

/// Of its fields.
pub(super) fn bytes_of(raw: &RawEntry) -> usize {
    let fields = raw.fields.iter().flat_map(EntryFields::values);
    fields.map(bytes::Bytes::len).sum()
}

fn give_up(
    work: &WorkerContext,
    content: &mut Content,
    reason: Reason,
    items: Vec<usize>,
    name: String,
    error: Option<String>,
) {
    let count = items.len().max(1);
    work.metrics.entry_set_aside(count, reason.name());
    let error = error.unwrap_or_else(|| reason.description().to_owned());
    content.give_up(reason, items, name, error);
}
