//! The whole service on real servers: what goes in at ingress, what comes out of RabbitMQ and lies
//! in the object store, and what survives of it when something dies in between.

mod corpus;
mod door;
mod outages;
mod ownership;
mod path;
mod publishing;
mod setting_aside;

use std::collections::HashMap;
use std::time::Duration;

use tests::events::Event;

/// Enough for anything that should happen soon, on a busy machine.
const SOON: Duration = Duration::from_secs(30);

/// The texts of the message events, by sender, in the order of their first publication.
fn first_texts(events: &[Event]) -> HashMap<String, Vec<String>> {
    let mut seen = std::collections::HashSet::new();
    let mut texts: HashMap<String, Vec<String>> = HashMap::new();
    for event in events {
        if seen.insert(event.message_id.clone()) {
            texts
                .entry(event.text("/customer/waId").to_owned())
                .or_default()
                .push(event.text("/message/content/body").to_owned());
        }
    }
    texts
}

/// How many events are repeats of one before.
fn repeats(events: &[Event]) -> usize {
    let ids: std::collections::HashSet<_> = events.iter().map(|event| &event.message_id).collect();
    events.len() - ids.len()
}
