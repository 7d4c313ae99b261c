//! Which accounts are a tenant's: payloads that came while an account had no tenant lie in a folder of
//! the account.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use futures::stream::{self, StreamExt};
use percent_encoding::percent_decode_str;
use prometheus_client::registry::Registry;
use shared::webhook::NO_WABA;
use std::sync::Arc;

use super::EraseArgs;
use super::folders::{folders_of, unresolved_folders};
use crate::ask::tenants::Tenants;
use crate::clients;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::operator::Deployment;
use crate::operator::output::ProgressLine;
use crate::out::store::Bucket;

/// Accounts that are asked for, and objects that are, side by side.
const ACCOUNTS_AT_ONCE: usize = 8;
const OBJECTS_AT_ONCE: usize = 32;

/// Accounts, as far as a tenant is concerned.
#[derive(Debug, Default)]
pub(super) struct TenantAccounts {
    pub theirs: BTreeSet<String>,
    /// Nobody says whose they are.
    pub unowned: BTreeSet<String>,
    /// The same, but the Tenant Service didn't answer: why.
    pub unknown: BTreeMap<String, String>,
}

impl TenantAccounts {
    /// By the arguments, `TENANTS_FILE`, what Redis remembers, the Tenant Service, and at last by what
    /// lies in the tenant's own folders.
    ///
    /// # Errors
    /// Redis or the store is away.
    pub(super) async fn of(
        config: &Config,
        deployment: &Deployment,
        args: &EraseArgs,
        tenant_id: &str,
    ) -> anyhow::Result<Self> {
        let mut accounts_of = Self {
            theirs: args.account.iter().cloned().collect(),
            ..Self::default()
        };
        if let Some(file) = &deployment.secrets.tenants.directory {
            let file = file.current();
            let accounts = file.limits().map(|(account, _)| account);
            let theirs =
                accounts.filter(|account| file.verdict(account).tenant_id() == Some(tenant_id));
            accounts_of.theirs.extend(theirs.map(str::to_owned));
        }
        for account in seen(deployment).await? {
            if remembered(deployment, &account).await?.as_deref() == Some(tenant_id) {
                accounts_of.theirs.insert(account);
            }
        }
        accounts_of.ask(config, deployment, tenant_id).await?;
        accounts_of.claim(deployment, tenant_id).await?;
        Ok(accounts_of)
    }

    /// Accounts with payloads of their own: Redis and the Tenant Service say whose they are.
    async fn ask(
        &mut self,
        config: &Config,
        deployment: &Deployment,
        tenant_id: &str,
    ) -> anyhow::Result<()> {
        let metrics = Metrics::new(&mut Registry::default());
        let tenants = Arc::new(Tenants::new(
            &config.tenants,
            &deployment.secrets.tenants,
            clients::tenant_service(&metrics)?,
            (deployment.connection.clone(), deployment.keys.clone()),
            metrics.caches.clone(),
        ));
        let mut accounts = without_tenant(deployment).await?;
        accounts.retain(|account| !self.theirs.contains(account));
        let asked = stream::iter(accounts).map(async |account| {
            let owner = match remembered(deployment, &account).await? {
                Some(owner) => Ok(Some(owner)),
                None => {
                    let asked = tenants.ask(&account).await;
                    asked.map(|verdict| verdict.tenant_id().map(str::to_owned))
                }
            };
            anyhow::Ok((account, owner))
        });
        let mut asked = asked.buffer_unordered(ACCOUNTS_AT_ONCE);
        while let Some(asked) = asked.next().await {
            match asked? {
                (account, Ok(Some(owner))) => {
                    if owner == tenant_id {
                        self.theirs.insert(account);
                    }
                }
                (account, Ok(None)) => {
                    self.unowned.insert(account);
                }
                (account, Err(error)) => {
                    let why = format!("the Tenant Service: {error}");
                    self.unknown.insert(account, why);
                }
            }
        }
        Ok(())
    }

    /// An account that nobody else claims is the tenant's if one of the tenant's payloads is of it.
    async fn claim(&mut self, deployment: &Deployment, tenant_id: &str) -> anyhow::Result<()> {
        let mut progress = ProgressLine::new("payloads asked for their account");
        let mut asked = 0;
        for folder in folders_of(tenant_id) {
            let keys = deployment.store.listed(Bucket::Webhooks, &folder);
            let described = keys.map(async |key| {
                let key = key.context("the object store")?;
                // One that can't be had tells nothing; another one may.
                let described = deployment.store.described(&key).await.unwrap_or_default();
                anyhow::Ok(described.get("waba-id").cloned())
            });
            let mut described = described.buffer_unordered(OBJECTS_AT_ONCE);
            while !(self.unowned.is_empty() && self.unknown.is_empty())
                && let Some(account) = described.next().await
            {
                asked += 1;
                progress.at(asked, None);
                let Some(account) = account? else {
                    continue;
                };
                if self.unowned.remove(&account) || self.unknown.remove(&account).is_some() {
                    self.theirs.insert(account);
                }
            }
        }
        Ok(())
    }
}

pub(in crate::operator) async fn seen(deployment: &Deployment) -> anyhow::Result<Vec<String>> {
    let mut range = redis::cmd("ZRANGE");
    range.arg(deployment.keys.tenants_seen()).arg(0).arg(-1);
    let seen = range.query_async(&mut deployment.connection.clone()).await;
    seen.context("Redis")
}

/// Whose an account is, as workers remember it.
pub(in crate::operator) async fn remembered(
    deployment: &Deployment,
    account: &str,
) -> anyhow::Result<Option<String>> {
    let mut get = redis::cmd("GET");
    get.arg(deployment.keys.tenant(account));
    let answer = get.query_async(&mut deployment.connection.clone()).await;
    let answer: Option<String> = answer.context("Redis")?;
    let answer: serde_json::Value =
        serde_json::from_str(&answer.unwrap_or_default()).unwrap_or_default();
    Ok(answer["tenant"]["tenantId"].as_str().map(str::to_owned))
}

/// Accounts that have a folder among those without a tenant.
async fn without_tenant(deployment: &Deployment) -> anyhow::Result<BTreeSet<String>> {
    let mut accounts = BTreeSet::new();
    for folder in unresolved_folders(None) {
        let folders = deployment.store.folders_in(Bucket::Webhooks, &folder);
        for folder in folders.await.context("the object store")? {
            let name = folder.rsplit('/').next().unwrap_or_default();
            accounts.insert(percent_decode_str(name).decode_utf8_lossy().into_owned());
        }
    }
    accounts.remove(NO_WABA);
    Ok(accounts)
}
