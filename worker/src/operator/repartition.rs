//! `worker repartition`: changes the partition count of a deployment in which nothing is under way.
//!
//! Each partition has the count that it counts for in its `seen` hash; ingress' script compares it with
//! its own, so that an ingress that still runs with the old count writes nothing, into any partition,
//! from then on: until it is restarted with the new one it answers 503, or has a spool, which is by account.
//!
//! The steps: (1) nothing lives, waits or lies in the spool; (2) each partition that is still empty gets
//! the new count; (3) tenants' own limits are copied to where their accounts go; (4) the deployment
//! gets the new count; (5) the copies that nobody reads any more are deleted. What a run that was killed
//! between them leaves behind, and how the next one ends or undoes it: ARCHITECTURE.md, "Another
//! partition count".

use anyhow::{Context, bail, ensure};
use clap::Args;
use futures::stream::StreamExt;
use serde::Serialize;
use shared::keys::Keys;
use shared::script::Script;
use shared::telemetry::{CommandError, audit};

use super::Deployment;
use super::arguments::CallerArgs;
use super::output::{Output, Style, row};
use crate::config::Config;
use crate::out::store::Bucket;

#[derive(Args, Debug, Clone)]
pub struct RepartitionArgs {
    /// The new count
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub to: u16,
    /// JSON instead of text
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub(crate) caller: CallerArgs,
}

/// How a change ended.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Repartitioned {
    partitions: u16,
    before: u16,
    /// The change that a run before had begun.
    undone: bool,
}

/// What a partition still holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PartitionContents {
    partition: u16,
    entries: u64,
    /// Pieces that acknowledged entries still owe.
    owed: u64,
    leased: bool,
    /// The count that it took webhooks for; `None`: the one that the deployment began with.
    taken_for: Option<u16>,
}

impl PartitionContents {
    fn holds(&self) -> bool {
        self.entries + self.owed > 0 || self.leased
    }
}

/// Checks, and changes the count, or ends what a run before began.
///
/// # Errors
/// Something is still under way, or Redis or the store can't be asked. The count is the old one then,
/// unless the message says otherwise.
pub async fn run(config: &Config, args: &RepartitionArgs) -> anyhow::Result<()> {
    let deployment = Deployment::open(config).await?;
    deployment
        .connection
        .ping()
        .await
        .context("Redis")
        .map_err(CommandError)?;
    let old = deployment.stored_partitions.context(
        "nothing has run on this Redis yet: set STREAM_PARTITIONS and start the programs",
    )?;
    let (new, most) = (args.to, args.to.max(old));
    nobody_works(&deployment).await?;
    let partitions = fence(&deployment, most, None).await?;
    let begun = partitions
        .iter()
        .find_map(|held| held.taken_for.filter(|count| *count != old));
    if begun.is_none() {
        ensure!(
            spool_is_empty(&deployment).await?,
            "the spool is not empty: let the workers finish it, stop them, and run this again"
        );
    }
    let held: Vec<_> = partitions
        .into_iter()
        .filter(PartitionContents::holds)
        .collect();
    if !held.is_empty() {
        if begun.is_some() {
            open_for(&deployment, most, old).await?;
        }
        write_held(&held)?;
        bail!(
            "{} partitions are not drained: stop ingress, let the workers finish, stop them, and run \
             this again",
            held.len()
        );
    }
    if new == old && begun.is_some() {
        open_for(&deployment, most, old).await?;
        let done = Repartitioned {
            partitions: old,
            before: old,
            undone: true,
        };
        return done.tell(args);
    }
    let refused = fence(&deployment, most, Some(new)).await?;
    if refused.iter().any(PartitionContents::holds) {
        open_for(&deployment, most, old).await?;
        bail!(
            "something came in meanwhile: stop ingress, let the workers finish, and run this again"
        );
    }
    let keys = Keys::new(&config.redis.redis_key_prefix, new);
    copy_limits(&deployment, most, &keys)
        .await
        .context("Redis: the change is not complete, run this again")
        .map_err(CommandError)?;
    set_count(&deployment, old, new).await?;
    delete_stray_limits(&deployment, most, &keys)
        .await
        .context("Redis")
        .map_err(CommandError)?;
    if let Err(error) = nobody_works(&deployment).await {
        bail!("the count is {new} now, but {error}");
    }
    let done = Repartitioned {
        partitions: new,
        before: old,
        undone: false,
    };
    done.tell(args)
}

async fn spool_is_empty(deployment: &Deployment) -> anyhow::Result<bool> {
    let mut spool = deployment.store.listed(Bucket::Webhooks, "spool");
    let first = spool.next().await.transpose();
    Ok(first
        .context("the object store")
        .map_err(CommandError)?
        .is_none())
}

impl Repartitioned {
    fn tell(&self, args: &RepartitionArgs) -> anyhow::Result<()> {
        let count = self.partitions.to_string();
        audit("repartition", &args.caller.name(), &count, 1);
        let mut output = Output::new();
        if args.json {
            output.json(self)?;
        } else {
            self.write(&mut output);
        }
        Ok(output.show()?)
    }

