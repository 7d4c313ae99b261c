//! A partition's stream as its owner sees it: fenced reads, and the one acknowledgement. Reads, records and notes
//! check the lease in their script, so that a worker that lost it changes nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, FromRedisValue, RedisError, RedisResult, ServerErrorKind, Value};
use shared::entry::EntryFields;
use shared::keys::{CONSUMER, GROUP, Keys};
use shared::redis::{Connection, Redis};
use shared::script::{Script, ScriptCall};

use crate::metrics::Backlog;
use crate::read::leases::Tenure;
use crate::read::owed::{Finished, Owed};

/// Most entries of one read.
const READ_COUNT: usize = 256;
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
    pub fields: Option<EntryFields>,
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

/// What is noted of pending entries, by former tenures, or by this one before Redis lost what came after.
#[derive(Debug, Default)]
pub struct Notes {
    /// Items already done, as [`shared::entry::parse_numbers`] reads them.
    pub progress: HashMap<String, String>,
    /// Crashes at which the entry was in work.
    pub crashes: HashMap<String, usize>,
    /// Crashes while the entry was in work alone.
    pub deaths: HashMap<String, usize>,
    /// What the first publications of items said of media that wasn't stored.
    pub media: HashMap<String, String>,
}

struct Scripts {
    read: Script,
    record: Script,
    announce: Script,
    end_alone: Script,
    note_media: Script,
    note_tenant: Script,
    fetch: Script,
    backlog: Script,
}

/// The streams of all partitions; each call names the partition, or the tenure in which its worker owns it.
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
            fetch: Script::new(include_str!("../lua/fetch.lua")),
            backlog: backlog_script(),
        };
        Self {
            redis,
            connection,
            keys,
            scripts: Arc::new(scripts),
        }
    }

    /// Reads entries, about `bytes` at most: one more, or some that are heavier than those before them.
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
        let [put, state, settle, media, other_media] = self.keys.owed_lists(partition);
        let call = self.scripts.record.call([
            self.keys.lease(partition),
            self.keys.stream(partition),
            self.keys.progress(partition),
            self.keys.suspects(partition),
            self.keys.deaths(partition),
            self.keys.media(partition),
            self.keys.alone(partition),
            self.keys.returning(partition),
            self.keys.owed(partition),
            put,
            state,
            settle,
            media,
            other_media,
        ]);
        let call = call.arg(&tenure.token).arg(GROUP).arg(finished.len());
        let call = finished.iter().try_fold(call, record_entry);
        // No way to Redis would make it writable.
        let unwritable = ErrorKind::Server(ServerErrorKind::ResponseError);
        let call = call.map_err(|error| {
            RedisError::from((
                unwritable,
                "what is owed can't be written",
                error.to_string(),
            ))
        })?;
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

    /// Whose the entries of each account are, as former tenures noted it.
    ///
    /// # Errors
    /// A Redis command failed.
    pub async fn tenant_notes(&self, tenure: &Tenure) -> RedisResult<HashMap<String, String>> {
        self.all(self.keys.tenants(tenure.partition)).await
    }

    /// What is noted of entries.
    ///
    /// # Errors
    /// A Redis command failed.
    pub async fn notes(&self, tenure: &Tenure) -> RedisResult<Notes> {
        let progress = self.all(self.keys.progress(tenure.partition)).await?;
        let crashes = self.all(self.keys.suspects(tenure.partition)).await?;
        let deaths = self.all(self.keys.deaths(tenure.partition)).await?;
        let media = self.all(self.keys.media(tenure.partition)).await?;
        Ok(Notes {
            progress,
            media,
            crashes: crashes
                .into_iter()
                .filter_map(|(id, count)| Some((id, count.parse().ok()?)))
                .collect(),
            deaths: deaths
                .into_iter()
                .map(|(id, tokens)| (id, tokens.matches(',').count()))
                .collect(),
        })
    }

    async fn all(&self, hash: String) -> RedisResult<HashMap<String, String>> {
        let mut command = redis::cmd("HGETALL");
        command.arg(hash);
        command.query_async(&mut self.connection.clone()).await
    }

    /// How much waits in a partition.
    ///
    /// # Errors
    /// A Redis command failed.
    pub async fn waiting(&self, partition: u16) -> RedisResult<Backlog> {
        let mut connection = self.connection.clone();
        let backlog = backlog(
            &self.scripts.backlog,
            &self.keys,
            partition,
            &mut connection,
        );
        Ok(backlog.await?.0)
    }

    /// What it speaks to Redis with.
    pub(crate) fn link(&self) -> (&Connection, &Keys) {
        (&self.connection, &self.keys)
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

/// The arguments of one entry that is done.
fn record_entry<'s>(
    call: ScriptCall<'s>,
    entry: &Finished<'_>,
) -> serde_json::Result<ScriptCall<'s>> {
    let call = call.arg(entry.id).arg(entry.owed.len());
    entry.owed.iter().try_fold(call, |call, owed| {
        let source = match owed {
            Owed::Settle(settle) => &*settle.source,
            Owed::Put(_) | Owed::State(_) | Owed::Media(_) => "",
        };
        let call = call.arg(owed.kind().number()).arg(owed.piece(entry.id)?);
        Ok(call.arg(source))
    })
}

/// The script that tells how much waits in a partition.
pub(crate) fn backlog_script() -> Script {
    Script::new(include_str!("../lua/waiting.lua"))
}

/// How much waits in a partition, and the token of its owner, or an empty one.
///
/// # Errors
/// A Redis command failed.
pub(crate) async fn backlog(
    script: &Script,
    keys: &Keys,
    partition: u16,
    connection: &mut Connection,
) -> RedisResult<(Backlog, String)> {
    let [put, state, settle, media, other_media] = keys.owed_lists(partition);
    let call = script.call([
        keys.stream(partition),
        keys.lease(partition),
        keys.owed(partition),
        put,
        state,
        settle,
        media,
        other_media,
    ]);
    let (stream, pending, age_ms, owner, owed, ever_read): (_, _, i64, _, _, _) =
        call.arg(GROUP).run(connection).await?;
    let backlog = Backlog {
        stream,
        pending,
        owed,
        ever_read,
        age: Duration::from_millis(age_ms.max(0) as u64),
    };
    Ok((backlog, owner))
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
