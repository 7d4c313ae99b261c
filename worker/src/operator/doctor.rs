//! `worker doctor`: asks every server and neighbour, with the settings and credentials that the worker
//! would use. A line for each finding; the exit status is 1 if any of them is FAIL.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use bytes::Bytes;
use clap::Args;
use futures::future::{FutureExt, join_all};
use futures::stream::{self, StreamExt};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Confirmation, ConnectionProperties};
use prometheus_client::registry::Registry;
use serde::Serialize;
use shared::redis::{durability_problems, memory_used};
use std::sync::Arc;
use tokio::time::timeout;
use url::Url;
use uuid::Uuid;

use super::paper::{Paper, Tone};
use super::{Deployment, Seen, look};
use crate::ask::graph::{Graph, GraphCall, GraphError, SubscribedApp, Subscription};
use crate::ask::neighbour::{NeighbourError, Trace};
use crate::ask::tenants::Tenants;
use crate::ask::tenants::tokens::Tokens;
use crate::clients;
use crate::config::Config;
use crate::item::tenant::Verdict;
use crate::item::traffic;
use crate::metrics::Metrics;
use crate::out::media::refused_hosts::RefusedHosts;
use crate::out::publisher::refuses_size;
use crate::out::store::Bucket;
use crate::out::topology::{self, TopologyError};

/// Each check.
const LIMIT: Duration = Duration::from_secs(15);
/// All accounts.
const ACCOUNTS_LIMIT: Duration = Duration::from_secs(120);
/// Accounts that are asked for, those seen last first, and how many side by side.
const MOST_ACCOUNTS: usize = 500;
const AT_ONCE: usize = 8;
/// A publication of ours is confirmed within this time, unless the broker takes none.
const CONFIRM_LIMIT: Duration = Duration::from_secs(5);
/// An event has up to 1.7 times the bytes of its body.
const EVENT_TENTHS: usize = 17;
/// Bytes of the largest message that is tried.
const LARGEST_PROBE: usize = 16 << 20;
/// Meta's times and ours are compared; signatures of the store allow 15 min.
const SKEW_DOUBTFUL_MS: u64 = 2_000;
const SKEW_BAD_MS: u64 = 60_000;
/// Shares of Redis' memory: marks are kept for an hour only from the second on, little later nothing is
/// taken any more.
const MEMORY_DOUBTFUL: f64 = 0.7;
const MEMORY_BAD: f64 = 0.9;
/// No account's.
const NO_ACCOUNT: &str = "0";

#[derive(Args, Debug, Clone)]
pub struct DoctorArgs {
    /// Public URL of the webhook: an account whose webhooks are sent there by an override is well
    #[arg(long)]
    pub callback_url: Option<Url>,
    /// JSON instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Status {
    Ok,
    Warn,
    Fail,
    /// It can't be seen from here.
    Unknown,
}

impl Status {
    fn look(self) -> (&'static str, Tone) {
        match self {
            Self::Ok => ("OK", Tone::Good),
            Self::Warn => ("WARN", Tone::Doubtful),
            Self::Fail => ("FAIL", Tone::Bad),
            Self::Unknown => ("UNKNOWN", Tone::Doubtful),
        }
    }
}

/// What was found, and what to do about it.
#[derive(Debug, Serialize)]
struct Finding {
    status: Status,
    check: &'static str,
    said: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    advice: Cow<'static, str>,
}

fn finding(
    status: Status,
    check: &'static str,
    said: impl Into<String>,
    advice: impl Into<Cow<'static, str>>,
) -> Finding {
    Finding {
        status,
        check,
        said: said.into(),
        advice: advice.into(),
    }
}

fn ok(check: &'static str, said: impl Into<String>) -> Finding {
    finding(Status::Ok, check, said, "")
}

type Findings = anyhow::Result<Vec<Finding>>;

