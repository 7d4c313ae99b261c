//! `worker erase`: deletes what the stores hold of a tenant, or of one customer. It counts first, and
//! deletes with `--yes` only.
//!
//! Of a customer, payloads are read, one by one: what is theirs alone is deleted; from a payload that
//! has other customers' items too, theirs are cut out, and the rest stays byte for byte. What is still
//! on its way is left alone, since its order and its promises hang on it: it is counted, and then the
//! command ends with an error, to be run again once that is through. An object that can't be read is
//! named and left, and what comes behind it is done.

mod cut;
mod ids;
mod owners;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use anyhow::{Context, anyhow, bail, ensure};
use bytes::Bytes;
use clap::Args;
use futures::stream::{self, StreamExt};
use serde::Serialize;
use shared::telemetry::CommandError;

use self::cut::{Cleared, Gone, clear, cuts, renamed};
use self::owners::Owners;
use super::paper::{Paper, Progress, Tone, row};
use super::{Deployment, field, scan_stream};
use crate::config::Config;
use crate::item::traffic;
use crate::out::store::{self, Bucket, ReadError, StoreError, UNRESOLVED};

/// Objects in work side by side; each may have some MB.
const AT_ONCE: usize = 8;
/// Folders of the webhook bucket that have a folder for each tenant.
const SHARED_FOLDERS: [&str; 4] = ["discarded", "failed", "replayed", "returning"];

