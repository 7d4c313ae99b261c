//! Works off what a partition owes: looks up what is due, fetches the entries of the pieces whose turn it
//! is, runs them, and tells Redis what became of them. Doing a piece twice is harmless, so a crash between
//! the work and its removal is too.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use redis::RedisResult;
use shared::redis::warn_will_retry;
use strum::IntoEnumIterator;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::bodies::{Bodies, OwingContent, OwingEntry};
use super::list::{Due, FetchedEntry, Lists, PieceUpdate, UpdatedPiece};
use super::schedule::{Piece, PieceOutcome, Schedule, ScheduleLimits, Score, Update};
use super::{media, put, settle, state};
use crate::context::WorkerContext;
use crate::metrics::OwedKind;
use crate::read::leases::Tenure;
use crate::read::owed::{Owed, entry_of};
use crate::retry::Backoff;

/// What is due and can't begin yet is looked at again after this.
const LEAST_WAIT_MS: u64 = 100;
/// It is looked for what is due this often even if nobody says that there is something.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// All that is due is looked up again this often: what a clock that was set back hid.
const LOOK_AGAIN_INTERVAL: Duration = Duration::from_secs(60);
/// Where a list begins.
const BEGINNING: &str = "-inf";

fn limits(kind: OwedKind) -> ScheduleLimits {
    let at_once = match kind {
        OwedKind::Put | OwedKind::State => 64,
        OwedKind::Settle => 16,
        OwedKind::Media => 32,
        // It has fewer turns; see `media_turns`.
        OwedKind::OtherMedia => 16,
    };
    ScheduleLimits {
        at_once,
        of_tenant: at_once * 3 / 4,
        known: 20_000,
        known_of_tenant: 500,
        first_pause: Duration::from_millis(500),
        longest_pause: Duration::from_secs(300),
        away: Duration::from_millis(100),
        longest_away: Duration::from_secs(5),
        longest_away_of_tenant: Duration::from_secs(15),
    }
}

/// Works off what a partition owes until it is told to drain and has: then nothing new is begun, and what
/// became of all that was begun is recorded. `owed` says that there is more.
pub async fn work_off(work: &Arc<WorkerContext>, tenure: &Arc<Tenure>, owed: &Notify) {
    let mut owed_work = OwedWork::new(work.clone(), tenure.clone());
    loop {
        owed_work.go_on();
        if owed_work.is_drained() {
            return;
        }
        let wakes_at = owed_work.wakes_at();
        let goes_on = !owed_work.draining;
        tokio::select! {
            Some(done) = owed_work.futures.next() => owed_work.take(done),
            () = tenure.drain.cancelled(), if goes_on => owed_work.draining = true,
            () = owed.notified(), if goes_on => owed_work.look_at = Instant::now(),
            () = sleep_until(wakes_at), if goes_on => {}
        }
    }
}

/// Something that was begun has ended.
enum Ended {
    Looked(Vec<String>, RedisResult<Due>),
    Fetched(OwedKind, Vec<Piece>, RedisResult<Vec<FetchedEntry>>),
    Ran(OwedKind, Piece, PieceOutcome),
    /// Redis knows what became of pieces.
    Recorded(Vec<UpdatedPiece>),
}

/// The pieces of a partition that are in work.
struct OwedWork {
    work: Arc<WorkerContext>,
    tenure: Arc<Tenure>,
    lists: Lists,
    kinds: Vec<KindWork>,
    futures: FuturesUnordered<BoxFuture<'static, Ended>>,
    looking: bool,
    look_at: Instant,
    look_again_at: Instant,
    look_backoff: Backoff,
    /// Redis' time (ms), and when it was that.
    clock: (u64, Instant),
    /// Pieces that run.
    running: usize,
    /// The partition is handed over.
    draining: bool,
    /// What Redis doesn't know yet, and whether it is being recorded.
    updates: Vec<UpdatedPiece>,
    recording: bool,
}

struct KindWork {
    kind: OwedKind,
    schedule: Schedule,
    /// Where the next look at its list begins, and whether the last one left it out.
    cursor: String,
    left_out: bool,
    fetching: bool,
    bodies: Bodies,
    /// Pieces that wait for an operator.
    parked: HashSet<Arc<str>>,
}

