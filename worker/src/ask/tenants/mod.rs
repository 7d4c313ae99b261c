//! Whose business account is it: what this process remembers ([`memory`]), what all workers remember
//! in Redis ([`redis`]), then the Tenant Service ([`service`]) or a [`file`]. However many ask about
//! one account at once, one question goes out. [`tokens`] keeps the access tokens that come with the
//! answers; [`upkeep`] does what nobody waits for.

pub mod file;
mod memory;
mod redis;
mod seal;
mod service;
pub mod tokens;
mod unusable;
pub mod upkeep;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use shared::keys::Keys;
use shared::redis::Connection;
use shared::secrets::Rotating;
use tokio::time::Instant;

pub use file::Directory;
use memory::{AccountCache, Cached};
pub use seal::Keyring;
pub use service::SETTINGS as SERVICE_SETTINGS;
use service::{Service, TenantRecord};
use tokens::TokenStore;
use unusable::UnusableAccounts;

use self::redis::{CachedTenant, RedisCache};
use crate::ask::neighbour::{Neighbour, NeighbourError, Trace};
use crate::item::tenant::{Tenant, Verdict};
use crate::metrics::{Cache, CacheMetrics};
use crate::retry::Backoff;
use clap::Args;
use shared::config::duration;
use shared::secrets::Secret;
use std::path::PathBuf;
use url::Url;

/// What [`Tenants`] is told in secret; `None` where it is not set.
#[derive(Clone)]
pub struct TenantSecrets {
    pub service_token: Option<Arc<Rotating<Secret>>>,
    /// Asked instead of the Tenant Service.
    pub directory: Option<Arc<Rotating<Directory>>>,
    /// Encrypt access tokens in Redis.
    pub token_keys: Option<Arc<Rotating<Keyring>>>,
}

/// Who owns a business account.
#[derive(Args, Debug, Clone)]
pub struct TenantArgs {
    /// Who knows which tenant has a business account
    #[arg(
        long,
        env = "TENANT_SERVICE_URL",
        default_value = "http://127.0.0.1:8090"
    )]
    pub tenant_service_url: Url,
    /// Sent as a bearer token
    #[arg(long, env = "TENANT_SERVICE_TOKEN", hide_env_values = true)]
    pub tenant_service_token: Option<Secret>,
    /// File that has it, read again when it changes
    #[arg(long, env = "TENANT_SERVICE_TOKEN_FILE")]
    pub tenant_service_token_file: Option<PathBuf>,
    /// How long a tenant is remembered
    #[arg(long, env = "TENANT_CACHE_TTL", default_value = "1h", value_parser = duration)]
    pub tenant_cache_ttl: Duration,
    /// How long a tenant is still served after it was last asked for while the Tenant Service is down
    #[arg(long, env = "TENANT_STALE_TTL", default_value = "24h", value_parser = duration)]
    pub tenant_stale_ttl: Duration,
    /// Instead of the Tenant Service: a JSON array of the same objects, read again when it changes
    #[arg(long, env = "TENANTS_FILE")]
    pub tenants_file: Option<PathBuf>,
    /// How long an access token is remembered
    #[arg(long, env = "TOKEN_CACHE_TTL", default_value = "24h", value_parser = duration)]
    pub token_cache_ttl: Duration,
    /// 32 bytes in base64, several comma-separated: the first encrypts access tokens in Redis, all
    /// decrypt; without it they are not written to Redis
    #[arg(long, env = "TOKEN_ENCRYPTION_KEY", hide_env_values = true)]
    pub token_encryption_key: Option<Secret>,
    /// File that has it, read again when it changes
    #[arg(long, env = "TOKEN_ENCRYPTION_KEY_FILE")]
    pub token_encryption_key_file: Option<PathBuf>,
}

/// An account without a tenant may get one any time.
const UNKNOWN_TTL: Duration = Duration::from_secs(60);
/// What is out of date is used this long before the Tenant Service is asked again.
const STALE_FOR: Duration = Duration::from_secs(5);
/// What a lookup found while somebody declared an account changed.
const DOUBTFUL_FOR: Duration = Duration::from_secs(1);
/// Another worker asks about the account: this long its answer is waited for.
const OTHERS_PATIENCE: Duration = Duration::from_secs(1);
const OTHERS_LOOK: Duration = Duration::from_millis(50);
/// All attempts of one question.
const ASKING_TIME: Duration = Duration::from_secs(5);
/// The same where something is at hand to go on with.
const ASKING_TIME_WITH_STALE: Duration = Duration::from_secs(1);
/// Limits that wait for Redis.
const MOST_UNWRITTEN: usize = 100_000;
/// An entry whose rest of life is shorter than this part of its whole life is refreshed.
const REFRESHED_PART: u32 = 5;

