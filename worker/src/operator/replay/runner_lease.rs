//! Where a replay stands, in Redis: one process puts back at a time, others watch and go on when it
//! dies.

use std::time::Duration;

use anyhow::Context;
use redis::RedisResult;
use serde::Serialize;
use shared::keys::Keys;
use shared::redis::Connection;
use shared::script::Script;
use strum::EnumString;
use uuid::Uuid;

use super::selection::Selection;

/// Nothing heard for so long, another one goes on.
const LEASE: Duration = Duration::from_secs(3);

pub(super) struct RunnerLease {
    connection: Connection,
    keys: Keys,
    token: String,
    take: Script,
    note: Script,
}

/// The last replay of the deployment.
#[derive(Debug, Clone)]
pub(super) struct Replay {
    pub(super) id: String,
    pub(super) selection: Selection,
    /// How many objects were counted before it began.
    pub(super) total: u64,
    /// Key of the last object that is done; `None` at the beginning.
    pub(super) at: Option<String>,
    /// How many objects could not be put back.
    pub(super) left: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString)]
#[strum(serialize_all = "snake_case")]
pub(super) enum ReplayStatus {
    None,
    /// This process puts back.
    Mine,
    /// Another one does.
    Others,
    /// All that was meant is put back.
    Ended,
}

/// What became of the objects that a replay put back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ReplayCounts {
    pub(super) put: u64,
    pub(super) out: u64,
    pub(super) again: u64,
}

/// How far the last replay is, without the ids that it was begun with: they may hold phone numbers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReplayProgress {
    id: String,
    state: ReplayState,
    source: &'static str,
    tenant: Option<String>,
    reason: Option<String>,
    payloads: u64,
    put_back: u64,
    went_out: u64,
    set_aside_again: u64,
    left: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum ReplayState {
    /// Somebody puts back.
    Running,
    /// Nobody does: it can be resumed.
    Stopped,
    /// All is put back, and not all went out.
    InTheStream,
    Ended,
}

impl ReplayCounts {
    pub(super) fn settled(self) -> bool {
        self.out + self.again >= self.put
    }
}

impl RunnerLease {
    pub(super) fn new(connection: Connection, keys: Keys) -> Self {
        Self {
            connection,
            keys,
            token: Uuid::new_v4().to_string(),
            take: Script::new(include_str!("../../lua/replay_turn.lua")),
            note: Script::new(include_str!("../../lua/replay_note.lua")),
        }
    }

    /// Takes the turn of a replay that nobody runs.
    ///
    /// # Errors
    /// A Redis command failed.
    pub(super) async fn take(&self) -> anyhow::Result<(ReplayStatus, Option<Replay>)> {
        self.ask(None).await
    }

    /// The same, and begins one where none is under way.
    pub(super) async fn begin(
        &self,
        selection: &Selection,
        total: u64,
    ) -> anyhow::Result<(ReplayStatus, Option<Replay>)> {
        let selection = serde_json::to_string(selection)?;
        self.ask(Some((selection, total))).await
    }

    /// How far the last one is; takes no turn.
    ///
    /// # Errors
    /// A Redis command failed.
    pub(super) async fn look(&self) -> anyhow::Result<Option<ReplayProgress>> {
        type Fields = (
            Option<String>,
            Option<String>,
            Option<u64>,
            Option<String>,
            Option<u64>,
            Option<u64>,
        );
        let mut connection = self.connection.clone();
        let mut get = redis::cmd("HMGET");
        get.arg(self.keys.replay());
        get.arg(&["id", "ended", "until", "selection", "total", "left"]);
        let fields = get.query_async(&mut connection).await.context("Redis")?;
        let (Some(id), ended, until_ms, Some(selection), total, left): Fields = fields else {
            return Ok(None);
        };
        let time = redis::cmd("TIME").query_async(&mut connection).await;
        let (seconds, micros): (u64, u64) = time.context("Redis")?;
        let now_ms = seconds * 1000 + micros / 1000;
        let counts = self.counts(&id).await.context("Redis")?;
        let selection: Selection = serde_json::from_str(&selection)
            .context("the last replay was begun by another version")?;
        Ok(Some(ReplayProgress {
            state: match ended.is_some() {
                true if counts.settled() => ReplayState::Ended,
                true => ReplayState::InTheStream,
                false if until_ms.is_some_and(|until_ms| until_ms >= now_ms) => {
                    ReplayState::Running
                }
                false => ReplayState::Stopped,
            },
            id,
            source: selection.source.name(),
            tenant: selection.tenant,
            reason: selection.reason,
            payloads: total.unwrap_or(0),
            put_back: counts.put,
            went_out: counts.out,
            set_aside_again: counts.again,
            left: left.unwrap_or(0),
        }))
    }

    async fn ask(
        &self,
        new: Option<(String, u64)>,
    ) -> anyhow::Result<(ReplayStatus, Option<Replay>)> {
        let call = self.take.call([self.keys.replay()]).arg(&self.token);
        let call = call.arg(LEASE.as_millis() as u64);
        let call = match new {
            Some((selection, total)) => call.arg(selection).arg(total),
            None => call,
        };
        let (standing, id, selection, total, at, left): (String, String, String, u64, String, u64) =
            call.run(&mut self.connection.clone())
                .await
                .context("Redis")?;
        let standing = standing.parse()?;
        if standing == ReplayStatus::None {
            return Ok((standing, None));
        }
        let selection = serde_json::from_str(&selection)
            .context("the replay that is under way was begun by another version of this command")?;
        let replay = Replay {
            id,
            selection,
            total,
            at: Some(at).filter(|at| !at.is_empty()),
            left,
        };
        Ok((standing, Some(replay)))
    }

    /// Notes how far it is; false if it is somebody else's turn by now.
    pub(super) async fn goes_on(&self, replay: &Replay) -> RedisResult<bool> {
        self.note(replay, LEASE, false).await
    }

    /// Lets go of the turn; the next one goes on from here.
    pub(super) async fn stops(&self, replay: &Replay) -> RedisResult<bool> {
        self.note(replay, Duration::ZERO, false).await
    }

    /// All is put back.
    pub(super) async fn ends(&self, replay: &Replay) -> RedisResult<bool> {
        self.note(replay, Duration::ZERO, true).await
    }

    async fn note(&self, replay: &Replay, lease: Duration, ended: bool) -> RedisResult<bool> {
        let call = self.note.call([self.keys.replay()]);
        let call = call.arg(&self.token).arg(lease.as_millis() as u64);
        let call = call.arg(replay.at.as_deref().unwrap_or_default());
        let call = call.arg(replay.left).arg(u8::from(ended));
        call.run(&mut self.connection.clone()).await
    }

    /// What became of what a replay put back, over all partitions.
    pub(super) async fn counts(&self, replay_id: &str) -> RedisResult<ReplayCounts> {
        let mut counts = ReplayCounts::default();
        let mut connection = self.connection.clone();
        // One by one: they lie in different slots of a cluster.
        for partition in 0..self.keys.partitions() {
            let mut get = redis::cmd("HMGET");
            get.arg(self.keys.replayed(partition));
            get.arg(&["i", "n", "d", "f"]);
            type CountFields = (Option<String>, Option<u64>, Option<u64>, Option<u64>);
            let (id, put, out, again): CountFields = get.query_async(&mut connection).await?;
            if id.as_deref() == Some(replay_id) {
                counts.put += put.unwrap_or(0);
                counts.out += out.unwrap_or(0);
                counts.again += again.unwrap_or(0);
            }
        }
        Ok(counts)
    }
}
