//! `worker failed discard`: moves what nobody wants any more to `discarded/`, with who and when, for a
//! lifecycle rule to delete. It counts first. Stopped, it goes on when it is run again: what is moved is not
//! met any more.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use chrono::{SecondsFormat, Utc};
use clap::Args;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use shared::telemetry::{EndsWith, audit};
use tokio_util::sync::CancellationToken;

use super::FailedObject;
use crate::config::Config;
use crate::operator::arguments::{CallerArgs, PayloadFilter};
use crate::operator::given_id::GivenId;
use crate::operator::objects::{NamedObjects, PayloadArea};
use crate::operator::output::{Output, ProgressLine, Style};
use crate::operator::{Deployment, WrongCall};
use crate::out::store::{self, DISCARDED, FAILED, ReadError};

const AT_ONCE: usize = 8;
const STORE: &str = "the failed store";

#[derive(Args, Debug, Clone, Deserialize)]
pub(crate) struct DiscardArgs {
    /// These only: messages, their hashes, correlation ids, events, entries or keys
    #[arg(value_name = "ID", num_args = 0..=100)]
    #[serde(default)]
    ids: Vec<GivenId>,
    #[command(flatten)]
    #[serde(flatten)]
    filter: PayloadFilter,
    /// Everything that is set aside
    #[arg(long, conflicts_with_all = ["ids", "tenant", "reason", "from", "to"])]
    #[serde(default)]
    all: bool,
    /// Discard; without it, only what would be discarded is counted
    #[arg(long)]
    #[serde(default)]
    yes: bool,
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) caller: CallerArgs,
    /// JSON instead of text
    #[arg(long)]
    #[serde(skip)]
    json: bool,
}

/// What was discarded, or would be.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DiscardReport {
    /// What is meant.
    count: usize,
    discarded: usize,
    /// What stays, and why.
    left: Vec<LeftFailure>,
    /// It was stopped before its end.
    stopped: bool,
}

#[derive(Debug, Serialize)]
struct LeftFailure {
    key: String,
    why: String,
}

pub(super) async fn run(config: &Config, args: &DiscardArgs) -> anyhow::Result<()> {
    let deployment = Deployment::open(config).await?;
    let stop = shared::telemetry::shutdown_on_signal()?;
    let report = discard(&deployment, args, &stop).await?;
    let mut output = Output::new();
    if args.json {
        output.json(&report)?;
    } else {
        write(&mut output, &report, args.yes);
    }
    output.show()?;
    match report.count == 0 || !report.left.is_empty() || report.stopped {
        true => Err(EndsWith(1).into()),
        false => Ok(()),
    }
}

/// Counts, and discards if told to.
///
/// # Errors
/// Nothing is named, the store is away, or a Redis command failed.
pub(crate) async fn discard(
    deployment: &Deployment,
    args: &DiscardArgs,
    stop: &CancellationToken,
) -> anyhow::Result<DiscardReport> {
    ensure!(
        args.all || !args.ids.is_empty() || !args.filter.is_empty(),
        WrongCall("say what: ids, --tenant, --reason, --from and --to, or --all".into())
    );
    let keys = meant(deployment, args).await?;
    let mut report = DiscardReport {
        count: keys.len(),
        ..DiscardReport::default()
    };
    if !args.yes {
        return Ok(report);
    }
    let (by, of) = (args.caller.name(), selection(args));
    audit("failed discard", &by, &of, keys.len() as u64);
    let (count, mut progress) = (keys.len(), ProgressLine::new("discarded"));
    let done = stream::iter(keys).map(async |key| {
        let done = one(deployment, &key, &by).await;
        (key, done)
    });
    let done = done.buffer_unordered(AT_ONCE);
    let mut done = done.take_until(stop.cancelled()).boxed_local();
    while let Some((key, done)) = done.next().await {
        match done {
            Ok(()) => report.discarded += 1,
            Err(NotDiscarded::Gone) => report.count -= 1,
            Err(NotDiscarded::Left(why)) => report.left.push(LeftFailure { key, why }),
            Err(NotDiscarded::Failed(error)) => return Err(error),
        }
        progress.at(report.discarded, Some(count));
    }
    report.stopped = stop.is_cancelled();
    Ok(report)
}

