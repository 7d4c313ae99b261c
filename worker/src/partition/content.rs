//! What an entry is made of, from when its bytes were read until it is recorded: its body, its tenant,
//! what was set aside, and what it still owes. Which of its items may run, [`super::window`] says.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use shared::entry::{Returned, StreamEntry, format_numbers};
use shared::status;
use shared::trace;
use shared::webhook::Identity;
use tokio::time::Instant;
use tracing::{Level, Span};

use super::item::{Item, ItemMedia, Prepared};
use crate::ask::state::has_post;
use crate::context::WorkerContext;
use crate::item::event::{self, RawObject};
use crate::item::payload::Payload;
use crate::item::tenant::Verdict;
use crate::out::error::Reason;
use crate::out::media::TransferRequester;
use crate::out::media::outcome::UnstoredMedia;
use crate::out::store::{self, ObjectAttributes};
use crate::owed::{media, state};
use crate::read::gate::TransferPace;
use crate::read::owed::{Owed, OwedMedia, OwedPut, OwedSettle, Settled};

/// What an entry is made of.
pub(super) struct Content {
    pub(super) id: String,
    /// Made when it is needed: [`Content::span`].
    span: OnceCell<Span>,
    pub(super) read_at: Instant,
    pub(super) head: Head,
    /// `None` while nothing of it can run and memory is short.
    pub(super) payload: Option<Arc<Payload>>,
    pub(super) verdict: Option<Verdict>,
    /// What goes out: its fresh items, without those that a former tenure published.
    pub(super) open: Vec<usize>,
    /// Of items whose media and conversation are known, until they are published.
    pub(super) prepared: HashMap<usize, Prepared>,
    /// Conversation ids of published messages, by item.
    pub(super) conversations: HashMap<usize, String>,
    pub(super) set_aside: BTreeMap<Reason, SetAside>,
    /// Processes that died while they read its bytes.
    pub(super) deaths: usize,
    /// Where the raw object lies, or will. `None`: nothing of it is archived.
    pub(super) object_key: Option<String>,
    /// Its archive write failed, or takes too long.
    pub(super) archive_owed: bool,
    /// Until when its messages wait for their media.
    pub(super) media_until: Instant,
    /// Of its open items; `None` before their transfers were started.
    pub(super) media: Option<HashMap<usize, ItemMedia>>,
    /// What former tenures published of media that wasn't stored.
    pub(super) said: BTreeMap<usize, UnstoredMedia>,
    /// Published as pending by a former tenure, and done but for that.
    pub(super) formerly_pending: Vec<usize>,
    pub(super) pending_media: Vec<OwedMedia>,
}

/// What of an entry goes to the failed store for one reason.
pub(super) struct SetAside {
    /// Empty: what it has isn't known.
    pub(super) items: Vec<usize>,
    /// What the object is called.
    pub(super) name: String,
    pub(super) error: String,
}

/// What of an entry is needed after its body is gone.
pub(super) struct Head {
    pub(super) waba_id: String,
    pub(super) received_at_ms: i64,
    pub(super) described: ObjectAttributes,
    /// What the raw object is called.
    pub(super) name: String,
    /// Where it comes from, if it was put back.
    pub(super) returned: Option<Returned>,
    /// Identity of the body, if it was put back.
    returned_body: Option<Identity>,
}

impl Content {
    pub(super) fn new(id: String, head: Head) -> Self {
        let content = Self {
            id,
            span: OnceCell::new(),
            read_at: Instant::now(),
            head,
            payload: None,
            verdict: None,
            open: Vec::new(),
            prepared: HashMap::new(),
            conversations: HashMap::new(),
            set_aside: BTreeMap::new(),
            deaths: 0,
            object_key: None,
            archive_owed: false,
            media_until: Instant::now(),
            media: None,
            said: BTreeMap::new(),
            formerly_pending: Vec::new(),
            pending_media: Vec::new(),
        };
        // A trace tells how long it was here.
        if tracing::span_enabled!(Level::DEBUG) {
            content.span();
        }
        content
    }