/// Examines everything.
///
/// # Errors
/// Something fails, or settings can't be used.
pub async fn run(config: &Config, args: &DoctorArgs) -> anyhow::Result<()> {
    let deployment = Deployment::open(config).await?;
    let metrics = Metrics::new(&mut Registry::default());
    let (connection, keys) = (deployment.connection.clone(), deployment.keys.clone());
    let tenants = Arc::new(Tenants::new(
        &config.tenants,
        &deployment.secrets.tenants,
        clients::tenant_service(&metrics)?,
        (connection.clone(), keys.clone()),
        metrics.caches.clone(),
    ));
    let graph = clients::graph(config, &metrics, (connection, keys))?;
    let neighbours = Neighbours {
        config,
        deployment: &deployment,
        metrics: &metrics,
        tenants,
        graph,
        callback_url: args.callback_url.as_ref(),
    };
    let checks = [
        named("redis", LIMIT, redis(&deployment, config).boxed_local()),
        named(
            "rabbitmq",
            LIMIT,
            rabbitmq(&deployment, config).boxed_local(),
        ),
        named(
            "object store",
            LIMIT,
            store(&deployment, Bucket::Webhooks).boxed_local(),
        ),
        named(
            "object store",
            LIMIT,
            store(&deployment, Bucket::Media).boxed_local(),
        ),
        named(
            "tenant service",
            LIMIT,
            neighbours.tenant_service().boxed_local(),
        ),
        named(
            "state manager",
            LIMIT,
            neighbours.state_manager().boxed_local(),
        ),
        named(
            "accounts",
            ACCOUNTS_LIMIT,
            neighbours.accounts().boxed_local(),
        ),
        named(
            "media",
            LIMIT,
            media_hosts(&deployment, config).boxed_local(),
        ),
        named("silence", LIMIT, silence(&deployment).boxed_local()),
    ];
    let findings: Vec<Finding> = join_all(checks).await.into_iter().flatten().collect();
    let mut paper = Paper::new();
    if args.json {
        paper.json(&findings)?;
    } else {
        write(&mut paper, &findings);
    }
    paper.show()?;
    let failed = findings
        .iter()
        .filter(|it| it.status == Status::Fail)
        .count();
    anyhow::ensure!(failed == 0, "{failed} checks failed");
    Ok(())
}

/// A check that ends in time. One that couldn't be made is a failure.
async fn named(
    check: &'static str,
    limit: Duration,
    making: impl Future<Output = Findings>,
) -> Vec<Finding> {
    match look(limit, making).await {
        Seen::Known(findings) => findings,
        Seen::Unknown { unknown } => vec![finding(
            Status::Fail,
            check,
            unknown,
            "see that it runs, is reached from here, and that address and credentials are right",
        )],
    }
}

fn skew(check: &'static str, theirs_ms: i64) -> Finding {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let ours = now.map_or(0, |now| now.as_millis() as i64);
    let off = ours.abs_diff(theirs_ms);
    let said = format!(
        "its clock and this machine's differ by {}.{} s",
        off / 1000,
        off % 1000 / 100
    );
    let status = match off {
        ..SKEW_DOUBTFUL_MS => Status::Ok,
        SKEW_DOUBTFUL_MS..SKEW_BAD_MS => Status::Warn,
        _ => Status::Fail,
    };
    let advice = if status == Status::Ok {
        ""
    } else {
        "synchronise the clocks (NTP)"
    };
    finding(status, check, said, advice)
}

