//! A partition's stream as its owner sees it: fenced reads, the one acknowledgement, the
//! later-list. Every script checks the lease, so a worker that lost it changes nothing.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::streams::StreamRangeReply;
use redis::{FromRedisValue, RedisError, RedisResult, Value};
use shared::keys::{CONSUMER, GROUP, Keys};
use shared::redis::{Connection, Redis};
use shared::script::Script;
use shared::webhook::Identity;
use strum::{EnumString, IntoStaticStr};

use crate::metrics::Backlog;
use crate::read::leases::Tenure;

/// Most entries of one read.
const READ_COUNT: usize = 256;
/// Pieces of the later-list worked off side by side, and their bytes: one may have some MB.
const LATER_COUNT: usize = 64;
const LATER_BYTES: usize = 4 * 1024 * 1024;
/// Pieces that one call looks at.
const LATER_LOOKED_AT: usize = 500;
/// How long a reader sleeps on an empty stream before it looks by itself.
const BLOCK: Duration = Duration::from_secs(2);

/// Why a script was not done.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("the partition's lease is another worker's")]
    NotOwner,
    #[error(transparent)]
    Redis(RedisError),
}

impl From<RedisError> for StreamError {
    fn from(error: RedisError) -> Self {
        if error.code() == Some("NOTOWNER") {
            Self::NotOwner
        } else {
            Self::Redis(error)
        }
    }
}

/// An entry as it lies in the stream. `fields` is `None` if somebody deleted it while it was
/// pending.
#[derive(Debug)]
pub struct RawEntry {
    pub id: String,
    pub fields: Option<HashMap<String, Vec<u8>>>,
}

impl FromRedisValue for RawEntry {
    fn from_redis_value(value: Value) -> Result<Self, redis::ParsingError> {
        let (id, fields) = redis::from_redis_value(value)?;
        Ok(Self { id, fields })
    }
}

/// What a read brought.
#[derive(Debug)]
pub struct Read {
    pub entries: Vec<RawEntry>,
    /// The last entry ever delivered to the group.
    pub last_delivered: String,
    /// How many entries are delivered and not acknowledged.
    pub pending: usize,
    /// Nothing was read: another entry than the expected one was the last to be delivered.
    pub moved: bool,
}

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadFrom {
    /// Entries that were delivered and not acknowledged, after this id.
    Pending(String),
    /// New ones, if the last one that was delivered has this id.
    New(String),
}

/// What an acknowledged entry still owes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owed {
    Object(OwedObject),
    State(OwedState),
    Settle(Settle),
    Media(OwedMedia),
}

/// An entry that is done, and what it still owes.
#[derive(Debug, Clone, Copy)]
pub struct Finished<'a> {
    pub id: &'a str,
    pub owed: &'a [Owed],
}

/// The place of an object that was put back, now that its entry is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settle {
    pub source: String,
    /// Empty: it came back by itself.
    pub replay_id: String,
    pub settled: Settled,
}

/// What became of an object that was put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Settled {
    /// All of it went out.
    Out,
    /// What of it was set aside again lies under other keys.
    Again,
    /// The same under its own key.
    Same,
}

/// The field of [`Keys::settled`] that counts how often an object was settled, and every 256th other one:
/// the counts are kept for good, and few.
pub fn settled_field(source: &str) -> String {
    let identity = Identity::of_body(source.as_bytes());
    identity.short().chars().take(2).collect()
}

/// An object to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwedObject {
    pub key: String,
    /// Attributes of the object, as JSON.
    pub attributes: String,
    /// Empty: the entry's own body.
    pub body: Vec<u8>,
}

/// What the State Manager is to be told of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwedState {
    /// Empty in pieces of a version that left it out.
    pub tenant_id: String,
    /// As [`crate::ask::state::told`] made it.
    pub told: String,
}

/// What kind of piece of the later-list it is: its field `k`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OwedKind {
    Object,
    State,
    Settle,
    Media,
}

impl OwedKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "put",
            Self::State => "state",
            Self::Settle => "settle",
            Self::Media => "media",
        }
    }
}

impl Owed {
    pub fn kind(&self) -> OwedKind {
        match self {
            Self::Object(_) => OwedKind::Object,
            Self::State(_) => OwedKind::State,
            Self::Settle(_) => OwedKind::Settle,
            Self::Media(_) => OwedKind::Media,
        }
    }

