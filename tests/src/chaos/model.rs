//! What must be true of a history, told without knowing how the programs work: what went in and what
//! came out, by the promises of the README.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::Serialize;

use super::history::{Fate, Fault, Item, ItemId, Millis, Post};
use super::received::Received;

/// A fault may have begun its effect this long before it was seen.
const MARGIN: Millis = 1000;

/// What was seen at both ends, and what is left in between.
#[derive(Debug, Default)]
pub struct Seen {
    pub items: Vec<Item>,
    pub posts: Vec<Post>,
    pub faults: Vec<Fault>,
    pub received: Vec<Received>,
    pub set_aside: Vec<SetAside>,
    /// Correlation ids of posts that were answered 200 because their bodies went to the spool
    pub spooled: HashSet<String>,
    /// Bodies that lie in streams and in the spool
    pub queued: Vec<String>,
    /// `eventId`s that the State Manager was told
    pub told: HashSet<String>,
}

/// Of an object of the failed store.
#[derive(Debug, Clone)]
pub struct SetAside {
    pub reason: String,
    pub body: Vec<u8>,
    /// Numbers of its items in the body's order
    pub items: Vec<usize>,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    pub kind: &'static str,
    pub what: String,
}

/// What the checker found.
#[derive(Debug, Default, Serialize)]
pub struct Findings {
    pub violations: Vec<Violation>,
    pub accepted: usize,
    pub published: usize,
    /// By reason
    pub set_aside: BTreeMap<String, usize>,
    pub queued: usize,
    /// Further deliveries of one publication, since an acknowledgement of the consumer's was lost
    pub redelivered: usize,
    /// By cause
    pub repeats: BTreeMap<String, usize>,
    pub conversations: usize,
    /// Pairs of items of a conversation whose order was certain
    pub ordered_pairs: usize,
    /// Pairs of items that the worker had made in order, and of which RabbitMQ delivered the first
    /// again, after the second: it keeps the order of publications, not that of redeliveries
    pub reordered_by_broker: usize,
    pub spooled: usize,
    pub files_stored: usize,
    pub files_followed_up: usize,
    pub files_failed: usize,
    /// From the first 200 to the event, in milliseconds
    pub p50_ms: Millis,
    pub p99_ms: Millis,
    pub max_ms: Millis,
    /// By when they were accepted
    pub minutes: Vec<Minute>,
}

/// A minute of a run.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Minute {
    pub events: usize,
    pub p50_ms: Millis,
    pub p99_ms: Millis,
}

/// Judges.
pub fn check(seen: &Seen) -> Findings {
    let mut checker = Checker::new(seen);
    checker.answers();
    checker.events();
    checker.completeness();
    checker.order();
    checker.repeats();
    checker.files();
    checker.told();
    checker.latency();
    checker.findings
}

struct Checker<'a> {
    seen: &'a Seen,
    by_key: HashMap<&'a str, ItemId>,
    /// Posts of each item, with its place in the body
    posts: Vec<Vec<(usize, usize)>>,
    /// First deliveries of items' own events (follow-ups apart), in their order
    first: Vec<(ItemId, &'a Received)>,
    published: HashSet<ItemId>,
    findings: Findings,
}

impl<'a> Checker<'a> {
    fn new(seen: &'a Seen) -> Self {
        let keys = seen.items.iter().enumerate();
        let mut posts = vec![Vec::new(); seen.items.len()];
        for (number, post) in seen.posts.iter().enumerate() {
            for (place, item) in post.items.iter().enumerate() {
                posts[*item].push((number, place));
            }
        }
        Self {
            seen,
            by_key: keys.map(|(id, item)| (item.key.as_str(), id)).collect(),
            posts,
            first: Vec::new(),
            published: HashSet::new(),
            findings: Findings::default(),
        }
    }

    fn violation(&mut self, kind: &'static str, what: String) {
        self.findings.violations.push(Violation { kind, what });
    }

    fn accepted(&self, item: ItemId) -> bool {
        let mut posts = self.posts[item].iter();
        posts.any(|(post, _)| self.seen.posts[*post].accepted())
    }

