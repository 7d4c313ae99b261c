//! The work: what is set aside, waits or is owed, and who is at their limit.

use std::collections::BTreeMap;

use anyhow::Context;

use super::finding::CheckStatus;
use super::finding::{Finding, Findings, fail, finding, ok, unknown, warn};
use crate::operator::inspect::{FailedReport, PartitionReport, failed, partitions, spool};
use crate::operator::output::short;
use crate::operator::{Deployment, Section, within};
use crate::out::store::FAILED;

const CHECK: &str = "work";
/// Entries that are older are late.
const OLD_SECONDS: u64 = 60;
/// Pieces that may be owed at any time.
const USUALLY_OWED: u64 = 100;
/// Accounts at their limit that are named.
const MOST_ACCOUNTS: usize = 20;

pub(super) async fn check(deployment: &Deployment) -> Findings {
    let everything = [FAILED.to_owned()];
    let (failed, spool, partitions, limits) = tokio::join!(
        within(super::LIMIT, failed(&deployment.store, &everything)),
        within(super::LIMIT, spool(&deployment.store)),
        within(super::LIMIT, partitions(deployment)),
        within(super::LIMIT, limits(deployment)),
    );
    let mut found = Vec::new();
    found.push(known(&failed, "what is set aside", set_aside));
    found.push(known(&spool, "the spool", |spool| match spool.objects {
        0 => ok(CHECK, "the spool is empty"),
        count => warn(
            CHECK,
            format!("{count}{} webhooks are in the spool", more(spool.at_least)),
            "workers empty it once Redis takes webhooks again: see that one runs, and Redis' memory",
        ),
    }));
    match &partitions {
        Section::Known(partitions) => found.extend(waiting(partitions)),
        Section::Unknown { .. } => found.push(known(&partitions, "streams", |_| ok(CHECK, ""))),
    }
    match limits {
        Section::Known(limits) => found.extend(limits),
        Section::Unknown { .. } => found.push(known(&limits, "limits", |_| ok(CHECK, ""))),
    }
    Ok(found)
}

fn more(at_least: bool) -> &'static str {
    if at_least { "+" } else { "" }
}

fn known<T>(section: &Section<T>, what: &str, told: impl Fn(&T) -> Finding) -> Finding {
    match section {
        Section::Known(known) => told(known),
        Section::Unknown { unknown: why } => unknown(CHECK, format!("{what}: {why}"), ""),
    }
}

fn set_aside(failed: &FailedReport) -> Finding {
    if failed.objects == 0 {
        return ok(CHECK, "nothing is set aside");
    }
    let reasons = failed.by_reason.iter();
    let reasons: Vec<_> = reasons.map(|(reason, n)| format!("{n} {reason}")).collect();
    let count = format!("{}{}", failed.objects, more(failed.at_least));
    warn(
        CHECK,
        format!("{count} payloads are set aside: {}", reasons.join(", ")),
        "`worker failed list` shows them, `worker replay` puts them back once the cause is gone",
    )
}

/// The oldest entry, partitions that nobody works at, and what is owed.
fn waiting(partitions: &[PartitionReport]) -> Vec<Finding> {
    let mut found = Vec::new();
    let oldest = partitions
        .iter()
        .filter_map(|it| Some((it.oldest_age_seconds?, it.partition)));
    found.push(match oldest.max() {
        None => ok(CHECK, "no webhook waits"),
        Some((age, partition)) => {
            let text = format!(
                "the oldest entry is {} old (partition {partition})",
                short(age)
            );
            match age {
                ..OLD_SECONDS => ok(CHECK, text),
                _ => warn(CHECK, text, "see docs/runbook.md, LagGrowing"),
            }
        }
    });
    let alone = partitions
        .iter()
        .filter(|it| it.length > 0 && it.owner.is_none());
    found.extend(alone.map(|it| {
        let text = format!(
            "nobody works at partition {}, which has {} entries",
            it.partition, it.length
        );
        fail(CHECK, text, "start a worker")
    }));
    let mut owed: BTreeMap<&str, u64> = BTreeMap::new();
    for (kind, count) in partitions.iter().flat_map(|it| &it.owed) {
        *owed.entry(*kind).or_default() += count;
    }
    let media = ["media", "other_media"].map(|kind| owed.remove(kind).unwrap_or(0));
    let media: u64 = media.iter().sum();
    let all: u64 = owed.values().sum();
    let kinds: Vec<_> = owed.iter().map(|(kind, n)| format!("{n} {kind}")).collect();
    let status = |count: u64, usual: u64| match count > usual {
        true => CheckStatus::Warn,
        false => CheckStatus::Ok,
    };
    found.push(finding(
        status(all, USUALLY_OWED),
        CHECK,
        format!("owed: {}", kinds.join(", ")),
        if all > USUALLY_OWED {
            "see docs/runbook.md, OwedWork"
        } else {
            ""
        },
    ));
    found.push(finding(
        status(media, 0),
        CHECK,
        format!("{media} files wait"),
        if media > 0 {
            "see the accounts' tokens and the media hosts above"
        } else {
            ""
        },
    ));
    found
}

/// Accounts of which webhooks were refused.
async fn limits(deployment: &Deployment) -> anyhow::Result<Vec<Finding>> {
    let refused = deployment.accounts_at_limit(MOST_ACCOUNTS).await;
    let refused = refused.context("Redis")?;
    if refused.is_empty() {
        return Ok(vec![ok(CHECK, "no account is at its limit")]);
    }
    let found = refused.into_iter().map(|(account, count)| {
        let text = format!("account {account}: {count} webhooks were answered 429 within the hour");
        warn(
            CHECK,
            text,
            "Meta repeats them; raise its tenant's rateLimitPerMinute, or RATE_LIMIT_PER_MINUTE",
        )
    });
    Ok(found.collect())
}
