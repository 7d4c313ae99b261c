//! Each account's tenant, access token and subscription at the Graph API.

use std::sync::Arc;

use futures::stream::{self, StreamExt};
use url::Url;

use super::finding::{Finding, Findings, fail, ok, unknown, warn};
use crate::ask::graph::{Graph, GraphCall, GraphError, SubscribedApp, Subscription};
use crate::ask::neighbour::{NeighbourError, Trace};
use crate::ask::tenants::Tenants;
use crate::ask::tenants::tokens::Tokens;
use crate::item::tenant::{Tenant, Verdict};
use crate::operator::Deployment;
use crate::read::gate::TransferPace;

const CHECK: &str = "account";
/// Accounts that are asked for, those seen last first, and how many side by side.
const MOST_ACCOUNTS: usize = 500;
const AT_ONCE: usize = 8;

/// What is asked about accounts.
pub(in crate::operator) struct AccountChecks<'a> {
    pub(in crate::operator) deployment: &'a Deployment,
    pub(in crate::operator) tenants: Arc<Tenants>,
    pub(in crate::operator) graph: Graph,
    /// The deployment's webhook, if it is known.
    pub(in crate::operator) callback_url: Option<&'a Url>,
}

impl AccountChecks<'_> {
    pub(super) async fn check(&self) -> Findings {
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
            found.push(unknown(CHECK, "none is known yet", "send a webhook first"));
        }
        if more {
            found.push(unknown(
                CHECK,
                format!("only the last {MOST_ACCOUNTS} were asked for"),
                "",
            ));
        }
        Ok(found)
    }

    pub(in crate::operator) async fn account(&self, account: &str) -> Finding {
        let tenant = match self.tenant(account).await {
            Ok(tenant) => tenant,
            Err(finding) => return finding,
        };
        let name = format!("{account} (tenant {})", tenant.id);
        let Some(token) = Tokens::new(self.tenants.clone()).get(account).await else {
            return fail(
                CHECK,
                format!("{name}: no access token"),
                "the Tenant Service must have one: no media can be fetched",
            );
        };
        let call = GraphCall {
            pace: TransferPace::Inbound,
            token: &token,
            waba_id: account,
            phone_number_id: None,
            trace: Trace::default(),
        };
        self.subscriptions(&name, call).await
    }

    /// The tenant of an account, or why it can't be served.
    async fn tenant(&self, account: &str) -> Result<Arc<Tenant>, Finding> {
        match self.tenants.ask(account).await {
            Ok(Verdict::Active(tenant)) => Ok(tenant),
            Ok(Verdict::Suspended(tenant)) => Err(warn(
                CHECK,
                format!("{account}: tenant {} is suspended", tenant.id),
                "its items are set aside until somebody replays them",
            )),
            Ok(Verdict::Unknown) => Err(warn(
                CHECK,
                format!("{account}: has no tenant"),
                "make it known to the Tenant Service",
            )),
            Ok(Verdict::Unusable) | Err(NeighbourError::Unusable { .. }) => Err(fail(
                CHECK,
                format!("{account}: what the Tenant Service says of it can't be used"),
                "it must answer a JSON object with tenantId, status, and this account's own businessAccountId",
            )),
            Err(error) => Err(unknown(
                CHECK,
                format!("{account}: the Tenant Service: {error}"),
                "",
            )),
        }
    }

    async fn subscriptions(&self, name: &str, call: GraphCall<'_>) -> Finding {
        match self.graph.subscriptions(call).await {
            Ok(apps) if apps.is_empty() => fail(
                CHECK,
                format!("{name}: no app is subscribed"),
                "POST /{version}/{account}/subscribed_apps: without it Meta sends nothing",
            ),
            Ok(apps) => {
                let own = self.graph.app(call).await;
                subscription(name, &apps, own.ok(), self.callback_url)
            }
            Err(GraphError::Token) => fail(
                CHECK,
                format!("{name}: the Graph API refuses its token"),
                "give the Tenant Service a new one",
            ),
            Err(GraphError::Refused(code)) => warn(
                CHECK,
                format!("{name}: the token may not see the subscription (code {code})"),
                "give it whatsapp_business_management, and see that the account is in order",
            ),
            Err(GraphError::Missing) => fail(
                CHECK,
                format!("{name}: the Graph API has no such account for this token"),
                "the token must be of this account's business",
            ),
            Err(error) => unknown(
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
    let named = apps
        .iter()
        .map(|it| format!("{} ({})", it.app.name, it.app.id));
    let named = named.collect::<Vec<_>>().join(", ");
    let is_own = |it: &&Subscription| own.as_ref().is_none_or(|own| own.id == it.app.id);
    let Some(ours) = apps.iter().find(is_own) else {
        return warn(
            CHECK,
            format!("{name}: subscribed only by other apps: {named}"),
            "see that the app whose secret ingress has is among them; else POST \
             /{version}/{account}/subscribed_apps with that app's token",
        );
    };
    let text = format!("{name}: token and subscription are right (apps: {named})");
    let Some(uri) = &ours.override_callback_uri else {
        return ok(CHECK, text);
    };
    let url = Url::parse(uri).ok();
    let target = url
        .as_ref()
        .map_or_else(|| "no URL".to_owned(), without_query);
    if url.is_some() && url.as_ref() == callback_url {
        return ok(CHECK, format!("{text}, by an override: {target}"));
    }
    warn(
        CHECK,
        format!("{name}: an override sends its webhooks to {target} (apps: {named})"),
        "see that this is the deployment's own webhook (--callback-url tells doctor which is)",
    )
}

/// A URL without what may be secret in it.
fn without_query(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}
