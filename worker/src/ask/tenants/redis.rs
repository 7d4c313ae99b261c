//! What all workers remember together. Nothing here is needed to go on: where Redis doesn't answer,
//! the Tenant Service is asked.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use redis::{FromRedisValue, RedisResult};
use serde::{Deserialize, Serialize};
use shared::keys::Keys;
use shared::redis::Connection;
use shared::script::Script;
use tokio::time::timeout;

use super::Tenant;

/// An answer that takes longer isn't worth waiting for.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a worker may be asking the Tenant Service before another one does too.
const ASKING: Duration = Duration::from_secs(3);
/// Accounts remembered as seen lately, and as unknown.
const MOST_LISTED: isize = 10_000;

/// What the fields of the limits begin with; see [`Keys::seen`].
const LIMIT_PREFIX: char = 'l';

fn limit_field(waba_id: &str) -> String {
    format!("{LIMIT_PREFIX}{waba_id}")
}

/// What the Tenant Service said, and when; without the token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CachedTenant {
    /// Ms since 1970.
    at: u64,
    /// `None`: it knows no tenant.
    pub tenant: Option<Tenant>,
}

impl CachedTenant {
    pub(super) fn now(tenant: Option<Tenant>) -> Self {
        Self {
            at: now_ms(),
            tenant,
        }
    }

    pub(super) fn age(&self) -> Duration {
        Duration::from_millis(now_ms().saturating_sub(self.at))
    }
}

pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().as_millis() as u64
}

#[derive(Clone)]
pub(super) struct RedisCache {
    connection: Connection,
    keys: Keys,
    stale_ttl: Duration,
}

impl RedisCache {
    pub(super) fn new(connection: Connection, keys: Keys, stale_ttl: Duration) -> Self {
        Self {
            connection,
            keys,
            stale_ttl,
        }
    }

