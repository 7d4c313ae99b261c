//! `worker cat ID`: a raw payload as it came, or an event as it would go out. Each look is an audit line.

use std::io::Write;

use anyhow::Context;
use clap::Args;
use futures::TryStreamExt;
use percent_encoding::percent_decode_str;
use prometheus_client::registry::Registry;
use serde::Deserialize;
use serde_json::value::RawValue;
use shared::entry::StreamEntry;
use shared::telemetry::{EndsWith, audit};
use strum::IntoEnumIterator;

use super::arguments::CallerArgs;
use super::given_id::GivenId;
use super::objects::{NamedObjects, PayloadArea, owner_of};
use super::{Deployment, field, fields, is_of_webhook, scan_stream};
use crate::config::Config;
use crate::item::event::media::{MediaState, media_ref};
use crate::item::event::{self, EventContext, EventType};
use crate::item::payload::{Payload, PayloadItem};
use crate::item::tenant::Tenant;
use crate::metrics::Metrics;
use crate::out::store::{self, ReadError, StoredObject};

/// Entries of a stream that are looked at.
const MOST_ENTRIES: usize = 2000;

#[derive(Args, Debug, Clone, Deserialize)]
pub struct CatArgs {
    /// A message's id or its hash, a correlation id, an event's or an entry's id, or an object's key
    #[arg(value_name = "ID")]
    id: GivenId,
    /// The events of it as they would go out now, one a line: without conversation and profile of the number,
    /// files as `pending`. An event's id says so by itself
    #[arg(long)]
    #[serde(default)]
    event: bool,
    /// Look into this tenant's folders only
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// One JSON array of all of it; what is no JSON is text in it
    #[arg(long)]
    #[serde(skip)]
    json: bool,
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) caller: CallerArgs,
}

/// A payload that was found, as the entry that it is or was.
struct FoundPayload {
    entry: StreamEntry,
    /// Where its object lies; of one that waits: where it is going to.
    key: Option<String>,
}

/// # Errors
/// It couldn't look.
pub async fn run(config: &Config, args: &CatArgs) -> anyhow::Result<()> {
    let deployment = Deployment::open(config).await?;
    let lines = cat(config, &deployment, args).await?;
    let mut out = std::io::stdout().lock();
    if args.json {
        let all: Vec<_> = lines.iter().map(|line| value(line)).collect();
        serde_json::to_writer_pretty(&mut out, &all)?;
        out.write_all(b"\n")?;
    } else {
        for line in &lines {
            out.write_all(line)?;
            out.write_all(b"\n")?;
        }
    }
    match lines.is_empty() {
        true => Err(EndsWith(1).into()),
        false => Ok(()),
    }
}

/// JSON as it came, with its numbers and the order of its members; anything else as text.
fn value(line: &[u8]) -> Box<RawValue> {
    serde_json::from_slice(line).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(line);
        serde_json::value::to_raw_value(&text).unwrap_or_else(|_| RawValue::NULL.to_owned())
    })
}

/// The payload, or the events of it; empty if nothing has the id.
///
/// # Errors
/// It couldn't look, or no event can be made of it.
pub(crate) async fn cat(
    config: &Config,
    deployment: &Deployment,
    args: &CatArgs,
) -> anyhow::Result<Vec<Vec<u8>>> {
    let Some(found) = find(deployment, args).await? else {
        return Ok(Vec::new());
    };
    audit("cat", &args.caller.name(), &args.id.text(), 1);
    let named_event = event_type(&args.id, &found.entry.body);
    match args.event || named_event.is_some() {
        true => events(config, deployment, args, found).await,
        false => Ok(vec![found.entry.body.to_vec()]),
    }
}

/// The type of the event that an id is of.
fn event_type(id: &GivenId, body: &[u8]) -> Option<EventType> {
    let GivenId::Uuid(uuid) = id else {
        return None;
    };
    let webhook = shared::webhook::read(body).ok()?;
    let mut items = webhook.entries.iter().flat_map(|entry| &entry.items);
    items.find_map(|item| EventType::iter().find(|kind| kind.id(&item.identity) == *uuid))
}

