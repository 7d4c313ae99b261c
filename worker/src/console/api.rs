//! What whoever has signed in may ask for and do: each route is a command, with the command's arguments.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use axum::{Extension, Json};
use futures::stream::{self, Stream};
use serde::{Deserialize, Serialize};
use shared::telemetry::audit;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Console;
use super::problem::ConsoleProblem;
use super::session::ConsoleSession;
use crate::operator::arguments::CallerArgs;
use crate::operator::cat::{self, CatArgs};
use crate::operator::dead_letters::{
    self, DeadLetter, DeadLetterAction, DeadLettersListArgs, DeadLettersReport, DeadLettersTakeArgs,
};
use crate::operator::failed::{
    self, DiscardArgs, DiscardReport, FailedDetail, FailedListArgs, FailedPage, FailedReplayArgs,
    FailedShowArgs,
};
use crate::operator::find::{self, CustomerPayload, FindArgs, FindTally};
use crate::operator::inspect::InspectArgs;
use crate::operator::locate::{self, Located};
use crate::operator::replay::BackgroundReplay;
use crate::operator::tail::{self, TailArgs, TailedEvent};
use crate::operator::tenant::{self, TenantReport};
use crate::operator::{Deployment, WrongCall};

/// What is done to many stops then, and says so: it is asked for again for the rest.
const ACTION_LIMIT: Duration = Duration::from_secs(30);
/// Reading payloads for a customer's, and what is listed of it.
const FIND_LIMIT: Duration = Duration::from_secs(30);
const MOST_FOUND: usize = 200;
/// Each kind of place that an id is looked for at.
const PLACE_LIMIT: Duration = Duration::from_secs(6);
/// Events for a browser that is slow; what comes beyond isn't shown.
const MOST_WAITING: usize = 1000;

type ConsoleState = State<Arc<Console>>;
type ConsoleAnswer<T> = Result<Json<T>, ConsoleProblem>;
type FromQuery<T> = Result<Query<T>, QueryRejection>;
type FromBody<T> = Result<Json<T>, JsonRejection>;

/// Does what is asked for by whoever has signed in.
async fn ask<T, F>(
    console: Arc<Console>,
    work: impl FnOnce(Arc<Console>) -> F + Send + 'static,
) -> ConsoleAnswer<T>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>>,
{
    let permits = console.asked.clone();
    console.ask(&permits, work).await.map(Json)
}

/// Tells what is done to stop in time.
async fn stopped_in_time<T>(work: impl AsyncFnOnce(&CancellationToken) -> T) -> T {
    let stop = CancellationToken::new();
    let stopping = async {
        sleep(ACTION_LIMIT).await;
        stop.cancel();
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        done = work(&stop) => done,
        never = stopping => match never {},
    }
}

pub(super) async fn failed_list(
    State(console): ConsoleState,
    asked: FromQuery<FailedListArgs>,
) -> ConsoleAnswer<FailedPage> {
    let Query(args) = asked?;
    ask(console, async move |it| {
        failed::page(&it.deployment, &args).await
    })
    .await
}

pub(super) async fn failed_show(
    State(console): ConsoleState,
    asked: FromQuery<FailedShowArgs>,
) -> ConsoleAnswer<Vec<FailedDetail>> {
    let Query(args) = asked?;
    ask(console, async move |it| {
        failed::show(&it.deployment, &args).await
    })
    .await
}

pub(super) async fn failed_discard(
    State(console): ConsoleState,
    Extension(session): Extension<ConsoleSession>,
    asked: FromBody<DiscardArgs>,
) -> ConsoleAnswer<DiscardReport> {
    let Json(mut args) = asked?;
    args.caller = CallerArgs::named(&session.by);
    ask(console, async move |it| {
        stopped_in_time(async |stop| failed::discard(&it.deployment, &args, stop).await).await
    })
    .await
}

/// A replay that was begun, or joined.
#[derive(Debug, Serialize)]
pub(super) struct StartedReplay {
    /// `None`: there is nothing to put back.
    replay: Option<String>,
    payloads: u64,
    /// Another one was under way; this one has to be asked for again after it.
    another: bool,
}

impl StartedReplay {
    /// Lets it go on in the background: the overview tells how far it is.
    fn run(console: &Console, by: &str, replay: Option<BackgroundReplay>) -> Self {
        let Some(replay) = replay else {
            return Self {
                replay: None,
                payloads: 0,
                another: false,
            };
        };
        let started = Self {
            replay: Some(replay.id().to_owned()),
            payloads: replay.total(),
            another: replay.is_another(),
        };
        audit("replay", by, replay.id(), replay.total());
        console
            .background
            .spawn_alone("console replay", replay.run());
        started
    }
}

pub(super) async fn failed_replay(
    State(console): ConsoleState,
    Extension(session): Extension<ConsoleSession>,
    asked: FromBody<FailedReplayArgs>,
) -> ConsoleAnswer<StartedReplay> {
    let args = asked?.0.into();
    ask(console, async move |it| {
        let stop = it.background.stop().clone();
        let begun = BackgroundReplay::begin(&it.deployment, &args, stop).await?;
        Ok(StartedReplay::run(&it, &session.by, begun))
    })
    .await
}

pub(super) async fn replay_resume(
    State(console): ConsoleState,
    Extension(session): Extension<ConsoleSession>,
) -> ConsoleAnswer<StartedReplay> {
    ask(console, async move |it| {
        let stop = it.background.stop().clone();
        let resumed = BackgroundReplay::resume(&it.deployment, stop).await?;
        Ok(StartedReplay::run(&it, &session.by, resumed))
    })
    .await
}

