//! `worker failed list`: one page of the failed store in the order of its keys: tenant, day, time.

use anyhow::Context;
use chrono::Utc;
use clap::Args;
use futures::stream::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use shared::telemetry::EndsWith;

use super::FailedObject;
use crate::config::Config;
use crate::operator::Deployment;
use crate::operator::arguments::{PayloadFilter, any_page_size, page_size};
use crate::operator::output::{Output, ProgressLine, Style, row, short};
use crate::out::store::{self, FAILED};

/// Objects that are counted, a thousand a request.
const MOST_COUNTED: usize = 5_000;
/// Objects whose attributes are asked for to fill a page of one reason.
const MOST_LOOKED_AT: usize = 10_000;
const AT_ONCE: usize = 16;
const STORE: &str = "the failed store";

#[derive(Args, Debug, Clone, Deserialize)]
pub(crate) struct FailedListArgs {
    #[command(flatten)]
    #[serde(flatten)]
    filter: PayloadFilter,
    /// Objects on the page
    #[arg(long, value_name = "N", default_value_t = page_size(), value_parser = clap::value_parser!(u16).range(1..=1000))]
    #[serde(default = "page_size", deserialize_with = "any_page_size")]
    limit: u16,
    /// The page behind this key, as the page before says at its end
    #[arg(long, value_name = "KEY")]
    after: Option<String>,
    /// JSON instead of text
    #[arg(long)]
    #[serde(skip)]
    json: bool,
}

/// Some of what is set aside.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FailedPage {
    /// How many there are of this tenant and time, whatever the reason.
    count: usize,
    /// There are more.
    at_least: bool,
    /// Objects whose attributes were asked for.
    looked_at: usize,
    objects: Vec<FailedObject>,
    /// Where the next page begins; `None`: this is the last.
    next: Option<String>,
}

pub(super) async fn run(config: &Config, args: &FailedListArgs) -> anyhow::Result<()> {
    let deployment = Deployment::open(config).await?;
    let page = page(&deployment, args).await?;
    let mut output = Output::new();
    if args.json {
        output.json(&page)?;
    } else {
        write(&mut output, &page);
    }
    output.show()?;
    match page.objects.is_empty() && page.next.is_none() {
        true => Err(EndsWith(1).into()),
        false => Ok(()),
    }
}

/// # Errors
/// The store is away.
pub(crate) async fn page(
    deployment: &Deployment,
    args: &FailedListArgs,
) -> anyhow::Result<FailedPage> {
    let tenant = args.filter.tenant.as_deref().map(store::segment);
    let folder = format!("{FAILED}{}", tenant.unwrap_or_default());
    let (period, reason) = (args.filter.period.period(), &args.filter.reason);
    let listed = |after: Option<&str>| {
        let keys = deployment.store.keys_below(&folder, after);
        keys.try_filter(move |key| std::future::ready(period.has(key)))
    };
    let counted = listed(None).take(MOST_COUNTED + 1);
    let counted = counted.try_fold(0, async |count, _| Ok(count + 1));
    let counted: usize = counted.await.context(STORE)?;
    let keys = listed(args.after.as_deref()).map(|key| key.context(STORE));
    let described = keys.map_ok(async |key| {
        let object = FailedObject::of(deployment, key.clone()).await;
        anyhow::Ok((key, object.context(STORE)?))
    });
    let mut described = described.try_buffered(AT_ONCE).boxed_local();
    let (mut objects, mut looked_at, mut last, mut is_full) = (Vec::new(), 0, None, false);
    let mut progress = ProgressLine::new("reasons of the failed store");
    while let Some((key, object)) = described.try_next().await? {
        is_full = objects.len() == usize::from(args.limit) || looked_at == MOST_LOOKED_AT;
        if is_full {
            break;
        }
        looked_at += 1;
        progress.at(looked_at, None);
        let is_meant = |it: &FailedObject| reason.is_none() || it.reason == *reason;
        objects.extend(object.filter(is_meant));
        last = Some(key);
    }
    Ok(FailedPage {
        count: counted.min(MOST_COUNTED),
        at_least: counted > MOST_COUNTED,
        looked_at,
        objects,
        next: last.filter(|_| is_full),
    })
}

fn write(output: &mut Output, page: &FailedPage) {
    let more = if page.at_least { "+" } else { "" };
    output.head(&format!("{}{more} objects are set aside", page.count));
    let names = ["reason", "tenant", "age", "items", "correlation id", "key"];
    let mut rows = vec![row(Style::Faint, names)];
    let now = Utc::now().timestamp_millis();
    rows.extend(page.objects.iter().map(|object| {
        let age = object.received_at_ms.map_or_else(
            || "-".to_owned(),
            |at| short((now - at).max(0).unsigned_abs() / 1000),
        );
        let text =
            |value: &Option<String>, none: &str| value.clone().unwrap_or_else(|| none.into());
        let cells = [
            text(&object.reason, "(can't be read)"),
            object.tenant.clone(),
            age,
            text(&object.items, "all"),
            text(&object.correlation_id, "-"),
            object.key.clone(),
        ];
        cells.map(|cell| (Style::Plain, cell)).into()
    }));
    if !page.objects.is_empty() {
        output.table(&rows);
    }
    if let Some(next) = &page.next {
        output.line(Style::Faint, format!("more: --after '{next}'"));
    }
}