async fn redis(deployment: &Deployment, config: &Config) -> Findings {
    const CHECK: &str = "redis";
    let connection = &deployment.connection;
    let mut redis = connection.clone();
    connection.ping().await?;
    let mut found = Vec::new();
    let mut info = redis::cmd("INFO");
    info.arg("server");
    let servers: Vec<String> = connection.ask_all(&info).await?;
    for server in servers {
        let version = server
            .lines()
            .find_map(|line| line.strip_prefix("redis_version:"));
        let version = version.unwrap_or("unknown").trim();
        let major = version
            .split('.')
            .next()
            .and_then(|major| major.parse::<u32>().ok());
        found.push(match major {
            Some(7..) => ok(CHECK, format!("answers, version {version}")),
            Some(_) => finding(
                Status::Fail,
                CHECK,
                format!("version {version}"),
                "7.0 or later is needed",
            ),
            None => finding(Status::Unknown, CHECK, "its version is not told", ""),
        });
    }
    let problems = durability_problems(connection).await?;
    if problems.is_empty() {
        found.push(ok(
            CHECK,
            "keeps what it acknowledges (AOF, fsync always, noeviction)",
        ));
    }
    for problem in problems {
        let (status, advice) = if problem.starts_with("unknown") {
            (
                Status::Unknown,
                "look at the server's configuration yourself",
            )
        } else {
            (
                Status::Fail,
                "it may lose what was answered 200: set it in redis.conf",
            )
        };
        found.push(finding(status, CHECK, problem, advice));
    }
    let used = memory_used(connection).await?;
    let said = format!("{:.0} % of maxmemory used", used * 100.0);
    found.push(match used {
        ..MEMORY_DOUBTFUL => ok(CHECK, said),
        ..MEMORY_BAD => finding(
            Status::Warn,
            CHECK,
            said,
            "from 80 % on items are remembered for an hour only: give it more",
        ),
        _ => finding(
            Status::Fail,
            CHECK,
            said,
            "it is about to refuse webhooks: give it more memory",
        ),
    });
    let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(&mut redis).await?;
    found.push(skew(
        CHECK,
        seconds.saturating_mul(1000).saturating_add(micros / 1000),
    ));
    let mut evaluate = redis::cmd("EVAL");
    evaluate.arg(
        "#!lua\nredis.call('SET', KEYS[1], '', 'PX', 1000)\nreturn redis.call('DEL', KEYS[1])",
    );
    evaluate.arg(1).arg(deployment.keys.doctor());
    let may: redis::RedisResult<u8> = evaluate.query_async(&mut redis).await;
    found.push(match may {
        Ok(_) => ok(CHECK, "scripts may run, keys may be written"),
        Err(error) => finding(Status::Fail, CHECK, format!("a script that writes: {error}"), "allow this user EVAL, EVALSHA and the keys of the prefix, and see that it is no replica"),
    });
    let set = config.redis.stream_partitions;
    found.push(match deployment.stored_partitions {
        Some(stored) if stored == set => ok(CHECK, format!("{set} partitions")),
        Some(stored) => finding(
            Status::Fail,
            CHECK,
            format!("STREAM_PARTITIONS is {set}, the deployment has {stored}"),
            "set STREAM_PARTITIONS to the deployment's",
        ),
        None => finding(Status::Warn, CHECK, "nothing has run on it yet", ""),
    });
    let workers = deployment.live_workers().await?.len();
    found.push(match workers {
        0 => finding(
            Status::Warn,
            CHECK,
            "no worker lives",
            "start one: webhooks wait",
        ),
        _ => ok(CHECK, format!("{workers} live workers")),
    });
    Ok(found)
}

