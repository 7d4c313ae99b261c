//! Plays Meta for a while: makes items up, posts them in batches, and posts again whatever got no
//! 200, alone, together with newer ones, or in another grouping. Sometimes it repeats what was
//! accepted, and sometimes it overtakes itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::history::{Fate, History, Item, ItemId};
use super::scene::{MEDIA_MAX_BYTES, Scene};
use crate::events::{EVENTS, MESSAGES, STATUSES};
use crate::meta::payload::{self, Number};
use crate::meta::{Sender, webhook};
use crate::neighbours::{Content, Tenant};
use crate::programs::APP_SECRET;

/// Customers of each account.
const CUSTOMERS: u64 = 5;
/// Items that an account holds back at most while nothing is accepted.
const MOST_WAITING: usize = 40;
const MOST_IN_A_BATCH: usize = 8;
/// Accepted items that may come again.
const REMEMBERED: usize = 30;
/// Meta waits longer; the longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How much is sent.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub accounts: usize,
    /// Items per second, of all accounts together
    pub rate: f64,
}

/// Sends until `stop`, and then until all is accepted.
pub async fn send(
    scene: &Arc<Scene>,
    history: &Arc<History>,
    load: Load,
    seed: u64,
    stop: &CancellationToken,
) {
    let mut senders = Vec::new();
    for ingress in &scene.ingress {
        senders.push(Sender::new(ingress.lock().await.webhook_url(), APP_SECRET));
    }
    let mut accounts = JoinSet::new();
    for n in 0..load.accounts {
        let account = Account::new(scene.clone(), history.clone(), senders.clone(), seed, n);
        let every = load.accounts as f64 / load.rate;
        accounts.spawn(account.run(every, stop.clone()));
    }
    while let Some(ended) = accounts.join_next().await {
        if let Err(error) = ended {
            history.odd(format!("the sender failed: {error}"));
        }
    }
}

/// One business account. It posts one body at a time, so that later items of a conversation follow
/// the acceptance of earlier ones, unless it overtakes itself on purpose.
struct Account {
    scene: Arc<Scene>,
    history: Arc<History>,
    senders: Vec<Sender>,
    random: StdRng,
    number: Number,
    /// Another account that sometimes shares a body with this one, with customers of its own.
    guest: Number,
    fate: Option<Fate>,
    serial: u64,
    /// Items with their JSON that aren't accepted yet.
    waiting: VecDeque<Made>,
    accepted: VecDeque<Made>,
}

#[derive(Debug, Clone)]
struct Made {
    id: ItemId,
    waba_id: String,
    place: Place,
    json: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Message,
    Status,
    Change,
}