/// Where a lookup may take its answer from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Freshness {
    /// Anything that is up to date.
    Fresh,
    /// Something that lives longer than what is about to be refreshed.
    Fresher,
    /// The Tenant Service's word of now.
    Asked,
}

type LookupResult = Result<Verdict, NeighbourError>;
type Lookup = Shared<BoxFuture<'static, LookupResult>>;
type Lookups = HashMap<(String, Freshness), WeakShared<BoxFuture<'static, LookupResult>>>;

enum TenantSource {
    Service(Box<Service>),
    File(Arc<Rotating<Directory>>),
}

/// Asks and remembers.
pub struct Tenants {
    source: TenantSource,
    ttl: Duration,
    stale_ttl: Duration,
    memory: AccountCache<Verdict>,
    in_redis: RedisCache,
    tokens: TokenStore,
    lookups: Mutex<Lookups>,
    /// Grows whenever an account is declared changed.
    changes: AtomicU64,
    unusable: UnusableAccounts,
    /// Limits that Redis has not taken yet.
    unwritten_limits: Mutex<HashMap<String, Option<u32>>>,
    metrics: CacheMetrics,
}

impl Tenants {
    pub fn new(
        args: &TenantArgs,
        secrets: &TenantSecrets,
        neighbour: Neighbour,
        (connection, keys): (Connection, Keys),
        metrics: CacheMetrics,
    ) -> Self {
        let source = match &secrets.directory {
            Some(file) => TenantSource::File(file.clone()),
            None => {
                let url = args.tenant_service_url.clone();
                let token = secrets.service_token.clone();
                TenantSource::Service(Box::new(Service::new(neighbour, url, token)))
            }
        };
        let in_redis = RedisCache::new(connection, keys, args.tenant_stale_ttl);
        let tokens = TokenStore::new(
            in_redis.clone(),
            secrets.token_keys.clone(),
            args.token_cache_ttl,
            metrics.clone(),
        );
        Self {
            source,
            ttl: args.tenant_cache_ttl,
            stale_ttl: args.tenant_stale_ttl,
            memory: AccountCache::default(),
            in_redis,
            tokens,
            lookups: Mutex::default(),
            changes: AtomicU64::new(0),
            unusable: UnusableAccounts::default(),
            unwritten_limits: Mutex::default(),
            metrics,
        }
    }

    /// What is remembered of an account, if it is up to date.
    pub fn remembered(&self, waba_id: &str) -> Option<Verdict> {
        if let TenantSource::File(directory) = &self.source {
            return Some(directory.current().verdict(waba_id));
        }
        let found = self.memory.fresh(waba_id, Instant::now());
        self.metrics.count(Cache::Tenant, found.is_some());
        found
    }

    /// Whether what is remembered of an account is up to date.
    pub fn knows(&self, waba_id: &str) -> bool {
        let knows = match &self.source {
            TenantSource::File(_) => true,
            TenantSource::Service(_) => self.memory.fresh(waba_id, Instant::now()).is_some(),
        };
        if !knows {
            self.metrics.count(Cache::Tenant, false);
        }
        knows
    }

    /// What the Tenant Service, or the file, says of an account now.
    ///
    /// # Errors
    /// The Tenant Service is away or refuses.
    pub async fn ask(self: &Arc<Self>, waba_id: &str) -> Result<Verdict, NeighbourError> {
        self.look_up(waba_id, Freshness::Asked, Trace::default())
            .await
    }

    /// Asks until there is a verdict, however long that takes.
    pub async fn resolve(self: &Arc<Self>, waba_id: &str, trace: Trace<'_>) -> Verdict {
        let mut backoff = Backoff::for_server();
        loop {
            match self.look_up(waba_id, Freshness::Fresh, trace).await {
                Ok(verdict) => return verdict,
                Err(error) => {
                    tracing::warn!(waba_id, %error, "Tenant Service call failed, will retry: the account waits for its tenant");
                    backoff.wait().await;
                }
            }
        }
    }