async fn rabbitmq(deployment: &Deployment, config: &Config) -> Findings {
    const CHECK: &str = "rabbitmq";
    let url = deployment.secrets.amqp.current();
    let connection = lapin::Connection::connect(url.expose(), ConnectionProperties::default());
    let connection = connection.await?;
    let mut found = vec![ok(CHECK, "answers, and takes the credentials")];
    let mut there = true;
    for (queue, counts) in topology::counts(&connection).await {
        let dead = queue.ends_with(".DLQ");
        found.push(match counts {
            Ok(counts) if dead && counts.messages > 0 => finding(
                Status::Warn,
                CHECK,
                format!("{queue}: {} dead letters", counts.messages),
                "see why consumers reject them",
            ),
            Ok(counts) if !dead && counts.messages > 0 && counts.consumers == 0 => finding(
                Status::Warn,
                CHECK,
                format!("{queue}: {} messages and no consumer", counts.messages),
                "start a consumer",
            ),
            Ok(counts) => ok(
                CHECK,
                format!(
                    "{queue}: {} messages, {} consumers",
                    counts.messages, counts.consumers
                ),
            ),
            Err(error) => {
                there = false;
                finding(
                    Status::Fail,
                    CHECK,
                    format!("{queue}: {error}"),
                    "start a worker with AMQP_DECLARE_TOPOLOGY=true, or declare it",
                )
            }
        });
    }
    // Nothing is created: all of it is there.
    if there {
        let ensured = topology::ensure(&connection, &config.amqp).await;
        found.push(match ensured {
            Ok(()) if config.amqp.amqp_declare_topology => ok(CHECK, "exchanges, queues, their arguments and bindings are right"),
            Ok(()) => finding(Status::Unknown, CHECK, "the topology is there; its arguments are not looked at", "AMQP_DECLARE_TOPOLOGY=false: whoever declares it sees to them"),
            Err(TopologyError::Refused(said)) => finding(Status::Fail, CHECK, said, "delete or migrate what differs; a user without the right to configure needs AMQP_DECLARE_TOPOLOGY=false"),
            Err(error) => finding(Status::Fail, CHECK, error.to_string(), ""),
        });
        found.push(dead_letters(&connection, config, url.expose()).await);
    }
    let published = publish(&connection).await;
    let confirms = published.status == Status::Ok;
    found.push(published);
    if confirms {
        found.push(largest_event(&connection, config.read_bytes).await);
    }
    found.push(finding(
        Status::Unknown,
        CHECK,
        "policies can't be seen over AMQP",
        "see that none sets message-ttl, expires or max-length on these queues (rabbitmqctl list_policies)",
    ));
    drop(connection.close(200, "done".into()).await);
    Ok(found)
}

/// Whether dead letters stay, however often somebody looks at them and puts them back.
async fn dead_letters(connection: &lapin::Connection, config: &Config, url: &str) -> Finding {
    const CHECK: &str = "rabbitmq";
    match topology::dead_letters_that_differ(connection, &config.amqp).await {
        Ok(None) => ok(CHECK, "dead letters stay, however often they are put back"),
        Ok(Some(said)) => {
            let vhost = url
                .parse::<AMQPUri>()
                .map_or_else(|_| "/".to_owned(), |url| url.vhost);
            let advice = format!(
                "RabbitMQ 4 drops a dead letter that is put back for the 21st time, unless a policy (which \
                 can't be seen from here) says otherwise: {}",
                topology::dead_letter_policy(&vhost)
            );
            finding(Status::Warn, CHECK, said, advice)
        }
        Err(error) => finding(
            Status::Unknown,
            CHECK,
            format!("arguments of the queues of dead letters: {error}"),
            "see that each has x-delivery-limit 2147483647, or a policy with that delivery-limit",
        ),
    }
}

/// Publishes a message to a queue of its own and awaits its confirm: a broker with a memory or disk
/// alarm takes none.
async fn publish(connection: &lapin::Connection) -> Finding {
    const CHECK: &str = "rabbitmq";
    let publishing = async {
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let options = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        let queue = channel.queue_declare("".into(), options, FieldTable::default());
        let queue = queue.await?;
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let properties = BasicProperties::default();
        let sent = channel.basic_publish("".into(), queue.name().clone(), options, b"", properties);
        sent.await?.await
    };
    match timeout(CONFIRM_LIMIT, publishing).await {
        Ok(Ok(Confirmation::Ack(None))) => ok(CHECK, "confirms a publication"),
        Ok(Ok(_)) => finding(Status::Fail, CHECK, "refuses a publication", "see its log"),
        Ok(Err(error)) => finding(
            Status::Unknown,
            CHECK,
            format!("no publication could be tried: {error}"),
            "this user may not declare a queue of its own; see that it may write to the exchange",
        ),
        Err(_) => finding(
            Status::Fail,
            CHECK,
            "confirms nothing",
            "most likely a memory or disk alarm: rabbitmq-diagnostics alarms",
        ),
    }
}

