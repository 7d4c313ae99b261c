//! `worker find --customer`: which payloads have something of a customer. It reads the archive and what was set
//! aside, the newest days first, and says what it found at once: it can be stopped any time.

use std::io::Write;

use anyhow::Context;
use chrono::{DateTime, SecondsFormat};
use clap::Args;
use futures::stream::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use shared::entry::StreamEntry;
use shared::private::Hashed;
use shared::telemetry::EndsWith;

use super::arguments::{PeriodArgs, any_tenant, tenant};
use super::erase::{cut, ids};
use super::objects::{DayFolder, PayloadArea, days, owner_of};
use super::output::{ProgressLine, printable};
use super::{Deployment, WrongCall};
use crate::config::Config;
use crate::item::event;
use crate::item::payload::Payload;
use crate::out::store::{ReadError, StoredObject};
use crate::owed::readmit;

/// Objects read side by side; each may have some MB.
const AT_ONCE: usize = 16;
const STORE: &str = "the object store";

#[derive(Args, Debug, Clone, Deserialize)]
pub struct FindArgs {
    /// A customer's phone number with its country code, as people write it, or user id (BSUID)
    #[arg(long, value_name = "PHONE|BSUID")]
    customer: String,
    /// Look into this tenant's folders only
    #[arg(long, value_name = "ID", value_parser = tenant)]
    #[serde(default, deserialize_with = "any_tenant")]
    tenant: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    period: PeriodArgs,
    /// JSON, one object a line
    #[arg(long)]
    #[serde(skip)]
    json: bool,
}

/// A payload that has something of the customer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CustomerPayload {
    received_at: Option<String>,
    tenant: String,
    key: String,
    correlation_id: Option<String>,
    items: Vec<CustomerItem>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CustomerItem {
    /// As `message_type` of the metrics.
    #[serde(rename = "type")]
    kind: &'static str,
    message_id: Option<String>,
    /// As logs write it.
    message_hash: Option<String>,
}

/// How far it came.
#[derive(Debug, Default, Serialize)]
pub(crate) struct FindTally {
    read: usize,
    found: usize,
    unreadable: usize,
}

/// # Errors
/// It couldn't look; exit status 1 where nothing was found.
pub async fn run(config: &Config, args: &FindArgs) -> anyhow::Result<()> {
    let deployment = Deployment::open(config).await?;
    let stop = shared::telemetry::shutdown_on_signal()?;
    let mut tally = FindTally::default();
    let searching = find(&deployment, args, &mut tally, |found| {
        show(&found, args.json)
    });
    let ended = stop.run_until_cancelled(searching).await;
    let stopped = ended.is_none();
    ended.transpose()?;
    let FindTally {
        read,
        found,
        unreadable,
    } = tally;
    let stopped_text = if stopped {
        ", stopped before the end"
    } else {
        ""
    };
    let damaged = match unreadable {
        0 => String::new(),
        count => format!(", {count} can't be read"),
    };
    writeln!(
        std::io::stderr(),
        "{found} of {read} payloads have something of this customer{damaged}{stopped_text}"
    )?;
    match (stopped, found) {
        (true, _) => Err(EndsWith(2).into()),
        (false, 0) => Err(EndsWith(1).into()),
        (false, _) => Ok(()),
    }
}

/// Shows each payload of a customer to `each`, as soon as it is found.
///
/// # Errors
/// What was typed is no customer, the store is away, or `each` fails.
pub(crate) async fn find(
    deployment: &Deployment,
    args: &FindArgs,
    tally: &mut FindTally,
    mut each: impl FnMut(CustomerPayload) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let customer = ids::read(&args.customer).context(WrongCall(ids::ACCEPTED.into()))?;
    let (store, period) = (&*deployment.store, args.period.period());
    let mut folders: Vec<DayFolder> = Vec::new();
    for area in PayloadArea::ALL {
        let found = days(store, area, args.tenant.as_deref(), period).await;
        folders.extend(found.context(STORE)?);
    }
    folders.sort_unstable_by(|a, b| b.cmp(a));
    let keys = |folder: &str| {
        let keys = store.keys_below(folder, None);
        keys.try_filter(move |key| std::future::ready(period.has(key)))
    };
    let mut total = 0;
    let mut progress = ProgressLine::new("payloads counted");
    for day in &folders {
        let mut listed = keys(&day.folder);
        while listed.try_next().await.context(STORE)?.is_some() {
            total += 1;
            progress.at(total, None);
        }
    }
    let mut progress = ProgressLine::new("payloads read");
    for day in &folders {
        let read = keys(&day.folder).map_ok(async |key| {
            let read = store.read(&key).await;
            Ok((key, read))
        });
        let mut read = read.try_buffered(AT_ONCE).boxed_local();
        while let Some((key, object)) = read.try_next().await.context(STORE)? {
            tally.read += 1;
            progress.at(tally.read, Some(total));
            let object = match object {
                Ok(object) => object,
                Err(ReadError::Gone) => continue,
                Err(error @ ReadError::Store(_)) => return Err(error).context(STORE),
                Err(ReadError::TooLarge(_) | ReadError::Corrupt) => {
                    tally.unreadable += 1;
                    continue;
                }
            };
            if let Some(found) = of_customer(key, &object, &customer) {
                tally.found += 1;
                progress.clear();
                each(found)?;
            }
        }
    }
    Ok(())
}

fn of_customer(key: String, object: &StoredObject, customer: &str) -> Option<CustomerPayload> {
    let received_at_ms = readmit::received_at_of(&key);
    let described = |name: &str| Some(object.of(name).to_owned()).filter(|text| !text.is_empty());
    let entry = StreamEntry {
        waba_id: object.of("waba-id").to_owned(),
        correlation_id: String::new(),
        received_at_ms: received_at_ms.unwrap_or(0),
        items: 0,
        fresh: Vec::new(),
        body: object.body.clone(),
        signature: String::new(),
        traceparent: String::new(),
        unreadable: None,
        returned: None,
    };
    let payload = Payload::open(entry).ok()?;
    let theirs = cut::items_of(&payload, customer)?;
    let items = theirs.into_iter().map(|item| CustomerItem {
        kind: event::item_type(&payload, item),
        message_hash: item.id.as_deref().map(|id| Hashed(id).to_string()),
        message_id: item.id.clone(),
    });
    let received_at = received_at_ms.and_then(DateTime::from_timestamp_millis);
    Some(CustomerPayload {
        received_at: received_at.map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true)),
        tenant: owner_of(&key),
        correlation_id: described("correlation-id"),
        items: items.collect(),
        key,
    })
}

fn show(found: &CustomerPayload, json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, found)?;
        writeln!(out)?;
        return Ok(out.flush()?);
    }
    let at = found.received_at.as_deref().unwrap_or("-");
    writeln!(out, "{at}  {}", printable(&found.key))?;
    for item in &found.items {
        let id = item.message_id.as_deref().unwrap_or("-");
        let hash = item.message_hash.as_deref().unwrap_or("-");
        writeln!(out, "    {}  {}  {hash}", item.kind, printable(id))?;
    }
    Ok(out.flush()?)
}
