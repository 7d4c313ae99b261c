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
use crate::read::gate::TransferPace;

/// Names and ratings change seldom.
const FRESH_FOR: Duration = Duration::from_secs(6 * 3600);
/// After a lookup that failed.
const PAUSE: Duration = Duration::from_secs(300);
const MOST_REMEMBERED: usize = 100_000;
/// Numbers of an account that are looked up for one event, and how long it waits for them.
const MOST_ASKED: usize = 20;
const ASKING_TIME: Duration = Duration::from_secs(1);

#[derive(Debug, Clone)]
struct CachedProfile {
    waba_id: String,
    /// The digits of its display number, once a webhook or its profile told.
    display: Option<String>,
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

    /// What is known of a number now. What is missing or old is looked up meanwhile. `display`: the number
    /// as its webhook has it.
    pub fn known(
        self: &Arc<Self>,
        waba_id: &str,
        number: &str,
        display: Option<&str>,
    ) -> Option<Arc<NumberProfile>> {
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
                let noted = CachedProfile {
                    waba_id: waba_id.to_owned(),
                    display: display.map(digits),
                    profile: profile.clone(),
                    due: now + PAUSE,
                };
                remembered.insert(number.to_owned(), noted);
                self.look_up(waba_id.to_owned(), number.to_owned());
            }
        }
        profile
    }

    /// The id of the account's number that is displayed so. Of numbers without traffic Meta is asked,
    /// once, which holds up the account's own events alone.
    pub async fn with_display(
        self: &Arc<Self>,
        waba_id: &str,
        display: &str,
        numbers: &[String],
    ) -> Option<String> {
        let display = digits(display);
        if let Some(id) = self.displayed(waba_id, &display) {
            return Some(id);
        }
        let unseen = self.unseen(numbers);
        if unseen.is_empty() {
            return None;
        }
        let asked = unseen.iter().map(|id| async move {
            let profile = self.ask(waba_id, id).await;
            let pause = if profile.is_some() { FRESH_FOR } else { PAUSE };
            self.remember(waba_id, id, profile, pause);
        });
        let asked = futures::future::join_all(asked);
        drop(tokio::time::timeout(ASKING_TIME, asked).await);
        self.displayed(waba_id, &display)
    }

    fn unseen(&self, numbers: &[String]) -> Vec<String> {
        let remembered = self.remembered();
        let unseen = numbers.iter().filter(|id| !remembered.contains_key(*id));
        unseen.take(MOST_ASKED).cloned().collect()
    }

    fn displayed(&self, waba_id: &str, display: &str) -> Option<String> {
        let remembered = self.remembered();
        let mut found = remembered.iter().filter(|(_, number)| {
            number.waba_id == waba_id && number.display.as_deref() == Some(display)
        });
        found.next().map(|(id, _)| id.clone())
    }

    fn remember(&self, waba_id: &str, id: &str, profile: Option<NumberProfile>, pause: Duration) {
        let mut remembered = self.remembered();
        let before = remembered.get(id).and_then(|number| number.display.clone());
        let shown = profile
            .as_ref()
            .and_then(|of| of.display_phone_number.as_deref());
        let number = CachedProfile {
            waba_id: waba_id.to_owned(),
            display: before.or(shown.map(digits)),
            profile: profile.map(Arc::new),
            due: Instant::now() + pause,
        };
        remembered.insert(id.to_owned(), number);
    }

    fn look_up(self: &Arc<Self>, waba_id: String, number: String) {
        let numbers = self.clone();
        self.tasks.spawn_alone("profile of a number", async move {
            let asked = numbers.ask(&waba_id, &number);
            let profile = tokio::select! {
                profile = asked => profile,
                () = numbers.tasks.stop().cancelled() => return,
            };
            if profile.is_some() {
                numbers.remember(&waba_id, &number, profile, FRESH_FOR);
            }
        });
    }

    async fn ask(&self, waba_id: &str, number: &str) -> Option<NumberProfile> {
        let token = self.tokens.get(waba_id).await?;
        let call = GraphCall {
            pace: TransferPace::Inbound,
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

fn digits(number: impl AsRef<str>) -> String {
    number
        .as_ref()
        .chars()
        .filter(char::is_ascii_digit)
        .collect()
}
