//! `worker replay`: puts payloads of the failed store or the archive back into the stream.
//!
//! [`selection`] says which; it counts them first. One process at a time has the [`turn`]; it goes
//! through the keys in ascending order and notes how far it is, others watch and go on when it dies.
//! What makes an object an entry, once, is [`crate::owed::readmit`]; what becomes of the object afterwards is
//! the workers' (see ARCHITECTURE.md).

mod runner_lease;
mod selection;
mod show;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::stream::{StreamExt, TryStreamExt};
use shared::keys::Keys;
use shared::redis::{Connection, StartCheck, class, memory_used, warn_will_retry};
use shared::telemetry::{CommandError, audit};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

pub(crate) use self::runner_lease::ReplayProgress;
use self::runner_lease::{Replay, ReplayStatus, RunnerLease};
use self::selection::Selection;
pub use self::selection::{ReplayArgs, ReplayRunArgs, ReplaySource};
use self::show::{ReplayOutput, Tally};
use super::objects::{NamedObjects, PayloadArea, owner_of};
use super::{Deployment, WrongCall};
use crate::config::Config;
use crate::out::store::{ReadError, Store, StoreError};
use crate::owed::readmit::{self, NotReturnable, PutBack, Readmit, Returning};
use crate::retry::Backoff;

const REDIS_TIMEOUT: Duration = Duration::from_secs(3);
/// Objects asked for side by side: while counting, and ahead of the one that is put back.
const COUNTED_AT_ONCE: usize = 16;
const READ_AHEAD: usize = 8;
/// Share of Redis' memory beyond which nothing is put back: the rest is for what Meta sends.
const MOST_MEMORY: f64 = 0.7;
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Runs, joins or goes on with a replay, until all that it put back is through or it is stopped.
///
/// # Errors
/// A selection that nobody can mean, or a server that is away at the beginning; later ones are waited
/// for.
pub async fn run(config: &Config, args: &ReplayArgs) -> anyhow::Result<()> {
    let mut selection = Selection::of(args).map_err(CommandError)?;
    let secrets = config
        .secrets()
        .map_err(|problems| anyhow::anyhow!("{}", problems.join("\n")))?;
    let store_keys = secrets.store.context("MINIO_ACCESS_KEY is not set")?;
    let store = Arc::new(Store::new(&config.store, &config.objects, store_keys)?);
    let keys = Keys::new(
        &config.redis.redis_key_prefix,
        config.redis.stream_partitions,
    );
    let connection = secrets.redis.connection(REDIS_TIMEOUT);
    let mut check = StartCheck {
        connection: connection.clone(),
        keys: keys.clone(),
        required: false,
    };
    check.run().await?.context("Redis").map_err(CommandError)?;
    if !args.ids.is_empty() && !args.running.abandon {
        selection.keys = named_keys(&store, args).await.map_err(CommandError)?;
        ensure!(!selection.keys.is_empty(), nothing_named(&selection));
    }
    let stop = shared::telemetry::shutdown_on_signal()?;
    let show = ReplayOutput::new(args.running.json);
    let command = ReplayRun::new((store, connection, keys), args.running.rate, show, stop);
    if args.running.abandon {
        let by = args.running.caller.name();
        return command.abandon(&by).await;
    }
    if args.running.dry_run {
        return command.dry_run(&selection).await;
    }
    command.run(&selection, &args.running.caller.name()).await
}

fn nothing_named(selection: &Selection) -> String {
    let place = selection.source.place();
    format!("nothing of these ids is in the {place}")
}

/// The last replay of the deployment; `None`: there was none.
///
/// # Errors
/// A Redis command failed.
pub(crate) async fn progress(deployment: &Deployment) -> anyhow::Result<Option<ReplayProgress>> {
    let (connection, keys) = (deployment.connection.clone(), deployment.keys.clone());
    RunnerLease::new(connection, keys).look().await
}

/// A replay that a worker runs for somebody who watches elsewhere.
pub(crate) struct BackgroundReplay {
    command: ReplayRun,
    standing: ReplayStatus,
    replay: Replay,
    selection: Selection,
}