    /// 200, or 503 and Meta sends it again; nothing else.
    fn answers(&mut self) {
        for (number, post) in self.seen.posts.iter().enumerate() {
            if let Some(answer) = &post.answer
                && ![200, 503].contains(&answer.status)
            {
                self.violation(
                    "answer",
                    format!("post {number} was answered {}", answer.status),
                );
            }
        }
    }

    /// Each event is of an item that was sent, says what it says, and has one id.
    fn events(&mut self) {
        let mut ids: HashMap<(&str, &str), &str> = HashMap::new();
        let mut known: HashSet<&str> = HashSet::new();
        for one in &self.seen.received {
            let Some(&id) = self.by_key.get(one.key.as_str()) else {
                self.violation(
                    "invented",
                    format!("{} {} `{}`", one.event_type, one.event_id, one.key),
                );
                continue;
            };
            let event = (one.key.as_str(), one.event_type.as_str());
            let other = *ids.entry(event).or_insert(&one.event_id);
            if other != one.event_id {
                let what = format!("{} has the ids {other} and {}", one.key, one.event_id);
                self.violation("doubled", what);
            }
            if !known.insert(&one.event_id) {
                continue;
            }
            if let Some(problem) = misplaced(one, &self.seen.items[id]) {
                self.violation("content", format!("{}: {problem}", one.key));
            }
            if !one.event_type.starts_with("media.") {
                self.published.insert(id);
                self.first.push((id, one));
            }
        }
    }

    /// Accepted = published ∪ set aside ∪ still queued.
    fn completeness(&mut self) {
        let mut aside: HashMap<ItemId, &str> = HashMap::new();
        let bodies: HashMap<&[u8], &Post> = self
            .seen
            .posts
            .iter()
            .map(|post| (&post.body[..], post))
            .collect();
        for object in &self.seen.set_aside {
            let Some(post) = bodies.get(&object.body[..]) else {
                let body = String::from_utf8_lossy(&object.body);
                let start: String = body.chars().take(100).collect();
                let what = format!("{}: nobody sent `{start}`", object.reason);
                self.violation("failed store", what);
                continue;
            };
            for number in &object.items {
                if let Some(item) = post.items.get(*number) {
                    aside.insert(*item, &object.reason);
                }
            }
        }
        for (id, item) in self.seen.items.iter().enumerate() {
            let accepted = self.accepted(id);
            self.findings.accepted += usize::from(accepted);
            let (published, reason) = (self.published.contains(&id), aside.get(&id));
            self.findings.published += usize::from(published);
            if let Some(reason) = reason {
                *self
                    .findings
                    .set_aside
                    .entry((*reason).to_owned())
                    .or_default() += 1;
            }
            let expected = match item.fate {
                Fate::SetAside(expected) => Some(expected),
                Fate::Event | Fate::File | Fate::TooLarge => None,
            };
            if published && expected.is_some() {
                self.violation("set aside", format!("{} was published", item.key));
            }
            if let Some(reason) = reason
                && Some(*reason) != expected
            {
                self.violation("set aside", format!("{} as {reason}", item.key));
            }
            if !accepted || published || reason.is_some() {
                continue;
            }
            let key = item.key.split(' ').next().unwrap_or_default();
            if self.seen.queued.iter().any(|body| body.contains(key)) {
                self.findings.queued += 1;
            } else {
                let what = format!("{} of {} to {}", item.key, item.customer, item.waba_id);
                self.violation("lost", what);
            }
        }
    }

    /// First publications of a conversation into a queue.
    fn order(&mut self) {
        type Conversations<'a> = BTreeMap<(&'a str, &'a str, &'a str), Vec<(ItemId, &'a Received)>>;
        let mut conversations = Conversations::new();
        for (id, one) in &self.first {
            let item = &self.seen.items[*id];
            let conversation = (one.queue, item.waba_id.as_str(), item.customer.as_str());
            conversations
                .entry(conversation)
                .or_default()
                .push((*id, one));
        }
        self.findings.conversations = conversations.len();
        for items in conversations.values() {
            for (n, (later, one)) in items.iter().enumerate() {
                for (earlier, other) in &items[..n] {
                    if self.surely_before(*later, *earlier) {
                        if one.redelivered && one.processed <= other.processed {
                            self.findings.reordered_by_broker += 1;
                            continue;
                        }
                        let what = format!("{} came after {}", one.key, other.key);
                        self.violation("order", what);
                    } else if self.surely_before(*earlier, *later) {
                        self.findings.ordered_pairs += 1;
                    }
                }
            }
        }
    }

