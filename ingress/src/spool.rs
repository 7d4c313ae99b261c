//! The spool: objects that a worker puts into the stream once Redis takes them again.

use std::time::Duration;

use object_store::aws::AmazonS3;
use object_store::{Attribute, Attributes, ObjectStore, PutOptions, PutPayload};
use shared::intake::{Delivery, Envelope};
use shared::spool;
use shared::store::{StoreError, path};
use tokio::sync::Semaphore;

/// Objects on their way to the store; more would wait there instead of here.
const PUTS_AT_ONCE: usize = 64;

/// Writes objects into the spool.
pub(crate) struct SpoolWriter {
    bucket: AmazonS3,
    puts: Semaphore,
    dedup_ttl: Duration,
}

impl SpoolWriter {
    pub(crate) fn new(bucket: AmazonS3, dedup_ttl: Duration) -> Self {
        Self {
            bucket,
            puts: Semaphore::new(PUTS_AT_ONCE),
            dedup_ttl,
        }
    }

    /// Writes an object. It may be there though this failed, and then what it holds is stored twice;
    /// the dedup of whoever empties the spool settles it.
    ///
    /// # Errors
    /// What the store said.
    pub(crate) async fn put(
        &self,
        partition: u16,
        delivery: &Delivery,
        envelope: &Envelope,
    ) -> Result<(), StoreError> {
        let key = spool::key(partition, envelope.received_at_ms());
        let mut attributes = Attributes::new();
        attributes.insert(Attribute::ContentType, "application/octet-stream".into());
        let options = PutOptions {
            attributes,
            ..PutOptions::default()
        };
        let pieces = spool::encode(delivery, envelope, self.dedup_ttl);
        let payload = PutPayload::from_iter(pieces);
        // The semaphore is never closed.
        let _permit = self.puts.acquire().await;
        self.bucket.put_opts(&path(&key), payload, options).await?;
        Ok(())
    }
}
