//! What is counted of the queues, by the one worker that looks at them.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    queue: String,
}

/// Queues, by name. A worker that doesn't look at them has no series.
#[derive(Clone, Default)]
pub struct QueueMetrics {
    messages: Family<QueueLabels, Gauge>,
    consumers: Family<QueueLabels, Gauge>,
    dead_letters: Family<QueueLabels, Gauge>,
}

impl QueueMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "whatsapp_queue_messages",
            "Messages that wait in a queue, as the one worker that watches for all sees it",
            self.messages.clone(),
        );
        registry.register(
            "whatsapp_queue_consumers",
            "Consumers of a queue, as the same worker sees it",
            self.consumers.clone(),
        );
        registry.register(
            "whatsapp_dead_letters",
            "Messages in a queue of dead letters, as the same worker sees it",
            self.dead_letters.clone(),
        );
    }

    pub(crate) fn holds(&self, queue: String, messages: u32, consumers: u32) {
        let labels = QueueLabels { queue };
        let set = |family: &Family<QueueLabels, Gauge>, count: u32| {
            family.get_or_create(&labels).set(i64::from(count));
        };
        set(&self.messages, messages);
        set(&self.consumers, consumers);
    }

    pub(crate) fn holds_dead_letters(&self, queue: String, messages: u32) {
        let labels = QueueLabels { queue };
        let gauge = self.dead_letters.get_or_create(&labels);
        gauge.set(i64::from(messages));
    }

    /// Nothing is known of them any more.
    pub(crate) fn clear(&self) {
        self.messages.clear();
        self.consumers.clear();
        self.dead_letters.clear();
    }
}
