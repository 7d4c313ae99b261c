//! Fresh URLs of media whose old ones have expired: `worker presign`, and the admin route
//! `GET /media/{tenantId}/{messageId}`.

use anyhow::Context;
use bytes::Bytes;
use chrono::SecondsFormat;
use clap::Args;
use futures::TryStreamExt;
use futures::future::ready;
use hyper::{Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::json;
use shared::admin;
use shared::telemetry::{EndsWith, audit};

use super::Deployment;
use super::arguments::CallerArgs;
use super::given_id::GivenId;
use super::inspect::InspectArgs;
use super::locate::{LIMIT, locate};
use super::output::{Output, Style};
use crate::config::Config;
use crate::out::store::{Bucket, Store, StoreResult, segment};

#[derive(Args, Debug, Clone)]
pub struct PresignArgs {
    /// A message's id or its hash, a correlation id, an event's or an entry's id, or an object's key
    #[arg(value_name = "ID")]
    pub id: GivenId,
    /// Whose it is; without it, all tenants' folders are looked into
    #[arg(long)]
    pub tenant: Option<String>,
    /// JSON instead of text
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub(crate) caller: CallerArgs,
}

/// A media object, and a URL that gives it to whoever has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PresignedObject {
    bucket: String,
    key: String,
    url: String,
    url_expires_at: String,
}

/// Prints a fresh URL for each media object of whatever has the id.
///
/// # Errors
/// The store is away or refuses; exit status 1 where it has nothing of it, 2 where it was not looked for
/// everywhere.
pub async fn run(config: &Config, args: &PresignArgs) -> anyhow::Result<()> {
    let deployment = Deployment::open(config).await?;
    let store = &deployment.store;
    let (keys, all) = match &args.id {
        GivenId::Item(id) => {
            let keys = store.find_media(args.tenant.as_deref(), id).await;
            (keys.context("the object store")?, true)
        }
        id => located(&deployment, id, args).await?,
    };
    let found = urls(store, keys).await.context("the object store")?;
    if !found.is_empty() {
        let count = found.len() as u64;
        audit("presign", &args.caller.name(), &args.id.text(), count);
    }
    let mut output = Output::new();
    if args.json {
        output.json(&found)?;
    } else {
        write(&mut output, &found, all);
    }
    output.show()?;
    match (found.is_empty(), all) {
        (true, false) => Err(EndsWith(2).into()),
        (true, true) => Err(EndsWith(1).into()),
        (false, _) => Ok(()),
    }
}

/// Keys of the files of what has an id that isn't Meta's, and whether it was looked for everywhere.
async fn located(
    deployment: &Deployment,
    id: &GivenId,
    args: &PresignArgs,
) -> anyhow::Result<(Vec<String>, bool)> {
    if let GivenId::Key(key) = id
        && let Some((folder, _)) = key.rsplit_once('/')
    {
        let listed = deployment.store.listed(Bucket::Media, folder);
        let of_tenant = args.tenant.as_deref().is_none_or(|tenant| {
            let theirs = key.strip_prefix(&segment(tenant));
            theirs.is_some_and(|rest| rest.starts_with('/'))
        });
        let of_key = listed.try_filter(|listed| ready(of_tenant && listed == key));
        let found: Vec<_> = of_key.try_collect().await.context("the object store")?;
        if !found.is_empty() {
            return Ok((found, true));
        }
    }
    let looking = InspectArgs {
        tenant: args.tenant.clone(),
        ..InspectArgs::default()
    };
    let located = locate(deployment, id, &looking, LIMIT).await;
    Ok((located.media_keys(), !located.could_not_look_everywhere()))
}

fn write(output: &mut Output, found: &[PresignedObject], all: bool) {
    if found.is_empty() {
        let none = match all {
            true => "there is no media of this message",
            false => "none was found, but not all was looked at: --tenant makes that quick",
        };
        output.line(Style::Bad, none);
    }
    for object in found {
        output.head(&format!("{}/{}", object.bucket, object.key));
        output.line(Style::Plain, &object.url);
        output.line(Style::Faint, format!("until {}", object.url_expires_at));
    }
}

async fn urls(store: &Store, keys: Vec<String>) -> StoreResult<Vec<PresignedObject>> {
    let mut urls = Vec::new();
    for key in keys {
        let presigned = store.presign_media(&key).await?;
        let expires_at = presigned.expires_at;
        urls.push(PresignedObject {
            bucket: store.media_bucket().to_owned(),
            key,
            url: presigned.url,
            url_expires_at: expires_at.to_rfc3339_opts(SecondsFormat::Secs, true),
        });
    }
    Ok(urls)
}

/// Tenant and message of a path `/media/{tenantId}/{messageId}`.
pub fn route(path: &str) -> Option<(String, String)> {
    let (tenant_id, message_id) = path.strip_prefix("/media/")?.split_once('/')?;
    let decode = |text: &str| {
        let text = percent_decode_str(text).decode_utf8().ok()?;
        (!text.is_empty()).then(|| text.into_owned())
    };
    if message_id.contains('/') {
        return None;
    }
    Some((decode(tenant_id)?, decode(message_id)?))
}

/// The answer of the admin route: the media of one tenant's message.
pub async fn answer(store: &Store, tenant_id: &str, message_id: &str) -> Response<Bytes> {
    let found = async {
        let keys = store.find_media(Some(tenant_id), message_id).await?;
        urls(store, keys).await
    };
    match found.await {
        Ok(found) if found.is_empty() => {
            let problem = json!({"error": "there is no media of this message"});
            admin::json(StatusCode::NOT_FOUND, &problem)
        }
        Ok(found) => admin::json(StatusCode::OK, &json!({ "media": found })),
        Err(error) => {
            tracing::warn!(%error, "the media bucket can't be listed");
            let problem = json!({"error": "the media bucket can't be listed"});
            admin::json(StatusCode::SERVICE_UNAVAILABLE, &problem)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_one_tenant_and_one_message() {
        let named = |path| route(path).unwrap_or_default();
        let both = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(named("/media/t/wamid.A=="), both("t", "wamid.A=="));
        assert_eq!(
            named("/media/t%2F..%2Fu/wamid.a%2Fb"),
            both("t/../u", "wamid.a/b")
        );
        for none in [
            "/media/t",
            "/media/t/",
            "/media//m",
            "/media/t/../u/m",
            "/tenants/t/m",
        ] {
            assert_eq!(route(none), None, "{none}");
        }
    }
}
