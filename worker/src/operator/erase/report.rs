//! The report for people.

use super::EraseArgs;
use super::erasure::{Erasure, LeftObject};
use crate::operator::output::{Output, Style, row};

pub(super) fn write(output: &mut Output, found: &Erasure, args: &EraseArgs) {
    output.head(if found.erased { "Deleted" } else { "To delete" });
    let payloads = found.payloads.iter();
    let mut rows: Vec<_> = payloads
        .map(|(folder, n)| {
            row(
                Style::Plain,
                [&n.to_string(), &format!("payloads in {folder}")],
            )
        })
        .collect();
    let more = [
        (
            found.rewritten,
            "payloads without this customer's items; others' stay",
        ),
        (found.media, "media files"),
        (
            found.accounts.len(),
            "accounts in Redis: tenant, token, limit, traffic",
        ),
    ];
    let more = more.into_iter().filter(|(n, _)| *n > 0);
    rows.extend(more.map(|(n, what)| row(Style::Plain, [&n.to_string(), what])));
    if rows.is_empty() {
        output.line(Style::Plain, "nothing");
    }
    output.table(&rows);
    if found.waiting > 0 {
        let waiting = "are still on their way (streams, spool) and stay";
        output.line(Style::Bad, format!("{} {waiting}", found.waiting));
    }
    for LeftObject { bucket, key, why } in &found.left {
        output.line(Style::Bad, format!("left: {bucket}/{key}: {why}"));
    }
    for (place, why) in &found.unseen {
        output.line(Style::Bad, format!("not looked into: {place}: {why}"));
    }
    write_hints(output, found, args);
}

fn write_hints(output: &mut Output, found: &Erasure, args: &EraseArgs) {
    let tenant = args.tenant.iter();
    let tenant: String = tenant.map(|tenant| format!(" --tenant {tenant}")).collect();
    for id in &found.other_ids {
        let hint = format!("seen beside it, and not erased: worker erase --customer {id}{tenant}");
        output.line(Style::Doubtful, hint);
    }
    for account in &found.unowned {
        let hint = format!(
            "account {account} has payloads and no tenant: --account {account} erases these too"
        );
        output.line(Style::Doubtful, hint);
    }
    output.line(
        Style::Faint,
        "not reached: what lies in RabbitMQ and at consumers; marks of seen items (hashes) run out \
         by themselves",
    );
    if args.tenant.is_some() && args.customer.is_none() {
        output.line(
            Style::Faint,
            "the Tenant Service must forget the tenant first, or its next webhook brings it back",
        );
    }
    if args.customer.is_some() {
        output.line(
            Style::Faint,
            "media is found through archived payloads: where ARCHIVE is off, it is not",
        );
    }
    if !found.erased {
        output.line(Style::Doubtful, "nothing was deleted: --yes deletes it");
    }
}
