//! An entry between its read and its acknowledgement: what of it is open, published, set aside, and what
//! it still owes when it is acknowledged.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use shared::entry::{StreamEntry, format_numbers};
use shared::trace;
use tokio::time::Instant;
use tracing::{Span, field};

use super::Work;
use super::item::{ItemMedia, owed_media};
use crate::event::{EventType, RawObject};
use crate::gate::Turn;
use crate::media::follow_up;
use crate::media::outcome::Said;
use crate::payload::Payload;
use crate::state;
use crate::store::{self, Described};
use crate::stream::{Owed, OwedMedia, OwedObject};
use crate::tenants::{Tenant, Verdict};

/// An entry between its read and its acknowledgement.
pub(super) struct Entry {
    pub(super) id: String,
    /// What every line and span about it says of it.
    pub(super) span: Span,
    pub(super) read_at: Instant,
    pub(super) bytes: usize,
    pub(super) head: Head,
    /// `None` while nothing of it can run and memory is short.
    pub(super) payload: Option<Arc<Payload>>,
    pub(super) verdict: Option<Verdict>,
    pub(super) items: usize,
    pub(super) open: BTreeSet<usize>,
    /// Open, and not behind any other item.
    pub(super) ready: Vec<usize>,
    pub(super) running: usize,
    pub(super) published: Vec<usize>,
    /// How many of them are in a note that was sent.
    pub(super) noted: usize,
    /// Of those that aren't.
    pub(super) turns: Vec<Turn>,
    /// Conversation ids of published messages, by item.
    pub(super) conversations: HashMap<usize, String>,
    /// What the failed store gets instead of the entry's body.
    pub(super) failed_body: Vec<u8>,
    /// By reason: the items, and what the failed object is called.
    pub(super) set_aside: BTreeMap<&'static str, (Vec<usize>, String)>,
    pub(super) archive: Archive,
    /// Where the raw object lies, or will.
    pub(super) object_key: Option<String>,
    /// Until when its messages wait for their media.
    pub(super) media_until: Instant,
    /// Of its open items; `None` before their transfers were started.
    pub(super) media: Option<HashMap<usize, ItemMedia>>,
    /// What former tenures published of media that wasn't stored.
    pub(super) said: BTreeMap<usize, Said>,
    /// Published as pending by a former tenure, and done but for that.
    pub(super) formerly_pending: Vec<usize>,
    pub(super) pending_media: Vec<OwedMedia>,
    pub(super) acknowledging: bool,
}

/// What of an entry is needed after its body is gone.
pub(super) struct Head {
    pub(super) waba_id: String,
    pub(super) received_at_ms: i64,
    pub(super) described: Described,
    /// What the raw object is called.
    pub(super) name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Archive {
    Due,
    Running,
    Owed,
    Done,
}

impl Entry {
    pub(super) fn new(id: String, bytes: usize, head: Head) -> Self {
        let [correlation_id, traceparent] = head.trace();
        let span = tracing::error_span!(
            "delivery",
            entry = id,
            correlation_id,
            waba_id = head.waba_id,
            tenant_id = field::Empty
        );
        trace::adopt(&span, &traceparent);
        Self {
            id,
            span,
            read_at: Instant::now(),
            bytes,
            head,
            payload: None,
            verdict: None,
            items: 0,
            open: BTreeSet::new(),
            ready: Vec::new(),
            running: 0,
            published: Vec::new(),
            noted: 0,
            turns: Vec::new(),
            conversations: HashMap::new(),
            failed_body: Vec::new(),
            set_aside: BTreeMap::new(),
            archive: Archive::Done,
            object_key: None,
            media_until: Instant::now(),
            media: None,
            said: BTreeMap::new(),
            formerly_pending: Vec::new(),
            pending_media: Vec::new(),
            acknowledging: false,
        }
    }

    /// Its tenant is known now, or that it has none.
    pub(super) fn decide(&mut self, verdict: Verdict) {
        if let Some(tenant_id) = verdict.tenant_id() {
            self.span.record("tenant_id", tenant_id);
        }
        self.verdict = Some(verdict);
    }

    /// Starts the transfers of all its open items, as soon as its tenant is known: those that must
    /// wait for their turn don't make it longer.
    pub(super) fn begin_media(&mut self, work: &Work) {
        let (Some(Verdict::Active(tenant)), Some(payload), None) =
            (&self.verdict, &self.payload, &self.media)
        else {
            return;
        };
        let _in_span = self.span.enter();
        let media = self.open.iter().filter_map(|n| {
            if let Some(said) = self.said.get(n) {
                return Some((*n, ItemMedia::Said(said.clone())));
            }
            let job = follow_up::job(payload, payload.items.get(*n)?, &tenant.id)?;
            let flight = work.media.begin(&Arc::new(job), self.media_until);
            Some((*n, ItemMedia::Flying(flight, self.media_until)))
        });
        self.media = Some(media.collect());
    }

