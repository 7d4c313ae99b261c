//! Redis: whether it answers, keeps what it acknowledges, has memory, and is this deployment's.

use std::time::Duration;

use redis::{ConnectionAddr, ConnectionInfo, RedisResult};
use shared::redis::{durability_problems, memory_used, version_warnings};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::finding::{Finding, Findings, clock_skew, fail, ok, unknown, warn};
use crate::config::Config;
use crate::operator::Deployment;

const CHECK: &str = "redis";
/// What a server in protected mode begins with.
const DENIED: &[u8] = b"-DENIED";
const GREETING_LIMIT: Duration = Duration::from_secs(2);
/// Shares of Redis' memory: marks are kept for an hour only from the second on, little later nothing is
/// taken any more.
const MEMORY_DOUBTFUL: f64 = 0.7;
const MEMORY_BAD: f64 = 0.9;

pub(super) async fn check(deployment: &Deployment, config: &Config) -> Findings {
    if let Err(error) = deployment.connection.ping().await {
        if is_protected(deployment).await {
            let text = "refuses connections from other machines: it is in protected mode";
            let advice = "give it a password (requirepass, or an ACL user) or bind it to an address of its \
                own network, and set protected-mode no";
            return Ok(vec![fail(CHECK, text, advice)]);
        }
        return Err(error.into());
    }
    let mut found = versions(deployment).await?;
    found.extend(durability(deployment).await?);
    found.push(memory(deployment).await?);
    found.push(clock(deployment).await?);
    found.push(scripts(deployment).await);
    found.push(partition_count(deployment, config));
    found.push(workers(deployment).await?);
    Ok(found)
}

/// Whether a server in protected mode refuses this machine: it says so at once, before it is asked anything,
/// and closes, so that a client only sees a connection that broke.
async fn is_protected(deployment: &Deployment) -> bool {
    let single = deployment.secrets.redis.single();
    let Some(ConnectionAddr::Tcp(host, port)) = single.as_ref().map(ConnectionInfo::addr) else {
        return false;
    };
    let told = async {
        let mut stream = TcpStream::connect((host.as_str(), *port)).await?;
        let mut told = [0; 64];
        let length = stream.read(&mut told).await?;
        std::io::Result::Ok(told.get(..length).unwrap_or_default().starts_with(DENIED))
    };
    timeout(GREETING_LIMIT, told)
        .await
        .is_ok_and(|told| told.unwrap_or(false))
}

async fn versions(deployment: &Deployment) -> RedisResult<Vec<Finding>> {
    let mut info = redis::cmd("INFO");
    info.arg("server");
    let servers: Vec<String> = deployment.connection.ask_all(&info).await?;
    let mut found: Vec<Finding> = servers.iter().map(|server| version(server)).collect();
    for hole in version_warnings(&deployment.connection).await? {
        found.push(warn(
            CHECK,
            hole,
            "upgrade it, or see that your distribution did",
        ));
    }
    Ok(found)
}

/// Of a server, by what INFO says.
fn version(server: &str) -> Finding {
    let line = |name| server.lines().find_map(|line| line.strip_prefix(name));
    let version = line("redis_version:").unwrap_or("unknown").trim();
    // Valkey says the version of Redis that it is like, too.
    let named = match line("valkey_version:") {
        Some(valkey) => format!("Valkey {} (like Redis {version})", valkey.trim()),
        None => format!("version {version}"),
    };
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(7..) => ok(CHECK, format!("answers, {named}")),
        Some(_) => fail(CHECK, named, "7.0 or later is needed"),
        None => unknown(CHECK, "it doesn't say its version", ""),
    }
}

async fn durability(deployment: &Deployment) -> RedisResult<Vec<Finding>> {
    let durability = durability_problems(&deployment.connection).await?;
    if durability.problems.is_empty() {
        let text = "keeps what it acknowledges (AOF, fsync always, noeviction)";
        return Ok(vec![ok(CHECK, text)]);
    }
    let found = durability.problems.into_iter().map(|problem| {
        if durability.is_unknown {
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
