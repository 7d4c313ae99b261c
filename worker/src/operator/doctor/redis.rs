//! Redis: whether it answers, keeps what it acknowledges, has memory, and is this deployment's.

use redis::RedisResult;
use shared::redis::{durability_problems, memory_used};

use super::finding::{Finding, Findings, clock_skew, fail, ok, unknown, warn};
use crate::config::Config;
use crate::operator::Deployment;

const CHECK: &str = "redis";
/// Shares of Redis' memory: marks are kept for an hour only from the second on, little later nothing is
/// taken any more.
const MEMORY_DOUBTFUL: f64 = 0.7;
const MEMORY_BAD: f64 = 0.9;

pub(super) async fn check(deployment: &Deployment, config: &Config) -> Findings {
    deployment.connection.ping().await?;
    let mut found = versions(deployment).await?;
    found.extend(durability(deployment).await?);
    found.push(memory(deployment).await?);
    found.push(clock(deployment).await?);
    found.push(scripts(deployment).await);
    found.push(partition_count(deployment, config));
    found.push(workers(deployment).await?);
    Ok(found)
}

async fn versions(deployment: &Deployment) -> RedisResult<Vec<Finding>> {
    let mut info = redis::cmd("INFO");
    info.arg("server");
    let servers: Vec<String> = deployment.connection.ask_all(&info).await?;
    Ok(servers.iter().map(|server| version(server)).collect())
}

/// Of a server, by what INFO says.
fn version(server: &str) -> Finding {
    let version = server
        .lines()
        .find_map(|line| line.strip_prefix("redis_version:"));
    let version = version.unwrap_or("unknown").trim();
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(7..) => ok(CHECK, format!("answers, version {version}")),
        Some(_) => fail(
            CHECK,
            format!("version {version}"),
            "7.0 or later is needed",
        ),
        None => unknown(CHECK, "it doesn't say its version", ""),
    }
}

async fn durability(deployment: &Deployment) -> RedisResult<Vec<Finding>> {
    let problems = durability_problems(&deployment.connection).await?;
    if problems.is_empty() {
        let text = "keeps what it acknowledges (AOF, fsync always, noeviction)";
        return Ok(vec![ok(CHECK, text)]);
    }
    let found = problems.into_iter().map(|problem| {
        if problem.starts_with("unknown") {
            let advice = "look at the server's configuration yourself";
            return unknown(CHECK, problem, advice);
        }
        let advice = "it may lose what was answered 200: set it in redis.conf";
        fail(CHECK, problem, advice)
    });
    Ok(found.collect())
}

async fn memory(deployment: &Deployment) -> RedisResult<Finding> {
    let used = memory_used(&deployment.connection).await?;
    let text = format!("{:.0} % of maxmemory used", used * 100.0);
    Ok(match used {
        ..MEMORY_DOUBTFUL => ok(CHECK, text),
        ..MEMORY_BAD => warn(
            CHECK,
            text,
            "from 80 % on items are remembered for an hour only: give it more",
        ),
        _ => fail(
            CHECK,
            text,
            "it is about to refuse webhooks: give it more memory",
        ),
    })
}

async fn clock(deployment: &Deployment) -> RedisResult<Finding> {
    let mut redis = deployment.connection.clone();
    let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(&mut redis).await?;
    let ms = seconds.saturating_mul(1000).saturating_add(micros / 1000);
    Ok(clock_skew(CHECK, ms))
}

/// Whether this user may run scripts that write.
async fn scripts(deployment: &Deployment) -> Finding {
    let mut evaluate = redis::cmd("EVAL");
    evaluate.arg(
        "#!lua\nredis.call('SET', KEYS[1], '', 'PX', 1000)\nreturn redis.call('DEL', KEYS[1])",
    );
    evaluate.arg(1).arg(deployment.keys.doctor());
    let may: RedisResult<u8> = evaluate
        .query_async(&mut deployment.connection.clone())
        .await;
    match may {
        Ok(_) => ok(CHECK, "scripts may run, keys may be written"),
        Err(error) => fail(
            CHECK,
            format!("a script that writes: {error}"),
            "allow this user EVAL, EVALSHA and the keys of the prefix, and see that it is no replica",
        ),
    }
}

fn partition_count(deployment: &Deployment, config: &Config) -> Finding {
    let set = config.redis.stream_partitions;
    match deployment.stored_partitions {
        Some(stored) if stored == set => ok(CHECK, format!("{set} partitions")),
        Some(stored) => fail(
            CHECK,
            format!("STREAM_PARTITIONS is {set}, the deployment has {stored}"),
            "set STREAM_PARTITIONS to the deployment's",
        ),
        None => warn(CHECK, "nothing has run on it yet", ""),
    }
}

async fn workers(deployment: &Deployment) -> RedisResult<Finding> {
    Ok(match deployment.live_workers().await?.len() {
        0 => warn(CHECK, "no worker lives", "start one: webhooks wait"),
        workers => ok(CHECK, format!("{workers} live workers")),
    })
}
