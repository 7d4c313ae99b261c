//! Events that no queue is bound for. They are published again and again, each by whoever waits for it;
//! here all channels together look no more often than a growing pause allows whether the topology can be
//! mended, and say once which events are concerned.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::retry::Backoff;

/// An event that can't be routed is tried again within a few seconds. When none came back for this long,
/// it is over.
const OVER_AFTER: Duration = Duration::from_secs(60);

/// What came back lately.
#[derive(Default)]
pub(super) struct Unroutable(Mutex<Option<Episode>>);

struct Episode {
    /// Routing keys without the tenant.
    routes: BTreeSet<String>,
    last: Instant,
    next_check: Instant,
    backoff: Backoff,
}

impl Unroutable {
    /// An event came back. Whether the topology is to be looked at now, by the caller.
    pub(super) fn came_back(&self, routing_key: &str) -> bool {
        let now = Instant::now();
        let route = routing_key
            .rsplit_once('.')
            .map_or(routing_key, |(route, _tenant)| route);
        let mut episode = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |episode: &mut Episode| now - episode.last > OVER_AFTER;
        episode.take_if(over);
        let episode = episode.get_or_insert_with(|| Episode {
            routes: BTreeSet::new(),
            last: now,
            next_check: now,
            backoff: Backoff::for_server(),
        });
        episode.last = now;
        if episode.routes.insert(route.to_owned()) {
            tracing::error!(
                route,
                "no queue is bound for events of this routing key: they are published again until one is"
            );
        }
        let due = now >= episode.next_check;
        if due {
            episode.next_check = now + episode.backoff.pause();
        }
        due
    }
}
