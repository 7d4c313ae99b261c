//! `worker erase`: deletes what the stores hold of a tenant, or of one customer. It counts first, and
//! deletes with `--yes` only.
//!
//! Of a customer, payloads are read, one by one: what is theirs alone is deleted; from a payload that
//! has other customers' items too, theirs are cut out, and the rest stays byte for byte. What is still
//! on its way is left alone, since its order and its promises hang on it: it is counted, and then the
//! command ends with an error, to be run again once that is through.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use clap::Args;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use serde_json::value::RawValue;
use shared::entry::{StreamEntry, VERSION, format_numbers, parse_numbers};
use shared::webhook::{all_members, elements, members, scalar};

use super::inspect::told;
use super::paper::{Paper, Progress, Tone, row};
use super::{Deployment, field, scan_stream};
use crate::config::Config;
use crate::payload::{Payload, PayloadItem};
use crate::store::{self, Bucket, ReadError};
use crate::traffic;

/// Objects in work side by side; each may have some MB.
const AT_ONCE: usize = 8;
/// Nothing of a webhook lies deeper.
const DEEPEST: usize = 12;
/// Folders of the webhook bucket that have a folder for each tenant.
const SHARED_FOLDERS: [&str; 3] = ["failed", "replayed", "returning"];
const UNRESOLVED: &str = "_unresolved";
/// Members that name a person where they stand in an element of a list.
const NAMING: [&str; 23] = [
    "from",
    "from_user_id",
    "from_parent_user_id",
    "to",
    "to_user_id",
    "to_parent_user_id",
    "recipient",
    "recipient_id",
    "recipient_user_id",
    "recipient_parent_user_id",
    "parent_recipient_user_id",
    "recipient_participant_id",
    "participant_recipient_id",
    "recipient_participant_user_id",
    "recipient_participant_parent_user_id",
    "wa_id",
    "new_wa_id",
    "customer",
    "user_id",
    "parent_user_id",
    "previous_user_id",
    "previous_parent_user_id",
    "input",
];
/// Messages of these types have a file.
const WITH_FILES: [&str; 5] = ["audio", "document", "image", "sticker", "video"];

#[derive(Args, Debug, Clone)]
pub struct EraseArgs {
    /// A tenant's id; with --customer: only what this tenant has of the customer
    #[arg(long)]
    pub tenant: Option<String>,
    /// A customer's phone number as Meta writes it (wa_id: digits), or user id (BSUID)
    #[arg(long)]
    pub customer: Option<String>,
    /// With --tenant: a business account of it that Redis may have forgotten; several times for several
    #[arg(long, requires = "tenant")]
    pub account: Vec<String>,
    /// Delete; without it, only what would be deleted is counted
    #[arg(long)]
    pub yes: bool,
    /// JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// What there is, or was.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Erasure {
    erased: bool,
    /// Payloads that go, by folder.
    payloads: BTreeMap<String, usize>,
    /// Payloads of which a part goes.
    rewritten: usize,
    media: usize,
    /// Accounts of which Redis forgets tenant, token, limit and traffic.
    accounts: BTreeSet<String>,
    /// Still on its way: streams, later-lists, spool.
    waiting: usize,
    /// Keys of payloads that can't be read and hold the customer's id.
    unreadable: Vec<String>,
}

/// Counts, and deletes if told to.
///
/// # Errors
/// A server is away, or something is left that has to be deleted later.
pub async fn run(config: &Config, args: &EraseArgs) -> anyhow::Result<()> {
    for id in [&args.tenant, &args.customer]
        .into_iter()
        .flatten()
        .chain(&args.account)
    {
        // As a folder it would be all of the bucket.
        ensure!(!person(id).is_empty(), "an empty id is nobody's");
    }
    if let Some(tenant) = &args.tenant {
        let reserved = store::is_reserved(tenant) || tenant == UNRESOLVED;
        ensure!(
            !reserved,
            "`{tenant}` is a folder of all tenants, not one's id"
        );
    }
    let deployment = Deployment::open(config).await?;
    let eraser = Eraser {
        accounts: accounts(&deployment, args).await?,
        deployment,
        args,
    };
    let found = match (&args.customer, &args.tenant) {
        (Some(customer), _) => eraser.of_customer(&person(customer)).await?,
        (None, Some(tenant)) => eraser.of_tenant(tenant).await?,
        (None, None) => bail!("say whose: --tenant ID or --customer ID"),
    };
    let mut paper = Paper::new();
    if args.json {
        paper.json(&found)?;
    } else {
        write(&mut paper, &found, args);
    }
    paper.show()?;
    if args.yes && found.waiting > 0 {
        bail!(
            "{} are still on their way and were left alone: run this again once they are through \
             (`worker inspect`)",
            found.waiting
        );
    }
    if args.yes && !found.unreadable.is_empty() {
        bail!(
            "{} payloads must be looked at by hand",
            found.unreadable.len()
        );
    }
    Ok(())
}

