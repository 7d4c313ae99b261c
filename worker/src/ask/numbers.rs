//! What Meta knows of our business numbers: looked up in the background, so that no message waits for
//! it. An event has what is known when it goes out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shared::tasks::Tasks;
use tokio::time::Instant;

use crate::ask::graph::{Graph, GraphCall};
use crate::ask::neighbour::Trace;
use crate::ask::tenants::tokens::Tokens;
use crate::item::event::channel::NumberProfile;
use crate::metrics::{Cache, CacheMetrics};

/// Names and ratings change seldom.
const FRESH_FOR: Duration = Duration::from_secs(6 * 3600);
/// After a lookup that failed.
const PAUSE: Duration = Duration::from_secs(300);
const MOST_REMEMBERED: usize = 100_000;

#[derive(Debug, Clone)]
struct CachedProfile {
    profile: Option<Arc<NumberProfile>>,
    /// When it is looked up again.
    due: Instant,
}

/// Profiles of numbers.
pub struct Numbers {
    graph: Arc<Graph>,
    tokens: Tokens,
    remembered: Mutex<HashMap<String, CachedProfile>>,
    metrics: CacheMetrics,
    tasks: Tasks,
}

impl Numbers {
    pub fn new(
        graph: Arc<Graph>,
        tokens: Tokens,
        metrics: CacheMetrics,
        tasks: Tasks,
    ) -> Arc<Self> {
        Arc::new(Self {
            graph,
            tokens,
            remembered: Mutex::default(),
            metrics,
            tasks,
        })
    }

    /// What is known of a number now. What is missing or old is looked up meanwhile.
    pub fn known(self: &Arc<Self>, waba_id: &str, number: &str) -> Option<Arc<NumberProfile>> {
        let now = Instant::now();
        let mut remembered = self.remembered();
        let known = remembered.get(number).cloned();
        let profile = known.as_ref().and_then(|known| known.profile.clone());
        self.metrics.count(Cache::Number, profile.is_some());
        if known.is_none_or(|known| known.due <= now) {
            if remembered.len() >= MOST_REMEMBERED {
                remembered.retain(|_, known| known.due > now);
            }
            if remembered.len() < MOST_REMEMBERED {
                let profile = profile.clone();
                let due = now + PAUSE;
                remembered.insert(number.to_owned(), CachedProfile { profile, due });
                self.look_up(waba_id.to_owned(), number.to_owned());
            }
        }
        profile
    }

    fn look_up(self: &Arc<Self>, waba_id: String, number: String) {
        let numbers = self.clone();
        self.tasks.spawn_alone("profile of a number", async move {
            let asked = numbers.ask(&waba_id, &number);
            let profile = tokio::select! {
                profile = asked => profile,
                () = numbers.tasks.stop().cancelled() => return,
            };
            if let Some(profile) = profile {
                let due = Instant::now() + FRESH_FOR;
                let profile = Some(Arc::new(profile));
                numbers
                    .remembered()
                    .insert(number, CachedProfile { profile, due });
            }
        });
    }

    async fn ask(&self, waba_id: &str, number: &str) -> Option<NumberProfile> {
        let token = self.tokens.get(waba_id).await?;
        let call = GraphCall {
            token: &token,
            waba_id,
            phone_number_id: Some(number),
            trace: Trace::default(),
        };
        match self.graph.number(number, call).await {
            Ok(profile) => Some(profile),
            Err(error) => {
                tracing::debug!(waba_id, %error, "reading a number's profile failed");
                None
            }
        }
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<String, CachedProfile>> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