    /// One lookup, together with all others of the same account.
    async fn look_up(
        self: &Arc<Self>,
        waba_id: &str,
        freshness: Freshness,
        trace: Trace<'_>,
    ) -> LookupResult {
        if let TenantSource::File(directory) = &self.source {
            return Ok(directory.current().verdict(waba_id));
        }
        self.join_lookup(waba_id, freshness, trace).await
    }

    fn join_lookup(
        self: &Arc<Self>,
        waba_id: &str,
        freshness: Freshness,
        trace: Trace<'_>,
    ) -> Lookup {
        let mut lookups = self.lookups();
        let key = (waba_id.to_owned(), freshness);
        if let Some(lookup) = lookups.get(&key).and_then(WeakShared::upgrade) {
            return lookup;
        }
        let (tenants, waba_id) = (self.clone(), waba_id.to_owned());
        let (correlation_id, traceparent) = (
            trace.correlation_id.to_owned(),
            trace.traceparent.to_owned(),
        );
        let looking = async move {
            let trace = Trace {
                correlation_id: &correlation_id,
                traceparent: &traceparent,
            };
            let verdict = tenants.ask_in_order(&waba_id, freshness, trace).await;
            tenants.lookups().remove(&(waba_id, freshness));
            verdict
        };
        let lookup = looking.boxed().shared();
        // Those that nobody waited for to the end.
        if lookups.len() >= 1024 {
            lookups.retain(|_, lookup| lookup.upgrade().is_some());
        }
        if let Some(weak) = lookup.downgrade() {
            lookups.insert(key, weak);
        }
        lookup
    }

    fn lookups(&self) -> std::sync::MutexGuard<'_, Lookups> {
        self.lookups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask_in_order(
        &self,
        waba_id: &str,
        freshness: Freshness,
        trace: Trace<'_>,
    ) -> LookupResult {
        let TenantSource::Service(service) = &self.source else {
            return Ok(Verdict::Unknown);
        };
        let changes = self.changes.load(Ordering::Acquire);
        let mut copied = self.in_redis.tenant(waba_id).await;
        if let Some(verdict) = self.accept(copied.as_ref(), freshness) {
            return Ok(self.remember(waba_id, verdict, copied.as_ref(), changes));
        }
        if freshness != Freshness::Asked && !self.in_redis.ask_alone(waba_id).await {
            let until = Instant::now() + OTHERS_PATIENCE;
            while Instant::now() < until {
                tokio::time::sleep(OTHERS_LOOK).await;
                copied = self.in_redis.tenant(waba_id).await;
                if let Some(verdict) = self.accept(copied.as_ref(), freshness) {
                    return Ok(self.remember(waba_id, verdict, copied.as_ref(), changes));
                }
            }
        }
        let stale = self.stale(waba_id, copied);
        let within = match &stale {
            Some(_) => ASKING_TIME_WITH_STALE,
            None => ASKING_TIME,
        };
        let asked = service.ask(waba_id, within, trace).await;
        let verdict = match asked {
            Ok(found) => Ok(self.found(waba_id, found, changes).await),
            Err(error) => match stale {
                Some(verdict) if freshness != Freshness::Asked => {
                    tracing::debug!(waba_id, %error, "Tenant Service call failed: an older answer is used");
                    self.metrics.stale();
                    let until = Instant::now() + STALE_FOR;
                    self.memory.prolong(waba_id, &verdict, until);
                    Ok(verdict)
                }
                Some(_) | None => match self.unusable.note(waba_id, &error) {
                    true if freshness != Freshness::Asked => {
                        Ok(self.remember(waba_id, Verdict::Unusable, None, changes))
                    }
                    _ => Err(error),
                },
            },
        };
        if freshness != Freshness::Asked {
            self.in_redis.asked(waba_id).await;
        }
        verdict
    }

    /// What Redis has, if it is good enough.
    fn accept(&self, copied: Option<&CachedTenant>, freshness: Freshness) -> Option<Verdict> {
        let life = self.life(copied?.tenant.is_some());
        let least = match freshness {
            Freshness::Fresh => Duration::ZERO,
            Freshness::Fresher => life / REFRESHED_PART,
            Freshness::Asked => return None,
        };
        let accepted = copied.filter(|copied| copied.age() + least < life);
        self.metrics.count(Cache::TenantRedis, accepted.is_some());
        Some(Verdict::of(accepted?.tenant.clone()))
    }