/// The tenant's accounts that are known of.
async fn accounts(deployment: &Deployment, args: &EraseArgs) -> anyhow::Result<BTreeSet<String>> {
    let mut accounts: BTreeSet<String> = args.account.iter().cloned().collect();
    let Some(tenant) = &args.tenant else {
        return Ok(accounts);
    };
    if let Some(file) = &deployment.secrets.tenants {
        let file = file.current();
        let of_tenant = file.limits().map(|(account, _)| account);
        let of_tenant =
            of_tenant.filter(|account| file.verdict(account).tenant_id() == Some(tenant));
        accounts.extend(of_tenant.map(str::to_owned));
    }
    let mut redis = deployment.connection.clone();
    let mut range = redis::cmd("ZRANGE");
    range.arg(deployment.keys.tenants_seen()).arg(0).arg(-1);
    let seen: Vec<String> = range.query_async(&mut redis).await.context("Redis")?;
    for account in seen {
        let mut get = redis::cmd("GET");
        get.arg(deployment.keys.tenant(&account));
        let said: Option<String> = get.query_async(&mut redis).await?;
        let said: serde_json::Value =
            serde_json::from_str(&said.unwrap_or_default()).unwrap_or_default();
        if said["tenant"]["tenantId"] == tenant.as_str() {
            accounts.insert(account);
        }
    }
    Ok(accounts)
}

struct Eraser<'a> {
    deployment: Deployment,
    accounts: BTreeSet<String>,
    args: &'a EraseArgs,
}