/// Whether the broker takes the event of a body of half of READ_BYTES, the largest that there may be: it
/// tells nobody its limit, so a message of that size is published that no queue gets, and comes back.
async fn largest_event(connection: &lapin::Connection, read_bytes: usize) -> Finding {
    const CHECK: &str = "rabbitmq";
    let size_bytes = (read_bytes / 2 / 10 * EVENT_TENTHS).min(LARGEST_PROBE);
    let size = format!("{:.1} MB", size_bytes as f64 / 1e6);
    let publishing = async {
        let channel = connection.create_channel().await?;
        let options = ConfirmSelectOptions::default();
        channel.confirm_select(options).await?;
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let nowhere = Uuid::new_v4().to_string();
        let properties = BasicProperties::default();
        let body = vec![0; size_bytes];
        let sent = channel.basic_publish("".into(), nowhere.into(), options, &body, properties);
        sent.await?.await
    };
    match timeout(CONFIRM_LIMIT, publishing).await {
        Ok(Ok(_)) => ok(CHECK, format!("takes an event of {size}")),
        Ok(Err(error)) if refuses_size(&error) => finding(
            Status::Warn,
            CHECK,
            format!("its max_message_size is less than {size}, which an event may have"),
            "raise it in rabbitmq.conf: what is larger is set aside as too_large",
        ),
        Ok(Err(error)) => finding(
            Status::Unknown,
            CHECK,
            format!("no message of {size} could be tried: {error}"),
            "see that max_message_size in rabbitmq.conf isn't less",
        ),
        Err(_) => finding(
            Status::Unknown,
            CHECK,
            format!("a message of {size} is not confirmed in time"),
            "see that max_message_size in rabbitmq.conf isn't less",
        ),
    }
}

async fn store(deployment: &Deployment, bucket: Bucket) -> Findings {
    const CHECK: &str = "object store";
    let store = &deployment.store;
    let name = store.bucket_name(bucket);
    let canary = store.canary(bucket);
    let written = Bytes::from_static(b"canary");
    if let Err(error) = canary.put(written.clone()).await {
        let advice = if error.is_not_found() {
            "create the bucket, or start a worker that may"
        } else {
            "see that the store runs, that the key is right and may write to this bucket"
        };
        return Ok(vec![finding(
            Status::Fail,
            CHECK,
            format!("{name}: {error}"),
            advice,
        )]);
    }
    let mut found = Vec::new();
    match canary.get().await {
        Ok((bytes, date)) if bytes == written => {
            found.push(ok(CHECK, format!("{name}: writes and reads")));
            found.extend(date.map(|date| skew(CHECK, date)));
        }
        Ok(_) => found.push(finding(
            Status::Fail,
            CHECK,
            format!("{name}: other bytes come back"),
            "",
        )),
        Err(error) => found.push(finding(
            Status::Fail,
            CHECK,
            format!("{name}: {error}"),
            "the key must be allowed to read",
        )),
    }
    if bucket == Bucket::Media {
        found.push(match canary.is_conditional().await {
            Ok(true) => ok(CHECK, format!("{name}: knows If-None-Match")),
            Ok(false) => finding(Status::Warn, CHECK, format!("{name}: ignores If-None-Match"), "the same message id of two numbers of a tenant, at two workers in the same moment, could share a file"),
            Err(error) => finding(Status::Unknown, CHECK, format!("{name}: {error}"), ""),
        });
        found.push(presigned(deployment, &canary.key, &written).await);
    }
    found.push(match canary.is_public().await {
        Ok(false) => ok(CHECK, format!("{name}: refuses those without a key")),
        Ok(true) => finding(
            Status::Fail,
            CHECK,
            format!("{name}: anybody may read it"),
            "take the public policy off the bucket",
        ),
        Err(error) => finding(Status::Unknown, CHECK, format!("{name}: {error}"), ""),
    });
    found.push(match canary.delete().await {
        Ok(()) => ok(CHECK, format!("{name}: deletes")),
        Err(error) => finding(
            Status::Fail,
            CHECK,
            format!("{name}: {error}"),
            "the key must be allowed to delete: the spool, replays and erasing need it",
        ),
    });
    Ok(found)
}