/// Keys of what is meant, ascending.
async fn meant(deployment: &Deployment, args: &DiscardArgs) -> anyhow::Result<BTreeSet<String>> {
    let store = &deployment.store;
    let tenant = args.filter.tenant.as_deref();
    let (period, reason) = (args.filter.period.period(), &args.filter.reason);
    let mut keys = BTreeSet::new();
    for id in &args.ids {
        let area = PayloadArea::Failed;
        let named = NamedObjects {
            store,
            area,
            tenant,
        };
        keys.extend(named.all(id).await?);
    }
    if args.ids.is_empty() {
        let mut progress = ProgressLine::new("counted");
        let folder = format!("{FAILED}{}", tenant.map(store::segment).unwrap_or_default());
        let mut listed = store.keys_below(&folder, None);
        while let Some(key) = listed.try_next().await.context(STORE)? {
            keys.insert(key);
            progress.at(keys.len(), None);
        }
    }
    keys.retain(|key| period.has(key));
    let Some(reason) = reason else {
        return Ok(keys);
    };
    let (of, mut progress) = (keys.len(), ProgressLine::new("reasons of the failed store"));
    let described = stream::iter(keys).map(|key| FailedObject::of(deployment, key));
    let mut described = described.buffer_unordered(AT_ONCE).enumerate();
    let mut of_reason = BTreeSet::new();
    while let Some((n, object)) = described.next().await {
        progress.at(n + 1, Some(of));
        let object = object.context(STORE)?;
        let object = object.filter(|object| object.reason.as_ref() == Some(reason));
        of_reason.extend(object.map(|object| object.key));
    }
    Ok(of_reason)
}

/// Why an object isn't discarded.
enum NotDiscarded {
    /// Settled, or discarded by somebody else.
    Gone,
    Left(String),
    Failed(anyhow::Error),
}

/// Moves one: written first, then deleted, so that a crash in between leaves it at both places and the next
/// call does the same again.
async fn one(deployment: &Deployment, key: &str, by: &str) -> Result<(), NotDiscarded> {
    let store = &deployment.store;
    let failed = |error: anyhow::Error| NotDiscarded::Failed(error.context(STORE));
    let (kept, owner) = match store.read(key).await {
        Ok(kept) => {
            let account = kept.of("waba-id").to_owned();
            (kept, account)
        }
        Err(ReadError::Gone) => return Err(NotDiscarded::Gone),
        Err(error @ ReadError::Store(_)) => return Err(failed(error.into())),
        Err(error) => return Err(NotDiscarded::Left(error.to_string())),
    };
    // What was put back is an entry again, and its worker settles the object.
    let partition = deployment.keys.partition_of(&owner);
    let mut exists = redis::cmd("HEXISTS");
    exists.arg(deployment.keys.returning(partition)).arg(key);
    let mut redis = deployment.connection.clone();
    let returning = exists.query_async(&mut redis);
    let returning: bool = (returning.await.context("Redis")).map_err(NotDiscarded::Failed)?;
    if returning {
        return Err(NotDiscarded::Left("it is being replayed".to_owned()));
    }
    let mut described = kept.described;
    described.insert("discarded-by".to_owned(), by.to_owned());
    let now = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
    described.insert("discarded-at".to_owned(), now);
    let rest = key.strip_prefix(FAILED).unwrap_or(key);
    let moved = async {
        let target = format!("{DISCARDED}{rest}");
        store.put(&target, &described, kept.body).await?;
        store.remove(key).await
    };
    moved.await.map_err(|error| failed(error.into()))
}

fn selection(args: &DiscardArgs) -> String {
    let all = if args.all { "--all" } else { "" };
    let ids = args.ids.iter().map(|id| format!(" {}", id.text()));
    format!("{all}{}{}", args.filter.typed(), ids.collect::<String>())
}

fn write(output: &mut Output, report: &DiscardReport, yes: bool) {
    match yes {
        true => {
            let text = format!("{} of {} are discarded", report.discarded, report.count);
            output.line(Style::Plain, text);
        }
        false => {
            let text = format!("{} would be discarded: --yes does it", report.count);
            output.line(Style::Doubtful, text);
        }
    }
    for LeftFailure { key, why } in &report.left {
        output.line(Style::Bad, format!("left where it is: {key}: {why}"));
    }
    if report.stopped {
        output.line(Style::Doubtful, "stopped: run it again to go on");
    }
}