    /// What every line and span about it says of it. Most entries have no line: a twentieth of the
    /// worker's time went into spans that nobody saw.
    pub(super) fn span(&self) -> &Span {
        self.span.get_or_init(|| {
            let [correlation_id, traceparent] = self.head.trace();
            let tenant_id = self.verdict.as_ref().and_then(Verdict::tenant_id);
            let span = tracing::error_span!(
                "delivery",
                entry = self.id,
                correlation_id,
                waba_id = self.head.waba_id,
                tenant_id
            );
            trace::adopt(&span, &traceparent);
            span
        })
    }

    /// Of the same, a part for traces alone.
    pub(super) fn trace_span(&self, item: &Item) -> Span {
        let delivery = self.span.get();
        delivery.map_or_else(Span::none, |delivery| item.trace_span(delivery))
    }

    /// Starts the transfers of all its open items, as soon as its tenant is known: those that must
    /// wait for their turn don't make it longer.
    fn begin_media(&mut self, work: &WorkerContext) {
        let (Some(Verdict::Active(tenant)), Some(payload), None) =
            (&self.verdict, &self.payload, &self.media)
        else {
            return;
        };
        if tenant.is_platform() {
            return;
        }
        if self
            .head
            .only_for()
            .is_some_and(|folder| folder != store::segment(&tenant.id))
        {
            return;
        }
        let media = self.open.iter().filter_map(|n| {
            if let Some(said) = self.said.get(n) {
                return Some((*n, ItemMedia::Published(said.clone())));
            }
            let job = media::job(payload, payload.items.get(*n)?, &tenant.id)?;
            if !work.media.places().has(job.media.place) {
                return None;
            }
            // Nobody waits for it, and there may be thousands in an entry.
            if job.pace() == TransferPace::History {
                return Some((*n, ItemMedia::Later));
            }
            let asked_by = TransferRequester::Message(self.media_until);
            let _in_span = self.span().enter();
            let flight = work.media.begin(&Arc::new(job), asked_by);
            Some((*n, ItemMedia::Transferring(flight, self.media_until)))
        });
        self.media = Some(media.collect());
    }

    /// Items that a former tenure published as pending still need their follow-up.
    fn owe_former(&mut self, work: &WorkerContext) {
        let tenant = self.verdict.as_ref().and_then(Verdict::tenant).cloned();
        let (Some(payload), Some(tenant)) = (self.payload.clone(), tenant) else {
            return;
        };
        let raw_object = self.raw_object(work);
        for n in std::mem::take(&mut self.formerly_pending) {
            match media::owed(&payload, n, &tenant, raw_object.as_ref()) {
                Some(owed) => self.pending_media.push(owed),
                None => {
                    self.span()
                        .in_scope(|| tracing::error!("pending media can't be kept"));
                }
            }
        }
    }

    /// It has its tenant, and its body is here.
    pub(super) fn begin(&mut self, work: &WorkerContext, verdict: Verdict) {
        if let (Some(tenant_id), Some(span)) = (verdict.tenant_id(), self.span.get()) {
            span.record("tenant_id", tenant_id);
        }
        if work.store.archives() {
            let archived = self.head.archived_at().map(str::to_owned);
            self.object_key = Some(archived.unwrap_or_else(|| {
                let folder = self.head.folder(Some(&verdict));
                store::archive_key(&folder, self.head.received_at_ms, &self.head.name)
            }));
        }
        self.verdict = Some(verdict);
        self.begin_media(work);
        self.owe_former(work);
    }

    pub(super) fn raw_object(&self, work: &WorkerContext) -> Option<RawObject> {
        let key = self.object_key.as_ref()?;
        Some(work.store.raw_object(key))
    }

