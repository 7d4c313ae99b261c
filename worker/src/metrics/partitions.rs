//! What is known of the partitions that this worker owns.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use strum::{EnumIter, IntoEnumIterator, IntoStaticStr};

use super::{Metrics, label_values};

label_values!(OwedKind);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PartitionLabels {
    pub(super) partition: u16,
}

/// What an acknowledged entry still owes: an object to write, a post to the State Manager, the place of an
/// object that was put back, a transfer of media of a received message, or of another place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum OwedKind {
    Put,
    State,
    Settle,
    Media,
    OtherMedia,
}

impl OwedKind {
    /// The number of its list in scripts.
    pub(crate) fn number(self) -> usize {
        match self {
            Self::Put => 1,
            Self::State => 2,
            Self::Settle => 3,
            Self::Media => 4,
            Self::OtherMedia => 5,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OwedLabels {
    partition: u16,
    kind: OwedKind,
}

/// How much waits in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// Entries that aren't acknowledged.
    pub stream: u64,
    /// Of them, read.
    pub pending: u64,
    /// Pieces that acknowledged entries still owe, in the order of [`OwedKind`].
    pub owed: [u64; 5],
    /// Entries that workers have ever read, as Redis counts them; 0: it doesn't know.
    pub ever_read: u64,
    /// Of the oldest entry that isn't acknowledged; zero if there is none.
    pub age: Duration,
}

/// What is known of the partitions that this worker owns.
#[derive(Clone, Default)]
pub(super) struct PartitionMetrics {
    owned: Family<PartitionLabels, Gauge>,
    stream_length: Family<PartitionLabels, Gauge>,
    pending: Family<PartitionLabels, Gauge>,
    oldest: Family<PartitionLabels, Gauge<f64, AtomicU64>>,
    owed_length: Family<OwedLabels, Gauge>,
    parked: Family<PartitionLabels, Gauge>,
}

impl PartitionMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "whatsapp_partition_owned",
            "Partitions that this worker owns, by number",
            self.owned.clone(),
        );
        registry.register(
            "whatsapp_stream_length",
            "Entries of an owned partition that are not acknowledged",
            self.stream_length.clone(),
        );
        registry.register(
            "whatsapp_stream_pending",
            "Entries of an owned partition that were read and are not acknowledged",
            self.pending.clone(),
        );
        registry.register(
            "whatsapp_stream_oldest_entry_age_seconds",
            "Age of the oldest entry of an owned partition that is not acknowledged",
            self.oldest.clone(),
        );
        registry.register(
            "whatsapp_owed_length",
            "Further steps that acknowledged entries of an owned partition still need, by kind",
            self.owed_length.clone(),
        );
        registry.register(
            "whatsapp_parked",
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
        for (kind, length) in OwedKind::iter().zip(waiting.owed) {
            let label = OwedLabels { partition, kind };
            all.owed_length.get_or_create(&label).set(length as i64);
        }
    }

    pub(crate) fn left(&self, partition: u16) {
        let (label, all) = (PartitionLabels { partition }, &self.partitions);
        all.owned.remove(&label);
        all.stream_length.remove(&label);
        all.pending.remove(&label);
        all.oldest.remove(&label);
        all.parked.remove(&label);
        for kind in OwedKind::iter() {
            all.owed_length.remove(&OwedLabels { partition, kind });
        }
        self.media.parked.remove(&label);
        if partition == 0 {
            self.failed_objects.set(0);
        }
    }
}
