//! The State Manager, if there is one: whether it answers.

use super::finding::{Findings, NO_ACCOUNT, fail, ok};
use crate::ask::neighbour::{NeighbourError, Trace};
use crate::clients;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::operator::Deployment;

const CHECK: &str = "state manager";

pub(super) async fn check(deployment: &Deployment, config: &Config, metrics: &Metrics) -> Findings {
    let secrets = &deployment.secrets;
    let state = clients::state_manager(config, secrets, metrics)?;
    let Some(state) = state else {
        return Ok(vec![ok(CHECK, "none is set: events have no conversation")]);
    };
    let asked = state.mapping(NO_ACCOUNT, "", "", Trace::default()).await;
    Ok(vec![match asked {
        Ok(_) => ok(CHECK, "answers, and takes the credentials"),
        Err(NeighbourError::Final { status: 401 | 403 }) => {
            fail(CHECK, "refuses the credentials", "set STATE_MANAGER_TOKEN")
        }
        Err(error) => fail(
            CHECK,
            format!("{error} (within STATE_DEADLINE)"),
            "events go out without their conversation",
        ),
    }])
}
