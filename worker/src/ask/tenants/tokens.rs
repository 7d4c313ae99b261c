//! Access tokens of tenants: in this process, and sealed in Redis if there is a key to seal with. They
//! come with what the Tenant Service says of an account.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::WeakShared;
use shared::secrets::{Rotating, Secret};
use tokio::time::Instant;

use super::memory::{AccountCache, Cached};
use super::redis::RedisCache;
use super::{Freshness, Keyring, TenantSource, Tenants, Verdict};
use crate::ask::neighbour::Trace;
use crate::metrics::{Cache, CacheMetrics};

/// A refused token makes the Tenant Service be asked this often at most, per account.
const REFUSAL_PAUSE: Duration = Duration::from_secs(60);
/// Accounts with a refused token that are remembered.
const MOST_REFUSALS: usize = 10_000;

pub(super) struct TokenStore {
    memory: AccountCache<Arc<Secret>>,
    in_redis: RedisCache,
    keys: Option<Arc<Rotating<Keyring>>>,
    ttl: Duration,
    refusals: Mutex<HashMap<String, RefusedToken>>,
    /// Accounts whose tenant has no token, and when that was said.
    missing: Mutex<HashMap<String, Instant>>,
    metrics: CacheMetrics,
}

/// The Graph API refused an account's token.
struct RefusedToken {
    /// `None` once there is another token.
    token: Option<Secret>,
    /// When the Tenant Service was asked because of it.
    asked: Instant,
}

impl TokenStore {
    pub(super) fn new(
        in_redis: RedisCache,
        keys: Option<Arc<Rotating<Keyring>>>,
        ttl: Duration,
        metrics: CacheMetrics,
    ) -> Self {
        Self {
            memory: AccountCache::default(),
            in_redis,
            keys,
            ttl,
            refusals: Mutex::default(),
            missing: Mutex::default(),
            metrics,
        }
    }

    /// What the Tenant Service says now.
    pub(super) async fn keep(&self, waba_id: &str, tenant_id: &str, token: Option<Secret>) {
        let Some(token) = token.filter(|token| self.is_welcome(waba_id, token)) else {
            self.memory.remove(waba_id);
            if self.keys.is_some() {
                self.in_redis.forget_token(waba_id).await;
            }
            return;
        };
        let keys = self.keys.as_ref().map(|keys| keys.current());
        let sealed = keys.and_then(|keys| keys.seal(&token, tenant_id, waba_id));
        if let Some(sealed) = sealed {
            self.in_redis
                .keep_sealed_token(waba_id, &sealed, self.ttl)
                .await;
        }
        self.remember(waba_id, token, self.ttl);
    }

    fn remember(&self, waba_id: &str, token: Secret, ttl: Duration) {
        let now = Instant::now();
        let remembered = Cached {
            value: Arc::new(token),
            fresh_until: now + ttl,
            usable_until: now + ttl,
            used: now,
        };
        self.memory.insert(waba_id, remembered);
    }

    pub(super) fn forget(&self, waba_id: &str) {
        self.memory.remove(waba_id);
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        missing.remove(waba_id);
        drop(missing);
        self.refused(|refusals| refusals.remove(waba_id));
    }

    /// Any of them may be another one by now.
    pub(super) fn doubt_all(&self) {
        self.memory.doubt_all(Instant::now());
    }

    fn fresh(&self, waba_id: &str) -> Option<Arc<Secret>> {
        self.memory.fresh(waba_id, Instant::now())
    }