/// As those do who get a URL in an event.
async fn presigned(deployment: &Deployment, key: &str, written: &[u8]) -> Finding {
    const CHECK: &str = "presigned URLs";
    let advice =
        "MINIO_PUBLIC_ENDPOINT must be the store as consumers reach it, with the same host";
    let got = async {
        let presigned = deployment.store.presign_media(key).await?;
        let client = reqwest::Client::builder().timeout(CONFIRM_LIMIT).build()?;
        let answer = client.get(presigned.url).send().await;
        let mut answer = answer.map_err(reqwest::Error::without_url)?;
        let mut bytes = Vec::new();
        while bytes.len() <= written.len()
            && let Some(piece) = answer.chunk().await.map_err(reqwest::Error::without_url)?
        {
            bytes.extend_from_slice(&piece);
        }
        anyhow::Ok((answer.status(), bytes))
    };
    match got.await {
        Ok((_, bytes)) if bytes == written => ok(CHECK, "one works at the public endpoint"),
        Ok((status, _)) => finding(
            Status::Fail,
            CHECK,
            format!("the public endpoint answers {status}"),
            advice,
        ),
        Err(error) => finding(
            Status::Warn,
            CHECK,
            format!("the public endpoint can't be reached from here: {error:#}"),
            advice,
        ),
    }
}

struct Neighbours<'a> {
    config: &'a Config,
    deployment: &'a Deployment,
    metrics: &'a Metrics,
    tenants: Arc<Tenants>,
    graph: Graph,
    callback_url: Option<&'a Url>,
}

