//! Whose business account is it: asks the Tenant Service, and remembers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::{Client, StatusCode};
use serde::Deserialize;
use shared::secrets::{Rotating, Secret};
use url::Url;

use crate::config::TenantArgs;
use crate::retry::Backoff;

const TIMEOUT: Duration = Duration::from_secs(2);
/// An account without a tenant may get one any time.
const UNKNOWN_TTL: Duration = Duration::from_secs(60);
/// Accounts remembered at once.
const MOST_REMEMBERED: usize = 100_000;

/// The owner of a business account.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tenant {
    #[serde(rename = "tenantId")]
    pub id: String,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default, rename = "accessToken")]
    pub access_token: Option<String>,
    #[serde(default)]
    pub status: Status,
}

impl Tenant {
    /// One that is known by its id and name only.
    pub fn named(id: String, name: Option<String>) -> Self {
        Self {
            id,
            name,
            status: Status::Active,
            access_token: None,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Active,
    Suspended,
}

/// What the Tenant Service says of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Active(Arc<Tenant>),
    Suspended(Arc<Tenant>),
    Unknown,
}

impl Verdict {
    pub fn tenant_id(&self) -> Option<&str> {
        match self {
            Self::Active(tenant) | Self::Suspended(tenant) => Some(&tenant.id),
            Self::Unknown => None,
        }
    }
}

/// Why there is no verdict now.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    #[error("the Tenant Service can't be reached: {0}")]
    Unreachable(#[from] reqwest::Error),
    #[error("the Tenant Service answered {0}")]
    Answer(StatusCode),
    #[error("the Tenant Service's URL can't have a path added")]
    Url,
}

/// Asks and remembers.
pub struct Tenants {
    client: Client,
    url: Url,
    token: Option<Arc<Rotating<Secret>>>,
    ttl: Duration,
    remembered: Mutex<HashMap<String, (Verdict, Instant)>>,
}

impl Tenants {
    /// # Errors
    /// The HTTP client can't be built.
    pub fn new(args: &TenantArgs, token: Option<Arc<Rotating<Secret>>>) -> anyhow::Result<Self> {
        let client = Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            client,
            url: args.tenant_service_url.clone(),
            token,
            ttl: args.tenant_cache_ttl,
            remembered: Mutex::default(),
        })
    }

    /// What is remembered of an account, if it is fresh enough.
    pub fn remembered(&self, waba_id: &str) -> Option<Verdict> {
        let remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (verdict, until) = remembered.get(waba_id)?;
        (Instant::now() < *until).then(|| verdict.clone())
    }

    /// Asks until there is a verdict, however long that takes.
    pub async fn resolve(&self, waba_id: &str) -> Verdict {
        let mut backoff = Backoff::for_server();
        loop {
            if let Some(verdict) = self.remembered(waba_id) {
                return verdict;
            }
            match self.ask(waba_id).await {
                Ok(verdict) => {
                    self.remember(waba_id, verdict.clone());
                    return verdict;
                }
                Err(error) => {
                    // The URL in reqwest's message names the account, which is no secret.
                    tracing::warn!(waba_id, %error, "an account waits for its tenant");
                    backoff.wait().await;
                }
            }
        }
    }

    fn remember(&self, waba_id: &str, verdict: Verdict) {
        let ttl = match verdict {
            Verdict::Active(_) | Verdict::Suspended(_) => self.ttl,
            Verdict::Unknown => UNKNOWN_TTL.min(self.ttl),
        };
        let now = Instant::now();
        let mut remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= MOST_REMEMBERED {
            remembered.retain(|_, (_, until)| now < *until);
        }
        if remembered.len() < MOST_REMEMBERED {
            remembered.insert(waba_id.to_owned(), (verdict, now + ttl));
        }
    }

    async fn ask(&self, waba_id: &str) -> Result<Verdict, Unavailable> {
        let mut url = self.url.clone();
        url.path_segments_mut()
            .map_err(|()| Unavailable::Url)?
            .pop_if_empty()
            .extend(["tenants", "by-business-account", waba_id]);
        let mut request = self.client.get(url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.current().expose());
        }
        let answer = request.send().await?;
        match answer.status() {
            StatusCode::OK => {
                let tenant: Arc<Tenant> = Arc::new(answer.json().await?);
                Ok(match tenant.status {
                    Status::Active => Verdict::Active(tenant),
                    Status::Suspended => Verdict::Suspended(tenant),
                })
            }
            StatusCode::NOT_FOUND => Ok(Verdict::Unknown),
            other => Err(Unavailable::Answer(other)),
        }
    }
}

/// stub: Tokens of accounts.
pub struct Tokens {
    tenants: Arc<Tenants>,
}
impl Tokens {
    pub fn new(tenants: Arc<Tenants>) -> Self {
        Self { tenants }
    }
    pub async fn get(&self, waba_id: &str) -> Option<Arc<Secret>> {
        match self.tenants.resolve(waba_id).await {
            Verdict::Active(t) | Verdict::Suspended(t) => {
                Some(Arc::new(t.access_token.as_ref()?.parse().ok()?))
            }
            Verdict::Unknown => None,
        }
    }
    pub async fn refused(&self, waba_id: &str, token: &Secret) -> Option<Arc<Secret>> {
        let verdict = self.tenants.ask(waba_id).await.ok()?;
        self.tenants.remember(waba_id, verdict);
        self.get(waba_id).await.filter(|new| **new != *token)
    }
}
