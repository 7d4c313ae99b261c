//! The object store: what the key may do in a bucket, and what those without one may.

use std::time::Duration;

use bytes::Bytes;

use super::finding::{Finding, Findings, clock_skew, fail, ok, unknown, warn};
use crate::operator::Deployment;
use crate::out::store::{Bucket, Canary};

const CHECK: &str = "object store";
const URLS_CHECK: &str = "presigned URLs";
/// A few bytes come from the public endpoint within this time.
const FETCH_LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn check(deployment: &Deployment, bucket: Bucket) -> Findings {
    let store = &deployment.store;
    let name = store.bucket_name(bucket);
    let canary = store.canary(bucket);
    let written = Bytes::from_static(b"canary");
    if let Err(error) = canary.put(written.clone()).await {
        let advice = if error.is_not_found() {
            "create the bucket, or start a worker that may"
        } else {
            "see that the store runs, that the key is right and may write to this bucket"
        };
        return Ok(vec![fail(CHECK, format!("{name}: {error}"), advice)]);
    }
    let mut found = Vec::new();
    match canary.get().await {
        Ok((bytes, date)) if bytes == written => {
            found.push(ok(CHECK, format!("{name}: writes and reads")));
            found.extend(date.map(|date| clock_skew(CHECK, date)));
        }
        Ok(_) => found.push(fail(CHECK, format!("{name}: other bytes come back"), "")),
        Err(error) => found.push(fail(
            CHECK,
            format!("{name}: {error}"),
            "the key must be allowed to read",
        )),
    }
    if bucket == Bucket::Media {
        found.push(conditional(&canary, name).await);
        found.push(presigned(deployment, &canary.key, &written).await);
    }
    found.push(public(&canary, name).await);
    found.push(deletes(&canary, name).await);
    Ok(found)
}

/// Whether a write may depend on the key being free.
async fn conditional(canary: &Canary<'_>, name: &str) -> Finding {
    let consequence = "the same message id of two numbers of a tenant, at two workers in the same moment, could share a file";
    let known = match canary.is_conditional().await {
        Ok(false) => {
            let ignored = format!("{name}: ignores If-None-Match");
            return warn(CHECK, ignored, consequence);
        }
        Ok(true) => canary.winners_at_once().await,
        Err(error) => Err(error),
    };
    match known {
        Ok(0 | 1) => ok(CHECK, format!("{name}: knows If-None-Match")),
        Ok(winners) => warn(
            CHECK,
            format!("{name}: lets {winners} of three writes with If-None-Match at once win"),
            consequence,
        ),
        Err(error) => unknown(CHECK, format!("{name}: {error}"), ""),
    }
}

async fn public(canary: &Canary<'_>, name: &str) -> Finding {
    match canary.is_public().await {
        Ok(false) => ok(CHECK, format!("{name}: refuses those without a key")),
        Ok(true) => fail(
            CHECK,
            format!("{name}: anybody may read it"),
            "take the public policy off the bucket",
        ),
        Err(error) => unknown(CHECK, format!("{name}: {error}"), ""),
    }
}

async fn deletes(canary: &Canary<'_>, name: &str) -> Finding {
    match canary.delete().await {
        Ok(()) => ok(CHECK, format!("{name}: deletes")),
        Err(error) => fail(
            CHECK,
            format!("{name}: {error}"),
            "the key must be allowed to delete: the spool, replays and erasing need it",
        ),
    }
}

/// As those do who get a URL in an event.
async fn presigned(deployment: &Deployment, key: &str, written: &[u8]) -> Finding {
    let advice =
        "MINIO_PUBLIC_ENDPOINT must be the store as consumers reach it, with the same host";
    let fetched = async {
        let presigned = deployment.store.presign_media(key).await?;
        let client = shared::outgoing::client().timeout(FETCH_LIMIT).build()?;
        let answer = client.get(presigned.url).send().await;
        let mut answer = answer.map_err(reqwest::Error::without_url)?;
        let mut bytes = Vec::new();
        while bytes.len() <= written.len()
            && let Some(piece) = answer.chunk().await.map_err(reqwest::Error::without_url)?
        {
            bytes.extend_from_slice(&piece);
        }
        anyhow::Ok((answer.status(), bytes))
    };
    match fetched.await {
        Ok((_, bytes)) if bytes == written => ok(URLS_CHECK, "one works at the public endpoint"),
        Ok((status, _)) => fail(
            URLS_CHECK,
            format!("the public endpoint answers {status}"),
            advice,
        ),
        Err(error) => warn(
            URLS_CHECK,
            format!("the public endpoint can't be reached from here: {error:#}"),
            advice,
        ),
    }
}
