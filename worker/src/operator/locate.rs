//! `worker inspect ID`: where a message, webhook, event, entry or object is.

mod search;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;
use shared::telemetry::EndsWith;

use self::search::Search;
use super::given_id::GivenId;
use super::inspect::InspectArgs;
use super::output::{Output, Style, row, short};
use super::{Deployment, Section, within};

/// All of one kind of place, where a command looks.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// Where it was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "place", rename_all = "kebab-case")]
pub(super) enum Occurrence {
    /// Ingress has taken it: if it comes again, it is a duplicate.
    #[serde(rename_all = "camelCase")]
    Remembered {
        business_account_id: String,
        item: String,
        at: String,
    },
    #[serde(rename_all = "camelCase")]
    Stream {
        partition: u16,
        entry: String,
        /// Else nobody has read it yet.
        pending: bool,
        age_seconds: u64,
    },
    /// Its entry is acknowledged, and owes this still.
    #[serde(rename_all = "camelCase")]
    Owed {
        partition: u16,
        entry: String,
        kind: &'static str,
    },
    Spool {
        key: String,
    },
    Failed {
        key: String,
        reason: Option<String>,
    },
    Replayed {
        key: String,
    },
    Discarded {
        key: String,
    },
    Archive {
        key: String,
    },
    Media {
        key: String,
    },
}

/// A message, status or call that was met under the id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MetItem {
    pub(super) message_id: String,
    /// As logs write it.
    pub(super) message_hash: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Located {
    id: String,
    pub(super) found: BTreeSet<Occurrence>,
    items: BTreeSet<MetItem>,
    /// Where it was looked for, and how thoroughly; or why that isn't known.
    #[serde(rename = "looked")]
    searched: Vec<SearchedPlace>,
}

#[derive(Debug, Serialize)]
struct SearchedPlace {
    at: &'static str,
    #[serde(flatten)]
    extent: Section<SearchExtent>,
}

#[derive(Debug, Serialize)]
pub(super) struct SearchExtent {
    count: usize,
    /// There is no more.
    all: bool,
}

impl Located {
    /// Keys of the files that were found.
    pub(super) fn media_keys(&self) -> Vec<String> {
        let found = self.found.iter();
        let keys = found.filter_map(|occurrence| match occurrence {
            Occurrence::Media { key } => Some(key.clone()),
            _ => None,
        });
        keys.collect()
    }

    pub(super) fn could_not_look_everywhere(&self) -> bool {
        let mut searched = self.searched.iter();
        searched.any(|place| !place.extent.known().is_some_and(|extent| extent.all))
    }
}

pub(super) async fn run(
    deployment: &Deployment,
    id: &GivenId,
    args: &InspectArgs,
) -> anyhow::Result<()> {
    let located = locate(deployment, id, args, LIMIT).await;
    let mut output = Output::new();
    if args.json {
        output.json(&located)?;
    } else {
        write(&mut output, &located);
    }
    output.show()?;
    match located.found.is_empty() {
        false => Ok(()),
        true if located.could_not_look_everywhere() => Err(EndsWith(2).into()),
        true => Err(EndsWith(1).into()),
    }
}

/// Looks everywhere for it, for no longer than `limit` at each kind of place.
pub(crate) async fn locate(
    deployment: &Deployment,
    id: &GivenId,
    args: &InspectArgs,
    limit: Duration,
) -> Located {
    let mut search = Search::new(deployment, id, args);
    let mut searched = Vec::new();
    let mut note = |at, extent| searched.push(SearchedPlace { at, extent });
    note("streams", within(limit, search.streams()).await);
    note("spool", within(limit, search.spool()).await);
    for (folder, name) in [
        ("failed", "failed store"),
        ("replayed", "replayed"),
        ("discarded", "discarded"),
    ] {
        note(name, within(limit, search.objects(folder)).await);
    }
    note("archive", within(limit, search.archive()).await);
    note("media", within(limit, search.media()).await);
    note("dedup marks", within(limit, search.marks()).await);
    let (found, items) = search.ended();
    Located {
        id: id.text(),
        found,
        items,
        searched,
    }
}

fn write(output: &mut Output, located: &Located) {
    output.head(&located.id);
    let rows: Vec<_> = located.found.iter().map(occurrence_row).collect();
    if rows.is_empty() {
        output.line(Style::Bad, "found nowhere");
    }
    output.table(&rows);
    let others = located.items.iter();
    let others = others.filter(|item| item.message_id != located.id);
    for item in others {
        let text = format!("it is {} (in logs {})", item.message_id, item.message_hash);
        output.line(Style::Plain, text);
    }
    let searched: Vec<_> = located
        .searched
        .iter()
        .map(|place| match &place.extent {
            Section::Known(SearchExtent { count, all }) => {
                let more = if *all { "" } else { ", not all" };
                format!("{} ({count}{more})", place.at)
            }
            Section::Unknown { unknown } => format!("{} (unknown: {unknown})", place.at),
        })
        .collect();
    output.line(Style::Faint, format!("looked at: {}", searched.join(", ")));
    output.line(
        Style::Faint,
        "queues are not looked into: `worker dlq list` does; --tenant and --day make it quick where the archive is large",
    );
}

fn occurrence_row(found: &Occurrence) -> Vec<(Style, String)> {
    match found {
        Occurrence::Remembered {
            business_account_id,
            item,
            at,
        } => {
            let text = format!("taken about {at} ({item} of account {business_account_id})");
            row(Style::Plain, ["remembered", &text])
        }
        Occurrence::Stream {
            partition,
            entry,
            pending,
            age_seconds,
        } => {
            let state = if *pending {
                "with a worker"
            } else {
                "waits for a worker"
            };
            let age = short(*age_seconds);
            let text = format!("partition {partition}, entry {entry}: {state}, for {age}");
            row(Style::Doubtful, ["stream", &text])
        }
        Occurrence::Owed {
            partition,
            entry,
            kind,
        } => {
            let text = format!("partition {partition}, entry {entry}: {kind}");
            row(Style::Doubtful, ["owed", &text])
        }
        Occurrence::Spool { key } => row(Style::Doubtful, ["spool", key]),
        Occurrence::Failed { key, reason } => {
            let reason = reason.as_deref().unwrap_or("reason unknown");
            row(Style::Bad, ["failed", &format!("{key} ({reason})")])
        }
        Occurrence::Replayed { key } => row(Style::Plain, ["replayed", key]),
        Occurrence::Discarded { key } => row(Style::Doubtful, ["discarded", key]),
        Occurrence::Archive { key } => row(Style::Good, ["archive", key]),
        Occurrence::Media { key } => row(Style::Good, ["media", key]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_looked_at_whole_was_not_looked_at() {
        let located = |extent| Located {
            id: String::new(),
            found: BTreeSet::new(),
            items: BTreeSet::new(),
            searched: vec![SearchedPlace { at: "", extent }],
        };
        let known = |all| located(Section::Known(SearchExtent { count: 1, all }));
        assert!(!known(true).could_not_look_everywhere());
        assert!(known(false).could_not_look_everywhere());
        let unknown = String::new();
        assert!(located(Section::Unknown { unknown }).could_not_look_everywhere());
    }
}