impl BackgroundReplay {
    /// Begins one, or joins the one that is under way; `None`: there is nothing to put back.
    ///
    /// # Errors
    /// A selection that nobody can mean, or a server is away.
    pub(crate) async fn begin(
        deployment: &Deployment,
        args: &ReplayArgs,
        stop: CancellationToken,
    ) -> anyhow::Result<Option<Self>> {
        let selection = Selection::of(args);
        let wrong = |error| WrongCall(format!("{error:#}").into());
        let mut selection = selection.map_err(wrong)?;
        if !args.ids.is_empty() {
            selection.keys = named_keys(&deployment.store, args).await?;
            if selection.keys.is_empty() {
                return Ok(None);
            }
        }
        let command = ReplayRun::quiet(deployment, args.running.rate, stop);
        let started = command.start(&selection).await?;
        Ok(started.map(|(standing, replay)| Self {
            command,
            standing,
            replay,
            selection,
        }))
    }

    /// Goes on with one that nobody runs any more; `None`: there is none.
    ///
    /// # Errors
    /// A Redis command failed.
    pub(crate) async fn resume(
        deployment: &Deployment,
        stop: CancellationToken,
    ) -> anyhow::Result<Option<Self>> {
        let rate = ReplayRunArgs::default().rate;
        let command = ReplayRun::quiet(deployment, rate, stop);
        let (standing, replay) = command.turn.take().await?;
        let replay = replay.filter(|_| standing == ReplayStatus::Mine);
        Ok(replay.map(|replay| Self {
            command,
            standing,
            selection: replay.selection.clone(),
            replay,
        }))
    }

    pub(crate) fn id(&self) -> &str {
        &self.replay.id
    }

    /// How many payloads it is about.
    pub(crate) fn total(&self) -> u64 {
        self.replay.total
    }

    /// It was begun for something else.
    pub(crate) fn is_another(&self) -> bool {
        self.replay.selection.typed != self.selection.typed
    }

    pub(crate) async fn run(self) {
        let id = self.replay.id.clone();
        let followed = self.command.follow(self.standing, self.replay);
        if let Err(error) = followed.await {
            let error = format!("{error:#}");
            tracing::warn!(replay = id, error, "a replay broke off; it can be resumed");
        }
    }
}

struct ReplayRun {
    store: Arc<Store>,
    connection: Connection,
    readmit: Readmit,
    turn: RunnerLease,
    /// Payloads a second.
    rate: u32,
    show: ReplayOutput,
    stop: CancellationToken,
    /// When the next payload may go.
    next: Instant,
    /// When it was last noted how far it is.
    noted: Option<Instant>,
}

/// How a turn came to its end.
enum TurnEnd {
    /// All is put back.
    Ended,
    Stopped,
    /// It is somebody else's turn.
    Lost,
}