    /// Whether `a` lies before `b` in the stream, however each post went: whenever `b` was posted, `a`
    /// had been accepted for the stream, or stood before it in the same body.
    fn surely_before(&self, a: ItemId, b: ItemId) -> bool {
        let accepted = self.posts[a].iter().filter_map(|(post, _)| {
            let post = &self.seen.posts[*post];
            let answer = post.answer.as_ref().filter(|_| post.accepted())?;
            let direct = !self.seen.spooled.contains(&answer.correlation_id);
            direct.then_some(answer.at)
        });
        let accepted = accepted.min().unwrap_or(Millis::MAX);
        self.posts[b].iter().all(|(number, place)| {
            let in_the_same = || {
                let mut of_a = self.posts[a].iter();
                of_a.any(|(other, before)| other == number && before < place)
            };
            accepted < self.seen.posts[*number].began || in_the_same()
        })
    }

    /// Each repeat has a cause, and is a copy.
    fn repeats(&mut self) {
        let mut copies: BTreeMap<&str, Vec<&Received>> = BTreeMap::new();
        for one in &self.seen.received {
            copies.entry(&one.event_id).or_default().push(one);
        }
        for (event_id, copies) in copies {
            let (first, further) = (copies[0], &copies[1..]);
            if let Some(other) = further.iter().find(|one| differs(first, one)) {
                let what = format!("{event_id} {}: a copy at {} differs", first.key, other.at);
                self.violation("copies", what);
            }
            for one in further {
                if one.redelivered {
                    self.findings.redelivered += 1;
                    continue;
                }
                let Some(cause) = self.cause(first, one) else {
                    let what = format!("{} at {} and {}", first.key, first.at, one.at);
                    self.violation("repeat", what);
                    continue;
                };
                *self.findings.repeats.entry(cause).or_default() += 1;
            }
        }
    }

    /// The last fault that can have made a worker publish again what it, or another one, had.
    fn cause(&self, first: &Received, again: &Received) -> Option<String> {
        let (from, to) = (first.processed.min(again.processed), first.at.max(again.at));
        let between =
            self.seen.faults.iter().filter(|fault| {
                fault.may_repeat && fault.began <= to && fault.ended >= from - MARGIN
            });
        between
            .max_by_key(|fault| fault.began)
            .map(|fault| fault.name.clone())
    }

    /// Each file is where its event says; exactly one follow-up for each that was pending.
    fn files(&mut self) {
        let mut follow_ups: HashMap<&str, BTreeSet<&str>> = HashMap::new();
        let mut pending: HashSet<&str> = HashSet::new();
        for one in &self.seen.received {
            if one.event_type.starts_with("media.") {
                follow_ups
                    .entry(&one.key)
                    .or_default()
                    .insert(&one.event_id);
            } else if one
                .media
                .as_ref()
                .is_some_and(|media| media.status == "pending")
            {
                pending.insert(&one.key);
            }
        }
        let mut seen = HashSet::new();
        for one in &self.seen.received {
            let (Some(media), Some(&id)) = (&one.media, self.by_key.get(one.key.as_str())) else {
                continue;
            };
            let item = &self.seen.items[id];
            let right = match (item.fate, media.status.as_str()) {
                (Fate::File, "stored") => media.sha256 == item.sha256,
                (Fate::File | Fate::TooLarge, "pending") => true,
                (Fate::TooLarge, "failed") => media.error == "too_large",
                _ => false,
            };
            if !right {
                self.violation("file", format!("{}: {media:?}", one.key));
            }
            if seen.insert(&one.event_id) {
                match media.status.as_str() {
                    "stored" => self.findings.files_stored += 1,
                    "failed" => self.findings.files_failed += 1,
                    _ => {}
                }
            }
        }
        for (id, one) in &self.first {
            let fate = self.seen.items[*id].fate;
            if one.media.is_none() && matches!(fate, Fate::File | Fate::TooLarge) {
                let what = format!("{}: its event says nothing of it", one.key);
                self.findings
                    .violations
                    .push(Violation { kind: "file", what });
            }
        }
        self.findings.files_followed_up = follow_ups.len();
        for (id, _) in self.first.clone() {
            let key = self.seen.items[id].key.as_str();
            let count = follow_ups.get(key).map_or(0, BTreeSet::len);
            if count != usize::from(pending.contains(key)) {
                let what = format!(
                    "{key}: {count} follow-ups, pending: {}",
                    pending.contains(key)
                );
                self.violation("follow-up", what);
            }
        }
    }