    fn write(&self, output: &mut Output) {
        let Self {
            partitions: new,
            before: old,
            undone,
        } = self;
        if *undone {
            output.line(
                Style::Good,
                format!("{new} partitions, as before: the change that had begun is undone"),
            );
            return;
        }
        output.line(Style::Good, format!("{new} partitions (there were {old})"));
        output.line(
            Style::Plain,
            format!("start ingress and workers with STREAM_PARTITIONS={new}"),
        );
        if new != old {
            output.line(
                Style::Faint,
                "what was remembered of items stays where it was: a webhook that Meta repeats now may be \
                 processed again, with the same eventId",
            );
        }
    }
}

async fn nobody_works(deployment: &Deployment) -> anyhow::Result<()> {
    let workers = deployment
        .live_workers()
        .await
        .context("Redis")
        .map_err(CommandError)?;
    ensure!(
        workers.is_empty(),
        "{} workers live: stop them first (one that was killed counts for LEASE_TTL)",
        workers.len()
    );
    Ok(())
}

/// Looks at the first `most` partitions, and writes `count` into those that hold nothing. Returns what
/// they held and were before.
async fn fence(
    deployment: &Deployment,
    most: u16,
    count: Option<u16>,
) -> anyhow::Result<Vec<PartitionContents>> {
    let script = Script::new(include_str!("../lua/fence.lua"));
    let keys = &deployment.keys;
    let mut partitions = Vec::new();
    for partition in 0..most {
        let [put, state, settle, media, other_media] = keys.owed_lists(partition);
        let call = script.call([
            keys.stream(partition),
            keys.lease(partition),
            keys.seen(partition),
            keys.owed(partition),
            put,
            state,
            settle,
            media,
            other_media,
        ]);
        let call = call.arg(count.map_or(String::new(), |count| count.to_string()));
        let (entries, owed, leased, taken_for): (_, _, _, String) = call
            .run(&mut deployment.connection.clone())
            .await
            .context("Redis")
            .map_err(CommandError)?;
        partitions.push(PartitionContents {
            partition,
            entries,
            owed,
            leased,
            taken_for: taken_for.parse().ok(),
        });
    }
    Ok(partitions)
}

/// Lets the first `most` partitions take webhooks of ingresses with `count`, whatever they hold.
async fn open_for(deployment: &Deployment, most: u16, count: u16) -> anyhow::Result<()> {
    for partition in 0..most {
        let mut open = redis::cmd("HSET");
        open.arg(deployment.keys.seen(partition));
        open.arg("partitions").arg(count);
        open.query_async::<()>(&mut deployment.connection.clone())
            .await
            .context("Redis: some partitions still refuse the old count, run this again")
            .map_err(CommandError)?;
    }
    Ok(())
}

async fn set_count(deployment: &Deployment, old: u16, new: u16) -> anyhow::Result<()> {
    let script = Script::new(include_str!("../lua/set_count.lua"));
    let call = script.call([deployment.keys.partition_count()]);
    let set: bool = call
        .arg(old)
        .arg(new)
        .run(&mut deployment.connection.clone())
        .await
        .context("Redis: the change is not complete, run this again")
        .map_err(CommandError)?;
    ensure!(
        set,
        "somebody else has changed the count meanwhile: look, and run this again"
    );
    Ok(())
}

/// Tenants' own limits lie with their accounts: each is copied to where `new` looks for it.
async fn copy_limits(deployment: &Deployment, most: u16, new: &Keys) -> redis::RedisResult<()> {
    // Or a stray one would be taken for a copy of today's.
    delete_stray_limits(deployment, most, &deployment.keys).await?;
    for partition in 0..most {
        for (field, account, limit) in limits(deployment, partition).await? {
            let mut set = redis::cmd("HSET");
            set.arg(new.seen(new.partition_of(&account)));
            set.arg(&field).arg(limit);
            set.query_async::<()>(&mut deployment.connection.clone())
                .await?;
        }
    }
    Ok(())
}

/// Deletes the limits that don't lie where `keys` looks for them.
async fn delete_stray_limits(
    deployment: &Deployment,
    most: u16,
    keys: &Keys,
) -> redis::RedisResult<()> {
    for partition in 0..most {
        for (field, account, _) in limits(deployment, partition).await? {
            if keys.partition_of(&account) == partition {
                continue;
            }
            let mut delete = redis::cmd("HDEL");
            delete.arg(keys.seen(partition)).arg(&field);
            delete
                .query_async::<()>(&mut deployment.connection.clone())
                .await?;
        }
    }
    Ok(())
}

/// A partition's limits: field, account, webhooks per minute.
async fn limits(
    deployment: &Deployment,
    partition: u16,
) -> redis::RedisResult<Vec<(String, String, String)>> {
    let mut all = redis::cmd("HGETALL");
    all.arg(deployment.keys.seen(partition));
    let all: Vec<(String, String)> = all.query_async(&mut deployment.connection.clone()).await?;
    let limits = all.into_iter().filter_map(|(field, limit)| {
        let account = field.strip_prefix('l')?.to_owned();
        Some((field, account, limit))
    });
    Ok(limits.collect())
}

fn write_held(held: &[PartitionContents]) -> anyhow::Result<()> {
    let mut output = Output::new();
    let names = ["partition", "entries", "owed", "owner"];
    let mut rows = vec![row(Style::Faint, names)];
    rows.extend(held.iter().map(|held| {
        let owner = if held.leased { "a worker" } else { "nobody" };
        let numbers = [u64::from(held.partition), held.entries, held.owed];
        let [a, b, c] = numbers.map(|number| number.to_string());
        row(Style::Plain, [&a, &b, &c, owner])
    }));
    output.table(&rows);
    Ok(output.show()?)
}
