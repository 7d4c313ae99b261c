//! The bucket of the spool: opened, created, probed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use object_store::aws::AmazonS3;
use shared::store::{StoreArgs, StoreKeys, StorePatience};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::context::Ingress;

const STORE_PROBE_INTERVAL: Duration = Duration::from_secs(5);
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// The bucket of the spool, and what it takes to create it.
pub(crate) struct SpoolBucket {
    args: StoreArgs,
    keys: StoreKeys,
    pub(crate) bucket: AmazonS3,
    client: reqwest::Client,
}

impl SpoolBucket {
    /// # Errors
    /// An endpoint that is no URL.
    pub(crate) fn open(config: &Config, keys: StoreKeys) -> anyhow::Result<Self> {
        let args = config.store.clone();
        // A second attempt must fit before the deadline.
        let patience = StorePatience {
            connect: config.request_deadline / 4,
            request: config.request_deadline / 2,
            retry: config.request_deadline,
        };
        let (endpoint, name) = (&args.minio_endpoint, &args.minio_webhook_bucket);
        let bucket = args
            .bucket(endpoint, name, Arc::new(keys.clone()), patience)
            .context("MINIO_ENDPOINT (--minio-endpoint)")?;
        let client = shared::outgoing::client().timeout(STORE_TIMEOUT).build()?;
        Ok(Self {
            args,
            keys,
            bucket,
            client,
        })
    }

    /// Creates the bucket if it is missing, then keeps `/ready` true.
    pub(crate) async fn watch(self, ingress: Arc<Ingress>, shutdown: CancellationToken) {
        let readiness = &ingress.admin.readiness;
        let mut created = false;
        while !shutdown.is_cancelled() {
            let name = &self.args.minio_webhook_bucket;
            let seen = if created {
                let seen = shared::store::probe(&self.bucket).await;
                seen.map_err(|error| error.to_string())
            } else {
                let creating = self.args.create_bucket(&self.client, &self.keys, name);
                creating.await.map_err(|error| format!("{error:#}"))
            };
            created |= seen.is_ok();
            readiness.set("spool", seen.err());
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(STORE_PROBE_INTERVAL) => {}
            }
        }
    }
}
