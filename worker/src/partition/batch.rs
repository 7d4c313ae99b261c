//! Items of a partition that go out together: their events are made, handed to the publisher at once,
//! and end each for itself.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tracing::{Instrument, Span};

use super::item::{Item, MadeEvent, Prepared, Published};
use crate::context::WorkerContext;
use crate::out::error::Failure;
use crate::out::publisher::{NotPublished, Outcomes};
use crate::read::lanes::ItemId;
use crate::read::leases::Tenure;

/// An item that may go out.
pub(super) struct Outgoing {
    pub(super) id: ItemId,
    pub(super) item: Item,
    pub(super) prepared: Prepared,
    pub(super) span: Span,
}

/// An item of a batch that has ended.
pub(super) struct EndedItem {
    pub(super) id: ItemId,
    pub(super) prepared: Prepared,
    pub(super) outcome: Result<Published, Failure>,
}

/// Items whose events are handed over.
pub(super) struct Batch {
    /// By place; those that have ended are gone.
    items: Vec<Option<(Outgoing, MadeEvent)>>,
    outcomes: Outcomes,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Batch {
    /// Makes the events and hands them over. Those that can't be made have ended.
    pub(super) async fn begin(
        work: Arc<WorkerContext>,
        tenure: Arc<Tenure>,
        items: Vec<Outgoing>,
    ) -> (Vec<EndedItem>, Self) {
        let permits = items.len().min(work.concurrency) as u32;
        let permit = work.permits.clone().acquire_many_owned(permits).await.ok();
        let (mut ended, mut made, mut events) = (Vec::new(), Vec::new(), Vec::new());
        for outgoing in items {
            let making = outgoing.item.make(&outgoing.prepared);
            match making.instrument(outgoing.span.clone()).await {
                Ok((event, made_event)) => {
                    events.push(event);
                    made.push(Some((outgoing, made_event)));
                }
                Err(failure) => ended.push(outgoing.ended(Err(failure))),
            }
        }
        let outcomes = work.publisher.publish(events, &tenure).await;
        let batch = Self {
            items: made,
            outcomes,
            _permit: permit,
        };
        (ended, batch)
    }

    /// Waits until some more have ended; with what is left of it.
    pub(super) async fn next(mut self) -> (Vec<EndedItem>, Option<Self>) {
        let outcomes = self.outcomes.next().await;
        if outcomes.is_empty() {
            let left = self.items.into_iter().flatten();
            let lost = || Failure::NotPublished(NotPublished::LeaseLost);
            let ended = left.map(|(outgoing, _)| outgoing.ended(Err(lost())));
            return (ended.collect(), None);
        }
        let mut ended = Vec::with_capacity(outcomes.len());
        for (place, outcome) in outcomes {
            if let Some((outgoing, made)) = self.items.get_mut(place).and_then(Option::take) {
                let _in_span = outgoing.span.clone().entered();
                let outcome = match outcome {
                    Ok(()) => Ok(outgoing.item.published(&outgoing.prepared, made)),
                    Err(error) => Err(Failure::NotPublished(error)),
                };
                ended.push(outgoing.ended(outcome));
            }
        }
        let left = self.items.iter().any(Option::is_some).then_some(self);
        (ended, left)
    }
}

impl Outgoing {
    fn ended(self, outcome: Result<Published, Failure>) -> EndedItem {
        EndedItem {
            id: self.id,
            prepared: self.prepared,
            outcome,
        }
    }
}
