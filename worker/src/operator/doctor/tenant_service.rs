//! The Tenant Service: whether it answers, and which accounts it doesn't know.

use std::sync::Arc;

use super::finding::{Findings, NO_ACCOUNT, fail, ok, warn};
use crate::ask::neighbour::NeighbourError;
use crate::ask::tenants::Tenants;
use crate::operator::Deployment;

const CHECK: &str = "tenant service";

pub(super) async fn check(deployment: &Deployment, tenants: &Arc<Tenants>) -> Findings {
    if let Some(file) = &deployment.secrets.tenants.directory {
        let count = file.current().limits().count();
        let text = format!("TENANTS_FILE takes its place, with {count} accounts");
        return Ok(vec![ok(CHECK, text)]);
    }
    let found = match tenants.ask(NO_ACCOUNT).await {
        Ok(_) => ok(CHECK, "answers, and takes the credentials"),
        Err(NeighbourError::Final { status: 401 | 403 }) => {
            fail(CHECK, "refuses the credentials", "set TENANT_SERVICE_TOKEN")
        }
        Err(error) => fail(
            CHECK,
            error.to_string(),
            "see that it runs and TENANT_SERVICE_URL is right: accounts that nobody knows wait",
        ),
    };
    let (keys, mut redis) = (&deployment.keys, deployment.connection.clone());
    let mut card = redis::cmd("ZCARD");
    card.arg(keys.tenants_unknown());
    // Redis has a line of its own.
    let unknown: usize = card.query_async(&mut redis).await.unwrap_or(0);
    let without = (unknown > 0).then(|| warn(CHECK, format!("{unknown} accounts with webhooks have no tenant"), "make them known to it (`worker inspect` names them): what was set aside comes back by itself"));
    Ok(std::iter::once(found).chain(without).collect())
}