    /// One of its items goes to the failed store.
    pub(super) fn set_aside(&mut self, work: &WorkerContext, n: usize, reason: Reason) {
        let payload = self.payload.as_ref();
        let item = payload.and_then(|payload| Some((payload, payload.items.get(n)?)));
        let kind = item.map_or("none", |(payload, item)| event::item_type(payload, item));
        let tenant = self.verdict.as_ref().and_then(Verdict::tenant_id);
        work.metrics.item_set_aside(tenant, kind, reason.name());
        let mut name = match item {
            Some((payload, item)) => store::item_name(payload, item),
            None => format!("{}.{n}", self.head.name),
        };
        let mut others = self.set_aside.iter().filter(|(of, _)| **of != reason);
        if let Some((payload, item)) = item
            && others.any(|(_, other)| other.name == name)
        {
            name = store::name_apart(payload, item);
        }
        let of_reason = self.set_aside.entry(reason);
        let set_aside = of_reason.or_insert_with(|| SetAside {
            items: Vec::new(),
            name,
            error: reason.description().to_owned(),
        });
        set_aside.items.push(n);
    }

    /// All that is left of it goes to the failed store.
    pub(super) fn give_up(
        &mut self,
        reason: Reason,
        items: Vec<usize>,
        name: String,
        error: String,
    ) {
        let set_aside = SetAside { items, name, error };
        self.set_aside.insert(reason, set_aside);
    }

    /// What of it is set aside, for the status page.
    pub(super) fn set_asides(&self) -> impl Iterator<Item = status::SetAsideEntry> {
        let tenant_id = self.verdict.as_ref().and_then(Verdict::tenant_id);
        let all = self.set_aside.iter();
        all.map(move |(reason, set_aside)| status::SetAsideEntry {
            reason: reason.name(),
            entry: self.id.clone(),
            correlation_id: self.head.trace()[0].clone(),
            waba_id: self.head.waba_id.clone(),
            tenant_id: tenant_id.map(str::to_owned),
            items: set_aside.items.len(),
        })
    }

    /// What is left to do when it is acknowledged.
    pub(super) fn owed(&self, published: &[usize], state: bool) -> Vec<Owed> {
        let nothing = self.set_aside.is_empty() && self.pending_media.is_empty();
        if nothing && !state && !self.archive_owed && self.head.returned.is_none() {
            return Vec::new();
        }
        let folder = self.head.folder(self.verdict.as_ref());
        let failed: Vec<_> = self.failed(&folder).collect();
        let settle = self.head.returned.as_ref().map(|returned| {
            let settled = match failed.as_slice() {
                [] => Settled::Out,
                failed if failed.iter().any(|(key, _)| *key == returned.source) => Settled::Same,
                [_, ..] => Settled::Again,
            };
            Owed::Settle(OwedSettle {
                source: returned.source.clone(),
                replay_id: returned.replay_id.clone(),
                settled,
            })
        });
        let archive = self.archive_owed.then_some(OwedPut::Archive(folder));
        let failed = failed.into_iter();
        let failed = failed.map(|(key, described)| OwedPut::Failed { key, described });
        let mut owed: Vec<_> = failed.chain(archive).map(Owed::Put).collect();
        owed.extend(settle);
        owed.extend(self.posts(published).filter(|_| state));
        owed.extend(self.pending_media.iter().cloned().map(Owed::Media));
        owed
    }

    /// What of it is set aside: of each object its key, and what it says beside the entry's own.
    fn failed(&self, folder: &str) -> impl Iterator<Item = (String, BTreeMap<String, String>)> {
        self.set_aside.iter().map(move |(reason, set_aside)| {
            let name = self.head.failed_name(&set_aside.name);
            let before = self.head.returned.as_ref().map_or(0, |it| it.attempts);
            let attempts = before + self.deaths.max(1);
            let mut described = BTreeMap::from([
                ("reason".to_owned(), reason.name().to_owned()),
                ("error".to_owned(), set_aside.error.clone()),
                ("attempts".to_owned(), attempts.to_string()),
            ]);
            if !set_aside.items.is_empty() {
                let mut items = set_aside.items.clone();
                items.sort_unstable();
                described.insert("items".to_owned(), format_numbers(items));
            }
            let key = store::failed_key(folder, self.head.received_at_ms, &name);
            (self.head.own_key(key), described)
        })
    }

