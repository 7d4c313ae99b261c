//! Fresh URLs of media whose old ones have expired: `worker presign`, and the admin route
//! `GET /media/{tenantId}/{messageId}`.

use anyhow::Context;
use bytes::Bytes;
use chrono::SecondsFormat;
use hyper::{Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::json;
use shared::admin;
use shared::telemetry::EndsWith;

use super::output::{Output, Style};
use crate::config::Config;
use crate::out::store::{Store, StoreResult};
use clap::Args;

#[derive(Args, Debug, Clone)]
pub struct PresignArgs {
    /// Meta's id of the message
    #[arg(value_name = "ID")]
    pub id: String,
    /// Whose it is; without it, all tenants' folders are looked into
    #[arg(long)]
    pub tenant: Option<String>,
    /// JSON instead of text
    #[arg(long)]
    pub json: bool,
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

/// Prints a fresh URL for each media object of a message.
///
/// # Errors
/// The store is away or refuses; exit status 1 where it has nothing of this message.
pub async fn run(config: &Config, args: &PresignArgs) -> anyhow::Result<()> {
    let secrets = config
        .secrets()
        .map_err(|problems| anyhow::anyhow!("{}", problems.join("\n")))?;
    let keys = secrets.store.context("MINIO_ACCESS_KEY is not set")?;
    let store = Store::new(&config.store, &config.objects, keys)?;
    let found = urls(&store, args.tenant.as_deref(), &args.id).await;
    let found = found.context("the object store")?;
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

fn write(output: &mut Output, found: &[PresignedObject]) {
    if found.is_empty() {
        output.line(Style::Bad, "there is no media of this message");
    }
    for object in found {
        output.head(&format!("{}/{}", object.bucket, object.key));
        output.line(Style::Plain, &object.url);
        output.line(Style::Faint, format!("until {}", object.url_expires_at));
    }
}

async fn urls(
    store: &Store,
    tenant_id: Option<&str>,
    message_id: &str,
) -> StoreResult<Vec<PresignedObject>> {
    let mut urls = Vec::new();
    for key in store.find_media(tenant_id, message_id).await? {
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
    match urls(store, Some(tenant_id), message_id).await {
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
