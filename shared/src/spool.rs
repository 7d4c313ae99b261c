//! The spool: deliveries that Redis could not take, as objects in the webhook bucket until a worker
//! puts them into the stream.
//!
//! Key: `spool/{partition}/{ms of receipt, 13 digits}-{uuid}`, so that a listing has a partition's in
//! order of receipt. Bytes: one line of JSON (a business account's id may be any text, which metadata
//! would not carry), then the body as it came.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::intake::{Delivery, Envelope};
use crate::webhook::Identity;

/// The version that ingress writes.
pub const VERSION: u32 = 1;

/// The folder of all.
pub const FOLDER: &str = "spool";

/// What waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spooled {
    pub delivery: Delivery,
    pub envelope: Envelope,
    /// How long ingress wants its items remembered: marks of another time are looked for elsewhere.
    pub dedup_ttl: Duration,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpoolHeader {
    version: u32,
    waba_id: String,
    received_at_ms: u64,
    correlation_id: String,
    signature: String,
    traceparent: String,
    unreadable: Option<String>,
    whole_body: bool,
    /// Hex.
    identities: Vec<String>,
    dedup_ttl_seconds: u64,
    /// Of the body, in hex; missing in what the version before wrote.
    #[serde(default)]
    sha256: Option<String>,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// Why an object of the spool can't be decoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UndecodableObject {
    #[error("it has no head")]
    Headless,
    #[error("its version {0} is unknown to this worker")]
    Version(u32),
    #[error("an identity is malformed")]
    Identity,
    #[error("its body is not the one that was written: its SHA-256 differs")]
    Corrupt,
}

/// A new key for what came at `received_at_ms`.
pub fn key(partition: u16, received_at_ms: u64) -> String {
    let id = Uuid::new_v4();
    format!("{FOLDER}/{partition}/{received_at_ms:013}-{id}")
}

/// When the object of a key was received, ms since 1970; 0 if the key doesn't say.
pub fn received_at_ms(key: &str) -> u64 {
    let name = key.rsplit('/').next().unwrap_or_default();
    let ms = name.split('-').next().unwrap_or_default();
    ms.parse().unwrap_or(0)
}

/// The bytes of a delivery's object, in two pieces.
pub fn encode(delivery: &Delivery, envelope: &Envelope, dedup_ttl: Duration) -> [Bytes; 2] {
    let head = SpoolHeader {
        version: VERSION,
        waba_id: delivery.waba_id.clone(),
        received_at_ms: envelope.received_at_ms(),
        correlation_id: envelope.correlation_id.clone(),
        signature: envelope.signature.clone(),
        traceparent: envelope.traceparent.clone(),
        unreadable: delivery.unreadable.clone(),
        whole_body: delivery.whole_body,
        identities: delivery
            .identities
            .iter()
            .map(|it| HEXLOWER.encode(&it.0))
            .collect(),
        dedup_ttl_seconds: dedup_ttl.as_secs(),
        sha256: Some(HEXLOWER.encode(&Sha256::digest(&delivery.body))),
    };
    // Nothing in it can fail to be JSON.
    let mut head = serde_json::to_vec(&head).unwrap_or_default();
    head.push(b'\n');
    [head.into(), delivery.body.clone()]
}

/// Reads an object.
///
/// # Errors
/// [`UndecodableObject`]
pub fn decode(object: &Bytes) -> Result<Spooled, UndecodableObject> {
    let end = object.iter().position(|byte| *byte == b'\n');
    let end = end.ok_or(UndecodableObject::Headless)?;
    let head = &object[..end];
    let Version { version } =
        serde_json::from_slice(head).map_err(|_| UndecodableObject::Headless)?;
    if version != VERSION {
        return Err(UndecodableObject::Version(version));
    }
    let head: SpoolHeader =
        serde_json::from_slice(head).map_err(|_| UndecodableObject::Headless)?;
    let body = object.slice(end + 1..);
    if let Some(sha256) = head.sha256
        && sha256 != HEXLOWER.encode(&Sha256::digest(&body))
    {
        return Err(UndecodableObject::Corrupt);
    }
    let identities: Option<Vec<_>> = head.identities.iter().map(|text| identity(text)).collect();
    let received_at = SystemTime::UNIX_EPOCH + Duration::from_millis(head.received_at_ms);
    Ok(Spooled {
        delivery: Delivery {
            waba_id: head.waba_id,
            body,
            identities: identities
                .filter(|identities| !identities.is_empty())
                .ok_or(UndecodableObject::Identity)?,
            whole_body: head.whole_body,
            unreadable: head.unreadable,
            // Its time has it.
            apart: Duration::ZERO,
        },
        envelope: Envelope {
            correlation_id: head.correlation_id,
            signature: head.signature,
            traceparent: head.traceparent,
            received_at,
        },
        dedup_ttl: Duration::from_secs(head.dedup_ttl_seconds),
    })
}

fn identity(hex: &str) -> Option<Identity> {
    let bytes = HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?;
    Some(Identity(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spooled() -> Spooled {
        Spooled {
            delivery: Delivery {
                waba_id: "no id,\nbut „text“".to_owned(),
                body: Bytes::from_static(b"\n{\"entry\":\n[]}\xff"),
                identities: vec![Identity([7; 32]), Identity::of_body(b"x")],
                whole_body: false,
                unreadable: Some("not JSON".to_owned()),
                apart: Duration::ZERO,
            },
            envelope: Envelope {
                correlation_id: "c".to_owned(),
                signature: "sha256=0".to_owned(),
                traceparent: String::new(),
                received_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            },
            dedup_ttl: Duration::from_secs(86_400),
        }
    }

    #[test]
    fn what_is_spooled_comes_back_as_it_was() {
        let spooled = spooled();
        let pieces = encode(&spooled.delivery, &spooled.envelope, spooled.dedup_ttl);
        assert_eq!(decode(&pieces.concat().into()), Ok(spooled));
    }

    #[test]
    fn half_a_body_is_not_taken_for_the_whole() {
        let spooled = spooled();
        let pieces = encode(&spooled.delivery, &spooled.envelope, spooled.dedup_ttl);
        let mut bytes = pieces.concat();
        bytes.pop();
        assert_eq!(decode(&bytes.into()), Err(UndecodableObject::Corrupt));
    }

    #[test]
    fn what_is_not_ours_says_so() {
        let decode = |text: &'static str| decode(&Bytes::from_static(text.as_bytes()));
        assert_eq!(decode(""), Err(UndecodableObject::Headless));
        assert_eq!(decode("{}\n{}"), Err(UndecodableObject::Headless));
        assert_eq!(
            decode("{\"version\":2}\n{}"),
            Err(UndecodableObject::Version(2))
        );
    }

    #[test]
    fn keys_are_in_order_of_receipt() {
        let (early, late) = (key(3, 999), key(3, 1_700_000_000_000));
        assert!(early < late && late.starts_with("spool/3/1700000000000-"));
        assert_eq!(received_at_ms(&early), 999);
        assert_eq!(received_at_ms("spool/3/nonsense"), 0);
    }
}