    /// Which pieces are left out together when nobody answers for one: all of a kind, or of a kind and
    /// tenant, since the State Manager may fail for one tenant alone.
    pub fn group(&self) -> String {
        let kind = self.kind().name();
        match self {
            Self::Object(_) | Self::Settle(_) | Self::Media(_) => kind.to_owned(),
            Self::State(state) => format!("{kind}:{}", state.tenant_id),
        }
    }

    /// The fields `o`, `m` and `b`.
    fn fields(&self) -> (&str, &str, &[u8]) {
        match self {
            Self::Object(object) => (&object.key, &object.attributes, &object.body),
            Self::State(state) => (&state.tenant_id, &state.told, &[]),
            Self::Settle(settle) => {
                let settled: &'static str = settle.settled.into();
                (&settle.source, settled, settle.replay_id.as_bytes())
            }
            Self::Media(media) => (&media.tenant_id, &media.head, &media.body),
        }
    }

    /// `None` for a kind that a later version added.
    fn of(kind: &str, key: String, attributes: String, body: Vec<u8>) -> Option<Self> {
        if kind == OwedKind::Object.name() {
            Some(Self::Object(OwedObject {
                key,
                attributes,
                body,
            }))
        } else if kind == OwedKind::State.name() {
            Some(Self::State(OwedState {
                tenant_id: key,
                told: attributes,
            }))
        } else if kind == OwedKind::Settle.name() {
            Some(Self::Settle(Settle {
                source: key,
                replay_id: String::from_utf8(body).ok()?,
                settled: attributes.parse().ok()?,
            }))
        } else {
            None
        }
    }
}

/// One piece of the later-list.
#[derive(Debug)]
pub struct Later {
    pub id: String,
    /// `None`: this version can't do it, and leaves it to one that can.
    pub owed: Option<Owed>,
}

impl Later {
    pub fn settle(&self) -> Option<&Settle> {
        match &self.owed {
            Some(Owed::Settle(settle)) => Some(settle),
            Some(Owed::Object(_) | Owed::State(_) | Owed::Media(_)) | None => None,
        }
    }
}

impl FromRedisValue for Later {
    fn from_redis_value(value: Value) -> Result<Self, redis::ParsingError> {
        let (id, mut fields): (String, HashMap<String, Vec<u8>>) = redis::from_redis_value(value)?;
        let mut text = |name: &str| {
            String::from_utf8(fields.remove(name).unwrap_or_default()).unwrap_or_default()
        };
        let (kind, key, attributes) = (text("k"), text("o"), text("m"));
        let body = fields.remove("b").unwrap_or_default();
        Ok(Self {
            id,
            owed: Owed::of(&kind, key, attributes, body),
        })
    }
}

/// Media that an acknowledged entry left pending: all that its transfer and its event need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwedMedia {
    pub tenant_id: String,
    /// JSON.
    pub head: String,
    /// A webhook body with this one message.
    pub body: Vec<u8>,
}

/// One piece of the later-list of media.
#[derive(Debug)]
pub struct LaterMedia {
    pub id: String,
    pub owed: OwedMedia,
}

/// What former tenures noted about pending entries.
#[derive(Debug, Default)]
pub struct Notes {
    /// Items already done, as [`shared::entry::parse_numbers`] reads them.
    pub progress: HashMap<String, String>,
    /// Crashes at which the entry was in work.
    pub suspects: HashMap<String, usize>,
    /// Crashes while the entry was in work alone.
    pub deaths: HashMap<String, usize>,
    /// What the first publications of items said of media that wasn't stored.
    pub media: HashMap<String, String>,
    /// Whose the entries of an account are.
    pub tenants: HashMap<String, String>,
}

struct Scripts {
    read: Script,
    record: Script,
    announce: Script,
    end_alone: Script,
    note_media: Script,
    note_tenant: Script,
    decide_media: Script,
    later: Script,
    fetch: Script,
    waiting: Script,
    settled: Script,
}

/// The stream of one partition during one tenure.
#[derive(Clone)]
pub struct Stream {
    redis: Redis,
    connection: Connection,
    keys: Keys,
    scripts: Arc<Scripts>,
}

