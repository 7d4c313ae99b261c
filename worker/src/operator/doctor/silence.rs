//! Numbers that are quieter than usual.

use super::finding::{Finding, Findings, ok, warn};
use crate::item::traffic;
use crate::operator::Deployment;

const CHECK: &str = "silence";

pub(super) async fn check(deployment: &Deployment) -> Findings {
    let (now, numbers) = (
        traffic::this_hour(),
        traffic::read(&deployment.connection, &deployment.keys).await?,
    );
    let count = numbers.len();
    let silent = numbers.into_iter().filter_map(|(account, number, hours)| {
        let quiet = hours.silent(now)?;
        let text = format!("number {number} of account {account}: nothing for {quiet} hours, unlike yesterday and a week ago");
        Some(warn(CHECK, text, "see its subscription, webhook settings and status at Meta, and ingress' 401s"))
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
