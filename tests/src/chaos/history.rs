//! What was done and seen, as it was done and seen: only ever appended to, in memory for the checker
//! and line by line in files for people.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

/// Number of an item in the history.
pub type ItemId = usize;

/// Milliseconds since 1970: what events say of themselves is compared with it.
pub type Millis = i64;

pub fn now() -> Millis {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    i64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(i64::MAX)
}

/// What becomes of an item if all goes well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Fate {
    /// An event, without a file.
    Event,
    /// An event with a file that can be had.
    File,
    /// An event whose file is larger than the worker takes.
    TooLarge,
    /// Set aside for this reason.
    SetAside(&'static str),
}

/// A message, a status or a change that the sender made up.
#[derive(Debug, Clone, Serialize)]
pub struct Item {
    /// What its event says: see [`super::received::key`].
    pub key: String,
    pub waba_id: String,
    /// Digits; empty for a change of the account.
    pub customer: String,
    pub queue: &'static str,
    pub fate: Fate,
    /// Digest of its file in hex; empty if it has none.
    pub sha256: String,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Post {
    /// In the order of the body.
    pub items: Vec<ItemId>,
    pub body: Bytes,
    pub began: Millis,
    /// `None`: it was cut off, or is still under way.
    pub answer: Option<Answer>,
}

/// How a request ended.
#[derive(Debug, Clone)]
pub struct Answer {
    pub at: Millis,
    pub status: u16,
    pub correlation_id: String,
}

/// A fault that was carried out.
#[derive(Debug, Clone)]
pub struct Fault {
    pub name: String,
    pub may_repeat: bool,
    pub began: Millis,
    /// Healed; the last moment while it isn't.
    pub ended: Millis,
}

#[derive(Debug, Default)]
struct Lists {
    items: Vec<Item>,
    posts: Vec<Post>,
    faults: Vec<Fault>,
    oddities: Vec<String>,
}

/// The history of a run.
#[derive(Debug)]
pub struct History {
    folder: PathBuf,
    lists: Mutex<Lists>,
    posts: Mutex<File>,
    events: Mutex<File>,
    faults: Mutex<File>,
}

impl History {
    /// # Errors
    /// The folder can't be made, or written to.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
        let file = |name: &str| {
            let path = folder.join(name);
            File::create(&path).with_context(|| format!("{}", path.display()))
        };
        Ok(Self {
            folder: folder.to_owned(),
            lists: Mutex::default(),
            posts: Mutex::new(file("posts.jsonl")?),
            events: Mutex::new(file("events.jsonl")?),
            faults: Mutex::new(file("faults.jsonl")?),
        })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn item(&self, item: Item) -> ItemId {
        let mut lists = lock(&self.lists);
        lists.items.push(item);
        lists.items.len() - 1
    }

    /// A request that is about to be sent; its number.
    pub fn posts(&self, items: Vec<ItemId>, body: Bytes) -> usize {
        let (began, mut lists) = (now(), lock(&self.lists));
        let number = lists.posts.len();
        let keys: Vec<_> = items.iter().map(|item| &lists.items[*item].key).collect();
        let text = String::from_utf8_lossy(&body);
        let line = json!({"at": began, "post": number, "items": keys, "body": text});
        write(&self.posts, &line);
        lists.posts.push(Post {
            items,
            body,
            began,
            answer: None,
        });
        number
    }

    pub fn answered(&self, post: usize, status: u16, correlation_id: &str) {
        let answer = Answer {
            at: now(),
            status,
            correlation_id: correlation_id.to_owned(),
        };
        let line = json!({
            "at": answer.at, "post": post, "status": status, "correlationId": correlation_id,
        });
        write(&self.posts, &line);
        lock(&self.lists).posts[post].answer = Some(answer);
    }

    pub fn failed(&self, post: usize, error: &str) {
        write(
            &self.posts,
            &json!({"at": now(), "post": post, "error": error}),
        );
    }

    pub fn event(&self, line: &Value) {
        write(&self.events, line);
    }

    /// A fault strikes; its number.
    pub fn fault_begins(&self, name: String, may_repeat: bool) -> usize {
        let began = now();
        write(&self.faults, &json!({"at": began, "begins": name}));
        let mut lists = lock(&self.lists);
        lists.faults.push(Fault {
            name,
            may_repeat,
            began,
            ended: Millis::MAX,
        });
        lists.faults.len() - 1
    }

    pub fn fault_ends(&self, fault: usize) {
        let ended = now();
        let mut lists = lock(&self.lists);
        let fault = &mut lists.faults[fault];
        fault.ended = ended;
        write(&self.faults, &json!({"at": ended, "ends": fault.name}));
    }

    /// Names of the faults that aren't healed.
    pub fn faults_now(&self) -> Vec<String> {
        let lists = lock(&self.lists);
        let now = lists
            .faults
            .iter()
            .filter(|fault| fault.ended == Millis::MAX);
        now.map(|fault| fault.name.clone()).collect()
    }

    /// Something that must not happen, seen on the way.
    pub fn odd(&self, what: String) {
        write(&self.faults, &json!({"at": now(), "odd": what}));
        lock(&self.lists).oddities.push(what);
    }

    pub fn all_items(&self) -> Vec<Item> {
        lock(&self.lists).items.clone()
    }

    pub fn all_posts(&self) -> Vec<Post> {
        lock(&self.lists).posts.clone()
    }

    pub fn all_faults(&self) -> Vec<Fault> {
        lock(&self.lists).faults.clone()
    }

    pub fn oddities(&self) -> Vec<String> {
        lock(&self.lists).oddities.clone()
    }

    /// Posts that were answered 200, and all.
    pub fn progress(&self) -> (usize, usize) {
        let lists = lock(&self.lists);
        let accepted = lists.posts.iter().filter(|post| post.accepted());
        (accepted.count(), lists.posts.len())
    }
}

impl Post {
    pub fn accepted(&self) -> bool {
        self.answer
            .as_ref()
            .is_some_and(|answer| answer.status == 200)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write(file: &Mutex<File>, line: &Value) {
    // What can't be written for people is still in memory for the checker.
    drop(writeln!(lock(file), "{line}"));
}