impl Eraser<'_> {
    async fn of_tenant(&self, tenant_id: &str) -> anyhow::Result<Erasure> {
        let tenant = store::segment(tenant_id);
        let store = &self.deployment.store;
        let mut found = Erasure {
            erased: self.args.yes,
            accounts: self.accounts.clone(),
            ..Erasure::default()
        };
        let mut folders = vec![tenant.clone()];
        folders.extend(SHARED_FOLDERS.map(|folder| format!("{folder}/{tenant}")));
        for account in &self.accounts {
            let account = store::segment(account);
            folders.push(format!("{UNRESOLVED}/{account}"));
            folders.extend(SHARED_FOLDERS.map(|it| format!("{it}/{UNRESOLVED}/{account}")));
        }
        let is_theirs = |waiting: &Waiting<'_>| {
            self.accounts.contains(waiting.account)
                || waiting.tenant_id == Some(tenant_id)
                || waiting.key.split('/').any(|part| part == tenant)
        };
        let before = self.waiting(is_theirs).await?;
        let mut keys = Vec::new();
        for folder in folders {
            let below: Vec<String> = self.list(Bucket::Webhooks, &folder).await?;
            if !below.is_empty() {
                found.payloads.insert(folder, below.len());
            }
            keys.extend(below.into_iter().map(|key| (Bucket::Webhooks, key)));
        }
        let media = self.list(Bucket::Media, &tenant).await?;
        found.media = media.len();
        keys.extend(media.into_iter().map(|key| (Bucket::Media, key)));
        if self.args.yes {
            let (mut progress, of) = (Progress::new("deleted"), keys.len());
            let deleted =
                stream::iter(keys).map(async |(bucket, key)| store.delete(bucket, &key).await);
            let mut deleted = deleted.buffer_unordered(AT_ONCE).enumerate();
            while let Some((n, deleted)) = deleted.next().await {
                deleted.map_err(|error| told(&error))?;
                progress.at(n + 1, Some(of));
            }
            self.forget_accounts().await.context("Redis")?;
        }
        // What was on its way before may have become an object since.
        found.waiting = before.max(self.waiting(is_theirs).await?);
        Ok(found)
    }

    async fn list(&self, bucket: Bucket, folder: &str) -> anyhow::Result<Vec<String>> {
        let listed = self.deployment.store.listed(bucket, folder);
        listed.try_collect().await.map_err(|error| told(&error))
    }

    /// Redis forgets the tenant's accounts, and all workers do.
    async fn forget_accounts(&self) -> redis::RedisResult<()> {
        let keys = &self.deployment.keys;
        let mut redis = self.deployment.connection.clone();
        for account in &self.accounts {
            let partition = keys.partition_of(account);
            // One by one: they lie in different slots of a cluster.
            for key in [
                keys.tenant(account),
                keys.token(account),
                keys.rate(partition, account),
            ] {
                redis::cmd("DEL")
                    .arg(key)
                    .query_async::<()>(&mut redis)
                    .await?;
            }
            for key in [keys.tenants_seen(), keys.tenants_unknown()] {
                let mut rem = redis::cmd("ZREM");
                rem.arg(key).arg(account);
                rem.query_async::<()>(&mut redis).await?;
            }
            let mut limit = redis::cmd("HDEL");
            limit.arg(keys.seen(partition)).arg(format!("l{account}"));
            limit.query_async::<()>(&mut redis).await?;
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(keys.tenants_changed()).arg(account);
            publish.query_async::<()>(&mut redis).await?;
        }
        let mut numbers = self.deployment.numbers().await?;
        numbers.retain(|(account, _)| self.accounts.contains(account));
        traffic::forget(&self.deployment.connection, keys, &numbers).await
    }

    async fn of_customer(&self, customer: &str) -> anyhow::Result<Erasure> {
        let mut found = Erasure {
            erased: self.args.yes,
            ..Erasure::default()
        };
        let is_theirs = |waiting: &Waiting<'_>| {
            let of_tenant = self.args.tenant.is_none() || self.accounts.contains(waiting.account);
            let told: serde_json::Value = serde_json::from_str(waiting.told).unwrap_or_default();
            let in_told = ["waId", "userId"]
                .iter()
                .any(|name| told[*name].as_str().map(person).as_deref() == Some(customer));
            let in_body = !cuts(waiting.body, customer).is_empty();
            (of_tenant || waiting.account.is_empty()) && (in_body || in_told)
        };
        let before = self.waiting(is_theirs).await?;
        let returning = self.returning().await.context("Redis")?;
        let mut progress = Progress::new("payloads read");
        let mut read = 0;
        for folder in self.payload_folders().await? {
            let listed = self.deployment.store.listed(Bucket::Webhooks, &folder);
            // Keys first: what is rewritten under another name must not be met again.
            let keys: Vec<String> = listed.try_collect().await.map_err(|error| told(&error))?;
            // Whoever settles these looks for them under their names.
            let (left_alone, keys): (Vec<_>, Vec<_>) =
                keys.into_iter().partition(|key| returning.contains(key));
            for key in left_alone {
                match self.deployment.store.read(&key).await {
                    Ok(kept) => {
                        found.waiting += usize::from(!cuts(&kept.body, customer).is_empty())
                    }
                    Err(ReadError::Gone) => {}
                    Err(error) => bail!("an object can't be read: {error}"),
                }
            }
            let done = stream::iter(keys).map(async |key| {
                let done = self.payload(&key, customer).await;
                done.with_context(|| format!("the object {key}"))
            });
            let mut done = done.buffer_unordered(AT_ONCE);
            while let Some(done) = done.try_next().await? {
                read += 1;
                progress.at(read, None);
                let top = folder.split('/').next().unwrap_or_default();
                match done {
                    Done::Untouched => {}
                    Done::Deleted { media } => {
                        *found.payloads.entry(top.to_owned()).or_default() += 1;
                        found.media += media;
                    }
                    Done::Rewritten { media } => {
                        found.rewritten += 1;
                        found.media += media;
                    }
                    Done::Unreadable(key) => found.unreadable.push(key),
                }
            }
        }
        // What was on its way before may have become an object since.
        found.waiting += before.max(self.waiting(is_theirs).await?);
        Ok(found)
    }

    /// Keys of the objects that are entries again, or about to be moved.
    async fn returning(&self) -> redis::RedisResult<HashSet<String>> {
        let mut redis = self.deployment.connection.clone();
        let mut all = HashSet::new();
        for partition in 0..self.deployment.keys.partitions() {
            let mut keys = redis::cmd("HKEYS");
            keys.arg(self.deployment.keys.returning(partition));
            let keys: Vec<String> = keys.query_async(&mut redis).await?;
            all.extend(keys);
        }
        Ok(all)
    }

    async fn payload_folders(&self) -> anyhow::Result<Vec<String>> {
        let Some(tenant) = &self.args.tenant else {
            let all = self.deployment.store.top_folders(Bucket::Webhooks).await;
            let mut all = all.map_err(|error| told(&error))?;
            all.retain(|folder| folder != "spool");
            return Ok(all);
        };
        let tenant = store::segment(tenant);
        let shared = SHARED_FOLDERS.map(|folder| format!("{folder}/{tenant}"));
        Ok(std::iter::once(tenant.clone()).chain(shared).collect())
    }

    /// Deletes or rewrites one payload, if told to.
    async fn payload(&self, key: &str, customer: &str) -> anyhow::Result<Done> {
        let store = &self.deployment.store;
        let kept = match store.read(key).await {
            Ok(kept) => kept,
            Err(error) => bail!("can't be read: {error}"),
        };
        let mut described = kept.described.clone();
        let (media, rest) = match clear(&kept.body, &described, customer) {
            Cleared::Untouched => return Ok(Done::Untouched),
            Cleared::Unreadable => return Ok(Done::Unreadable(key.to_owned())),
            Cleared::Cut { gone, rest } => (self.media_of(key, &gone).await?, rest),
        };
        let count = media.len();
        if self.args.yes {
            // The files first: they are found through the payload.
            for file in media {
                let deleted = store.delete(Bucket::Media, &file).await;
                deleted.map_err(|error| told(&error))?;
            }
        }
        let Some(rest) = rest else {
            if self.args.yes {
                let deleted = store.delete(Bucket::Webhooks, key).await;
                deleted.map_err(|error| told(&error))?;
            }
            return Ok(Done::Deleted { media: count });
        };
        if self.args.yes {
            // Neither is true of the other bytes.
            for name in ["signature", "sha256"] {
                described.remove(name);
            }
            described.insert("items".to_owned(), rest.items.clone());
            described.insert("erased".to_owned(), "a customer's items".to_owned());
            let new_key = renamed(key, &rest);
            let put = store.put(&new_key, &described, Bytes::from(rest.body));
            put.await.map_err(|error| told(&error))?;
            if new_key != key {
                let deleted = store.delete(Bucket::Webhooks, key).await;
                deleted.map_err(|error| told(&error))?;
            }
        }
        Ok(Done::Rewritten { media: count })
    }

    /// Files of messages that go, where the day of their payload's receipt has them.
    async fn media_of(&self, key: &str, gone: &[Gone]) -> anyhow::Result<Vec<String>> {
        let mut parts = key.rsplit('/');
        let (_, day, tenant) = (parts.next(), parts.next(), parts.next());
        let (Some(day), Some(tenant)) = (day, tenant) else {
            return Ok(Vec::new());
        };
        let mut files = Vec::new();
        for Gone { id, kind } in gone {
            let folder = format!("{tenant}/{kind}/{day}");
            let named = self.deployment.store.media_in(&folder, id).await;
            files.extend(named.map_err(|error| told(&error))?);
        }
        Ok(files)
    }

    /// How much of spool, streams and later-lists is theirs: in the order in which it moves, so that it
    /// is met at least once.
    async fn waiting(&self, theirs: impl Fn(&Waiting<'_>) -> bool) -> anyhow::Result<usize> {
        let (keys, redis) = (&self.deployment.keys, &self.deployment.connection);
        let mut count = self.spooled(&theirs).await?;
        for partition in 0..keys.partitions() {
            let lists = [
                keys.stream(partition),
                keys.later(partition),
                keys.later_media(partition),
            ];
            for list in lists {
                let scan = scan_stream(redis, &list, usize::MAX, |entry| {
                    let text = |name| String::from_utf8(field(entry, name)).unwrap_or_default();
                    let (account, key, told, tenant) = (text("w"), text("o"), text("m"), text("t"));
                    let waiting = Waiting {
                        account: &account,
                        tenant_id: Some(&*tenant),
                        key: &key,
                        told: &told,
                        body: &field(entry, "b"),
                    };
                    count += usize::from(theirs(&waiting));
                });
                scan.await.context("Redis")?;
            }
        }
        Ok(count)
    }

    async fn spooled(&self, theirs: impl Fn(&Waiting<'_>) -> bool) -> anyhow::Result<usize> {
        let mut count = 0;
        for key in self.list(Bucket::Webhooks, "spool").await? {
            let kept = match self.deployment.store.read(&key).await {
                Ok(kept) => kept,
                Err(ReadError::Gone) => continue,
                Err(error) => bail!("the spool can't be read: {error}"),
            };
            // A line of JSON stands before the body.
            let end = kept.body.iter().position(|byte| *byte == b'\n');
            let end = end.unwrap_or(0);
            let head: serde_json::Value =
                serde_json::from_slice(&kept.body[..end]).unwrap_or_default();
            let waiting = Waiting {
                account: head["wabaId"].as_str().unwrap_or_default(),
                tenant_id: None,
                key: "",
                told: "",
                body: &kept.body[end..],
            };
            count += usize::from(theirs(&waiting));
        }
        Ok(count)
    }
}

/// Something on its way; what it has not is empty.
struct Waiting<'w> {
    account: &'w str,
    tenant_id: Option<&'w str>,
    key: &'w str,
    told: &'w str,
    body: &'w [u8],
}