/// By names first, since those are quick; then what waits, then what must be read.
async fn find(deployment: &Deployment, args: &CatArgs) -> anyhow::Result<Option<FoundPayload>> {
    let (store, id) = (&*deployment.store, &args.id);
    let named = |area| NamedObjects {
        store,
        area,
        tenant: args.tenant.as_deref(),
    };
    for area in PayloadArea::ALL {
        let keys = named(area).called(id).await?;
        if let Some(found) = first_readable(deployment, keys).await? {
            return Ok(Some(found));
        }
    }
    if let Some(found) = waiting(deployment, id).await? {
        return Ok(Some(found));
    }
    if let Some(found) = spooled(deployment, id).await? {
        return Ok(Some(found));
    }
    for area in PayloadArea::ALL {
        let keys = named(area).having(id).await?;
        if let Some(found) = first_readable(deployment, keys).await? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

async fn first_readable(
    deployment: &Deployment,
    keys: Vec<String>,
) -> anyhow::Result<Option<FoundPayload>> {
    for key in keys {
        match deployment.store.read(&key).await {
            Ok(object) => return Ok(Some(stored(key, object))),
            Err(ReadError::Gone) => {}
            Err(error) => return Err(error).context("the object store"),
        }
    }
    Ok(None)
}

fn stored(key: String, object: StoredObject) -> FoundPayload {
    let received_at_ms = crate::owed::readmit::received_at_of(&key);
    let entry = StreamEntry {
        waba_id: object.of("waba-id").to_owned(),
        correlation_id: object.of("correlation-id").to_owned(),
        received_at_ms: received_at_ms.unwrap_or(0),
        items: 0,
        fresh: Vec::new(),
        signature: object.of("signature").to_owned(),
        traceparent: object.of("traceparent").to_owned(),
        unreadable: None,
        returned: None,
        body: object.body.clone(),
    };
    FoundPayload {
        entry,
        key: Some(key),
    }
}

async fn waiting(deployment: &Deployment, id: &GivenId) -> anyhow::Result<Option<FoundPayload>> {
    for partition in 0..deployment.keys.partitions() {
        let key = deployment.keys.stream(partition);
        let mut found = None;
        let scan = scan_stream(&deployment.connection, &key, MOST_ENTRIES, |entry| {
            let is_it = match id {
                GivenId::Entry(id) => entry.id == *id,
                GivenId::Uuid(uuid) if is_of_webhook(entry, &uuid.to_string()) => true,
                GivenId::Key(key) => field(entry, "o") == key.as_bytes(),
                GivenId::Item(_) | GivenId::Hash(_) | GivenId::Uuid(_) => {
                    id.is_in_body(&field(entry, "b"))
                }
            };
            if is_it && found.is_none() {
                found = StreamEntry::decode(&fields(entry)).ok();
            }
        });
        scan.await.context("Redis")?;
        if let Some(entry) = found {
            return Ok(Some(FoundPayload { entry, key: None }));
        }
    }
    Ok(None)
}

async fn spooled(deployment: &Deployment, id: &GivenId) -> anyhow::Result<Option<FoundPayload>> {
    let store = &deployment.store;
    let mut keys = store.listed(store::Bucket::Webhooks, shared::spool::FOLDER);
    while let Some(key) = keys.try_next().await.context("the object store")? {
        let Ok(object) = store.read(&key).await else {
            continue;
        };
        let Ok(spooled) = shared::spool::decode(&object.body) else {
            continue;
        };
        let (delivery, envelope) = (spooled.delivery, spooled.envelope);
        let is_it =
            id.names(&key) || id.text() == envelope.correlation_id || id.is_in_body(&delivery.body);
        if is_it {
            let entry = StreamEntry {
                waba_id: delivery.waba_id,
                received_at_ms: envelope.received_at_ms() as i64,
                correlation_id: envelope.correlation_id,
                items: 0,
                fresh: Vec::new(),
                signature: envelope.signature,
                traceparent: envelope.traceparent,
                unreadable: delivery.unreadable,
                returned: None,
                body: delivery.body.clone(),
            };
            return Ok(Some(FoundPayload { entry, key: None }));
        }
    }
    Ok(None)
}

/// The events of the items that are meant: all where the id is the webhook's, the entry's or the object's.
async fn events(
    config: &Config,
    deployment: &Deployment,
    args: &CatArgs,
    found: FoundPayload,
) -> anyhow::Result<Vec<Vec<u8>>> {
    let payload = Payload::open(found.entry).context("its body can't be read")?;
    let tenant = tenant_of(
        config,
        deployment,
        &payload.entry.waba_id,
        found.key.as_deref(),
    )
    .await?;
    let raw_object = found
        .key
        .as_deref()
        .map(|key| deployment.store.raw_object(key));
    let is_meant = |item: &&PayloadItem| args.id.is_of_item(item.id.as_deref(), &item.identity);
    let mut meant: Vec<&PayloadItem> = payload.items.iter().filter(is_meant).collect();
    if meant.is_empty() {
        meant = payload.items.iter().collect();
    }
    let made = meant.into_iter().map(|item| {
        let media = media_ref(&payload, item).map(|_| MediaState::Pending);
        let known = EventContext {
            raw_object: raw_object.as_ref(),
            media: media.as_ref(),
            ..EventContext::of(&tenant)
        };
        Ok(event::event(&payload, item, &known)?.body)
    });
    made.collect()
}

/// The tenant as it is known now, else as the object's folder says.
async fn tenant_of(
    config: &Config,
    deployment: &Deployment,
    account: &str,
    key: Option<&str>,
) -> anyhow::Result<Tenant> {
    let tenants = deployment.tenants(config, &Metrics::new(&mut Registry::default()))?;
    let asked = tenants.ask(account).await;
    if let Ok(verdict) = &asked
        && let Some(tenant) = verdict.tenant()
    {
        return Ok(tenant.clone());
    }
    let folder = key.map(owner_of).unwrap_or_default();
    let is_tenant = !folder.is_empty() && !folder.starts_with(store::UNRESOLVED);
    anyhow::ensure!(
        is_tenant,
        "account {account} has no tenant: no event can be made of it"
    );
    Ok(Tenant {
        id: percent_decode_str(&folder).decode_utf8_lossy().into_owned(),
        ..Tenant::default()
    })
}
