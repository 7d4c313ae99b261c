//! What is counted of media: their transfers, and what events say of them.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use strum::{EnumIter, IntoEnumIterator, IntoStaticStr};

use super::partitions::PartitionLabels;
use super::{Metrics, Uploaded, label_values};

label_values!(TransferOutcome, MediaOutcome);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
enum TransferOutcome {
    Stored,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TransferLabels {
    outcome: TransferOutcome,
    reason: Option<&'static str>,
}

/// What an event says of its media.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum MediaOutcome {
    Stored,
    Pending,
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MediaLabels {
    status: MediaOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    reason: String,
}

/// What another version of this program called a reason.
const OTHER: &str = "other";

/// Media of messages.
#[derive(Clone)]
pub(super) struct MediaMetrics {
    transfers: Family<TransferLabels, Counter>,
    failed: Family<FailureLabels, Counter>,
    messages: Family<MediaLabels, Counter>,
    follow_ups: Family<MediaLabels, Counter>,
    pub(super) parked: Family<PartitionLabels, Gauge>,
    download: Histogram,
    size: Histogram,
}

impl Default for MediaMetrics {
    fn default() -> Self {
        Self {
            transfers: Family::default(),
            failed: Family::default(),
            messages: Family::default(),
            follow_ups: Family::default(),
            parked: Family::default(),
            // 10 ms to 10 min; 1 KB to 256 MB
            download: Histogram::new(exponential_buckets(0.01, 2.5, 13)),
            size: Histogram::new(exponential_buckets(1024.0, 4.0, 10)),
        }
    }
}

impl MediaMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "whatsapp_media_transfers",
            "Transfers of media by how they ended",
            self.transfers.clone(),
        );
        registry.register(
            "whatsapp_media_failed",
            "Files that are given up, by reason",
            self.failed.clone(),
        );
        registry.register(
            "whatsapp_media_messages",
            "Messages with media, by the state of the file in their event",
            self.messages.clone(),
        );
        registry.register(
            "whatsapp_media_follow_ups",
            "Follow-up events of files that were pending, by the state of the file",
            self.follow_ups.clone(),
        );
        registry.register(
            "whatsapp_media_parked",
            "Media that waits for an operator: a token, a permission, an allowed host",
            self.parked.clone(),
        );
        registry.register(
            "media_download_duration_seconds",
            "Time from the request for a file to its being stored",
            self.download.clone(),
        );
        registry.register(
            "media_download_size_bytes",
            "Sizes of stored media",
            self.size.clone(),
        );
    }

    pub(super) fn create_failures(&self, reasons: impl Iterator<Item = &'static str>) {
        for reason in reasons.chain([OTHER]) {
            let reason = reason.to_owned();
            drop(self.failed.get_or_create(&FailureLabels { reason }));
        }
    }

    /// Makes the series whose labels are known.
    pub(super) fn create_known(&self) {
        for status in MediaOutcome::iter() {
            drop(self.messages.get_or_create(&MediaLabels { status }));
            drop(self.follow_ups.get_or_create(&MediaLabels { status }));
        }
    }
}

impl Metrics {
    /// A transfer ended: well, or for a reason.
    pub(crate) fn media_ended(&self, reason: Option<&'static str>) {
        let outcome = match reason {
            None => TransferOutcome::Stored,
            Some(_) => TransferOutcome::Failed,
        };
        let labels = TransferLabels { outcome, reason };
        self.media.transfers.get_or_create(&labels).inc();
    }

    pub(crate) fn media_stored(&self, size_bytes: u64, took: Duration, upload_took: Duration) {
        self.media.size.observe(size_bytes as f64);
        self.media.download.observe(took.as_secs_f64());
        self.uploaded(Uploaded::Media, upload_took);
    }

    /// A file is given up: the event that says so went out.
    pub(crate) fn media_failed(&self, reason: &str) {
        let of = |reason: &str| FailureLabels {
            reason: reason.to_owned(),
        };
        match self.media.failed.get(&of(reason)) {
            Some(counter) => counter.inc(),
            None => self.media.failed.get_or_create(&of(OTHER)).inc(),
        };
    }

    /// A message with media went out.
    pub(crate) fn media_message(&self, status: MediaOutcome) {
        let labels = MediaLabels { status };
        self.media.messages.get_or_create(&labels).inc();
    }

    /// A follow-up to one that was pending went out.
    pub(crate) fn media_followed_up(&self, status: MediaOutcome) {
        let labels = MediaLabels { status };
        self.media.follow_ups.get_or_create(&labels).inc();
    }

    /// Media of a partition that waits for an operator.
    pub(crate) fn media_parked(&self, partition: u16, count: usize) {
        let label = PartitionLabels { partition };
        self.media.parked.get_or_create(&label).set(count as i64);
    }
}