pub(super) async fn search(
    State(console): ConsoleState,
    asked: FromQuery<InspectArgs>,
) -> ConsoleAnswer<Located> {
    let Query(args) = asked?;
    ask(console, async move |it| {
        let id = args.id.as_ref().ok_or(WrongCall("say which: id".into()))?;
        Ok(locate::locate(&it.deployment, id, &args, PLACE_LIMIT).await)
    })
    .await
}

/// What was found of a customer.
#[derive(Debug, Serialize)]
pub(super) struct FoundPayloads {
    found: Vec<CustomerPayload>,
    tally: FindTally,
    /// There is nothing else; otherwise a tenant or a shorter time finds more.
    all: bool,
}

pub(super) async fn find(
    State(console): ConsoleState,
    asked: FromBody<FindArgs>,
) -> ConsoleAnswer<FoundPayloads> {
    let Json(args) = asked?;
    ask(console, async move |it| found(&it.deployment, &args).await).await
}

async fn found(deployment: &Deployment, args: &FindArgs) -> anyhow::Result<FoundPayloads> {
    let (mut found, mut tally, mut is_full) = (Vec::new(), FindTally::default(), false);
    let finding = find::find(deployment, args, &mut tally, |payload| {
        is_full = found.len() == MOST_FOUND;
        anyhow::ensure!(!is_full, "enough is found");
        found.push(payload);
        Ok(())
    });
    let ended = timeout(FIND_LIMIT, finding).await;
    let all = match ended {
        Ok(Err(_)) if is_full => false,
        Ok(ended) => ended.map(|()| true)?,
        Err(_) => false,
    };
    Ok(FoundPayloads { found, tally, all })
}

/// A payload, or the events of it.
#[derive(Debug, Serialize)]
pub(super) struct ShownPayload {
    /// Empty: nothing has the id.
    lines: Vec<String>,
}

pub(super) async fn cat(
    State(console): ConsoleState,
    Extension(session): Extension<ConsoleSession>,
    asked: FromBody<CatArgs>,
) -> ConsoleAnswer<ShownPayload> {
    let Json(mut args) = asked?;
    args.caller = CallerArgs::named(&session.by);
    ask(console, async move |it| {
        let lines = cat::cat(&it.config, &it.deployment, &args).await?;
        let lines = lines.iter().map(|line| String::from_utf8_lossy(line));
        let lines = lines.map(std::borrow::Cow::into_owned).collect();
        Ok(ShownPayload { lines })
    })
    .await
}

#[derive(Debug, Deserialize)]
pub(super) struct TenantQuery {
    id: String,
}

pub(super) async fn tenant(
    State(console): ConsoleState,
    asked: FromQuery<TenantQuery>,
) -> ConsoleAnswer<TenantReport> {
    let Query(TenantQuery { id }) = asked?;
    ask(console, async move |it| {
        tenant::tenant(&it.config, &it.deployment, &id).await
    })
    .await
}

pub(super) async fn dead_letters(
    State(console): ConsoleState,
    asked: FromQuery<DeadLettersListArgs>,
) -> ConsoleAnswer<Vec<DeadLetter>> {
    let Query(args) = asked?;
    ask(console, async move |it| {
        dead_letters::letters(&it.config, &it.deployment, &args).await
    })
    .await
}

pub(super) async fn requeue(
    State(console): ConsoleState,
    Extension(session): Extension<ConsoleSession>,
    asked: FromBody<DeadLettersTakeArgs>,
) -> ConsoleAnswer<DeadLettersReport> {
    take(console, session, asked?.0, DeadLetterAction::Requeue).await
}

pub(super) async fn discard_dead_letters(
    State(console): ConsoleState,
    Extension(session): Extension<ConsoleSession>,
    asked: FromBody<DeadLettersTakeArgs>,
) -> ConsoleAnswer<DeadLettersReport> {
    take(console, session, asked?.0, DeadLetterAction::Discard).await
}

async fn take(
    console: Arc<Console>,
    session: ConsoleSession,
    mut args: DeadLettersTakeArgs,
    action: DeadLetterAction,
) -> ConsoleAnswer<DeadLettersReport> {
    args.caller = CallerArgs::named(&session.by);
    ask(console, async move |it| {
        let (config, deployment) = (&it.config, &it.deployment);
        stopped_in_time(async |stop| {
            dead_letters::take(config, deployment, &args, action, stop).await
        })
        .await
    })
    .await
}

/// The events that go out from now on, without what they say, for as long as the browser listens.
pub(super) async fn tail(
    State(console): ConsoleState,
    asked: FromQuery<TailArgs>,
) -> Result<Sse<impl Stream<Item = Result<Event, axum::Error>>>, ConsoleProblem> {
    let Query(args) = asked?;
    let permit = console.tails.clone().try_acquire_owned();
    let permit = permit.map_err(|_| ConsoleProblem::busy())?;
    let connection = console.deployment.rabbitmq().await?;
    let (events, seen) = mpsc::channel::<TailedEvent>(MOST_WAITING);
    let (config, stop) = (console.config.clone(), console.background.stop().clone());
    let tailing = async move {
        let _permit = permit;
        let tailing = tail::tail(&connection, &config, &args, |event| {
            // A browser that is slow misses some, and holds up nothing.
            drop(events.try_send(event));
            Ok(())
        });
        tokio::select! {
            ended = tailing => if let Err(error) = ended {
                let error = format!("{error:#}");
                tracing::warn!(error, "a tail of the console broke off");
            },
            () = events.closed() => {}
            () = stop.cancelled() => {}
        }
        drop(connection.close(200, "done".into()).await);
    };
    console.background.spawn_alone("console tail", tailing);
    let events = stream::unfold(seen, async |mut seen| {
        let event = seen.recv().await?;
        Some((Event::default().json_data(event), seen))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}