enum Done {
    Untouched,
    Deleted { media: usize },
    Rewritten { media: usize },
    Unreadable(String),
}

/// A payload without a customer.
enum Cleared {
    Untouched,
    Unreadable,
    Cut {
        gone: Vec<Gone>,
        /// `None`: nobody else's item is left.
        rest: Option<Rest>,
    },
}

/// A message with a file that goes.
struct Gone {
    id: String,
    kind: &'static str,
}

/// What is left of a payload.
struct Rest {
    body: Vec<u8>,
    /// As the attribute `items` has them.
    items: String,
    /// What its object was called, and is to be called.
    names: [String; 2],
}

fn clear(body: &[u8], described: &BTreeMap<String, String>, customer: &str) -> Cleared {
    let Some(payload) = open(body) else {
        let text = String::from_utf8_lossy(body);
        return if text.contains(customer) {
            Cleared::Unreadable
        } else {
            Cleared::Untouched
        };
    };
    let cuts = cuts(body, customer);
    if cuts.is_empty() {
        return Cleared::Untouched;
    }
    let is_cut = |item: &&PayloadItem| {
        let at = range(&payload.entry.body, payload.raw(item));
        cuts.iter()
            .any(|cut| cut.start <= at.start && at.end <= cut.end)
    };
    let gone = payload.items.iter().filter(is_cut);
    let gone = gone.filter_map(|item| {
        let [kind] = members(payload.raw(item), ["type"])?;
        let kind = scalar(kind?)?;
        let kind = WITH_FILES.into_iter().find(|name| *name == &*kind)?;
        let id = item.id.clone()?;
        Some(Gone { id, kind })
    });
    let rest = rest(&payload, described, &cuts, |item| !is_cut(&item));
    Cleared::Cut {
        gone: gone.collect(),
        rest,
    }
}

