//! Puts back into the stream, past the dedup, what was set aside because its account had no tenant.
//! On its way it lies below `returning/`: what is set aside once more meanwhile has a key of its own
//! again, and what a crash leaves there is put back by the next round. Twice is harmless: the event has
//! the same id.

use std::sync::Arc;

use anyhow::Context;
use futures::stream::{StreamExt, TryStreamExt};
use shared::entry::{VERSION, format_numbers};
use shared::keys::Keys;
use shared::redis::Connection;

use crate::store::{self, Store};

/// The reason of what is put back.
pub const REASON: &str = "tenant_unknown";
/// Objects in work side by side; each may have some MB.
const AT_ONCE: usize = 8;
/// A list of items this long may have been cut off in the object's metadata.
const LONGEST_LIST: usize = 480;

/// Puts entries back.
#[derive(Clone)]
pub struct Readmit {
    pub store: Arc<Store>,
    pub connection: Connection,
    pub keys: Keys,
}

impl Readmit {
    /// Puts back all of an account; how many objects that were.
    ///
    /// # Errors
    /// The store or Redis is away, or Redis is full.
    pub async fn all_of(&self, waba_id: &str) -> anyhow::Result<usize> {
        let folder = store::folder(None, waba_id);
        let (failed, returning) = (format!("failed/{folder}"), format!("returning/{folder}"));
        self.store
            .keys_below(&failed)
            .map(|key| key.context("the failed store can't be listed"))
            .try_for_each_concurrent(AT_ONCE, async |key| self.take_out(&key).await)
            .await?;
        let keys = self.store.keys_below(&returning);
        let keys = keys.map(|key| key.context("what returns can't be listed"));
        let put_back = keys.map_ok(async |key| self.put_back(&key).await);
        put_back
            .try_buffer_unordered(AT_ONCE)
            .try_fold(0, async |count, ()| Ok(count + 1))
            .await
    }

    async fn take_out(&self, key: &str) -> anyhow::Result<()> {
        let described = self.store.described(key).await?;
        if described.get("reason").map(String::as_str) != Some(REASON) {
            return Ok(());
        }
        let to = key.replacen("failed/", "returning/", 1);
        self.store.shift(key, &to).await?;
        Ok(())
    }

    async fn put_back(&self, key: &str) -> anyhow::Result<()> {
        let kept = self.store.read(key).await?;
        let of = |name: &str| kept.described.get(name).map_or("", String::as_str);
        let mut items = of("items").to_owned();
        if items.is_empty() || items.len() >= LONGEST_LIST {
            let webhook = shared::webhook::read(&kept.body)?;
            let count = webhook.entries.iter().map(|entry| entry.items.len()).sum();
            items = format_numbers(0..count);
        }
        let waba_id = of("waba-id");
        let mut add = redis::cmd("XADD");
        add.arg(self.keys.stream(self.keys.partition_of(waba_id)))
            .arg("*");
        add.arg("v").arg(VERSION).arg("w").arg(waba_id);
        add.arg("c")
            .arg(of("correlation-id"))
            .arg("t")
            .arg(of("received-at"));
        add.arg("n").arg(items).arg("b").arg(&kept.body[..]);
        add.arg("s")
            .arg(of("signature"))
            .arg("p")
            .arg(of("traceparent"))
            .arg("r")
            .arg("");
        add.query_async::<()>(&mut self.connection.clone()).await?;
        self.store.remove(key).await?;
        Ok(())
    }
}
