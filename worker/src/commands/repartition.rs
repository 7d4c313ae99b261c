//! `worker repartition`: changes the partition count of a deployment in which nothing is under way.
//!
//! Each partition has the count that it counts for in its `seen` hash; ingress' script compares it with
//! its own, so that an ingress that still runs with the old count writes nothing, into any partition,
//! from then on: until it is restarted with the new one it answers 503, or has a spool, which is by account. Stopped in between, the command
//! is run again.

use anyhow::{Context, bail, ensure};
use clap::Args;
use futures::stream::StreamExt;
use shared::keys::Keys;
use shared::script::Script;

use super::Deployment;
use super::inspect::told;
use super::paper::{Paper, Tone, row};
use crate::config::Config;
use crate::store::Bucket;

#[derive(Args, Debug, Clone)]
pub struct RepartitionArgs {
    /// The new count
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub to: u16,
}

/// What a partition still holds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    partition: u16,
    entries: u64,
    later: u64,
    later_media: u64,
    leased: bool,
}

impl Held {
    fn is_empty(&self) -> bool {
        self.entries + self.later + self.later_media == 0 && !self.leased
    }
}

/// Checks, and changes the count.
///
/// # Errors
/// Something is still under way, or Redis or the store is away. The count is the old one then.
pub async fn run(config: &Config, args: &RepartitionArgs) -> anyhow::Result<()> {
    let deployment = Deployment::open(config).await?;
    deployment.connection.ping().await.context("Redis")?;
    let old = deployment.stored_partitions.context(
        "nothing has run on this Redis yet: set STREAM_PARTITIONS and start the programs",
    )?;
    let (new, most) = (args.to, args.to.max(old));
    nobody_works(&deployment).await?;
    let mut spool = deployment.store.listed(Bucket::Webhooks, "spool");
    let spooled = spool
        .next()
        .await
        .transpose()
        .map_err(|error| told(&error))?;
    ensure!(
        spooled.is_none(),
        "the spool is not empty: let the workers finish it, stop them, and run this again"
    );
    let held = fence(&deployment, most, None).await?;
    if !held.is_empty() {
        write_held(&held)?;
        bail!(
            "{} partitions are not drained: stop ingress, let the workers finish, stop them, and run \
             this again",
            held.len()
        );
    }
    let refused = fence(&deployment, most, Some(new)).await?;
    if !refused.is_empty() {
        // Those that were fenced are opened again for the old count.
        fence(&deployment, most, Some(old)).await?;
        bail!(
            "something came in meanwhile: stop ingress, let the workers finish, and run this again"
        );
    }
    set_count(&deployment, old, new).await?;
    let keys = Keys::new(&config.redis.redis_key_prefix, new);
    move_limits(&deployment, old, &keys).await?;
    if let Err(error) = nobody_works(&deployment).await {
        bail!("the count is {new} now, but {error}");
    }
    let mut paper = Paper::new();
    paper.line(Tone::Good, format!("{new} partitions (there were {old})"));
    paper.line(
        Tone::Plain,
        format!("start ingress and workers with STREAM_PARTITIONS={new}"),
    );
    if new != old {
        paper.line(
            Tone::Faint,
            "what was remembered of items stays where it was: a webhook that Meta repeats now may be \
             processed again, with the same eventId",
        );
    }
    Ok(paper.show()?)
}

async fn nobody_works(deployment: &Deployment) -> anyhow::Result<()> {
    let workers = deployment.live_workers().await.context("Redis")?;
    ensure!(
        workers.is_empty(),
        "{} workers live: stop them first (one that was killed counts for LEASE_TTL)",
        workers.len()
    );
    Ok(())
}

/// Looks at the first `most` partitions, and writes `count` into those that hold nothing; those that
/// hold something.
async fn fence(
    deployment: &Deployment,
    most: u16,
    count: Option<u16>,
) -> anyhow::Result<Vec<Held>> {
    let script = Script::new(include_str!("../lua/fence.lua"));
    let keys = &deployment.keys;
    let mut held = Vec::new();
    for partition in 0..most {
        let call = script.call([
            keys.stream(partition),
            keys.later(partition),
            keys.later_media(partition),
            keys.lease(partition),
            keys.seen(partition),
        ]);
        let call = call.arg(count.map_or(String::new(), |count| count.to_string()));
        let (entries, later, later_media, leased) = call
            .run(&mut deployment.connection.clone())
            .await
            .context("Redis")?;
        held.push(Held {
            partition,
            entries,
            later,
            later_media,
            leased,
        });
    }
    held.retain(|held| !held.is_empty());
    Ok(held)
}

async fn set_count(deployment: &Deployment, old: u16, new: u16) -> anyhow::Result<()> {
    let script = Script::new(include_str!("../lua/set_count.lua"));
    let call = script.call([deployment.keys.partition_count()]);
    let set: bool = call
        .arg(old)
        .arg(new)
        .run(&mut deployment.connection.clone())
        .await
        .context("Redis")?;
    ensure!(
        set,
        "somebody else has changed the count meanwhile: look, and run this again"
    );
    Ok(())
}

/// Tenants' own limits lie with their accounts.
async fn move_limits(deployment: &Deployment, old: u16, keys: &Keys) -> redis::RedisResult<()> {
    let mut redis = deployment.connection.clone();
    for partition in 0..old {
        let seen = keys.seen(partition);
        let mut all = redis::cmd("HGETALL");
        let all: Vec<(String, String)> = all.arg(&seen).query_async(&mut redis).await?;
        for (field, limit) in all {
            let Some(account) = field.strip_prefix('l') else {
                continue;
            };
            let to = keys.partition_of(account);
            if to == partition {
                continue;
            }
            let mut set = redis::cmd("HSET");
            set.arg(keys.seen(to)).arg(&field).arg(limit);
            set.query_async::<()>(&mut redis).await?;
            let mut del = redis::cmd("HDEL");
            del.arg(&seen).arg(&field);
            del.query_async::<()>(&mut redis).await?;
        }
    }
    Ok(())
}

fn write_held(held: &[Held]) -> anyhow::Result<()> {
    let mut paper = Paper::new();
    let names = ["partition", "entries", "later", "later media", "owner"];
    let mut rows = vec![row(Tone::Faint, names)];
    rows.extend(held.iter().map(|held| {
        let owner = if held.leased { "a worker" } else { "nobody" };
        let numbers = [
            u64::from(held.partition),
            held.entries,
            held.later,
            held.later_media,
        ];
        let [a, b, c, d] = numbers.map(|number| number.to_string());
        row(Tone::Plain, [&a, &b, &c, &d, owner])
    }));
    paper.table(&rows);
    Ok(paper.show()?)
}