impl Stream {
    pub fn new(redis: Redis, connection: Connection, keys: Keys) -> Self {
        let scripts = Scripts {
            read: Script::new(include_str!("../lua/read.lua")),
            record: Script::new(include_str!("../lua/record.lua")),
            announce: Script::new(include_str!("../lua/announce.lua")),
            end_alone: Script::new(include_str!("../lua/end_alone.lua")),
            note_media: Script::new(include_str!("../lua/note_media.lua")),
            note_tenant: Script::new(include_str!("../lua/note_tenant.lua")),
            decide_media: Script::new(include_str!("../lua/decide_media.lua")),
            later: Script::new(include_str!("../lua/later.lua")),
            fetch: Script::new(include_str!("../lua/fetch.lua")),
            waiting: Script::new(include_str!("../lua/waiting.lua")),
            settled: Script::new(include_str!("../lua/settled.lua")),
        };
        Self {
            redis,
            connection,
            keys,
            scripts: Arc::new(scripts),
        }
    }

    /// Reads entries, about `bytes` at most (one entry more).
    pub async fn read(
        &self,
        tenure: &Tenure,
        from: &ReadFrom,
        bytes: usize,
    ) -> Result<Read, StreamError> {
        let (after, expected) = match from {
            ReadFrom::Pending(after) => (after.as_str(), ""),
            ReadFrom::New(expected) => (">", expected.as_str()),
        };
        let (entries, last_delivered, pending, moved): (_, _, _, u8) = self
            .scripts
            .read
            .call([
                self.keys.lease(tenure.partition),
                self.keys.stream(tenure.partition),
            ])
            .arg(&tenure.token)
            .arg(GROUP)
            .arg(CONSUMER)
            .arg(after)
            .arg(bytes)
            .arg(READ_COUNT)
            .arg(expected)
            .run(&mut self.connection.clone())
            .await?;
        Ok(Read {
            entries,
            last_delivered,
            pending,
            moved: moved == 1,
        })
    }

    /// One entry again, if it is still there.
    pub async fn fetch(&self, tenure: &Tenure, id: &str) -> RedisResult<Option<RawEntry>> {
        let entries: Vec<RawEntry> = redis::cmd("XRANGE")
            .arg(self.keys.stream(tenure.partition))
            .arg(id)
            .arg(id)
            .query_async(&mut self.connection.clone())
            .await?;
        Ok(entries.into_iter().next())
    }

    /// Entries again, in the order of `ids`, about `bytes` at most (one entry more).
    pub async fn fetch_all(
        &self,
        tenure: &Tenure,
        ids: &[String],
        bytes: usize,
    ) -> RedisResult<Vec<RawEntry>> {
        self.scripts
            .fetch
            .call([self.keys.stream(tenure.partition)])
            .arg(bytes)
            .arg(ids)
            .run(&mut self.connection.clone())
            .await
    }