fn rest(
    payload: &Payload,
    described: &BTreeMap<String, String>,
    cuts: &[Range<usize>],
    stays: impl Fn(&PayloadItem) -> bool,
) -> Option<Rest> {
    let body = without(&payload.entry.body, cuts);
    let left = open(&body)?;
    let listed = described.get("items").filter(|items| !items.is_empty());
    let listed = listed.and_then(|items| parse_numbers(items));
    let listed = listed.unwrap_or_else(|| (0..payload.items.len()).collect());
    let listed: Vec<&PayloadItem> = listed
        .iter()
        .filter_map(|n| payload.items.get(*n))
        .collect();
    // By identity: what stood beside cut items may count as an item of its own now.
    let numbers: HashMap<[u8; 32], usize> = left
        .items
        .iter()
        .enumerate()
        .map(|(n, item)| (item.identity.0, n))
        .collect();
    let staying = listed.iter().filter(|item| stays(item));
    let mut items: Vec<usize> = staying
        .filter_map(|item| numbers.get(&item.identity.0).copied())
        .collect();
    items.sort_unstable();
    let first = left.items.get(*items.first()?)?;
    let names = [store::item_name(listed.first()?), store::item_name(first)];
    Some(Rest {
        items: format_numbers(items),
        names,
        body,
    })
}