    fn told(&mut self) {
        for (_, one) in self.first.clone() {
            if one.event_type == "message.received" && !self.seen.told.contains(&one.event_id) {
                self.violation("state", format!("{} was not told", one.key));
            }
        }
    }

    fn latency(&mut self) {
        let first_accepted = |id: ItemId| {
            let posts = self.posts[id]
                .iter()
                .map(|(post, _)| &self.seen.posts[*post]);
            let answers = posts.filter(|post| post.accepted());
            answers
                .filter_map(|post| Some(post.answer.as_ref()?.at))
                .min()
        };
        let times = self.first.iter().filter_map(|(id, one)| {
            let accepted = first_accepted(*id)?;
            Some((accepted, (one.at - accepted).max(0)))
        });
        let times: Vec<(Millis, Millis)> = times.collect();
        let start = times.iter().map(|(accepted, _)| *accepted).min();
        let mut minutes: Vec<Vec<Millis>> = Vec::new();
        for (accepted, took) in &times {
            let minute = (accepted - start.unwrap_or_default()) as usize / 60_000;
            minutes.resize(minutes.len().max(minute + 1), Vec::new());
            minutes[minute].push(*took);
        }
        let minutes = minutes.into_iter().map(|mut took| {
            took.sort_unstable();
            Minute {
                events: took.len(),
                p50_ms: quantile(&took, 50),
                p99_ms: quantile(&took, 99),
            }
        });
        self.findings.minutes = minutes.collect();
        let mut times: Vec<Millis> = times.into_iter().map(|(_, took)| took).collect();
        times.sort_unstable();
        self.findings.p50_ms = quantile(&times, 50);
        self.findings.p99_ms = quantile(&times, 99);
        self.findings.max_ms = quantile(&times, 100);
        let accepted = self.seen.posts.iter().filter(|post| post.accepted());
        let spooled = accepted.filter_map(|post| post.answer.as_ref());
        let spooled = spooled.filter(|answer| self.seen.spooled.contains(&answer.correlation_id));
        self.findings.spooled = spooled.count();
    }
}

/// What an event says of its item and shouldn't.
fn misplaced(one: &Received, item: &Item) -> Option<String> {
    let pairs = [
        ("queue", one.queue, item.queue),
        ("account", one.waba_id.as_str(), item.waba_id.as_str()),
        ("customer", one.customer.as_str(), item.customer.as_str()),
    ];
    let wrong = pairs.iter().find(|(_, is, expected)| is != expected);
    if let Some((name, is, expected)) = wrong {
        return Some(format!("{name} is `{is}`, not `{expected}`"));
    }
    if one.tenant_id != format!("tenant-{}", item.waba_id) {
        return Some(format!("tenant is `{}`", one.tenant_id));
    }
    if one.raw_key.is_empty() {
        return Some("no raw object".to_owned());
    }
    one.malformed.clone()
}

/// Whether a copy says something else. A file that was there at the first publication may be
/// pending at the second, with its store away; what was said of one that wasn't there holds.
fn differs(first: &Received, again: &Received) -> bool {
    let media = match (&first.media, &again.media) {
        (Some(first), Some(again)) if first.status == "stored" => {
            again != first && again.status != "pending"
        }
        (first, again) => first != again,
    };
    media || first.digest != again.digest
}