/// Why a pass through the keys broke off.
enum PassError {
    Turned(TurnEnd),
    /// From the last key that is done on again.
    StoreAway(String),
    Failed(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for PassError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// A key, and what of it is put back: `None` if it isn't meant, or isn't there any more.
type PreparedObject = (String, Result<Option<Returning>, NotReturnable>);

impl ReplayRun {
    fn new(
        (store, connection, keys): (Arc<Store>, Connection, Keys),
        rate: u32,
        show: ReplayOutput,
        stop: CancellationToken,
    ) -> Self {
        Self {
            readmit: Readmit::new(store.clone(), connection.clone(), keys.clone()),
            turn: RunnerLease::new(connection.clone(), keys),
            connection,
            store,
            rate,
            show,
            stop,
            next: Instant::now(),
            noted: None,
        }
    }

    /// One that says nothing.
    fn quiet(deployment: &Deployment, rate: u32, stop: CancellationToken) -> Self {
        let (store, connection) = (deployment.store.clone(), deployment.connection.clone());
        let servers = (store, connection, deployment.keys.clone());
        Self::new(servers, rate, ReplayOutput::quiet(), stop)
    }

    async fn abandon(mut self, by: &str) -> anyhow::Result<()> {
        match self.turn.take().await.map_err(not_asked)? {
            (ReplayStatus::Mine, Some(replay)) => {
                self.turn.ends(&replay).await?;
                audit("abandon replay", by, &replay.id, replay.total);
                self.show
                    .say(&format!("replay {} is ended where it was", replay.id))?;
            }
            (ReplayStatus::Others, Some(replay)) => {
                bail!("replay {} is being run: stop that process first", replay.id)
            }
            (ReplayStatus::None | ReplayStatus::Ended, _) | (_, None) => {
                self.show.say("no replay is under way")?;
            }
        }
        Ok(())
    }

    async fn dry_run(mut self, selection: &Selection) -> anyhow::Result<()> {
        let tally = self.count(selection, true).await?;
        Ok(self.show.tally(&tally)?)
    }

    async fn run(mut self, selection: &Selection, by: &str) -> anyhow::Result<()> {
        let Some((standing, replay)) = self.start(selection).await? else {
            return Ok(self.show.say("nothing to put back")?);
        };
        let Replay { id, total, .. } = &replay;
        audit("replay", by, id, *total);
        let typed = replay.selection.typed.clone();
        self.show.say(&if replay.selection == *selection {
            format!("replay {id}: {total} payloads are put back ({typed})")
        } else {
            format!("replay {id} of {total} payloads is under way ({typed}): joining it")
        })?;
        self.follow(standing, replay).await?;
        ensure!(
            typed == selection.typed,
            "that replay ({typed}) is over; run this command again for what it was meant for ({})",
            selection.typed
        );
        Ok(())
    }

    /// Begins a replay, or joins the one that is under way; `None`: there is nothing to put back.
    async fn start(&self, selection: &Selection) -> anyhow::Result<Option<(ReplayStatus, Replay)>> {
        let (standing, replay) = match self.turn.take().await.map_err(not_asked)? {
            (ReplayStatus::None | ReplayStatus::Ended, _) => {
                let total = self.count(selection, false).await?.total;
                if total == 0 {
                    return Ok(None);
                }
                let begun = self.turn.begin(selection, total).await;
                begun.map_err(not_asked)?
            }
            under_way @ (ReplayStatus::Mine | ReplayStatus::Others, _) => under_way,
        };
        Ok(Some((standing, replay.context("there is no replay")?)))
    }

    /// Puts back while it is its turn, else watches, until all is through or it is stopped.
    async fn follow(
        mut self,
        mut standing: ReplayStatus,
        mut replay: Replay,
    ) -> anyhow::Result<()> {
        loop {
            match standing {
                ReplayStatus::Mine => match self.put_all_back(&mut replay).await? {
                    TurnEnd::Stopped => return self.stopped(&replay).await,
                    TurnEnd::Lost => standing = ReplayStatus::Others,
                    TurnEnd::Ended => standing = ReplayStatus::Ended,
                },
                ReplayStatus::Others => {
                    if self.rest(LOOK_INTERVAL).await {
                        return Ok(self.show.say("stopped watching; the replay goes on")?);
                    }
                    match self.turn.take().await {
                        Ok((now, Some(found))) if found.id == replay.id => {
                            (standing, replay) = (now, found);
                        }
                        // It is over, and another one has begun.
                        Ok(_) => standing = ReplayStatus::Ended,
                        Err(error) => {
                            let class = error.downcast_ref().map(class);
                            let error = format!("{error:#}");
                            tracing::warn!(
                                class,
                                error,
                                "the replay's state can't be read, will retry"
                            );
                        }
                    }
                    self.tell(&replay, None).await?;
                }
                ReplayStatus::Ended | ReplayStatus::None => break,
            }
        }
        self.wait_for_workers(&replay).await
    }

    // Counting

    async fn count(&self, selection: &Selection, in_detail: bool) -> anyhow::Result<Tally> {
        let counting = self.count_all(selection, in_detail);
        let counted = self.stop.run_until_cancelled(counting).await;
        counted.context("stopped while counting")?
    }

    async fn count_all(&self, selection: &Selection, in_detail: bool) -> anyhow::Result<Tally> {
        let away = |error| {
            not_asked(anyhow::Error::new(error).context("the object store can't be listed"))
        };
        let look =
            selection.asks_for_reason() || (in_detail && selection.source == ReplaySource::Failed);
        let keys = selection.listed(&self.store, None).await.map_err(away)?;
        let keys = keys.try_filter(|key| std::future::ready(selection.may_be(key, "")));
        keys.map_err(away)
            .map_ok(async |key| {
                let reason = if selection.asks_for_body() {
                    match self.store.read(&key).await {
                        Ok(kept) if selection.is(&key, &kept) => Some(kept.of("reason").to_owned()),
                        Ok(_) => None,
                        Err(error) => damaged(error)?,
                    }
                } else if look {
                    match self.store.described(&key).await {
                        Ok(mut described) => {
                            let reason = described.remove("reason").unwrap_or_default();
                            Some(reason).filter(|reason| selection.is_of_reason(reason))
                        }
                        Err(error) => damaged(error)?,
                    }
                } else {
                    Some(String::new())
                };
                Ok(reason.map(|reason| (reason, owner_of(&key))))
            })
            .try_buffer_unordered(COUNTED_AT_ONCE)
            .try_fold(Tally::default(), async |mut tally, counted| {
                if let Some(counted) = counted {
                    tally.total += 1;
                    *tally.by.entry(counted).or_default() += 1;
                }
                Ok(tally)
            })
            .await
    }

    // Putting back

    async fn put_all_back(&mut self, replay: &mut Replay) -> anyhow::Result<TurnEnd> {
        let mut backoff = Backoff::for_server();
        loop {
            match self.pass(replay).await {
                Ok(()) => return Ok(TurnEnd::Ended),
                Err(PassError::Turned(turned)) => return Ok(turned),
                Err(PassError::Failed(error)) => return Err(error),
                Err(PassError::StoreAway(why)) => {
                    let waits = format!("waits for the object store: {why}");
                    if self.rest(backoff.pause()).await {
                        return Ok(TurnEnd::Stopped);
                    }
                    match self.breathe(replay, Some(&waits)).await {
                        Ok(()) | Err(PassError::StoreAway(_)) => {}
                        Err(PassError::Turned(turned)) => return Ok(turned),
                        Err(PassError::Failed(error)) => return Err(error),
                    }
                }
            }
        }
    }

    /// Goes through the keys that aren't done yet.
    async fn pass(&mut self, replay: &mut Replay) -> Result<(), PassError> {
        let away = |error: StoreError| PassError::StoreAway(error.to_string());
        let store = self.store.clone();
        let (selection, id) = (replay.selection.clone(), replay.id.clone());
        let keys = selection.listed(&store, replay.at.clone()).await;
        let keys = keys.map_err(away)?;
        let meant = keys.try_filter(|key| std::future::ready(selection.may_be(key, &id)));
        let opened = meant.map_ok(async |key| Ok(open(&store, &selection, key).await));
        let mut objects = opened.try_buffered(READ_AHEAD).boxed();
        while let Some(object) = objects.next().await {
            let (key, opened): PreparedObject = object.map_err(away)?;
            self.breathe(replay, None).await?;
            match opened {
                Ok(Some(returning)) => self.put_one_back(replay, &returning).await?,
                Ok(None) => {}
                Err(NotReturnable::Unread(ReadError::Store(error)))
                    if self.store.probe().await.is_err() =>
                {
                    return Err(away(error));
                }
                // One that the store can't give holds up nobody.
                Err(why) => {
                    self.show.left(&key, &why.to_string())?;
                    replay.left += 1;
                }
            }
            replay.at = Some(key);
        }
        drop(objects);
        self.end(replay).await
    }

    async fn put_one_back(
        &mut self,
        replay: &Replay,
        returning: &Returning,
    ) -> Result<(), PassError> {
        self.pace().await;
        let mut backoff = Backoff::for_server();
        loop {
            let put = self.readmit.put_back(returning, &replay.id);
            let (waits, pause) = match put.await {
                // One that was settled since it was read has gone out, or is the next replay's.
                Ok(PutBack::Put | PutBack::UnderWay | PutBack::Before | PutBack::Changed) => {
                    return Ok(());
                }
                Ok(PutBack::Over) => {
                    let over = "a later replay has begun; this one is over";
                    return Err(PassError::Failed(anyhow::anyhow!(over)));
                }
                Ok(PutBack::Busy) => (
                    "waits: a partition's backlog is long".to_owned(),
                    BUSY_PAUSE,
                ),
                Ok(PutBack::Unsure) => {
                    ("waits: others are settled beside it".to_owned(), BUSY_PAUSE)
                }
                Err(error) => (format!("waits for {error}"), backoff.pause()),
            };
            if self.rest(pause).await {
                return Err(PassError::Turned(TurnEnd::Stopped));
            }
            self.breathe(replay, Some(&waits)).await?;
        }
    }

    /// Now and then: notes how far it is, tells it, and waits while Redis is short of memory.
    async fn breathe(&mut self, replay: &Replay, waits: Option<&str>) -> Result<(), PassError> {
        if self.stop.is_cancelled() {
            return Err(PassError::Turned(TurnEnd::Stopped));
        }
        while self.noted.is_none_or(|at| at.elapsed() >= LOOK_INTERVAL) {
            self.noted = Some(Instant::now());
            // A Redis that is away shows when something is put back.
            if self.turn.goes_on(replay).await.is_ok_and(|mine| !mine) {
                return Err(PassError::Turned(TurnEnd::Lost));
            }
            let used = memory_used(&self.connection).await;
            if !used.is_ok_and(|share| share > MOST_MEMORY) {
                self.tell(replay, waits).await?;
                break;
            }
            let full = "waits: Redis has used more than 70 % of its memory";
            self.tell(replay, Some(full)).await?;
            if self.rest(LOOK_INTERVAL).await {
                return Err(PassError::Turned(TurnEnd::Stopped));
            }
        }
        Ok(())
    }

    async fn end(&mut self, replay: &Replay) -> Result<(), PassError> {
        let mut backoff = Backoff::for_server();
        loop {
            match self.turn.ends(replay).await {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(PassError::Turned(TurnEnd::Lost)),
                Err(error) => warn_will_retry(&error),
            }
            if self.rest(backoff.pause()).await {
                return Err(PassError::Turned(TurnEnd::Stopped));
            }
        }
    }

    /// Keeps the rate; what was waited for is caught up with for a tenth of a second at most.
    async fn pace(&mut self) {
        let earliest = Instant::now() - Duration::from_millis(100);
        self.next = self.next.max(earliest) + Duration::from_secs(1) / self.rate;
        sleep_until(self.next).await;
    }

    // Watching

    async fn stopped(mut self, replay: &Replay) -> anyhow::Result<()> {
        self.turn
            .stops(replay)
            .await
            .context("Redis")
            .map_err(CommandError)?;
        Ok(self.show.say(&format!(
            "replay {} is stopped; run the command again to go on, or with --abandon to end it here",
            replay.id
        ))?)
    }

    /// Returns once all that was put back went out or was set aside again.
    async fn wait_for_workers(&mut self, replay: &Replay) -> anyhow::Result<()> {
        loop {
            match self.turn.counts(&replay.id).await {
                Ok(counts) if counts.settled() => return Ok(self.show.ended(replay, counts)?),
                Ok(counts) => self
                    .show
                    .progress(replay, counts, Some("waits for the workers"))?,
                Err(error) => warn_will_retry(&error),
            }
            if self.rest(LOOK_INTERVAL).await {
                let text = "stopped watching; all is in the stream, and the workers go on with it";
                return Ok(self.show.say(text)?);
            }
        }
    }

    async fn tell(&mut self, replay: &Replay, waits: Option<&str>) -> anyhow::Result<()> {
        if let Ok(counts) = self.turn.counts(&replay.id).await {
            self.show.progress(replay, counts, waits)?;
        }
        Ok(())
    }

    /// Waits; true if it is told to stop.
    async fn rest(&self, pause: Duration) -> bool {
        self.stop.run_until_cancelled(sleep(pause)).await.is_none()
    }
}

/// Keys of the objects that ids name, ascending.
async fn named_keys(store: &Store, args: &ReplayArgs) -> anyhow::Result<Vec<String>> {
    let area = match args.source {
        ReplaySource::Failed => PayloadArea::Failed,
        ReplaySource::Archive => PayloadArea::Archive,
    };
    let mut keys = BTreeSet::new();
    for id in &args.ids {
        let of_id = NamedObjects {
            store,
            area,
            tenant: args.filter.tenant.as_deref(),
        };
        keys.extend(of_id.all(id).await?);
    }
    Ok(keys.into_iter().collect())
}

async fn open(store: &Store, selection: &Selection, key: String) -> PreparedObject {
    let opened = match store.read(&key).await {
        Ok(kept) if selection.is(&key, &kept) => readmit::returning(&key, &kept).map(Some),
        // Or settled since it was listed.
        Ok(_) | Err(ReadError::Gone) => Ok(None),
        Err(error) => Err(error.into()),
    };
    (key, opened)
}

/// How an object counts that can't be read.
fn damaged(error: ReadError) -> anyhow::Result<Option<String>> {
    match error {
        ReadError::Gone => Ok(None),
        ReadError::Corrupt | ReadError::TooLarge(_) => Ok(Some("(can't be read)".to_owned())),
        ReadError::Store(_) => Err(error.into()),
    }
}

/// A server could not be asked: the command ends with 2.
fn not_asked(error: anyhow::Error) -> anyhow::Error {
    CommandError(error).into()
}