/// The key of what is left: a message's id holds its sender's number.
fn renamed(key: &str, rest: &Rest) -> String {
    let [old, new] = &rest.names;
    match key.strip_suffix(&format!("-{old}.json")) {
        Some(front) => format!("{front}-{new}.json"),
        None => key.to_owned(),
    }
}

fn open(body: &[u8]) -> Option<Payload> {
    let fields = [
        ("v", VERSION),
        ("w", ""),
        ("c", ""),
        ("t", "0"),
        ("n", ""),
        ("s", ""),
        ("p", ""),
        ("r", ""),
    ];
    let mut fields: HashMap<String, Vec<u8>> = fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    fields.insert("b".to_owned(), body.to_vec());
    Payload::open(StreamEntry::decode(&fields).ok()?).ok()
}

/// A phone number may be written with `+`.
fn person(id: &str) -> String {
    id.trim().trim_start_matches('+').to_owned()
}

/// Elements of lists that are about a customer, in the order of the body.
fn cuts(body: &[u8], customer: &str) -> Vec<Range<usize>> {
    let mut cuts = Vec::new();
    let changes = shared::webhook::read(body).map(|webhook| {
        let entries = webhook.entries.into_iter();
        let changes = entries.filter_map(|entry| members(entry.raw, ["changes"])?[0]);
        changes.collect::<Vec<_>>()
    });
    for changes in changes.unwrap_or_default() {
        walk(body, changes, customer, 0, &mut cuts);
    }
    cuts
}

fn walk(body: &[u8], json: &RawValue, customer: &str, depth: usize, cuts: &mut Vec<Range<usize>>) {
    if depth > DEEPEST {
        return;
    }
    if let Some(elements) = elements(json) {
        for element in elements {
            if is_about(element, customer) {
                cuts.push(range(body, element));
            } else {
                walk(body, element, customer, depth + 1, cuts);
            }
        }
    } else if let Some(all) = all_members(json) {
        for (_, member) in all {
            walk(body, member, customer, depth + 1, cuts);
        }
    }
}

fn is_about(element: &RawValue, customer: &str) -> bool {
    let is = |text: &RawValue| scalar(text).is_some_and(|text| person(&text) == customer);
    let names = |object: &RawValue| {
        let named = members(object, NAMING).unwrap_or([None; NAMING.len()]);
        named.into_iter().flatten().any(is)
    };
    // Where ids stand one level down: of a change, of what an echo wraps, of who changed their number.
    let within = members(element, ["value", "message", "system"]).unwrap_or([None; 3]);
    let thread = match members(element, ["id", "messages"]) {
        Some([Some(id), Some(_)]) => is(id),
        Some(_) | None => false,
    };
    is(element) || thread || names(element) || within.into_iter().flatten().any(names)
}

/// Where `part`, which was borrowed from `body`, lies in it.
fn range(body: &[u8], part: &RawValue) -> Range<usize> {
    let start = part.get().as_ptr() as usize - body.as_ptr() as usize;
    start..start + part.get().len()
}

/// The body without some elements of its lists, each with a comma beside it.
fn without(body: &[u8], cuts: &[Range<usize>]) -> Vec<u8> {
    let mut body = body.to_vec();
    for cut in cuts.iter().rev() {
        let space = |byte: &&u8| byte.is_ascii_whitespace();
        let after = cut.end + body[cut.end..].iter().take_while(space).count();
        let before = cut.start - body[..cut.start].iter().rev().take_while(space).count();
        if body.get(after) == Some(&b',') {
            body.drain(cut.start..=after);
        } else if before > 0 && body[before - 1] == b',' {
            body.drain(before - 1..cut.end);
        } else {
            body.drain(cut.clone());
        }
    }
    body
}