    /// Posts that the State Manager gets: of each published message. Of one that an earlier tenure
    /// published the conversation isn't known any more.
    fn posts(&self, published: &[usize]) -> impl Iterator<Item = Owed> {
        let known = self.payload.as_ref().zip(self.verdict.as_ref());
        let known = known.and_then(|(payload, verdict)| Some((payload, verdict.tenant()?)));
        let published = published.iter().map(move |n| (known, *n));
        published.filter_map(|(known, n)| {
            let (payload, tenant) = known.filter(|(_, tenant)| !tenant.is_platform())?;
            let conversation_id = self.conversations.get(&n).map(String::as_str);
            let has_post = payload.items.get(n).is_some_and(has_post);
            has_post.then(|| Owed::State(state::owed(&tenant.id, n, conversation_id)))
        })
    }
}

impl Head {
    /// `name`: what the raw object is called.
    pub(super) fn of(id: &str, entry: &StreamEntry, name: String) -> Self {
        let returned = entry.returned.clone();
        Self {
            waba_id: entry.waba_id.clone(),
            received_at_ms: entry.received_at_ms,
            described: store::described_by(id, entry),
            name,
            returned_body: returned.as_ref().map(|_| Identity::of_body(&entry.body)),
            returned,
        }
    }

    /// Of an entry that can't be decoded; its id in the stream says when it came.
    pub(super) fn nobody(id: &str) -> Self {
        let ms = id.split_once('-').and_then(|(ms, _)| ms.parse().ok());
        Self {
            waba_id: shared::webhook::NO_WABA.to_owned(),
            received_at_ms: ms.unwrap_or(0),
            described: ObjectAttributes::from([("entry", id.to_owned())]),
            name: id.to_owned(),
            returned: None,
            returned_body: None,
        }
    }

    /// The folder of the only tenant that it may go out for: the one that it was put back from.
    pub(super) fn only_for(&self) -> Option<&str> {
        let source = &self.returned.as_ref()?.source;
        let folder = source.strip_prefix(store::FAILED).unwrap_or(source);
        let folder = folder.split('/').next()?;
        Some(folder).filter(|folder| *folder != store::UNRESOLVED)
    }

    /// Whose folder its objects belong into.
    pub(super) fn folder(&self, verdict: Option<&Verdict>) -> String {
        match self.only_for() {
            Some(folder) => folder.to_owned(),
            None => store::folder(verdict.and_then(Verdict::tenant_id), &self.waba_id),
        }
    }

    /// Where the archive has it already, if it was put back from there.
    pub(super) fn archived_at(&self) -> Option<&str> {
        let source = &*self.returned.as_ref()?.source;
        Some(source).filter(|source| !source.starts_with(store::FAILED))
    }

    /// What fails again in a replay has the replay's id in its name, and a piece of its source's key:
    /// no two of one replay share a name.
    fn failed_name(&self, name: &str) -> String {
        match &self.returned {
            Some(returned) if !returned.replay_id.is_empty() => {
                let source = Identity::of_body(returned.source.as_bytes()).short();
                format!("{name}.{}.{source}", returned.replay_id)
            }
            Some(_) | None => name.to_owned(),
        }
    }

    /// The key of what is set aside: where it was put back from beside another object, its place there.
    fn own_key(&self, key: String) -> String {
        let beside = self
            .returned_body
            .map(|body| store::alternative_key(&key, body));
        let source = self.returned.as_ref().map(|returned| &*returned.source);
        match beside {
            Some(beside) if source == Some(&*beside) => beside,
            Some(_) | None => key,
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
