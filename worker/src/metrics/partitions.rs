//! What is known of the partitions that this worker owns.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use strum::{EnumIter, IntoEnumIterator, IntoStaticStr};

use super::{Metrics, label_values};

label_values!(LaterList);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PartitionLabels {
    pub(super) partition: u16,
}

/// Where an acknowledged entry's work waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
enum LaterList {
    Later,
    Media,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LaterLabels {
    partition: u16,
    list: LaterList,
}

/// How much waits in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Entries in the stream.
    pub stream: u64,
    /// Of them, read and not acknowledged.
    pub pending: u64,
    /// Pieces of the later-list, and of that of media.
    pub later: u64,
    pub later_media: u64,
    /// Of the oldest entry.
    pub age: Duration,
}

/// What is known of the partitions that this worker owns.
#[derive(Clone, Default)]
pub(super) struct PartitionMetrics {
    owned: Family<PartitionLabels, Gauge>,
    stream_length: Family<PartitionLabels, Gauge>,
    pending: Family<PartitionLabels, Gauge>,
    oldest: Family<PartitionLabels, Gauge<f64, AtomicU64>>,
    later_length: Family<LaterLabels, Gauge>,
    parked: Family<PartitionLabels, Gauge>,
}

impl PartitionMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "partition_owned",
            "Partitions that this worker owns, by number",
            self.owned.clone(),
        );
        registry.register(
            "stream_length",
            "Entries in the stream of an owned partition",
            self.stream_length.clone(),
        );
        registry.register(
            "stream_pending",
            "Entries of an owned partition that were read and are not acknowledged",
            self.pending.clone(),
        );
        registry.register(
            "stream_oldest_entry_age_seconds",
            "Age of the oldest entry in the stream of an owned partition",
            self.oldest.clone(),
        );
        registry.register(
            "later_length",
            "Pieces in the later-lists of an owned partition: what acknowledged entries still owe",
            self.later_length.clone(),
        );
        registry.register(
            "parked",
            "Entries of an owned partition that wait for their tenant",
            self.parked.clone(),
        );
    }
}

impl Metrics {
    pub(crate) fn parked(&self, partition: u16, entries: usize) {
        let label = PartitionLabels { partition };
        let gauge = self.partitions.parked.get_or_create(&label);
        gauge.set(entries as i64);
    }

    pub(crate) fn waiting(&self, partition: u16, waiting: Backlog) {
        let (label, all) = (PartitionLabels { partition }, &self.partitions);
        all.owned.get_or_create(&label).set(1);
        let length = all.stream_length.get_or_create(&label);
        length.set(waiting.stream as i64);
        all.pending
            .get_or_create(&label)
            .set(waiting.pending as i64);
        all.oldest
            .get_or_create(&label)
            .set(waiting.age.as_secs_f64());
        for (list, length) in [
            (LaterList::Later, waiting.later),
            (LaterList::Media, waiting.later_media),
        ] {
            let label = LaterLabels { partition, list };
            all.later_length.get_or_create(&label).set(length as i64);
        }
    }

    pub(crate) fn left(&self, partition: u16) {
        let (label, all) = (PartitionLabels { partition }, &self.partitions);
        all.owned.remove(&label);
        all.stream_length.remove(&label);
        all.pending.remove(&label);
        all.oldest.remove(&label);
        all.parked.remove(&label);
        for list in LaterList::iter() {
            all.later_length.remove(&LaterLabels { partition, list });
        }
        self.media.parked.remove(&label);
        if partition == 0 {
            self.failed_objects.set(0);
        }
    }
}
