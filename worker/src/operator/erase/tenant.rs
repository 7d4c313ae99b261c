//! What is kept of a tenant.

use anyhow::Context;

use super::eraser::Eraser;
use super::erasure::Erasure;
use super::in_transit::InTransit;
use crate::item::health::HealthNote;
use crate::item::traffic;
use crate::out::store::{self, Bucket};

impl Eraser<'_> {
    /// Counts, and deletes if told to.
    ///
    /// # Errors
    /// Redis or the store can't be used.
    pub(super) async fn of_tenant(
        &self,
        mut found: Erasure,
        tenant_id: &str,
    ) -> anyhow::Result<Erasure> {
        let tenant = store::segment(tenant_id);
        found.accounts = self.accounts.clone();
        let is_theirs = |waiting: &InTransit<'_>| {
            self.accounts.contains(waiting.account)
                || waiting.tenants.contains(tenant_id)
                || waiting.tenants.contains(&tenant)
                || waiting.key.split('/').any(|part| part == tenant)
        };
        let before = self.in_transit(&mut found, is_theirs).await?;
        let mut keys = Vec::new();
        for folder in self.tenant_folders(tenant_id) {
            let below = self.list(&mut found, Bucket::Webhooks, &folder).await?;
            if !below.is_empty() {
                found.payloads.insert(folder, below.len());
            }
            keys.extend(below.into_iter().map(|key| (Bucket::Webhooks, key)));
        }
        let media = self.list(&mut found, Bucket::Media, &tenant).await?;
        found.media = media.len();
        keys.extend(media.into_iter().map(|key| (Bucket::Media, key)));
        if self.args.yes {
            self.delete(&mut found, keys).await?;
            self.forget_accounts().await.context("Redis")?;
        }
        // What was on its way before may have become an object since.
        found.waiting = before.max(self.in_transit(&mut found, is_theirs).await?);
        Ok(found)
    }

    /// Redis forgets the tenant's accounts, and all workers do.
    async fn forget_accounts(&self) -> redis::RedisResult<()> {
        let keys = &self.deployment.keys;
        let mut redis = self.deployment.connection.clone();
        for account in &self.accounts {
            let partition = keys.partition_of(account);
            // One by one: they lie in different slots of a cluster.
            for key in [
                keys.tenant(account),
                keys.token(account),
                keys.rate(partition, account),
            ] {
                redis::cmd("DEL")
                    .arg(key)
                    .query_async::<()>(&mut redis)
                    .await?;
            }
            for key in [keys.tenants_seen(), keys.tenants_unknown()] {
                let mut rem = redis::cmd("ZREM");
                rem.arg(key).arg(account);
                rem.query_async::<()>(&mut redis).await?;
            }
            let mut limit = redis::cmd("HDEL");
            limit.arg(keys.seen(partition)).arg(format!("l{account}"));
            limit.query_async::<()>(&mut redis).await?;
            let mut given = redis::cmd("HDEL");
            given.arg(keys.tenants(partition)).arg(account);
            given.query_async::<()>(&mut redis).await?;
            let mut publish = redis::cmd("PUBLISH");
            publish.arg(keys.tenants_changed()).arg(account);
            publish.query_async::<()>(&mut redis).await?;
        }
        self.forget_health().await?;
        let mut numbers = self.deployment.numbers().await?;
        numbers.retain(|(account, _)| self.accounts.contains(account));
        traffic::forget(&self.deployment.connection, keys, &numbers).await
    }

    /// The states of the accounts, their numbers and templates.
    async fn forget_health(&self) -> redis::RedisResult<()> {
        let health = self.deployment.keys.health();
        let mut redis = self.deployment.connection.clone();
        let states: Vec<String> = redis::cmd("HKEYS")
            .arg(&health)
            .query_async(&mut redis)
            .await?;
        let is_theirs = |state: &&String| {
            let account = HealthNote::account_of(state);
            account.is_some_and(|account| self.accounts.iter().any(|it| it == account))
        };
        let theirs: Vec<&String> = states.iter().filter(is_theirs).collect();
        if theirs.is_empty() {
            return Ok(());
        }
        let mut del = redis::cmd("HDEL");
        del.arg(health).arg(theirs);
        del.query_async(&mut redis).await
    }
}
