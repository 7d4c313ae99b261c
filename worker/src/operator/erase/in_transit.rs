//! What is still on its way: in the spool, the streams and the later-lists.

use anyhow::Context;

use super::eraser::Eraser;
use super::erasure::Erasure;
use crate::operator::{field, scan_stream};
use crate::out::store::{Bucket, ReadError};

/// Something on its way; what it has not is empty.
pub(super) struct InTransit<'w> {
    pub(super) account: &'w str,
    pub(super) tenant_id: Option<&'w str>,
    pub(super) key: &'w str,
    pub(super) post: &'w str,
    pub(super) body: &'w [u8],
}

impl Eraser<'_> {
    /// How much of spool, streams and later-lists is theirs: in the order in which it moves, so that it
    /// is met at least once.
    pub(super) async fn in_transit(
        &self,
        found: &mut Erasure,
        theirs: impl Fn(&InTransit<'_>) -> bool,
    ) -> anyhow::Result<usize> {
        let (keys, redis) = (&self.deployment.keys, &self.deployment.connection);
        let mut count = self.spooled(found, &theirs).await?;
        for partition in 0..keys.partitions() {
            let lists = [
                keys.stream(partition),
                keys.later(partition),
                keys.later_media(partition),
            ];
            for list in lists {
                let scan = scan_stream(redis, &list, usize::MAX, |entry| {
                    let text = |name| String::from_utf8(field(entry, name)).unwrap_or_default();
                    let (account, key, post, tenant) = (text("w"), text("o"), text("m"), text("t"));
                    let waiting = InTransit {
                        account: &account,
                        tenant_id: Some(&*tenant),
                        key: &key,
                        post: &post,
                        body: &field(entry, "b"),
                    };
                    count += usize::from(theirs(&waiting));
                });
                scan.await.context("Redis")?;
            }
        }
        Ok(count)
    }

    async fn spooled(
        &self,
        found: &mut Erasure,
        theirs: impl Fn(&InTransit<'_>) -> bool,
    ) -> anyhow::Result<usize> {
        let mut count = 0;
        for key in self.list(found, Bucket::Webhooks, "spool").await? {
            let kept = match self.deployment.store.read(&key).await {
                Ok(kept) => kept,
                Err(ReadError::Gone) => continue,
                Err(error) => {
                    let why = error.to_string();
                    self.leave(found, Bucket::Webhooks, key, why).await?;
                    continue;
                }
            };
            // A line of JSON stands before the body.
            let end = kept.body.iter().position(|byte| *byte == b'\n');
            let end = end.unwrap_or(0);
            let head: serde_json::Value =
                serde_json::from_slice(&kept.body[..end]).unwrap_or_default();
            let waiting = InTransit {
                account: head["wabaId"].as_str().unwrap_or_default(),
                tenant_id: None,
                key: "",
                post: "",
                body: &kept.body[end..],
            };
            count += usize::from(theirs(&waiting));
        }
        Ok(count)
    }
}
