//! A new version comes: every program is told to stop and started again, one after the other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tests::Stage;
use tests::events::Event;
use tests::meta::Sender;
use tests::meta::payload::{self, Number};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::outages::nothing_was_set_aside;
use crate::ownership::owners;
use crate::{SOON, drained, repeats};

const CONVERSATIONS: usize = 60;
/// Of each conversation. All together 120 messages a second.
const INTERVAL: Duration = Duration::from_millis(500);
const NOBODY: usize = usize::MAX;

/// What the sender notices.
#[derive(Default)]
struct Noticed {
    over: AtomicBool,
    /// Which ingress is being started again.
    away: AtomicUsize,
    /// What another one than that did wrong.
    refused: Mutex<Vec<String>>,
    /// By customer and number: when it was answered 200.
    accepted: Mutex<HashMap<(String, String), Instant>>,
}

/// One conversation, each message posted until it is accepted: by the ingress whose turn it is, and if
/// that doesn't take it, by the other.
async fn converse(noticed: Arc<Noticed>, senders: Vec<Sender>, number: Number, customer: String) {
    let mut tick = tokio::time::interval(INTERVAL);
    let mut turn = 0;
    for n in 0.. {
        if noticed.over.load(Ordering::SeqCst) {
            return;
        }
        tick.tick().await;
        let body = number.message(payload::text(&customer, &n.to_string()));
        loop {
            turn = (turn + 1) % senders.len();
            let before = noticed.away.load(Ordering::SeqCst);
            let problem = match senders[turn].post_once(body.clone()).await {
                Ok(answer) if answer.status == 200 => break,
                Ok(answer) => answer.status.to_string(),
                Err(error) => format!("{error:#}"),
            };
            if ![before, noticed.away.load(Ordering::SeqCst)].contains(&turn) {
                noticed.refused.lock().expect("no panic").push(problem);
            }
        }
        let mut accepted = noticed.accepted.lock().expect("no panic");
        accepted.insert((customer.clone(), n.to_string()), Instant::now());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_programs_restarted_in_turn_lose_refuse_repeat_and_reorder_nothing() {
    let stage = Stage::new().await;
    let (mut ingress, mut workers) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        // As behind a balancer: who sends turns away before connections are closed, else a request may
        // go out on one that is just being closed.
        let one = stage.ingress().env("SHUTDOWN_DELAY", "2s");
        ingress.push(one.start().await);
    }
    for _ in 0..3 {
        workers.push(stage.worker().start().await);
    }
    let events = stage.events();
    let noticed = Arc::new(Noticed::default());
    noticed.away.store(NOBODY, Ordering::SeqCst);
    let senders: Vec<_> = ingress.iter().map(|one| stage.sender(one)).collect();
    let numbers: Vec<_> = (0..20).map(|_| Number::fresh()).collect();
    let mut sending = JoinSet::new();
    for conversation in 0..CONVERSATIONS {
        let number = numbers[conversation % numbers.len()].clone();
        let customer = format!("49160{conversation:07}");
        sending.spawn(converse(noticed.clone(), senders.clone(), number, customer));
    }
    events.wait_for(2 * CONVERSATIONS, SOON).await;
    for worker in &mut workers {
        assert!(worker.stop(SOON).await, "a worker ends when it is told to");
        // What it owned is handed over, not left to run out.
        assert!(owners(&stage).await.len() <= 2);
        worker.restart().await;
    }
    for (n, ingress) in ingress.iter_mut().enumerate() {
        noticed.away.store(n, Ordering::SeqCst);
        assert!(ingress.stop(SOON).await, "ingress ends when it is told to");
        ingress.restart().await;
        noticed.away.store(NOBODY, Ordering::SeqCst);
    }
    noticed.over.store(true, Ordering::SeqCst);
    while let Some(sent) = sending.join_next().await {
        sent.expect("no panic");
    }
    let accepted = noticed.accepted.lock().expect("no panic").clone();
    let all = |seen: &[Event]| seen.len() - repeats(seen) >= accepted.len();
    let seen = events.wait_until(SOON, all).await;
    drained(&stage).await;
    nothing_was_set_aside(&stage).await;
    for (customer, texts) in crate::first_texts(&seen) {
        let expected: Vec<_> = (0..texts.len()).map(|n| n.to_string()).collect();
        assert_eq!(texts, expected, "{customer}");
    }
    let mut waited: Vec<_> = seen
        .iter()
        .map(|event| {
            let key =
                ["/customer/waId", "/message/content/body"].map(|of| event.text(of).to_owned());
            let [customer, text] = key;
            event
                .at
                .saturating_duration_since(accepted[&(customer, text)])
        })
        .collect();
    waited.sort_unstable();
    let (p99, longest) = (waited[waited.len() * 99 / 100], waited[waited.len() - 1]);
    let (total, repeats) = (accepted.len(), repeats(&seen));
    let told = format!("{total} messages, {repeats} repeats, p99 {p99:?}, longest {longest:?}");
    #[allow(
        clippy::print_stdout,
        reason = "a figure for people who run with --nocapture"
    )]
    {
        println!("{told}");
    }
    let refused = noticed.refused.lock().expect("no panic");
    assert_eq!(*refused, Vec::<String>::new());
    assert_eq!((seen.len() - repeats, repeats), (total, 0), "{told}");
}