impl OwedWork {
    fn new(work: Arc<WorkerContext>, tenure: Arc<Tenure>) -> Self {
        let kinds = OwedKind::iter().map(|kind| KindWork {
            kind,
            schedule: Schedule::new(limits(kind)),
            cursor: BEGINNING.to_owned(),
            left_out: false,
            fetching: false,
            bodies: Bodies::default(),
            parked: HashSet::new(),
        });
        Self {
            lists: Lists::new(&work.stream, &tenure),
            kinds: kinds.collect(),
            work,
            tenure,
            futures: FuturesUnordered::new(),
            looking: false,
            look_at: Instant::now(),
            look_again_at: Instant::now() + LOOK_AGAIN_INTERVAL,
            look_backoff: Backoff::for_server(),
            clock: (0, Instant::now()),
            running: 0,
            draining: false,
            updates: Vec::new(),
            recording: false,
        }
    }

    fn push(&self, future: impl Future<Output = Ended> + Send + 'static) {
        self.futures.push(Box::pin(future));
    }

    /// Redis' time (ms since 1970), as far as it is known here.
    fn now_ms(&self) -> u64 {
        self.clock.0 + self.clock.1.elapsed().as_millis() as u64
    }

    /// When there is something to do if nothing ends before.
    fn wakes_at(&self) -> Instant {
        let now_ms = self.now_ms();
        let waiting = self.kinds.iter().filter_map(|it| it.schedule.wakes_at());
        let waiting = waiting.min().map(|at| {
            let wait = at.saturating_sub(now_ms).max(LEAST_WAIT_MS);
            Instant::now() + Duration::from_millis(wait)
        });
        let look_at = (!self.looking).then_some(self.look_at);
        let first = waiting.into_iter().chain(look_at).min();
        first.unwrap_or_else(|| Instant::now() + LOOK_INTERVAL)
    }

    /// Begins what can be begun.
    fn go_on(&mut self) {
        if !self.draining {
            self.look();
            for n in 0..self.kinds.len() {
                self.fetch(n);
            }
        }
        self.record();
        let of_media = |it: &&KindWork| match it.kind {
            OwedKind::Media | OwedKind::OtherMedia => true,
            OwedKind::Put | OwedKind::State | OwedKind::Settle => false,
        };
        let parked = self.kinds.iter().filter(of_media);
        let parked = parked.map(|media| media.parked.len()).sum();
        let metrics = &self.work.metrics;
        metrics.media_parked(self.tenure.partition, parked);
    }

    /// Nothing is in work that the next owner would do again.
    fn is_drained(&self) -> bool {
        self.draining && self.running == 0 && !self.recording && self.updates.is_empty()
    }

    fn take(&mut self, done: Ended) {
        match done {
            Ended::Looked(asked, Ok(due)) => self.looked(&asked, due),
            Ended::Looked(_, Err(error)) => {
                warn_will_retry(&error);
                self.looking = false;
                self.look_at = Instant::now() + self.look_backoff.pause();
            }
            Ended::Fetched(kind, pieces, fetched) => self.fetched(kind, pieces, fetched),
            Ended::Ran(kind, piece, outcome) => {
                self.running -= 1;
                self.ran(kind, piece, outcome);
            }
            Ended::Recorded(updates) => {
                self.recording = false;
                for UpdatedPiece { kind, piece, .. } in updates {
                    self.of(kind).schedule.is_recorded(&piece);
                }
            }
        }
    }

    fn of(&mut self, kind: OwedKind) -> &mut KindWork {
        &mut self.kinds[kind.number() - 1]
    }

    // What is due