impl Neighbours<'_> {
    async fn tenant_service(&self) -> Findings {
        const CHECK: &str = "tenant service";
        if let Some(file) = &self.deployment.secrets.tenants.directory {
            let count = file.current().limits().count();
            let said = format!("TENANTS_FILE takes its place, with {count} accounts");
            return Ok(vec![ok(CHECK, said)]);
        }
        let found = match self.tenants.ask(NO_ACCOUNT).await {
            Ok(_) => ok(CHECK, "answers, and takes the credentials"),
            Err(NeighbourError::Final { status: 401 | 403 }) => finding(
                Status::Fail,
                CHECK,
                "refuses the credentials",
                "set TENANT_SERVICE_TOKEN",
            ),
            Err(error) => finding(
                Status::Fail,
                CHECK,
                error.to_string(),
                "see that it runs and TENANT_SERVICE_URL is right: accounts that nobody knows wait",
            ),
        };
        let (keys, mut redis) = (&self.deployment.keys, self.deployment.connection.clone());
        let mut card = redis::cmd("ZCARD");
        card.arg(keys.tenants_unknown());
        // Redis has a line of its own.
        let unknown: usize = card.query_async(&mut redis).await.unwrap_or(0);
        let without = (unknown > 0).then(|| finding(Status::Warn, CHECK, format!("{unknown} accounts with webhooks have no tenant"), "make them known to it (`worker inspect` names them): what was set aside comes back by itself"));
        Ok(std::iter::once(found).chain(without).collect())
    }

    async fn state_manager(&self) -> Findings {
        const CHECK: &str = "state manager";
        let secrets = &self.deployment.secrets;
        let state = clients::state_manager(self.config, secrets, self.metrics)?;
        let Some(state) = state else {
            return Ok(vec![ok(CHECK, "none is set: events have no conversation")]);
        };
        let asked = state.mapping(NO_ACCOUNT, "", "", Trace::default()).await;
        Ok(vec![match asked {
            Ok(_) => ok(CHECK, "answers, and takes the credentials"),
            Err(NeighbourError::Final { status: 401 | 403 }) => finding(
                Status::Fail,
                CHECK,
                "refuses the credentials",
                "set STATE_MANAGER_TOKEN",
            ),
            Err(error) => finding(
                Status::Fail,
                CHECK,
                format!("{error} (within STATE_DEADLINE)"),
                "events go out without their conversation",
            ),
        }])
    }

    /// Each account's tenant, token and subscription.
    async fn accounts(&self) -> Findings {
        const CHECK: &str = "account";
        let mut accounts: Vec<String> = match &self.deployment.secrets.tenants.directory {
            Some(file) => file
                .current()
                .limits()
                .map(|(account, _)| account.to_owned())
                .collect(),
            None => {
                let mut range = redis::cmd("ZREVRANGE");
                range
                    .arg(self.deployment.keys.tenants_seen())
                    .arg(0)
                    .arg(MOST_ACCOUNTS);
                range
                    .query_async(&mut self.deployment.connection.clone())
                    .await?
            }
        };
        let more = accounts.len() > MOST_ACCOUNTS;
        accounts.truncate(MOST_ACCOUNTS);
        let asked = stream::iter(&accounts).map(|account| self.account(account));
        let mut found: Vec<Finding> = asked.buffered(AT_ONCE).collect().await;
        if found.is_empty() {
            found.push(finding(
                Status::Unknown,
                CHECK,
                "none is known yet",
                "send a webhook first",
            ));
        }
        if more {
            found.push(finding(
                Status::Unknown,
                CHECK,
                format!("only the last {MOST_ACCOUNTS} were asked for"),
                "",
            ));
        }
        Ok(found)
    }

    async fn account(&self, account: &str) -> Finding {
        const CHECK: &str = "account";
        let tenant = match self.tenants.ask(account).await {
            Ok(Verdict::Active(tenant)) => tenant,
            Ok(Verdict::Suspended(tenant)) => {
                return finding(
                    Status::Warn,
                    CHECK,
                    format!("{account}: tenant {} is suspended", tenant.id),
                    "its items are set aside until somebody replays them",
                );
            }
            Ok(Verdict::Unknown) => {
                return finding(
                    Status::Warn,
                    CHECK,
                    format!("{account}: has no tenant"),
                    "make it known to the Tenant Service",
                );
            }
            Ok(Verdict::Unusable) | Err(NeighbourError::Unusable { .. }) => {
                return finding(
                    Status::Fail,
                    CHECK,
                    format!("{account}: what the Tenant Service says of it can't be used"),
                    "it must answer a JSON object with tenantId, status, and this account's own businessAccountId",
                );
            }
            Err(error) => {
                return finding(
                    Status::Unknown,
                    CHECK,
                    format!("{account}: the Tenant Service: {error}"),
                    "",
                );
            }
        };
        let name = format!("{account} (tenant {})", tenant.id);
        let Some(token) = Tokens::new(self.tenants.clone()).get(account).await else {
            return finding(
                Status::Fail,
                CHECK,
                format!("{name}: no access token"),
                "the Tenant Service must have one: no media can be fetched",
            );
        };
        let asking = GraphCall {
            token: &token,
            waba_id: account,
            phone_number_id: None,
            trace: Trace::default(),
        };
        match self.graph.subscriptions(asking).await {
            Ok(apps) if apps.is_empty() => finding(
                Status::Fail,
                CHECK,
                format!("{name}: no app is subscribed"),
                "POST /{version}/{account}/subscribed_apps: without it Meta sends nothing",
            ),
            Ok(apps) => {
                let own = self.graph.app(asking).await;
                subscription(&name, &apps, own.ok(), self.callback_url)
            }
            Err(GraphError::Token) => finding(
                Status::Fail,
                CHECK,
                format!("{name}: the Graph API refuses its token"),
                "give the Tenant Service a new one",
            ),
            Err(GraphError::Refused(code)) => finding(
                Status::Warn,
                CHECK,
                format!("{name}: the token may not see the subscription (code {code})"),
                "give it whatsapp_business_management, and see that the account is in order",
            ),
            Err(GraphError::Missing) => finding(
                Status::Fail,
                CHECK,
                format!("{name}: the Graph API has no such account for this token"),
                "the token must be of this account's business",
            ),
            Err(error) => finding(
                Status::Unknown,
                CHECK,
                format!("{name}: the Graph API: {error}"),
                "see that GRAPH_BASE_URL is reached from here",
            ),
        }
    }
}