/// The least value that this share (in percent) of them, which are sorted, doesn't exceed; 0 of none.
fn quantile(sorted: &[Millis], share: usize) -> Millis {
    let last = sorted.len().max(1) - 1;
    let at = (sorted.len() * share / 100).min(last);
    sorted.get(at).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::history::Answer;
    use super::super::received::MediaSaid;
    use super::*;

    /// A history of text messages of one conversation, each posted and accepted alone, at 1000, 2000 …,
    /// and published 10 ms after its post.
    fn good(count: usize) -> Seen {
        let mut seen = Seen::default();
        for n in 0..count {
            let (key, at) = (format!("wamid.{n}"), (n as Millis + 1) * 1000);
            seen.items.push(Item {
                key: key.clone(),
                waba_id: "1".to_owned(),
                customer: "49".to_owned(),
                queue: "q",
                fate: Fate::Event,
                sha256: String::new(),
            });
            seen.posts.push(post(vec![n], at));
            seen.received.push(received(&key, at + 10));
            seen.told.insert(format!("id of {key}"));
        }
        seen
    }

    fn post(items: Vec<ItemId>, at: Millis) -> Post {
        let answer = Answer {
            at: at + 5,
            status: 200,
            correlation_id: format!("c{at}"),
        };
        Post {
            body: Bytes::from(format!("{items:?}")),
            items,
            began: at,
            answer: Some(answer),
        }
    }

    fn received(key: &str, at: Millis) -> Received {
        Received {
            at,
            queue: "q",
            event_id: format!("id of {key}"),
            event_type: "message.received".to_owned(),
            key: key.to_owned(),
            redelivered: false,
            processed: at - 1,
            waba_id: "1".to_owned(),
            tenant_id: "tenant-1".to_owned(),
            customer: "49".to_owned(),
            raw_key: "raw".to_owned(),
            media: None,
            digest: 0,
            malformed: None,
        }
    }

    fn kinds(seen: &Seen) -> Vec<&'static str> {
        let violations = check(seen).violations;
        violations.iter().map(|violation| violation.kind).collect()
    }

    fn fault(began: Millis, ended: Millis, may_repeat: bool) -> Fault {
        Fault {
            name: "worker 1 killed".to_owned(),
            may_repeat,
            began,
            ended,
        }
    }

    #[test]
    fn a_good_history_is_good() {
        let seen = good(3);
        assert_eq!(kinds(&seen), Vec::<&str>::new());
        assert_eq!(check(&seen).ordered_pairs, 3);
    }

    #[test]
    fn what_is_missing_is_lost_unless_it_waits() {
        let mut seen = good(3);
        seen.received.remove(1);
        assert_eq!(kinds(&seen), ["lost"]);
        seen.queued.push(r#"{"id":"wamid.1"}"#.to_owned());
        assert_eq!(kinds(&seen), Vec::<&str>::new());
        seen.queued.clear();
        seen.posts[1].answer = None;
        assert_eq!(kinds(&seen), Vec::<&str>::new());
    }

    #[test]
    fn what_nobody_sent_is_invented() {
        let mut seen = good(1);
        seen.received.push(received("wamid.x", 5000));
        assert_eq!(kinds(&seen), ["invented"]);
    }

    #[test]
    fn a_second_id_is_a_double() {
        let mut seen = good(1);
        let mut other = received("wamid.0", 5000);
        other.event_id = "another".to_owned();
        seen.told.insert("another".to_owned());
        seen.received.push(other);
        assert!(kinds(&seen).contains(&"doubled"));
    }

    #[test]
    fn order_holds_where_it_is_certain() {
        let mut seen = good(3);
        seen.received.swap(0, 2);
        assert_eq!(kinds(&seen), ["order"; 3]);
        // The third was posted earlier too, without an answer: it may lie before the others.
        seen.posts.push(Post {
            answer: None,
            ..post(vec![2], 500)
        });
        assert_eq!(kinds(&seen), ["order"]);
        // The first went through the spool.
        seen.spooled.insert("c1000".to_owned());
        assert_eq!(kinds(&seen), Vec::<&str>::new());
        // In one body the order is the body's.
        let mut seen = good(2);
        seen.posts = vec![post(vec![0, 1], 1000)];
        assert_eq!(kinds(&seen), Vec::<&str>::new());
        seen.received.swap(0, 1);
        assert_eq!(kinds(&seen), ["order"]);
    }

    #[test]
    fn the_order_of_redeliveries_is_the_brokers() {
        let mut seen = good(2);
        seen.received.swap(0, 1);
        seen.received[1].redelivered = true;
        assert_eq!(kinds(&seen), Vec::<&str>::new());
        assert_eq!(check(&seen).reordered_by_broker, 1);
        // The worker had made it after the other.
        seen.received[1].processed = seen.received[0].processed + 1;
        assert_eq!(kinds(&seen), ["order"]);
        // Not the late one was delivered again, but the other.
        seen.received[1].processed = seen.received[0].processed - 1;
        seen.received[0].redelivered = true;
        seen.received[1].redelivered = false;
        assert_eq!(kinds(&seen), ["order"]);
    }

    #[test]
    fn a_repeat_needs_a_cause_and_is_a_copy() {
        let mut seen = good(1);
        seen.received.push(received("wamid.0", 6000));
        assert_eq!(kinds(&seen), ["repeat"]);
        seen.faults.push(fault(3000, 4000, false));
        assert_eq!(kinds(&seen), ["repeat"]);
        seen.faults.push(fault(3000, 4000, true));
        assert_eq!(kinds(&seen), Vec::<&str>::new());
        assert_eq!(check(&seen).repeats["worker 1 killed"], 1);
        seen.received[1].digest = 1;
        assert_eq!(kinds(&seen), ["copies"]);
        seen.faults.clear();
        seen.received[1].digest = 0;
        seen.received[1].redelivered = true;
        assert_eq!(kinds(&seen), Vec::<&str>::new());
    }

    #[test]
    fn what_was_pending_has_one_follow_up() {
        let said = |status: &str, sha256: &str| {
            Some(MediaSaid {
                status: status.to_owned(),
                key: "k".to_owned(),
                sha256: sha256.to_owned(),
                error: String::new(),
            })
        };
        let mut seen = good(1);
        seen.items[0].fate = Fate::File;
        seen.items[0].sha256 = "right".to_owned();
        assert_eq!(kinds(&seen), ["file"]);
        seen.received[0].media = said("stored", "right");
        assert_eq!(kinds(&seen), Vec::<&str>::new());
        seen.received[0].media = said("stored", "wrong");
        assert_eq!(kinds(&seen), ["file"]);
        seen.received[0].media = said("pending", "");
        assert_eq!(kinds(&seen), ["follow-up"]);
        let mut stored = received("wamid.0", 1100);
        stored.event_type = "media.stored".to_owned();
        stored.event_id = "follow-up".to_owned();
        stored.media = said("stored", "right");
        seen.received.push(stored.clone());
        assert_eq!(kinds(&seen), Vec::<&str>::new());
        stored.event_type = "media.failed".to_owned();
        stored.event_id = "other follow-up".to_owned();
        seen.received.push(stored);
        assert_eq!(kinds(&seen), ["follow-up"]);
    }

    #[test]
    fn only_what_should_be_is_set_aside() {
        let mut seen = good(2);
        seen.received.remove(1);
        seen.set_aside.push(SetAside {
            reason: "tenant_unknown".to_owned(),
            body: b"[1]".to_vec(),
            items: vec![0],
        });
        assert_eq!(kinds(&seen), ["set aside"]);
        seen.items[1].fate = Fate::SetAside("tenant_unknown");
        assert_eq!(kinds(&seen), Vec::<&str>::new());
        seen.set_aside[0].body = b"else".to_vec();
        assert_eq!(kinds(&seen), ["failed store", "lost"]);
    }

    #[test]
    fn anything_but_200_and_503_is_told() {
        let mut seen = good(1);
        let mut odd = post(vec![0], 500);
        if let Some(answer) = &mut odd.answer {
            answer.status = 500;
        }
        seen.posts.push(odd);
        assert_eq!(kinds(&seen), ["answer"]);
    }
}