    fn look(&mut self) {
        let now = Instant::now();
        let wanted =
            |it: &KindWork| it.schedule.lacks() || (it.left_out && it.schedule.wants_more());
        if self.looking || (now < self.look_at && !self.kinds.iter().any(wanted)) {
            return;
        }
        self.looking = true;
        self.look_at = now + LOOK_INTERVAL;
        let all_again = now >= self.look_again_at;
        if all_again {
            self.look_again_at = now + LOOK_AGAIN_INTERVAL;
        }
        let cursors = self.kinds.iter_mut().map(|it| {
            it.left_out = !it.schedule.wants_more();
            if it.left_out {
                return String::new();
            }
            if all_again || it.schedule.lacks() {
                it.schedule.begin_again();
                BEGINNING.clone_into(&mut it.cursor);
            }
            it.cursor.clone()
        });
        let cursors: Vec<_> = cursors.collect();
        let lists = self.lists.clone();
        self.push(async move {
            let due = lists.due(&cursors).await;
            Ended::Looked(cursors, due)
        });
    }

    fn looked(&mut self, asked: &[String], due: Due) {
        let now = Instant::now();
        self.looking = false;
        self.look_backoff.reset();
        self.clock = (due.now_ms, now);
        for ((kind_work, asked), due_pieces) in self.kinds.iter_mut().zip(asked).zip(due.kinds) {
            if asked.is_empty() {
                continue;
            }
            if due_pieces.goes_on() {
                self.look_at = now;
            } else if let Some(later_ms) = due_pieces.later_ms {
                let wait = Duration::from_millis(later_ms.saturating_sub(due.now_ms) + 1);
                self.look_at = self.look_at.min(now + wait);
            }
            kind_work.cursor = due_pieces.cursor;
            for (text, score) in due_pieces.pieces {
                let owed = Owed::read(kind_work.kind, &text);
                let taker = owed.as_ref().map_or("".into(), Owed::taker);
                let until_ms = owed.as_ref().and_then(Owed::until_ms);
                let piece = Piece::new(&text, &taker, Score(score), until_ms);
                kind_work.schedule.found(piece);
            }
        }
    }

    // What runs

    fn fetch(&mut self, n: usize) {
        let now_ms = self.now_ms();
        let kind_work = &mut self.kinds[n];
        if kind_work.schedule.is_idle() {
            kind_work.bodies.clear();
        }
        if kind_work.fetching || !kind_work.bodies.may_go_on() {
            return;
        }
        let pieces: Vec<_> = std::iter::from_fn(|| kind_work.schedule.take(now_ms)).collect();
        let Some(first) = pieces.first() else {
            return;
        };
        kind_work.fetching = true;
        kind_work.bodies.make_room(entry_of(&first.text));
        let (known, room) = (kind_work.bodies.ids(), kind_work.bodies.room());
        let kind = kind_work.kind;
        let lists = self.lists.clone();
        self.push(async move {
            let texts: Vec<_> = pieces.iter().map(|piece| piece.text.clone()).collect();
            let fetched = lists.fetch(kind, &texts, &known, room).await;
            if fetched.is_err() {
                Backoff::for_server().wait().await;
            }
            Ended::Fetched(kind, pieces, fetched)
        });
    }

    fn fetched(
        &mut self,
        kind: OwedKind,
        pieces: Vec<Piece>,
        fetched: RedisResult<Vec<FetchedEntry>>,
    ) {
        let mut fetched = fetched.unwrap_or_else(|error| {
            warn_will_retry(&error);
            Vec::new()
        });
        if self.draining {
            fetched.clear();
        }
        self.of(kind).fetching = false;
        let mut fetched = fetched.into_iter();
        let mut left = Vec::new();
        for piece in pieces {
            match fetched.next() {
                None | Some(FetchedEntry::NoRoom) => left.push(piece),
                Some(FetchedEntry::Gone) => self.ran(kind, piece, PieceOutcome::Gone),
                Some(FetchedEntry::Known) => {
                    let entry = self.of(kind).bodies.find(entry_of(&piece.text));
                    match entry {
                        Some(entry) => self.run(kind, piece, entry),
                        None => left.push(piece),
                    }
                }
                Some(FetchedEntry::Entry(raw)) => {
                    let entry = self.of(kind).bodies.add(OwingEntry::new(kind, raw));
                    self.run(kind, piece, entry);
                }
            }
        }
        for piece in left.into_iter().rev() {
            self.of(kind).schedule.give_back(piece);
        }
    }