impl Account {
    fn new(
        scene: Arc<Scene>,
        history: Arc<History>,
        senders: Vec<Sender>,
        seed: u64,
        n: usize,
    ) -> Self {
        let waba_id = |n: usize| format!("1022901{n:08}");
        // The first two are without a tenant, or with one that is suspended.
        let (tenant, fate) = match n {
            0 => (Tenant::Unknown, Some(Fate::SetAside("tenant_unknown"))),
            1 => (Tenant::Suspended, Some(Fate::SetAside("tenant_suspended"))),
            _ => (Tenant::Active, None),
        };
        scene.neighbours.set_tenant(&waba_id(n), tenant);
        Self {
            scene,
            history,
            senders,
            random: StdRng::seed_from_u64(
                seed ^ (n as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            ),
            number: Number::of(waba_id(n)),
            guest: Number::of(waba_id(n + 1000)),
            fate,
            serial: n as u64 * 10_000_000,
            waiting: VecDeque::new(),
            accepted: VecDeque::new(),
        }
    }

    /// `every`: seconds from item to item, on average.
    async fn run(mut self, every: f64, stop: CancellationToken) {
        let mut pause = Duration::ZERO;
        while !stop.is_cancelled() || !self.waiting.is_empty() {
            if !stop.is_cancelled() && self.waiting.len() < MOST_WAITING {
                let items = self.few();
                self.make(items);
                let wait = every * items as f64 * self.random.random_range(0.5..1.5);
                let waiting = tokio::time::sleep(Duration::from_secs_f64(wait));
                stop.run_until_cancelled(waiting).await;
            }
            pause = match self.deliver().await {
                true => Duration::ZERO,
                false => (pause * 2).clamp(Duration::from_millis(50), LONGEST_PAUSE),
            };
            tokio::time::sleep(pause).await;
            if self.chance(5) {
                self.repeat().await;
            }
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    /// Mostly one.
    fn few(&mut self) -> usize {
        let mut items = 1;
        while items < MOST_IN_A_BATCH && self.chance(40) {
            items += 1;
        }
        items
    }

    fn make(&mut self, items: usize) {
        for _ in 0..items {
            let made = match self.random.random_range(0..1000) {
                0..700 => self.text(false),
                700..780 => self.file(),
                780..800 => self.other(),
                800..960 => self.status(),
                960..980 => self.change(),
                // The body is then of two accounts.
                _ if self.fate.is_none() => self.text(true),
                _ => self.text(false),
            };
            self.waiting.push_back(made);
        }
    }

    fn customer(&mut self) -> String {
        // No two accounts have a customer in common, nor an account and its guest.
        let own = self.random.random_range(0..CUSTOMERS);
        format!("4916{:09}", self.serial / 10_000_000 * 100 + own)
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    fn text(&mut self, of_guest: bool) -> Made {
        let (customer, serial) = (self.customer(), self.next_serial());
        let message = payload::text(&customer, &serial.to_string());
        let number = if of_guest { &self.guest } else { &self.number };
        self.message(
            number.waba_id.clone(),
            customer,
            message,
            Fate::Event,
            String::new(),
        )
    }

    fn other(&mut self) -> Made {
        let customer = self.customer();
        let message = match self.random.random_range(0..4) {
            0 => payload::location(&customer),
            1 => payload::reaction(&customer, &payload::wamid(), Some("\u{1f62e}")),
            2 => payload::unsupported(&customer, "poll_creation"),
            _ => payload::unknown(&customer),
        };
        let waba_id = self.number.waba_id.clone();
        self.message(waba_id, customer, message, Fate::Event, String::new())
    }

    fn file(&mut self) -> Made {
        let (customer, serial) = (self.customer(), self.next_serial());
        let media_id = format!("88{serial:013}");
        let (size, fate) = match self.random.random_range(0..20) {
            0 => (MEDIA_MAX_BYTES + 1, Fate::TooLarge),
            _ => (self.random.random_range(1..60_000), Fate::File),
        };
        let content = Content::Sized(size, serial as u8);
        let sha256 = content.digest();
        let (kind, mime_type) = match self.random.random_range(0..3) {
            0 => ("image", "image/jpeg"),
            1 => ("audio", "audio/ogg"),
            _ => ("document", "application/pdf"),
        };
        self.scene
            .neighbours
            .set_content(&media_id, mime_type, content);
        let message = payload::media(&customer, kind, &media_id, mime_type);
        let waba_id = self.number.waba_id.clone();
        self.message(waba_id, customer, message, fate, sha256)
    }

    fn message(
        &mut self,
        waba_id: String,
        customer: String,
        json: Value,
        fate: Fate,
        sha256: String,
    ) -> Made {
        let key = json["id"].as_str().unwrap_or_default().to_owned();
        let item = Item {
            key,
            waba_id,
            customer,
            queue: MESSAGES,
            fate,
            sha256,
        };
        self.made(item, Place::Message, json)
    }

    fn status(&mut self) -> Made {
        let customer = self.customer();
        let status = ["sent", "delivered", "read", "failed"][self.random.random_range(0..4)];
        let json = payload::status(&payload::wamid(), status, &customer);
        let item = Item {
            key: format!("{} {status}", json["id"].as_str().unwrap_or_default()),
            waba_id: self.number.waba_id.clone(),
            customer,
            queue: STATUSES,
            fate: Fate::Event,
            sha256: String::new(),
        };
        self.made(item, Place::Status, json)
    }

    fn change(&mut self) -> Made {
        let key = format!("change-{}", self.next_serial());
        let json = payload::change("account_update", json!({"event": "X", "serial": key}));
        let item = Item {
            key,
            waba_id: self.number.waba_id.clone(),
            customer: String::new(),
            queue: EVENTS,
            fate: Fate::Event,
            sha256: String::new(),
        };
        self.made(item, Place::Change, json)
    }

    fn made(&mut self, mut item: Item, place: Place, json: Value) -> Made {
        item.fate = self.fate.unwrap_or(item.fate);
        let waba_id = item.waba_id.clone();
        let id = self.history.item(item);
        Made {
            id,
            waba_id,
            place,
            json,
        }
    }

    /// Posts what waits, all or the first part of it, once; whether it was accepted.
    async fn deliver(&mut self) -> bool {
        let part = match self.chance(15) {
            true => self.random.random_range(1..=self.waiting.len().max(1)),
            false => self.waiting.len(),
        };
        let batch: Vec<Made> = self.waiting.iter().take(part).cloned().collect();
        if batch.is_empty() {
            return true;
        }
        if batch.len() > 1 && self.chance(6) {
            return self.overtake(&batch).await;
        }
        let accepted = self.post(&batch).await;
        if accepted {
            self.done(&batch);
        }
        accepted
    }

    /// Two bodies at once, or the later one first.
    async fn overtake(&mut self, batch: &[Made]) -> bool {
        let (first, second) = batch.split_at(batch.len() / 2);
        let (first_to, second_to) = (self.any(), self.any());
        let accepted = if self.chance(50) {
            let later = self.post_to(second_to, second).await;
            (self.post_to(first_to, first).await, later)
        } else {
            tokio::join!(
                self.post_to(first_to, first),
                self.post_to(second_to, second)
            )
        };
        if accepted.1 {
            self.done(second);
        }
        if accepted.0 {
            self.done(first);
        }
        accepted.0 && accepted.1
    }

    /// Something accepted comes again, as it was or in another batch.
    async fn repeat(&mut self) {
        if self.accepted.is_empty() {
            return;
        }
        let some = self.random.random_range(0..self.accepted.len());
        let batch: Vec<Made> = self
            .accepted
            .range(some..)
            .take(MOST_IN_A_BATCH)
            .cloned()
            .collect();
        self.post(&batch).await;
    }

    fn done(&mut self, batch: &[Made]) {
        self.waiting
            .retain(|made| batch.iter().all(|done| done.id != made.id));
        self.accepted.extend(batch.iter().cloned());
        let surplus = self.accepted.len().saturating_sub(REMEMBERED);
        self.accepted.drain(..surplus);
    }

    fn any(&mut self) -> usize {
        self.random.random_range(0..self.senders.len())
    }

    async fn post(&mut self, batch: &[Made]) -> bool {
        let to = self.any();
        self.post_to(to, batch).await
    }

    async fn post_to(&self, to: usize, batch: &[Made]) -> bool {
        let (items, body) = self.body(batch);
        let post = self.history.posts(items, body.clone());
        match self.senders[to].post_once(body).await {
            Ok(answer) => {
                let correlation_id = answer.header("x-correlation-id");
                self.history.answered(post, answer.status, correlation_id);
                answer.status == 200
            }
            Err(error) => {
                self.history.failed(post, &format!("{error:#}"));
                false
            }
        }
    }

    /// The body, and its items in its order: messages before statuses before changes, the guest
    /// behind the account.
    fn body(&self, batch: &[Made]) -> (Vec<ItemId>, Bytes) {
        let mut ids = Vec::new();
        let mut entries = Vec::new();
        for number in [&self.number, &self.guest] {
            let mut of = |place: Place| {
                let made = batch.iter();
                let made =
                    made.filter(|made| made.waba_id == number.waba_id && made.place == place);
                let (found, json): (Vec<_>, Vec<_>) =
                    made.map(|made| (made.id, made.json.clone())).unzip();
                ids.extend(found);
                json
            };
            let (messages, statuses) = (of(Place::Message), of(Place::Status));
            let mut changes = Vec::new();
            if !messages.is_empty() || !statuses.is_empty() {
                changes.push(number.messages_and_statuses(messages, statuses));
            }
            changes.extend(of(Place::Change));
            if !changes.is_empty() {
                entries.push(payload::entry(&number.waba_id, changes));
            }
        }
        (ids, webhook(entries))
    }
}