#[derive(Args, Debug, Clone)]
pub struct EraseArgs {
    /// A tenant's id; with --customer: only what this tenant has of the customer
    #[arg(long)]
    pub tenant: Option<String>,
    /// A customer's phone number with its country code, or user id (BSUID)
    #[arg(long)]
    pub customer: Option<String>,
    /// With --tenant: a business account of it that nobody remembers; several times for several
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
    /// Other ids of the customer, seen beside the one that was asked for.
    other_ids: BTreeSet<String>,
    /// Objects that stay although they may be theirs.
    left: BTreeSet<Left>,
    /// Folders and accounts that could not be looked into, and why.
    unseen: BTreeMap<String, String>,
    /// Accounts without a tenant that have payloads, and may be anybody's.
    unowned: BTreeSet<String>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Left {
    bucket: String,
    key: String,
    why: String,
}

/// Counts, and deletes if told to.
///
/// # Errors
/// [`CommandError`]; or nothing was found, or something is left.
pub async fn run(config: &Config, args: &EraseArgs) -> anyhow::Result<()> {
    let found = erase(config, args).await.map_err(CommandError)?;
    let mut paper = Paper::new();
    if args.json {
        paper.json(&found)?;
    } else {
        write(&mut paper, &found, args);
    }
    paper.show()?;
    found.judge()
}

async fn erase(config: &Config, args: &EraseArgs) -> anyhow::Result<Erasure> {
    // As a folder it would be all of the bucket.
    let mut folders = args.tenant.iter().chain(&args.account);
    ensure!(
        folders.all(|id| !id.trim().is_empty()),
        "an empty id is nobody's"
    );
    if let Some(tenant) = &args.tenant {
        let reserved = store::is_reserved(tenant) || tenant == UNRESOLVED;
        ensure!(
            !reserved,
            "`{tenant}` is a folder of all tenants, not one's id"
        );
    }
    let customer = args.customer.as_deref();
    let customer = customer.map(|typed| ids::read(typed).context(ids::ACCEPTED));
    let customer = customer.transpose().context("--customer")?;
    let deployment = Deployment::open(config).await?;
    let owners = match &args.tenant {
        Some(tenant) => Owners::of(config, &deployment, args, tenant).await?,
        None => Owners::default(),
    };
    let unknown = owners.unknown.into_iter();
    let found = Erasure {
        erased: args.yes,
        unowned: owners.unowned,
        unseen: unknown
            .map(|(account, why)| (format!("account {account}"), why))
            .collect(),
        ..Erasure::default()
    };
    let eraser = Eraser {
        accounts: owners.theirs,
        deployment,
        args,
    };
    match (customer, &args.tenant) {
        (Some(customer), _) => eraser.of_customer(found, &customer).await,
        (None, Some(tenant)) => eraser.of_tenant(found, tenant).await,
        (None, None) => bail!("say whose: --tenant ID or --customer ID"),
    }
}

impl Erasure {
    /// # Errors
    /// What is to be done next.
    fn judge(&self) -> anyhow::Result<()> {
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

    fn count(&mut self, folder: &str, done: Done) {
        let (media, other_ids) = match done {
            Done::Untouched => return,
            Done::Deleted { media, other_ids } => {
                *self.payloads.entry(folder.to_owned()).or_default() += 1;
                (media, other_ids)
            }
            Done::Rewritten { media, other_ids } => {
                self.rewritten += 1;
                (media, other_ids)
            }
        };
        self.media += media;
        self.other_ids.extend(other_ids);
    }
}

/// Folders of a tenant's payloads.
fn folders_of(tenant_id: &str) -> impl Iterator<Item = String> {
    let tenant = store::segment(tenant_id);
    let shared = SHARED_FOLDERS.map(|folder| format!("{folder}/{tenant}"));
    std::iter::once(tenant).chain(shared)
}

/// Folders of what came while an account had no tenant; `None`: of all accounts.
fn unresolved_folders(account: Option<&str>) -> impl Iterator<Item = String> {
    let folder = match account {
        Some(account) => store::folder(None, account),
        None => UNRESOLVED.to_owned(),
    };
    let shared = SHARED_FOLDERS.map(|shared| format!("{shared}/{folder}"));
    std::iter::once(folder).chain(shared)
}

struct Eraser<'a> {
    deployment: Deployment,
    accounts: BTreeSet<String>,
    args: &'a EraseArgs,
}

impl Eraser<'_> {
    async fn of_tenant(&self, mut found: Erasure, tenant_id: &str) -> anyhow::Result<Erasure> {
        let tenant = store::segment(tenant_id);
        found.accounts = self.accounts.clone();
        let is_theirs = |waiting: &Waiting<'_>| {
            self.accounts.contains(waiting.account)
                || waiting.tenant_id == Some(tenant_id)
                || waiting.key.split('/').any(|part| part == tenant)
        };
        let before = self.waiting(&mut found, is_theirs).await?;
        let mut keys = Vec::new();
        for folder in self.tenant_folders(tenant_id) {
            let below = self.list(&mut found, Bucket::Webhooks, &folder).await?;
            if !below.is_empty() {
                found.payloads.insert(folder, below.len());
            }
            keys.extend(below.into_iter().map(|key| (Bucket::Webhooks, key)));
        }
        let media = self.list(&mut found, Bucket::Media, &tenant).await?;
        found.media = media.len();
        keys.extend(media.into_iter().map(|key| (Bucket::Media, key)));
        if self.args.yes {
            self.delete(&mut found, keys).await?;
            self.forget_accounts().await.context("Redis")?;
        }
        // What was on its way before may have become an object since.
        found.waiting = before.max(self.waiting(&mut found, is_theirs).await?);
        Ok(found)
    }

    fn tenant_folders(&self, tenant_id: &str) -> impl Iterator<Item = String> {
        let accounts = self.accounts.iter();
        let unresolved = accounts.flat_map(|account| unresolved_folders(Some(account)));
        folders_of(tenant_id).chain(unresolved)
    }

    async fn delete(&self, found: &mut Erasure, keys: Vec<(Bucket, String)>) -> anyhow::Result<()> {
        let (mut progress, of) = (Progress::new("deleted"), keys.len());
        let store = &self.deployment.store;
        let deleted = stream::iter(keys).map(async |(bucket, key)| {
            let deleted = store.delete(bucket, &key).await;
            (bucket, key, deleted)
        });
        let mut deleted = deleted.buffer_unordered(AT_ONCE).enumerate();
        while let Some((n, (bucket, key, deleted))) = deleted.next().await {
            if let Err(error) = deleted {
                self.leave(found, bucket, key, error.to_string()).await?;
            }
            progress.at(n + 1, Some(of));
        }
        Ok(())
    }

    /// Notes an object that stays, unless the store does nothing at all.
    async fn leave(
        &self,
        found: &mut Erasure,
        bucket: Bucket,
        key: String,
        why: String,
    ) -> anyhow::Result<()> {
        self.store_answers().await?;
        let bucket = self.deployment.store.bucket_name(bucket).to_owned();
        found.left.insert(Left { bucket, key, why });
        Ok(())
    }

    async fn store_answers(&self) -> anyhow::Result<()> {
        let probed = self.deployment.store.probe().await;
        probed.context("the object store")
    }

    /// Keys below a folder, as far as it can be listed.
    async fn list(
        &self,
        found: &mut Erasure,
        bucket: Bucket,
        folder: &str,
    ) -> anyhow::Result<Vec<String>> {
        let mut listed = self.deployment.store.listed(bucket, folder);
        let mut keys = Vec::new();
        while let Some(key) = listed.next().await {
            match key {
                Ok(key) => keys.push(key),
                Err(error) => {
                    self.store_answers().await?;
                    let bucket = self.deployment.store.bucket_name(bucket);
                    let why = error.to_string();
                    found.unseen.insert(format!("{bucket}/{folder}"), why);
                    break;
                }
            }
        }
        Ok(keys)
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
            let mut given = redis::cmd("HDEL");
            given.arg(keys.tenants(partition)).arg(account);
            given.query_async::<()>(&mut redis).await?;
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(keys.tenants_changed()).arg(account);
            publish.query_async::<()>(&mut redis).await?;
        }
        let mut numbers = self.deployment.numbers().await?;
        numbers.retain(|(account, _)| self.accounts.contains(account));
        traffic::forget(&self.deployment.connection, keys, &numbers).await
    }

    async fn of_customer(&self, mut found: Erasure, customer: &str) -> anyhow::Result<Erasure> {
        let is_theirs = |waiting: &Waiting<'_>| {
            let of_tenant = self.args.tenant.is_none() || self.accounts.contains(waiting.account);
            let told: serde_json::Value = serde_json::from_str(waiting.told).unwrap_or_default();
            let in_told = ["waId", "userId"]
                .iter()
                .any(|name| told[*name].as_str().map(ids::reduced).as_deref() == Some(customer));
            let in_body = !cuts(waiting.body, customer).is_empty();
            (of_tenant || waiting.account.is_empty()) && (in_body || in_told)
        };
        let before = self.waiting(&mut found, is_theirs).await?;
        let returning = self.returning().await.context("Redis")?;
        let mut progress = Progress::new("payloads read");
        let mut read = 0;
        for folder in self.payload_folders().await? {
            // Keys first: what is rewritten under another name must not be met again.
            let keys = self.list(&mut found, Bucket::Webhooks, &folder).await?;
            // Whoever settles these looks for them under their names.
            let (returning, keys): (Vec<_>, Vec<_>) =
                keys.into_iter().partition(|key| returning.contains(key));
            for key in returning {
                match self.deployment.store.read(&key).await {
                    Ok(kept) => {
                        found.waiting += usize::from(!cuts(&kept.body, customer).is_empty())
                    }
                    Err(ReadError::Gone) => {}
                    Err(error) => {
                        let why = error.to_string();
                        self.leave(&mut found, Bucket::Webhooks, key, why).await?;
                    }
                }
            }
            let done = stream::iter(keys).map(async |key| {
                let done = self.payload(&key, customer).await;
                (key, done)
            });
            let mut done = done.buffer_unordered(AT_ONCE);
            let top = folder.split('/').next().unwrap_or_default();
            while let Some((key, done)) = done.next().await {
                read += 1;
                progress.at(read, None);
                match done {
                    Ok(done) => found.count(top, done),
                    Err(why) => self.leave(&mut found, Bucket::Webhooks, key, why).await?,
                }
            }
        }
        // What was on its way before may have become an object since.
        found.waiting += before.max(self.waiting(&mut found, is_theirs).await?);
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
        if let Some(tenant) = &self.args.tenant {
            return Ok(self.tenant_folders(tenant).collect());
        }
        let all = self.deployment.store.folders_in(Bucket::Webhooks, "").await;
        let mut all = all.context("the object store")?;
        all.retain(|folder| folder != "spool");
        Ok(all)
    }

    /// Deletes or rewrites one payload, if told to.
    ///
    /// # Errors
    /// Why it stays.
    async fn payload(&self, key: &str, customer: &str) -> Result<Done, String> {
        let store = &self.deployment.store;
        let kept = match store.read(key).await {
            Ok(kept) => kept,
            Err(ReadError::Gone) => return Err("it was moved or deleted meanwhile".to_owned()),
            Err(error) => return Err(error.to_string()),
        };
        let mut described = kept.described.clone();
        let (files, other_ids, rest) = match clear(&kept.body, &described, customer) {
            Cleared::Untouched => return Ok(Done::Untouched),
            Cleared::Unreadable => return Err("it is no webhook, and has the id".to_owned()),
            Cleared::Cut { gone, beside, rest } => (self.media_of(key, &gone).await?, beside, rest),
        };
        let media = files.len();
        let told = |error: StoreError| error.to_string();
        if self.args.yes {
            // The files first: they are found through the payload.
            for file in files {
                store.delete(Bucket::Media, &file).await.map_err(told)?;
            }
        }
        let Some(rest) = rest else {
            if self.args.yes {
                store.delete(Bucket::Webhooks, key).await.map_err(told)?;
            }
            return Ok(Done::Deleted { media, other_ids });
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
            put.await.map_err(told)?;
            if new_key != key {
                store.delete(Bucket::Webhooks, key).await.map_err(told)?;
            }
        }
        Ok(Done::Rewritten { media, other_ids })
    }

    /// Files of messages that go, where the day of their payload's receipt has them.
    async fn media_of(&self, key: &str, gone: &[Gone]) -> Result<Vec<String>, String> {
        let mut parts = key.rsplit('/');
        let (_, day, tenant) = (parts.next(), parts.next(), parts.next());
        let (Some(day), Some(tenant)) = (day, tenant) else {
            return Ok(Vec::new());
        };
        let mut files = Vec::new();
        for Gone { id, kind } in gone {
            let folder = format!("{tenant}/{kind}/{day}");
            let named = self.deployment.store.media_in(&folder, id).await;
            files.extend(named.map_err(|error| error.to_string())?);
        }
        Ok(files)
    }

    /// How much of spool, streams and later-lists is theirs: in the order in which it moves, so that it
    /// is met at least once.
    async fn waiting(
        &self,
        found: &mut Erasure,
        theirs: impl Fn(&Waiting<'_>) -> bool,
    ) -> anyhow::Result<usize> {
        let (keys, redis) = (&self.deployment.keys, &self.deployment.connection);
        let mut count = self.spooled(found, &theirs).await?;
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

    async fn spooled(
        &self,
        found: &mut Erasure,
        theirs: impl Fn(&Waiting<'_>) -> bool,
    ) -> anyhow::Result<usize> {
        let mut count = 0;
        for key in self.list(found, Bucket::Webhooks, "spool").await? {
            let kept = match self.deployment.store.read(&key).await {
                Ok(kept) => kept,
                Err(ReadError::Gone) => continue,
                Err(error) => {
                    let why = error.to_string();
                    self.leave(found, Bucket::Webhooks, key, why).await?;
                    continue;
                }
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
    Deleted {
        media: usize,
        other_ids: BTreeSet<String>,
    },
    Rewritten {
        media: usize,
        other_ids: BTreeSet<String>,
    },
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
    for Left { bucket, key, why } in &found.left {
        paper.line(Tone::Bad, format!("left: {bucket}/{key}: {why}"));
    }
    for (place, why) in &found.unseen {
        paper.line(Tone::Bad, format!("not looked into: {place}: {why}"));
    }
    write_hints(paper, found, args);
}

fn write_hints(paper: &mut Paper, found: &Erasure, args: &EraseArgs) {
    let tenant = args.tenant.iter();
    let tenant: String = tenant.map(|tenant| format!(" --tenant {tenant}")).collect();
    for id in &found.other_ids {
        let hint = format!("seen beside it, and not erased: worker erase --customer {id}{tenant}");
        paper.line(Tone::Doubtful, hint);
    }
    for account in &found.unowned {
        let hint = format!(
            "account {account} has payloads and no tenant: --account {account} erases these too"
        );
        paper.line(Tone::Doubtful, hint);
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
