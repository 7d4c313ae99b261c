//! Objects that are still to be written: raw payloads of the archive, and what was set aside.

#![deny(clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use shared::entry::{EntryFields, StreamEntry};
use tokio::time::{Instant, timeout};

use super::schedule::{PieceOutcome, Scope};
use crate::context::WorkerContext;
use crate::item::payload::Payload;
use crate::metrics::Uploaded;
use crate::out::error::Reason;
use crate::out::store;
use crate::read::owed::OwedPut;

/// One object; a body has 3 MB at most.
const PUT_TIME: Duration = Duration::from_secs(20);

/// An object as it is written.
struct Object {
    key: String,
    described: BTreeMap<String, String>,
    body: Bytes,
}

/// Writes an object. Of one that was set aside for want of a tenant, the account is noted too, so
/// that it is looked up again.
pub(super) async fn put(
    work: &WorkerContext,
    id: &str,
    fields: &EntryFields,
    owed: &OwedPut,
) -> PieceOutcome {
    let bytes = work.bytes_lock.shared().await;
    let object = object(id, fields, owed);
    drop(bytes);
    let Some(object) = object else {
        tracing::error!(entry = id, "an object that is owed can't be made");
        return PieceOutcome::Seldom;
    };
    let described = &object.described;
    let correlation_id = described.get("correlation-id");
    let correlation_id = correlation_id.map_or("", String::as_str);
    let began = Instant::now();
    let put = work.store.put_apart(&object.key, described, object.body);
    match timeout(PUT_TIME, put).await {
        Ok(Ok(())) => {
            work.metrics.uploaded(Uploaded::Payload, began.elapsed());
            tracing::debug!(correlation_id, "an object that was owed is written");
        }
        Ok(Err(error)) => {
            tracing::warn!(correlation_id, %error, "an object is still owed");
            return if error.is_away() {
                PieceOutcome::Away(Scope::Kind)
            } else {
                PieceOutcome::Failed(Duration::ZERO)
            };
        }
        Err(_) => return PieceOutcome::Away(Scope::Kind),
    }
    let reason = described.get("reason").and_then(|it| it.parse().ok());
    let without_tenant = reason.is_some_and(Reason::ends_with_a_tenant);
    match described.get("waba-id").filter(|_| without_tenant) {
        Some(waba_id) if work.tenants.note_unknown(waba_id).await.is_err() => {
            PieceOutcome::Failed(Duration::ZERO)
        }
        Some(_) | None => PieceOutcome::Done,
    }
}

/// `None`: this version can't read the entry.
fn object(id: &str, fields: &EntryFields, owed: &OwedPut) -> Option<Object> {
    match owed {
        OwedPut::Archive(folder) => {
            let payload = Payload::open(StreamEntry::decode(fields).ok()?).ok()?;
            let (name, entry) = (store::entry_name(&payload), payload.entry);
            Some(Object {
                key: store::archive_key(folder, entry.received_at_ms, &name),
                described: owned(store::described_by(id, &entry)),
                body: entry.body,
            })
        }
        OwedPut::Failed { key, described } => {
            let undecodable = Reason::Undecodable.name();
            let is_undecodable = described.get("reason").is_some_and(|it| it == undecodable);
            let (mut all, body) = if is_undecodable {
                let of_it = store::ObjectAttributes::from([("entry", id.to_owned())]);
                (owned(of_it), dump(fields).into())
            } else {
                let entry = StreamEntry::decode(fields).ok()?;
                (owned(store::described_by(id, &entry)), entry.body)
            };
            all.extend(described.clone());
            Some(Object {
                key: key.clone(),
                described: all,
                body,
            })
        }
    }
}

fn owned(described: store::ObjectAttributes) -> BTreeMap<String, String> {
    let all = described.into_iter();
    all.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The fields of an entry that can't be decoded, as JSON; what isn't text is kept as bytes.
fn dump(fields: &EntryFields) -> Vec<u8> {
    let fields: BTreeMap<_, serde_json::Value> = fields
        .iter()
        .map(|(name, value)| match std::str::from_utf8(value) {
            Ok(text) => (name, text.into()),
            Err(_) => (name, value.to_vec().into()),
        })
        .collect();
    serde_json::to_vec(&fields).unwrap_or_default()
}