    /// Acknowledges entries with what they owe, and notes which items are done of entries that go on, of
    /// each by its id: in one step. What was recorded before, because an answer was lost, owes nothing a
    /// second time.
    ///
    /// # Errors
    /// See [`StreamError`]. It may have been done.
    pub async fn record(
        &self,
        tenure: &Tenure,
        finished: &[Finished<'_>],
        progress: &[(String, String)],
    ) -> Result<(), StreamError> {
        let partition = tenure.partition;
        let call = self.scripts.record.call([
            self.keys.lease(partition),
            self.keys.stream(partition),
            self.keys.progress(partition),
            self.keys.suspects(partition),
            self.keys.deaths(partition),
            self.keys.media(partition),
            self.keys.alone(partition),
            self.keys.later(partition),
            self.keys.later_media(partition),
            self.keys.returning(partition),
        ]);
        let call = call.arg(&tenure.token).arg(GROUP).arg(finished.len());
        let call = finished.iter().fold(call, |call, entry| {
            let call = call.arg(entry.id).arg(entry.owed.len());
            entry.owed.iter().fold(call, |call, owed| {
                let (key, attributes, body) = owed.fields();
                let call = call.arg(owed.kind().name()).arg(key);
                call.arg(attributes).arg(body)
            })
        });
        progress
            .iter()
            .fold(call, |call, (id, numbers)| call.arg(id).arg(numbers))
            .run::<()>(&mut self.connection.clone())
            .await?;
        Ok(())
    }

    /// Notes what the event of an item is about to say of its media, as [`Notes::media`] has it.
    pub async fn note_media(
        &self,
        tenure: &Tenure,
        id: &str,
        note: &str,
    ) -> Result<(), StreamError> {
        self.scripts
            .note_media
            .call([
                self.keys.lease(tenure.partition),
                self.keys.media(tenure.partition),
                self.keys.stream(tenure.partition),
            ])
            .arg(&tenure.token)
            .arg(GROUP)
            .arg(id)
            .arg(note)
            .run::<()>(&mut self.connection.clone())
            .await?;
        Ok(())
    }

    /// Notes whose the entries of an account are; an empty note is none.
    pub async fn note_tenant(
        &self,
        tenure: &Tenure,
        waba_id: &str,
        note: &str,
    ) -> Result<(), StreamError> {
        self.scripts
            .note_tenant
            .call([
                self.keys.lease(tenure.partition),
                self.keys.tenants(tenure.partition),
            ])
            .arg(&tenure.token)
            .arg(waba_id)
            .arg(note)
            .run::<()>(&mut self.connection.clone())
            .await?;
        Ok(())
    }

    /// Announces that a suspected entry is in work alone.
    pub async fn announce_alone(&self, tenure: &Tenure, id: &str) -> Result<(), StreamError> {
        self.scripts
            .announce
            .call([
                self.keys.lease(tenure.partition),
                self.keys.alone(tenure.partition),
            ])
            .arg(&tenure.token)
            .arg(id)
            .run::<()>(&mut self.connection.clone())
            .await?;
        Ok(())
    }

    /// A suspected entry is in work alone no more; a death that was counted meanwhile is taken back.
    ///
    /// # Errors
    /// A Redis command failed.
    pub async fn end_alone(&self, tenure: &Tenure, id: &str) -> RedisResult<()> {
        self.scripts
            .end_alone
            .call([
                self.keys.alone(tenure.partition),
                self.keys.deaths(tenure.partition),
            ])
            .arg(id)
            .arg(&tenure.token)
            .run(&mut self.connection.clone())
            .await
    }

    /// What former tenures noted.
    pub async fn notes(&self, tenure: &Tenure) -> RedisResult<Notes> {
        let mut connection = self.connection.clone();
        let mut all = async |key: String| -> RedisResult<HashMap<String, String>> {
            redis::cmd("HGETALL")
                .arg(key)
                .query_async(&mut connection)
                .await
        };
        let progress = all(self.keys.progress(tenure.partition)).await?;
        let suspects = all(self.keys.suspects(tenure.partition)).await?;
        let deaths = all(self.keys.deaths(tenure.partition)).await?;
        let media = all(self.keys.media(tenure.partition)).await?;
        let tenants = all(self.keys.tenants(tenure.partition)).await?;
        Ok(Notes {
            progress,
            media,
            tenants,
            suspects: suspects
                .into_iter()
                .filter_map(|(id, crashes)| Some((id, crashes.parse().ok()?)))
                .collect(),
            deaths: deaths
                .into_iter()
                .map(|(id, tokens)| (id, tokens.matches(',').count()))
                .collect(),
        })
    }

    /// The next pieces of the later-list after `after`, without those of some [groups](Owed::group); and
    /// after what to go on, `None` at the end of the list.
    pub async fn later(
        &self,
        tenure: &Tenure,
        after: &str,
        without: &BTreeSet<String>,
    ) -> RedisResult<(Vec<Later>, Option<String>)> {
        let without: String = without.iter().map(|group| format!(",{group},")).collect();
        let (pieces, after): (Vec<Later>, String) = self
            .scripts
            .later
            .call([self.keys.later(tenure.partition)])
            .arg(after)
            .arg(LATER_COUNT)
            .arg(LATER_BYTES)
            .arg(LATER_LOOKED_AT)
            .arg(without)
            .run(&mut self.connection.clone())
            .await?;
        Ok((pieces, Some(after).filter(|after| !after.is_empty())))
    }

    /// Pieces of the later-list are done. Doing one twice is harmless, so this needs no lease.
    pub async fn later_done(&self, tenure: &Tenure, ids: &[String]) -> RedisResult<()> {
        redis::cmd("XDEL")
            .arg(self.keys.later(tenure.partition))
            .arg(ids)
            .query_async(&mut self.connection.clone())
            .await
    }

    /// An object that was put back lies where it belongs now. Like [`Stream::later_done`] this needs no
    /// lease.
    pub async fn settled(&self, tenure: &Tenure, id: &str, settle: &Settle) -> RedisResult<()> {
        self.scripts
            .settled
            .call([
                self.keys.later(tenure.partition),
                self.keys.returning(tenure.partition),
                self.keys.replayed(tenure.partition),
                self.keys.settled(tenure.partition),
            ])
            .arg(id)
            .arg(&settle.source)
            .arg(&settle.replay_id)
            .arg(match settle.settled {
                Settled::Out => "d",
                Settled::Again | Settled::Same => "f",
            })
            .arg(settled_field(&settle.source))
            .run(&mut self.connection.clone())
            .await
    }

    /// The next pieces of the later-list of media after `after`, `count` at most.
    pub async fn later_media(
        &self,
        tenure: &Tenure,
        after: &str,
        count: usize,
    ) -> RedisResult<Vec<LaterMedia>> {
        self.pieces_of_media(tenure, &format!("({after}"), "+", count)
            .await
    }

    /// One piece of the later-list of media, if it is still there.
    pub async fn media_piece(&self, tenure: &Tenure, id: &str) -> RedisResult<Option<LaterMedia>> {
        let pieces = self.pieces_of_media(tenure, id, id, 1).await?;
        Ok(pieces.into_iter().next())
    }

    async fn pieces_of_media(
        &self,
        tenure: &Tenure,
        from: &str,
        to: &str,
        count: usize,
    ) -> RedisResult<Vec<LaterMedia>> {
        let reply: StreamRangeReply = redis::cmd("XRANGE")
            .arg(self.keys.later_media(tenure.partition))
            .arg(from)
            .arg(to)
            .arg("COUNT")
            .arg(count)
            .query_async(&mut self.connection.clone())
            .await?;
        let pieces = reply.ids.into_iter().map(|piece| LaterMedia {
            owed: OwedMedia {
                tenant_id: piece.get("t").unwrap_or_default(),
                head: piece.get("m").unwrap_or_default(),
                body: piece.get("b").unwrap_or_default(),
            },
            id: piece.id,
        });
        Ok(pieces.collect())
    }

    /// Replaces a piece by one with another head; one that is gone stays so.
    pub async fn decide_media(
        &self,
        tenure: &Tenure,
        piece: &LaterMedia,
        head: &str,
    ) -> Result<(), StreamError> {
        self.scripts
            .decide_media
            .call([
                self.keys.lease(tenure.partition),
                self.keys.later_media(tenure.partition),
            ])
            .arg(&tenure.token)
            .arg(&piece.id)
            .arg(&piece.owed.tenant_id)
            .arg(head)
            .arg(&piece.owed.body)
            .run::<()>(&mut self.connection.clone())
            .await?;
        Ok(())
    }

    /// A piece of the later-list of media is done.
    pub async fn media_done(&self, tenure: &Tenure, id: &str) -> RedisResult<()> {
        redis::cmd("XDEL")
            .arg(self.keys.later_media(tenure.partition))
            .arg(id)
            .query_async(&mut self.connection.clone())
            .await
    }

    /// How much waits in a partition.
    ///
    /// # Errors
    /// A Redis command failed.
    pub async fn waiting(&self, partition: u16) -> RedisResult<Backlog> {
        let keys = [
            self.keys.stream(partition),
            self.keys.later(partition),
            self.keys.later_media(partition),
        ];
        let call = self.scripts.waiting.call(keys).arg(GROUP);
        let (stream, later, later_media, pending, age_ms) =
            call.run(&mut self.connection.clone()).await?;
        Ok(Backlog {
            stream,
            pending,
            later,
            later_media,
            age: Duration::from_millis(age_ms),
        })
    }

    /// A sleeper for the stream of `partition`.
    pub fn sleeper(&self, partition: u16) -> Sleeper {
        Sleeper {
            redis: self.redis.clone(),
            asking: self.connection.clone(),
            key: self.keys.stream(partition),
            connection: None,
        }
    }
}

/// Sleeps until something is in the stream. It only wakes: what a blocked XREADGROUP of a stopped
/// worker would take, nobody would see again until the next takeover.
pub struct Sleeper {
    redis: Redis,
    asking: Connection,
    key: String,
    /// Its own, since a blocked command holds up all others of its connection.
    connection: Option<MultiplexedConnection>,
}

impl Sleeper {
    /// Returns when there is an entry after `last`, or after some seconds.
    ///
    /// # Errors
    /// A Redis command failed.
    pub async fn sleep(&mut self, last: &str) -> RedisResult<()> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let redis = &self.redis;
                redis
                    .own_connection(&self.asking, &self.key, BLOCK * 3)
                    .await?
            }
        };
        redis::cmd("XREAD")
            .arg("COUNT")
            .arg(1)
            .arg("BLOCK")
            .arg(BLOCK.as_millis() as u64)
            .arg("STREAMS")
            .arg(&self.key)
            .arg(last)
            .query_async::<Value>(&mut connection)
            .await?;
        self.connection = Some(connection);
        Ok(())
    }
}