/// What the apps mean that an account is subscribed by. `own`: the one that its token is of.
fn subscription(
    name: &str,
    apps: &[Subscription],
    own: Option<SubscribedApp>,
    callback_url: Option<&Url>,
) -> Finding {
    const CHECK: &str = "account";
    let named = apps
        .iter()
        .map(|it| format!("{} ({})", it.app.name, it.app.id));
    let named = named.collect::<Vec<_>>().join(", ");
    let is_own = |it: &&Subscription| own.as_ref().is_none_or(|own| own.id == it.app.id);
    let Some(ours) = apps.iter().find(is_own) else {
        return finding(
            Status::Warn,
            CHECK,
            format!("{name}: subscribed only by other apps: {named}"),
            "see that the app whose secret ingress has is among them; else POST \
             /{version}/{account}/subscribed_apps with that app's token",
        );
    };
    let said = format!("{name}: token and subscription are right (apps: {named})");
    let Some(uri) = &ours.override_callback_uri else {
        return ok(CHECK, said);
    };
    let url = Url::parse(uri).ok();
    let place = url.as_ref().map_or_else(|| "no URL".to_owned(), place);
    if url.is_some() && url.as_ref() == callback_url {
        return ok(CHECK, format!("{said}, by an override: {place}"));
    }
    finding(
        Status::Warn,
        CHECK,
        format!("{name}: an override sends its webhooks to {place} (apps: {named})"),
        "see that this is the deployment's own webhook (--callback-url tells doctor which is)",
    )
}

/// A URL without what may be secret in it.
fn place(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

/// Hosts that media was refused to be fetched from.
async fn media_hosts(deployment: &Deployment, config: &Config) -> Findings {
    const CHECK: &str = "media";
    let connection = deployment.connection.clone();
    let refused = RefusedHosts::new(connection, deployment.keys.clone());
    let mut refused = refused.all().await.context("Redis")?;
    let allowed = clients::allowed_hosts(config);
    refused.retain(|host| {
        let url = Url::parse(&format!("https://{host}/"));
        !url.is_ok_and(|url| allowed.allow(&url))
    });
    if refused.is_empty() {
        let said = "no file lies at a host that isn't allowed";
        return Ok(vec![ok(CHECK, said)]);
    }
    let found = refused.into_iter().map(|host| {
        let said = format!("files lie at {host}, which MEDIA_ALLOWED_HOSTS doesn't have");
        finding(
            Status::Warn,
            CHECK,
            said,
            "they wait for up to seven days: if the host is Meta's, add it, or an end of its name such as .fbcdn.net",
        )
    });
    Ok(found.collect())
}

async fn silence(deployment: &Deployment) -> Findings {
    const CHECK: &str = "silence";
    let (now, numbers) = (
        traffic::this_hour(),
        traffic::read(&deployment.connection, &deployment.keys).await?,
    );
    let count = numbers.len();
    let silent = numbers.into_iter().filter_map(|(account, number, hours)| {
        let quiet = hours.silent(now)?;
        let said = format!("number {number} of account {account}: nothing for {quiet} hours, unlike yesterday and a week ago");
        Some(finding(Status::Warn, CHECK, said, "see its subscription, webhook settings and status at Meta, and ingress' 401s"))
    });
    let mut found: Vec<Finding> = silent.collect();
    if found.is_empty() {
        found.push(ok(
            CHECK,
            format!("none of {count} numbers is quieter than usual"),
        ));
    }
    Ok(found)
}

fn write(paper: &mut Paper, findings: &[Finding]) {
    let rows: Vec<_> = findings
        .iter()
        .map(|finding| {
            let (status, tone) = finding.status.look();
            let advice = match &*finding.advice {
                "" => String::new(),
                advice => format!("; {advice}"),
            };
            vec![
                (tone, status.to_owned()),
                (Tone::Head, finding.check.to_owned()),
                (Tone::Plain, format!("{}{advice}", finding.said)),
            ]
        })
        .collect();
    paper.table(&rows);
}