    /// Items that a former tenure published as pending still need their follow-up.
    pub(super) fn owe_former(
        &mut self,
        payload: &Payload,
        tenant: &Tenant,
        raw_object: Option<&RawObject>,
    ) {
        for n in std::mem::take(&mut self.formerly_pending) {
            match owed_media(payload, n, tenant, raw_object) {
                Ok(owed) => self.pending_media.push(owed),
                Err(_) => {
                    self.span
                        .in_scope(|| tracing::error!("pending media can't be kept"));
                }
            }
        }
    }

    pub(super) fn archiving(&self) -> bool {
        self.archive == Archive::Running
    }

    /// All of it goes to the failed store.
    pub(super) fn give_up(&mut self, reason: &'static str, name: String) {
        self.set_aside.insert(reason, (Vec::new(), name));
    }

    /// What is left to do when it is acknowledged.
    pub(super) fn owed(&self, state: bool) -> Vec<Owed> {
        let tenant_id = self.verdict.as_ref().and_then(Verdict::tenant_id);
        let folder = store::folder(tenant_id, &self.head.waba_id);
        let failed = self.set_aside.iter().map(|(reason, (items, name))| {
            let mut described = self.head.described(items);
            described.insert("reason".to_owned(), (*reason).to_owned());
            (
                store::failed_key(&folder, self.head.received_at_ms, name),
                described,
                self.failed_body.clone(),
            )
        });
        let archive = self
            .object_key
            .clone()
            .filter(|_| self.archive == Archive::Owed)
            .map(|key| (key, self.head.described(&[]), Vec::new()));
        let objects = failed.chain(archive).map(|(key, described, body)| {
            Owed::Object(OwedObject {
                key,
                attributes: serde_json::to_string(&described).unwrap_or_default(),
                body,
            })
        });
        objects.chain(self.to_tell().filter(|_| state)).collect()
    }

    /// What the State Manager is to be told: of each published message. Of one that an earlier
    /// tenure published the conversation isn't known any more.
    pub(super) fn to_tell(&self) -> impl Iterator<Item = Owed> {
        let known = self.payload.as_ref().zip(self.verdict.as_ref());
        let known = known.and_then(|(payload, verdict)| Some((payload, verdict.tenant_id()?)));
        let published = self.published.iter().map(move |n| (known, *n));
        published.filter_map(|(known, n)| {
            let (payload, tenant_id) = known?;
            let item = payload.items.get(n)?;
            let event_id = EventType::MessageReceived.id(item);
            let conversation_id = self.conversations.get(&n).map(String::as_str);
            let told = state::told(payload, item, tenant_id, event_id, conversation_id)?;
            Some(Owed::State(told))
        })
    }
}

impl Head {
    pub(super) fn of(entry: &StreamEntry, name: String) -> Self {
        Self {
            waba_id: entry.waba_id.clone(),
            received_at_ms: entry.received_at_ms,
            described: Described::from([
                ("correlation-id", entry.correlation_id.clone()),
                ("signature", entry.signature.clone()),
                ("waba-id", entry.waba_id.clone()),
                ("received-at", entry.received_at_ms.to_string()),
                ("traceparent", entry.traceparent.clone()),
            ]),
            name,
        }
    }

    /// Of an entry that can't be decoded; its id in the stream says when it came.
    pub(super) fn nobody(id: &str) -> Self {
        let ms = id.split_once('-').and_then(|(ms, _)| ms.parse().ok());
        Self {
            waba_id: shared::webhook::NO_WABA.to_owned(),
            received_at_ms: ms.unwrap_or(0),
            described: Described::from([("entry", id.to_owned())]),
            name: id.to_owned(),
        }
    }

    /// Correlation id and traceparent.
    pub(super) fn trace(&self) -> [String; 2] {
        ["correlation-id", "traceparent"]
            .map(|name| self.described.get(name).cloned().unwrap_or_default())
    }

    pub(super) fn described(&self, items: &[usize]) -> BTreeMap<String, String> {
        let mut described: BTreeMap<String, String> = self
            .described
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        if !items.is_empty() {
            let mut items = items.to_vec();
            items.sort_unstable();
            described.insert("items".to_owned(), format_numbers(items));
        }
        described
    }
}