fn write(paper: &mut Paper, found: &Erasure, args: &EraseArgs) {
    paper.head(if found.erased { "Deleted" } else { "To delete" });
    let payloads = found.payloads.iter();
    let mut rows: Vec<_> = payloads
        .map(|(folder, n)| {
            row(
                Tone::Plain,
                [&n.to_string(), &format!("payloads in {folder}")],
            )
        })
        .collect();
    let more = [
        (
            found.rewritten,
            "payloads without this customer's items; others' stay",
        ),
        (found.media, "media files"),
        (
            found.accounts.len(),
            "accounts in Redis: tenant, token, limit, traffic",
        ),
    ];
    let more = more.into_iter().filter(|(n, _)| *n > 0);
    rows.extend(more.map(|(n, what)| row(Tone::Plain, [&n.to_string(), what])));
    if rows.is_empty() {
        paper.line(Tone::Plain, "nothing");
    }
    paper.table(&rows);
    if found.waiting > 0 {
        let waiting = "are still on their way (streams, later-lists, spool) and stay";
        paper.line(Tone::Bad, format!("{} {waiting}", found.waiting));
    }
    for key in &found.unreadable {
        paper.line(Tone::Bad, format!("can't be read, and has the id: {key}"));
    }
    paper.line(
        Tone::Faint,
        "not reached: what lies in RabbitMQ and at consumers; marks of seen items (hashes) run out \
         by themselves",
    );
    if args.tenant.is_some() && args.customer.is_none() {
        paper.line(
            Tone::Faint,
            "the Tenant Service must forget the tenant first, or its next webhook brings it back",
        );
    }
    if args.customer.is_some() {
        paper.line(
            Tone::Faint,
            "media is found through archived payloads: where ARCHIVE is off, it is not",
        );
    }
    if !found.erased {
        paper.line(Tone::Doubtful, "nothing was deleted: --yes deletes it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[
        {"field":"messages","value":{"metadata":{"phone_number_id":"7"},
          "contacts":[{"wa_id":"111"} , {"wa_id":"222"}],
          "messages":[{"from":"111","id":"wamid.A","type":"image"}, {"from":"222","id":"wamid.B"},
            {"from":"+111","id":"wamid.C"}],
          "statuses":[{"id":"wamid.D","recipient_id":"111","status":"sent"}]}},
        {"field":"history","value":{"history":[{"threads":[{"id":"111","messages":[{"id":"x"}]}]}]}}]}]}"#;

    fn described(items: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("items".to_owned(), items.to_owned())])
    }

    #[test]
    fn a_customers_items_are_cut_out_and_the_rest_stays_byte_for_byte() {
        let Cleared::Cut { gone, rest } = clear(BODY.as_bytes(), &described(""), "111") else {
            panic!("111 is in it");
        };
        assert_eq!(gone.len(), 1);
        assert_eq!((&*gone[0].id, gone[0].kind), ("wamid.A", "image"));
        let rest = rest.expect("222 is left");
        let text = String::from_utf8(rest.body.clone()).expect("text");
        assert!(!text.contains("111"), "{text}");
        for part in [
            r#""contacts":[ {"wa_id":"222"}]"#,
            r#""messages":[ {"from":"222","id":"wamid.B"}]"#,
            r#""statuses":[]"#,
            r#""threads":[]"#,
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        assert_eq!(renamed("t/d/5-wamid.A.json", &rest), "t/d/5-wamid.B.json");
        assert_eq!(renamed("t/d/5-other.json", &rest), "t/d/5-other.json");
    }

    #[test]
    fn the_items_of_a_failure_keep_their_meaning() {
        let Cleared::Cut { rest, .. } = clear(BODY.as_bytes(), &described("1-2"), "111") else {
            panic!("111 is in it");
        };
        assert_eq!(rest.expect("222 is left").items, "0");
        // Only the first message had failed: nobody else's is left to do.
        let Cleared::Cut { rest, .. } = clear(BODY.as_bytes(), &described("0"), "111") else {
            panic!("111 is in it");
        };
        assert!(rest.is_none());
    }

    #[test]
    fn who_is_not_in_it_changes_nothing() {
        for nobody in ["333", "11", "1", "7", "wamid.A"] {
            let cleared = clear(BODY.as_bytes(), &described(""), nobody);
            assert!(matches!(cleared, Cleared::Untouched), "{nobody}");
        }
        assert!(matches!(
            clear(b"{ 111", &described(""), "111"),
            Cleared::Unreadable
        ));
    }
}
