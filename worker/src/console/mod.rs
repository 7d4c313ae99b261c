//! The console on the admin port: one page for the whole deployment, which any worker serves. What it lists comes
//! from Redis, RabbitMQ and the object store, so all workers show the same; what it does, the commands of
//! [`crate::operator`] do.
//!
//! [`pages`] are the files of the page, [`overview`] is what everybody may see who reaches the port: nothing of
//! what messages say, no message's id, no phone number. All else is for whoever has signed in ([`session`]):
//! [`api`]. [`problem`] is how it fails.

mod api;
mod overview;
mod pages;
mod problem;
mod session;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit};
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use axum::routing::{get, post};
use futures::FutureExt;
use http_body_util::BodyExt;
use shared::admin::{Mounted, MountedAnswer};
use shared::tasks::Tasks;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower::ServiceExt;

use self::overview::OverviewCache;
use self::problem::ConsoleProblem;
use self::session::SignIn;
use crate::config::Config;
use crate::operator::Deployment;
use crate::operator::output::without_progress;

const PREFIX: &str = "/console";
/// Whatever is asked for; what takes longer is a command's.
const LIMIT: Duration = Duration::from_secs(60);
/// What is asked for at the same time, by whoever has signed in, and by all others.
const MOST_ASKED: usize = 8;
const MOST_VIEWS: usize = 16;
/// Each has a queue and a connection of its own.
const MOST_TAILS: usize = 4;
/// A hundred ids, each of a kilobyte.
const LARGEST_BODY: usize = 128 * 1024;

/// What the console goes by.
pub(crate) struct Console {
    config: Config,
    deployment: Deployment,
    background: Tasks,
    sign_in: SignIn,
    overview: OverviewCache,
    asked: Arc<Semaphore>,
    views: Arc<Semaphore>,
    tails: Arc<Semaphore>,
}

impl Console {
    pub(crate) fn new(config: Config, deployment: Deployment, background: Tasks) -> Self {
        Self {
            sign_in: SignIn::new(deployment.secrets.admin_token.clone()),
            config,
            deployment,
            background,
            overview: OverviewCache::default(),
            asked: Arc::new(Semaphore::new(MOST_ASKED)),
            views: Arc::new(Semaphore::new(MOST_VIEWS)),
            tails: Arc::new(Semaphore::new(MOST_TAILS)),
        }
    }

    /// Does what is asked for on a thread of its own, since commands are written for one. It ends in time, also
    /// when nobody waits for the answer any more: a requeue isn't cut off in the middle.
    async fn ask<T, F>(
        self: Arc<Self>,
        permits: &Arc<Semaphore>,
        work: impl FnOnce(Arc<Self>) -> F + Send + 'static,
    ) -> Result<T, ConsoleProblem>
    where
        T: Send + 'static,
        F: Future<Output = anyhow::Result<T>>,
    {
        let permit = permits.clone().try_acquire_owned();
        let permit = permit.map_err(|_| ConsoleProblem::busy())?;
        let runtime = Handle::current();
        let asked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            runtime.block_on(without_progress(timeout(LIMIT, work(self))))
        });
        match asked.await {
            Ok(Ok(done)) => Ok(done?),
            Ok(Err(_)) => Err(ConsoleProblem::late(LIMIT)),
            Err(_) => Err(ConsoleProblem::broken()),
        }
    }
}

/// The routes, for the admin port.
pub(crate) fn mounted(console: Console) -> Mounted {
    let router = router(Arc::new(console));
    let answer: MountedAnswer = Arc::new(move |request, peer| {
        let router = router.clone();
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            let answer = router.oneshot(request).await;
            let answer = answer.unwrap_or_else(|never| match never {});
            answer.map(|body| body.map_err(std::io::Error::other).boxed_unsync())
        }
        .boxed()
    });
    Mounted {
        prefix: PREFIX,
        answer,
    }
}

fn router(console: Arc<Console>) -> Router {
    let signed_in = from_fn_with_state(console.clone(), session::signed_in);
    let guarded = Router::new()
        .route("/failed", get(api::failed_list))
        .route("/failed/show", get(api::failed_show))
        .route("/failed/replay", post(api::failed_replay))
        .route("/failed/discard", post(api::failed_discard))
        .route("/replay/resume", post(api::replay_resume))
        .route("/search", get(api::search))
        .route("/find", post(api::find))
        .route("/cat", post(api::cat))
        .route("/tail", get(api::tail))
        .route("/tenant", get(api::tenant))
        .route("/dlq", get(api::dead_letters))
        .route("/dlq/requeue", post(api::requeue))
        .route("/dlq/discard", post(api::discard_dead_letters))
        .route("/session/end", post(session::end))
        .route_layer(signed_in);
    let api = Router::new()
        .route("/overview", get(overview::overview))
        .route("/session", get(session::current).post(session::begin))
        .merge(guarded)
        .fallback(problem::no_such_route)
        .layer(from_fn(session::own_origin))
        .layer(DefaultBodyLimit::max(LARGEST_BODY));
    Router::new()
        .route(PREFIX, get(pages::page))
        .route("/console/app.js", get(pages::script))
        .route("/console/style.css", get(pages::style))
        .route("/console/runbook", get(pages::runbook))
        .nest("/console/api", api)
        .fallback(problem::no_such_route)
        .layer(map_response(pages::protected))
        .with_state(console)
}
