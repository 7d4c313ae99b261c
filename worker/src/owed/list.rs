//! The lists of what a partition owes, in Redis: a sorted set a kind, scored by when a piece is due.

use std::sync::Arc;

use redis::{FromRedisValue, RedisResult, Value};
use shared::keys::Keys;
use shared::redis::Connection;
use shared::script::Script;

use super::schedule::Score;
use crate::metrics::OwedKind;
use crate::read::leases::Tenure;
use crate::read::owed::{OwedSettle, Settled, settled_field};
use crate::read::stream::{RawEntry, Stream, StreamError};

/// Pieces that one look brings of a kind.
const PAGE: usize = 500;

/// Where the next look at a list begins: a score as Redis takes it, and the last piece that is known if more is
/// due behind it.
pub(super) type DueCursor = String;

/// The lists of one partition.
#[derive(Clone)]
pub(super) struct Lists {
    connection: Connection,
    keys: Keys,
    partition: u16,
    scripts: Arc<ListScripts>,
}

struct ListScripts {
    due: Script,
    fetch: Script,
    update: Script,
    decide_media: Script,
}

/// What has become due, of each kind.
pub(super) struct Due {
    pub now_ms: u64,
    pub kinds: Vec<DuePieces>,
}

#[derive(Debug)]
pub(super) struct DuePieces {
    pub cursor: DueCursor,
    pub pieces: Vec<(String, f64)>,
    /// When the next one is.
    pub later_ms: Option<u64>,
}

impl DuePieces {
    /// There is more that is due.
    pub(super) fn goes_on(&self) -> bool {
        self.cursor.contains(' ')
    }
}

impl FromRedisValue for DuePieces {
    fn from_redis_value(value: Value) -> Result<Self, redis::ParsingError> {
        let (cursor, pieces, later): (_, _, String) = redis::from_redis_value(value)?;
        let later: Option<f64> = later.parse().ok();
        Ok(Self {
            cursor,
            pieces,
            // What waits for something else has no time.
            later_ms: later.filter(|later| later.is_finite()).map(|ms| ms as u64),
        })
    }
}

/// What a piece needs to be done.
pub(super) enum FetchedEntry {
    /// It is owed no longer.
    Gone,
    /// Its entry is known, or came with a piece before.
    Known,
    /// Its entry would be too much.
    NoRoom,
    Entry(RawEntry),
}

impl FromRedisValue for FetchedEntry {
    fn from_redis_value(value: Value) -> Result<Self, redis::ParsingError> {
        match value {
            Value::Int(0) => Ok(Self::Gone),
            Value::Int(1) => Ok(Self::Known),
            Value::Int(_) => Ok(Self::NoRoom),
            entry => redis::from_redis_value(entry).map(Self::Entry),
        }
    }
}

/// What became of a piece.
#[derive(Debug, Clone)]
pub(super) struct UpdatedPiece {
    pub kind: OwedKind,
    pub piece: Arc<str>,
    pub update: PieceUpdate,
}

#[derive(Debug, Clone)]
pub(super) enum PieceUpdate {
    Done(Option<OwedSettle>),
    Later(Score),
}

impl Lists {
    pub(super) fn new(stream: &Stream, tenure: &Tenure) -> Self {
        let (connection, keys) = stream.link();
        Self {
            connection: connection.clone(),
            keys: keys.clone(),
            partition: tenure.partition,
            scripts: Arc::new(ListScripts {
                due: Script::new(include_str!("../lua/due.lua")),
                fetch: Script::new(include_str!("../lua/fetch_owed.lua")),
                update: Script::new(include_str!("../lua/update_owed.lua")),
                decide_media: Script::new(include_str!("../lua/decide_media.lua")),
            }),
        }
    }

    /// What has become due since the last look at each kind's list, in the order of the kinds; kinds
    /// without a cursor aren't looked at.
    pub(super) async fn due(&self, cursors: &[DueCursor]) -> RedisResult<Due> {
        let call = self.scripts.due.call(self.keys.owed_lists(self.partition));
        let call = call.arg(PAGE).arg(cursors);
        let (now, kinds): (String, _) = call.run(&mut self.connection.clone()).await?;
        let now_ms = now.parse().unwrap_or_default();
        Ok(Due { now_ms, kinds })
    }

    /// The entries of pieces, in their order, but those that are `known`; about `bytes` at most (one entry
    /// more).
    pub(super) async fn fetch(
        &self,
        kind: OwedKind,
        pieces: &[Arc<str>],
        known: &[String],
        bytes: usize,
    ) -> RedisResult<Vec<FetchedEntry>> {
        let keys = [
            self.keys.owed_list(self.partition, kind.into()),
            self.keys.stream(self.partition),
        ];
        let call = self.scripts.fetch.call(keys).arg(bytes);
        let call = call.arg(known.len()).arg(known);
        let call = pieces.iter().fold(call, |call, piece| call.arg(&**piece));
        call.run(&mut self.connection.clone()).await
    }

    /// Pieces are done, or due again later. Doing one twice is harmless, so this needs no lease.
    pub(super) async fn update(&self, all: &[UpdatedPiece]) -> RedisResult<()> {
        let [put, state, settle, media, other_media] = self.keys.owed_lists(self.partition);
        let call = self.scripts.update.call([
            self.keys.stream(self.partition),
            self.keys.owed(self.partition),
            self.keys.returning(self.partition),
            self.keys.replayed(self.partition),
            self.keys.settled(self.partition),
            put,
            state,
            settle,
            media,
            other_media,
        ]);
        let call = all.iter().fold(call, |call, one| {
            let call = call.arg(one.kind.number()).arg(&*one.piece);
            match &one.update {
                PieceUpdate::Later(Score(score)) => {
                    call.arg(score.to_string()).arg(&["", "", "", ""])
                }
                PieceUpdate::Done(None) => call.arg(&["", "", "", "", ""]),
                PieceUpdate::Done(Some(settle)) => {
                    let counted = match settle.settled {
                        Settled::Out => "d",
                        Settled::Again | Settled::Same => "f",
                    };
                    let call = call.arg("").arg(&settle.source);
                    let call = call.arg(settled_field(&settle.source));
                    call.arg(&settle.replay_id).arg(counted)
                }
            }
        });
        call.run(&mut self.connection.clone()).await
    }

    /// Another piece takes the place of one of media; one that is gone stays so.
    pub(super) async fn decide_media(
        &self,
        tenure: &Tenure,
        kind: OwedKind,
        piece: &str,
        decided: &str,
    ) -> Result<(), StreamError> {
        self.scripts
            .decide_media
            .call([
                self.keys.lease(self.partition),
                self.keys.owed_list(self.partition, kind.into()),
            ])
            .arg(&tenure.token)
            .arg(piece)
            .arg(decided)
            .run::<()>(&mut self.connection.clone())
            .await?;
        Ok(())
    }
}