    async fn ask<T: FromRedisValue>(&self, command: &redis::Cmd) -> Option<T> {
        let mut connection = self.connection.clone();
        match timeout(PATIENCE, command.query_async(&mut connection)).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                tracing::debug!(%error, "redis command failed: tenants remembered in Redis are not used");
                None
            }
            Err(_) => None,
        }
    }

    pub(super) async fn tenant(&self, waba_id: &str) -> Option<CachedTenant> {
        let mut get = redis::cmd("GET");
        get.arg(self.keys.tenant(waba_id));
        let text: Option<String> = self.ask(&get).await?;
        serde_json::from_str(&text?).ok()
    }

    pub(super) async fn keep_tenant(&self, waba_id: &str, copied: &CachedTenant, ttl: Duration) {
        let Ok(text) = serde_json::to_string(copied) else {
            return;
        };
        self.set(self.keys.tenant(waba_id), text.as_bytes(), ttl)
            .await;
    }

    /// Lets ingress know of an account's own limit; whether Redis took it.
    pub(super) async fn keep_limit(&self, waba_id: &str, per_minute: Option<u32>) -> bool {
        let key = self.keys.seen(self.keys.partition_of(waba_id));
        let field = limit_field(waba_id);
        let command = match per_minute {
            Some(limit) => redis::cmd("HSET").arg(key).arg(field).arg(limit).to_owned(),
            None => redis::cmd("HDEL").arg(key).arg(field).to_owned(),
        };
        self.ask::<()>(&command).await.is_some()
    }

    /// Makes these the only limits that ingress knows of; whether Redis took all of it.
    pub(super) async fn keep_limits(&self, limits: &[(String, u32)]) -> bool {
        let mut by_partition: BTreeMap<u16, BTreeMap<String, String>> = BTreeMap::new();
        for (waba_id, limit) in limits {
            let partition = self.keys.partition_of(waba_id);
            let of_partition = by_partition.entry(partition).or_default();
            of_partition.insert(limit_field(waba_id), limit.to_string());
        }
        for partition in 0..self.keys.partitions() {
            let wanted = by_partition.remove(&partition).unwrap_or_default();
            if !self.keep_limits_of(partition, &wanted).await {
                return false;
            }
        }
        true
    }

    async fn keep_limits_of(&self, partition: u16, wanted: &BTreeMap<String, String>) -> bool {
        let key = self.keys.seen(partition);
        let known = redis::cmd("HGETALL").arg(&key).to_owned();
        let Some(known) = self.ask::<BTreeMap<String, String>>(&known).await else {
            return false;
        };
        let is_limit = |field: &&String| field.starts_with(LIMIT_PREFIX);
        let gone = known.keys().filter(is_limit);
        let gone: Vec<_> = gone.filter(|field| !wanted.contains_key(*field)).collect();
        let new = wanted.iter();
        let new: Vec<_> = new
            .filter(|(field, limit)| known.get(*field) != Some(limit))
            .collect();
        let (mut del, mut set) = (redis::cmd("HDEL"), redis::cmd("HSET"));
        del.arg(&key).arg(&gone);
        set.arg(&key).arg(&new);
        (gone.is_empty() || self.ask::<()>(&del).await.is_some())
            && (new.is_empty() || self.ask::<()>(&set).await.is_some())
    }

    async fn set(&self, key: String, value: &[u8], ttl: Duration) {
        let mut set = redis::cmd("SET");
        set.arg(key)
            .arg(value)
            .arg("PX")
            .arg(ttl.as_millis() as u64);
        self.ask::<()>(&set).await;
    }

    /// True if no other worker asks about this account now, or Redis doesn't know.
    pub(super) async fn ask_alone(&self, waba_id: &str) -> bool {
        let mut set = redis::cmd("SET");
        set.arg(self.keys.tenant_asked(waba_id)).arg(1);
        set.arg("NX").arg("PX").arg(ASKING.as_millis() as u64);
        let taken: Option<Option<String>> = self.ask(&set).await;
        taken.is_none_or(|taken| taken.is_some())
    }

    pub(super) async fn asked(&self, waba_id: &str) {
        let mut del = redis::cmd("DEL");
        del.arg(self.keys.tenant_asked(waba_id));
        self.ask::<()>(&del).await;
    }

    /// A sealed token and the rest of its life.
    pub(super) async fn sealed_token(&self, waba_id: &str) -> Option<(Vec<u8>, Duration)> {
        let (mut get, mut rest) = (redis::cmd("GET"), redis::cmd("PTTL"));
        get.arg(self.keys.token(waba_id));
        rest.arg(self.keys.token(waba_id));
        let sealed = self.ask::<Option<Vec<u8>>>(&get).await??;
        let rest: i64 = self.ask(&rest).await?;
        Some((sealed, Duration::from_millis(rest.try_into().ok()?)))
    }

    pub(super) async fn keep_sealed_token(&self, waba_id: &str, sealed: &[u8], ttl: Duration) {
        self.set(self.keys.token(waba_id), sealed, ttl).await;
    }

    pub(super) async fn forget_token(&self, waba_id: &str) {
        let mut del = redis::cmd("DEL");
        del.arg(self.keys.token(waba_id));
        self.ask::<()>(&del).await;
    }

    /// Forgets an account and tells all workers.
    pub(super) async fn forget(&self, waba_id: &str) -> RedisResult<()> {
        let mut connection = self.connection.clone();
        // One by one: they lie in different slots of a cluster.
        for key in [self.keys.tenant(waba_id), self.keys.token(waba_id)] {
            let mut del = redis::cmd("DEL");
            del.arg(key).query_async::<()>(&mut connection).await?;
        }
        self.tell(waba_id).await
    }

    /// Tells all workers that an account has changed.
    pub(super) async fn tell(&self, waba_id: &str) -> RedisResult<()> {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(self.keys.tenants_changed()).arg(waba_id);
        publish.query_async(&mut self.connection.clone()).await
    }

    pub(super) fn changes(&self) -> String {
        self.keys.tenants_changed()
    }

    /// Notes accounts as seen now.
    pub(super) async fn saw(&self, waba_ids: &[String]) {
        if waba_ids.is_empty() {
            return;
        }
        let mut add = redis::cmd("ZADD");
        add.arg(self.keys.tenants_seen());
        for waba_id in waba_ids {
            add.arg(now_ms()).arg(waba_id);
        }
        self.ask::<()>(&add).await;
        self.ask::<()>(&trim(self.keys.tenants_seen())).await;
    }

    /// Accounts seen lately, the last one first.
    pub(super) async fn seen(&self, most: usize) -> Vec<String> {
        let oldest = now_ms().saturating_sub(self.stale_ttl.as_millis() as u64);
        let mut range = redis::cmd("ZREVRANGEBYSCORE");
        range.arg(self.keys.tenants_seen()).arg("+inf").arg(oldest);
        range.arg("LIMIT").arg(0).arg(most);
        self.ask(&range).await.unwrap_or_default()
    }

    /// Something of an account without a tenant was set aside.
    pub(super) async fn note_unknown(&self, waba_id: &str) -> RedisResult<()> {
        let mut connection = self.connection.clone();
        let mut add = redis::cmd("ZINCRBY");
        add.arg(self.keys.tenants_unknown()).arg(1).arg(waba_id);
        add.query_async::<()>(&mut connection).await?;
        let trim = trim(self.keys.tenants_unknown());
        trim.query_async(&mut connection).await
    }

    /// Accounts without a tenant, with how often something of theirs was set aside.
    pub(super) async fn unknown(&self) -> Vec<(String, u64)> {
        let mut range = redis::cmd("ZRANGE");
        range
            .arg(self.keys.tenants_unknown())
            .arg(0)
            .arg(-1)
            .arg("WITHSCORES");
        self.ask(&range).await.unwrap_or_default()
    }

    pub(super) async fn times_unknown(&self, waba_id: &str) -> Option<u64> {
        let mut score = redis::cmd("ZSCORE");
        score.arg(self.keys.tenants_unknown()).arg(waba_id);
        self.ask::<Option<u64>>(&score).await?
    }

    /// Nothing of an account is set aside any more, unless something was after it had been `times`.
    pub(super) async fn no_longer_unknown(&self, waba_id: &str, times: u64) {
        let script = Script::new(include_str!("../../lua/no_longer_unknown.lua"));
        let call = script
            .call([self.keys.tenants_unknown()])
            .arg(waba_id)
            .arg(times);
        let done: RedisResult<()> = call.run(&mut self.connection.clone()).await;
        if let Err(error) = done {
            tracing::debug!(%error, "an account is looked up once more");
        }
    }

    /// Takes the turn to look up the accounts without a tenant, if nobody has it.
    pub(super) async fn take_turn(&self, token: &str, lasts: Duration) -> bool {
        let mut set = redis::cmd("SET");
        set.arg(self.keys.tenants_turn()).arg(token);
        set.arg("NX").arg("PX").arg(lasts.as_millis() as u64);
        self.ask::<Option<String>>(&set).await.flatten().is_some()
    }

    /// Keeps the turn for another while (zero: lets go of it); false if it is nobody's or another's by now.
    pub(super) async fn keep_turn(&self, token: &str, lasts: Duration) -> RedisResult<bool> {
        let script = Script::new(include_str!("../../lua/renew.lua"));
        let call = script.call([self.keys.tenants_turn()]);
        let call = call.arg(token).arg(lasts.as_millis() as u64);
        call.run(&mut self.connection.clone()).await
    }
}

fn trim(key: String) -> redis::Cmd {
    let mut trim = redis::cmd("ZREMRANGEBYRANK");
    trim.arg(key).arg(0).arg(-MOST_LISTED - 1);
    trim
}
