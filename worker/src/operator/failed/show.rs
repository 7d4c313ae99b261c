//! `worker failed show ID`: what is known of what was set aside.

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};
use shared::entry::parse_numbers;
use shared::private::Hashed;
use shared::telemetry::EndsWith;
use shared::webhook::WebhookItem;

use super::FailedObject;
use crate::config::Config;
use crate::operator::Deployment;
use crate::operator::given_id::GivenId;
use crate::operator::objects::{NamedObjects, PayloadArea};
use crate::operator::output::{Output, Style, row};
use crate::out::store::ReadError;

#[derive(Args, Debug, Clone, Deserialize)]
pub(crate) struct FailedShowArgs {
    /// A message's id or its hash, a correlation id, an event's or an entry's id, or an object's key
    #[arg(value_name = "ID")]
    id: GivenId,
    /// Of this tenant only
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// JSON instead of text
    #[arg(long)]
    #[serde(skip)]
    json: bool,
}

/// An object of the failed store, and its items.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FailedDetail {
    #[serde(flatten)]
    object: FailedObject,
    /// `failed`, `replayed` or `discarded`.
    place: &'static str,
    size_bytes: usize,
    discarded_by: Option<String>,
    discarded_at: Option<String>,
    items_of_body: Vec<FailedItem>,
}

/// An item of the body.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FailedItem {
    number: usize,
    set_aside: bool,
    field: String,
    place: String,
    message_id: Option<String>,
    /// As logs write it.
    message_hash: Option<String>,
}

pub(super) async fn run(config: &Config, args: &FailedShowArgs) -> anyhow::Result<()> {
    let deployment = Deployment::open(config).await?;
    let found = show(&deployment, args).await?;
    let mut output = Output::new();
    if args.json {
        output.json(&found)?;
    } else {
        write(&mut output, &found);
    }
    output.show()?;
    match found.is_empty() {
        true => Err(EndsWith(1).into()),
        false => Ok(()),
    }
}

/// What an id names in the failed store; where nothing, of what was replayed or discarded.
///
/// # Errors
/// The store is away.
pub(crate) async fn show(
    deployment: &Deployment,
    FailedShowArgs { id, tenant, .. }: &FailedShowArgs,
) -> anyhow::Result<Vec<FailedDetail>> {
    let tenant = tenant.as_deref();
    let areas = [
        PayloadArea::Failed,
        PayloadArea::Replayed,
        PayloadArea::Discarded,
    ];
    let mut found = Vec::new();
    for area in areas {
        let store = &deployment.store;
        let named = NamedObjects {
            store,
            area,
            tenant,
        };
        for key in named.all(id).await? {
            found.extend(detail(deployment, key, area.folder()).await?);
        }
        if !found.is_empty() {
            break;
        }
    }
    Ok(found)
}

async fn detail(
    deployment: &Deployment,
    key: String,
    place: &'static str,
) -> anyhow::Result<Option<FailedDetail>> {
    let Some(object) = FailedObject::of(deployment, key.clone()).await? else {
        return Ok(None);
    };
    let kept = match deployment.store.read(&key).await {
        Ok(kept) => Some(kept),
        Err(ReadError::Gone) => return Ok(None),
        Err(error @ ReadError::Store(_)) => return Err(error).context("the failed store"),
        Err(ReadError::TooLarge(_) | ReadError::Corrupt) => None,
    };
    let body = kept.as_ref().map_or(&[][..], |kept| &kept.body[..]);
    let of = |name: &str| {
        let value = kept.as_ref()?.described.get(name)?;
        Some(value.clone())
    };
    Ok(Some(FailedDetail {
        place,
        size_bytes: body.len(),
        discarded_by: of("discarded-by"),
        discarded_at: of("discarded-at"),
        items_of_body: items(body, object.items.as_deref()),
        object,
    }))
}

fn items(body: &[u8], listed: Option<&str>) -> Vec<FailedItem> {
    let listed = listed.and_then(parse_numbers);
    let read = shared::webhook::read(body);
    let entries = read.map(|webhook| webhook.entries).unwrap_or_default();
    let all = entries.iter().flat_map(|entry| {
        let field = |item: &WebhookItem<'_>| entry.changes[item.change].field.to_string();
        entry.items.iter().map(move |item| (field(item), item))
    });
    let all = all.enumerate().map(|(number, (field, item))| FailedItem {
        number,
        set_aside: listed
            .as_ref()
            .is_none_or(|listed| listed.contains(&number)),
        field,
        place: item.place.path().to_owned(),
        message_hash: item.id.as_deref().map(|id| Hashed(id).to_string()),
        message_id: item.id.as_deref().map(str::to_owned),
    });
    all.collect()
}

fn write(output: &mut Output, found: &[FailedDetail]) {
    if found.is_empty() {
        output.line(Style::Bad, "nothing of this id was set aside");
    }
    for detail in found {
        let object = &detail.object;
        output.head(&object.key);
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let mut rows = vec![
            row(Style::Plain, ["reason", &text(&object.reason)]),
            row(Style::Plain, ["error", &text(&object.error)]),
            row(Style::Plain, ["attempts", &text(&object.attempts)]),
            row(Style::Plain, ["tenant", &object.tenant]),
            row(
                Style::Plain,
                ["account", &text(&object.business_account_id)],
            ),
            row(
                Style::Plain,
                ["correlation id", &text(&object.correlation_id)],
            ),
            row(Style::Plain, ["entry", &text(&object.entry)]),
        ];
        if let (Some(by), Some(at)) = (&detail.discarded_by, &detail.discarded_at) {
            rows.push(row(
                Style::Doubtful,
                ["discarded", &format!("by {by} at {at}")],
            ));
        }
        output.table(&rows);
        let items: Vec<_> = detail.items_of_body.iter().map(item_row).collect();
        output.table(&items);
    }
}

fn item_row(item: &FailedItem) -> Vec<(Style, String)> {
    let (style, state) = match item.set_aside {
        true => (Style::Bad, "set aside"),
        false => (Style::Faint, "not"),
    };
    let id = item.message_id.as_deref().unwrap_or("-");
    let hash = item.message_hash.as_deref().unwrap_or("-");
    let number = item.number.to_string();
    row(style, ["  item", &number, state, &item.place, id, hash])
}