    fn life(&self, known: bool) -> Duration {
        if known {
            self.ttl
        } else {
            UNKNOWN_TTL.min(self.ttl)
        }
    }

    /// What may be used although it is out of date.
    fn stale(&self, waba_id: &str, copied: Option<CachedTenant>) -> Option<Verdict> {
        let here = self.memory.usable(waba_id, Instant::now());
        here.or_else(|| {
            let copied = copied.filter(|copied| copied.age() < self.stale_ttl)?;
            Some(Verdict::of(Some(copied.tenant?)))
        })
    }

    async fn found(&self, waba_id: &str, found: Option<TenantRecord>, changes: u64) -> Verdict {
        self.unusable.forget(waba_id);
        let (tenant, token) = found.map_or((None, None), |it| (Some(it.tenant), it.token));
        let copied = CachedTenant::now(tenant);
        if self.changes.load(Ordering::Acquire) == changes {
            let ttl = match copied.tenant {
                Some(_) => self.stale_ttl,
                None => self.life(false),
            };
            let limit = copied.tenant.as_ref();
            let limit = limit.and_then(|tenant| tenant.rate_limit_per_minute);
            // Whoever takes the answer from Redis doesn't write the limit.
            if self.keep_limit(waba_id, limit).await {
                self.in_redis.keep_tenant(waba_id, &copied, ttl).await;
            }
            if let Some(tenant) = &copied.tenant {
                self.tokens.keep(waba_id, &tenant.id, token).await;
            }
        }
        let verdict = Verdict::of(copied.tenant.clone());
        self.remember(waba_id, verdict, Some(&copied), changes)
    }

    /// Lets ingress know of an account's own limit; what Redis doesn't take is tried again.
    async fn keep_limit(&self, waba_id: &str, limit: Option<u32>) -> bool {
        let kept = self.in_redis.keep_limit(waba_id, limit).await;
        let mut unwritten = self.unwritten_limits();
        if kept {
            unwritten.remove(waba_id);
        } else if unwritten.len() < MOST_UNWRITTEN {
            unwritten.insert(waba_id.to_owned(), limit);
        }
        kept
    }

    fn unwritten_limits(&self) -> std::sync::MutexGuard<'_, HashMap<String, Option<u32>>> {
        let unwritten = self.unwritten_limits.lock();
        unwritten.unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(
        &self,
        waba_id: &str,
        verdict: Verdict,
        copied: Option<&CachedTenant>,
        changes: u64,
    ) -> Verdict {
        let age = copied.map(CachedTenant::age).unwrap_or_default();
        let mut fresh_for = self.life(verdict.tenant().is_some()).saturating_sub(age);
        let mut usable_for = match verdict.tenant() {
            Some(_) => self.stale_ttl.saturating_sub(age),
            None => fresh_for,
        };
        if self.changes.load(Ordering::Acquire) != changes {
            fresh_for = fresh_for.min(DOUBTFUL_FOR);
            usable_for = fresh_for;
        }
        let now = Instant::now();
        let remembered = Cached {
            value: verdict.clone(),
            fresh_until: now + fresh_for,
            usable_until: now + usable_for,
            used: now,
        };
        self.memory.insert(waba_id, remembered);
        verdict
    }

    /// Forgets an account here.
    fn forget(&self, waba_id: &str) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.memory.remove(waba_id);
        self.tokens.forget(waba_id);
        self.unusable.forget(waba_id);
        self.lookups().retain(|(account, _), _| account != waba_id);
    }

    /// Some account may have changed: Redis knows.
    fn doubt_all(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.memory.doubt_all(Instant::now());
        self.tokens.doubt_all();
    }

    /// Forgets an account everywhere: here, in Redis, and in all workers.
    ///
    /// # Errors
    /// A Redis command failed.
    pub async fn invalidate(&self, waba_id: &str) -> ::redis::RedisResult<()> {
        self.forget(waba_id);
        self.in_redis.forget(waba_id).await
    }

    /// Something of an account without a tenant that can be used lies in the failed store now.
    ///
    /// # Errors
    /// A Redis command failed.
    pub async fn note_unknown(&self, waba_id: &str) -> ::redis::RedisResult<()> {
        self.in_redis.note_unknown(waba_id).await
    }
}