    fn run(&mut self, kind: OwedKind, piece: Piece, entry: Arc<OwingEntry>) {
        let Some(owed) = Owed::read(kind, &piece.text) else {
            tracing::error!(entry = entry.id, "a piece that is owed can't be read");
            return self.ran(kind, piece, PieceOutcome::Seldom);
        };
        let (work, tenure, lists) = (self.work.clone(), self.tenure.clone(), self.lists.clone());
        self.running += 1;
        self.push(async move {
            // What makes this code panic is one piece's problem.
            let running = run(&work, &tenure, &lists, &entry, &piece.text, &owed);
            let outcome = AssertUnwindSafe(running).catch_unwind().await;
            Ended::Ran(
                kind,
                piece,
                outcome.unwrap_or_else(|_| {
                    tracing::error!(entry = entry.id, "a piece that is owed panicked");
                    PieceOutcome::Seldom
                }),
            )
        });
    }

    fn ran(&mut self, kind: OwedKind, piece: Piece, outcome: PieceOutcome) {
        let now_ms = self.now_ms();
        let text = piece.text.clone();
        let kind_work = self.of(kind);
        match outcome {
            PieceOutcome::Seldom | PieceOutcome::AwaitsOperator(_) => {
                kind_work.parked.insert(text.clone());
            }
            PieceOutcome::Done
            | PieceOutcome::Replaced
            | PieceOutcome::Gone
            | PieceOutcome::Failed(_)
            | PieceOutcome::Away(_) => {
                kind_work.parked.remove(&text);
            }
        }
        let update = match kind_work.schedule.ended(piece, outcome, now_ms) {
            Update::Nothing => return,
            Update::Done if matches!(outcome, PieceOutcome::Replaced | PieceOutcome::Gone) => {
                return kind_work.schedule.is_recorded(&text);
            }
            Update::Done => PieceUpdate::Done(match Owed::read(kind, &text) {
                Some(Owed::Settle(settle)) => Some(settle),
                Some(Owed::Put(_) | Owed::State(_) | Owed::Media(_)) | None => None,
            }),
            Update::Later(score) => PieceUpdate::Later(score),
        };
        self.updates.push(UpdatedPiece {
            kind,
            piece: text,
            update,
        });
    }

    // What became of it

    fn record(&mut self) {
        if self.recording || self.updates.is_empty() {
            return;
        }
        self.recording = true;
        let (lists, tenure) = (self.lists.clone(), self.tenure.clone());
        let updates = std::mem::take(&mut self.updates);
        self.push(async move {
            let mut backoff = Backoff::for_server();
            while let Err(error) = lists.update(&updates).await {
                warn_will_retry(&error);
                if tenure.lost.is_cancelled() {
                    break;
                }
                backoff.wait().await;
            }
            Ended::Recorded(updates)
        });
    }
}

/// Does a piece once.
async fn run(
    work: &WorkerContext,
    tenure: &Arc<Tenure>,
    lists: &Lists,
    entry: &OwingEntry,
    piece: &str,
    owed: &Owed,
) -> PieceOutcome {
    let payload = match &entry.content {
        OwingContent::Body(body) => body.read(&work.bytes_lock).await,
        OwingContent::Fields(_) | OwingContent::Gone => None,
    };
    match (owed, &entry.content, payload) {
        (Owed::Settle(settle), _, _) => settle::settle(work, settle).await,
        (_, OwingContent::Gone, _) => {
            let entry = entry_of(piece);
            tracing::error!(
                entry,
                "an entry that owed something was deleted by somebody else"
            );
            PieceOutcome::Done
        }
        (Owed::Put(owed), OwingContent::Fields(fields), _) => {
            put::put(work, &entry.id, fields, owed).await
        }
        (Owed::State(owed), _, Some(payload)) => state::post(work, &entry.id, payload, owed).await,
        (Owed::Media(owed), _, Some(payload)) => {
            media::follow_up(work, tenure, lists, piece, payload, owed).await
        }
        (Owed::Put(_) | Owed::State(_) | Owed::Media(_), _, _) => {
            tracing::error!(
                entry = entry.id,
                "an entry that owes something can't be read"
            );
            PieceOutcome::Seldom
        }
    }
}