    /// What is sealed in Redis.
    async fn unseal(&self, waba_id: &str, tenant_id: &str) -> Option<Arc<Secret>> {
        let keys = self.keys.as_ref()?;
        let sealed = self.in_redis.sealed_token(waba_id).await;
        self.metrics.count(Cache::TokenRedis, sealed.is_some());
        let (sealed, rest) = sealed?;
        let opened = keys.current().open(&sealed, tenant_id, waba_id);
        match opened {
            Ok(token) if self.is_welcome(waba_id, &token) => {
                self.remember(waba_id, token, rest.min(self.ttl));
                self.fresh(waba_id)
            }
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(waba_id, %error, "an access token in Redis can't be decrypted");
                None
            }
        }
    }

    /// Whether a token isn't the one that was just refused. Another one ends the refusal, and so does
    /// the same one after a while: it may have been given its rights back.
    fn is_welcome(&self, waba_id: &str, token: &Secret) -> bool {
        self.refused(|refusals| {
            let Some(refusal) = refusals.get_mut(waba_id) else {
                return true;
            };
            let same = refusal.token.as_ref() == Some(token);
            let welcome = !same || refusal.asked.elapsed() >= REFUSAL_PAUSE;
            if welcome {
                refusal.token = None;
            }
            welcome
        })
    }

    /// Whether this account's token was refused, and nothing better is known.
    fn is_refused(&self, waba_id: &str) -> bool {
        self.refused(|refusals| {
            refusals.get(waba_id).is_some_and(|refusal| {
                refusal.token.is_some() && refusal.asked.elapsed() < REFUSAL_PAUSE
            })
        })
    }

    /// Notes a refusal; true if the Tenant Service may be asked because of it.
    fn note_refused(&self, waba_id: &str, token: &Secret) -> bool {
        self.refused(|refusals| {
            let now = Instant::now();
            if refusals.len() >= MOST_REFUSALS {
                refusals.retain(|_, refusal| refusal.asked.elapsed() < REFUSAL_PAUSE);
            }
            let before = refusals.get(waba_id).map(|refusal| refusal.asked);
            let before = before.filter(|asked| now.duration_since(*asked) < REFUSAL_PAUSE);
            let refusal = RefusedToken {
                token: Some(token.clone()),
                asked: before.unwrap_or(now),
            };
            refusals.insert(waba_id.to_owned(), refusal);
            before.is_none()
        })
    }

    /// Whether the Tenant Service was asked for this account's token a moment ago, and had none.
    fn is_missing(&self, waba_id: &str) -> bool {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = missing.get(waba_id);
        asked.is_some_and(|asked| asked.elapsed() < REFUSAL_PAUSE)
    }

    fn note_missing(&self, waba_id: &str) {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        if missing.len() >= MOST_REFUSALS {
            missing.retain(|_, asked| asked.elapsed() < REFUSAL_PAUSE);
        }
        missing.insert(waba_id.to_owned(), Instant::now());
    }

    /// Looks at the refusals, or changes them, and tells how many there are.
    fn refused<T>(&self, change: impl FnOnce(&mut HashMap<String, RefusedToken>) -> T) -> T {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut refusals);
        let refused = refusals.values().filter(|refusal| refusal.token.is_some());
        self.metrics.tokens_rejected.set(refused.count() as i64);
        result
    }
}

/// Access tokens, for whoever calls the Graph API.
#[derive(Clone)]
pub struct Tokens(Arc<Tenants>);

impl Tokens {
    pub fn new(tenants: Arc<Tenants>) -> Self {
        Self(tenants)
    }

    /// The access token of an active account's tenant. `None`: it has none, the Graph API refused it
    /// less than a minute ago, or nobody can be asked now.
    pub async fn get(&self, waba_id: &str) -> Option<Arc<Secret>> {
        let (tenants, store) = (&self.0, &self.0.tokens);
        if let TenantSource::File(directory) = &tenants.source {
            let token = directory.current().token(waba_id)?;
            return store.is_welcome(waba_id, &token).then(|| Arc::new(token));
        }
        let here = store.fresh(waba_id);
        store.metrics.count(Cache::Token, here.is_some());
        if here.is_some() || store.is_refused(waba_id) {
            return here;
        }
        let verdict = match tenants.remembered(waba_id) {
            Some(verdict) => verdict,
            None => tenants
                .look_up(waba_id, Freshness::Fresh, Trace::default())
                .await
                .ok()?,
        };
        let Verdict::Active(tenant) = verdict else {
            return None;
        };
        if let Some(token) = store.fresh(waba_id) {
            return Some(token);
        }
        if let Some(token) = store.unseal(waba_id, &tenant.id).await {
            return Some(token);
        }
        if store.is_missing(waba_id) {
            return None;
        }
        let asked = self.ask(waba_id).await;
        if asked.is_none() {
            store.note_missing(waba_id);
        }
        asked
    }

    /// The Graph API refused `token` (401, or error 190). Another token if there is one: the Tenant
    /// Service is asked, once a minute at most.
    pub async fn refused(&self, waba_id: &str, token: &Secret) -> Option<Arc<Secret>> {
        let (tenants, store) = (&self.0, &self.0.tokens);
        let other = store.fresh(waba_id).filter(|other| **other != *token);
        if other.is_some() {
            return other;
        }
        let may_ask = store.note_refused(waba_id, token);
        if let TenantSource::File(directory) = &tenants.source {
            let other = directory.current().token(waba_id)?;
            return store.is_welcome(waba_id, &other).then(|| Arc::new(other));
        }
        if !may_ask {
            // Somebody else may be asking because of the same refusal.
            let key = (waba_id.to_owned(), Freshness::Asked);
            let asking = tenants.lookups().get(&key).and_then(WeakShared::upgrade)?;
            drop(asking.await);
            return store.fresh(waba_id);
        }
        tracing::warn!(
            waba_id,
            "the Graph API refuses a tenant's token; another one is asked for"
        );
        store.memory.remove(waba_id);
        // At once, so that whoever is refused meanwhile finds the question on its way.
        let asking = tenants.join_lookup(waba_id, Freshness::Asked, Trace::default());
        if store.keys.is_some() {
            store.in_redis.forget_token(waba_id).await;
        }
        drop(asking.await);
        store.fresh(waba_id)
    }

    async fn ask(&self, waba_id: &str) -> Option<Arc<Secret>> {
        let tenants = &self.0;
        let verdict = tenants
            .look_up(waba_id, Freshness::Asked, Trace::default())
            .await;
        if let Err(error) = verdict {
            tracing::warn!(waba_id, %error, "Tenant Service call failed: the account has no access token");
        }
        tenants.tokens.fresh(waba_id)
    }
}
