//! Odd answers: what a neighbour, the object store, the broker or Redis could say, however wrong.
//!
//! A proxy stands in front of each. It passes most on, and now and then an [`Odds`] draws something
//! else for it. What comes n-th on a route is drawn from the seed, the route and n alone, so that a seed
//! repeats the answers of another run.
//!
//! None of them lies about what was done: a write is answered with success only if it was one, and
//! nothing is confirmed that the broker did not confirm.

mod amqp;
mod http;
mod redis;
mod values;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::http::Answers;
pub use self::http::Head;
use crate::ports;

/// Decides who gets something odd, and remembers it.
#[derive(Debug)]
pub struct Odds {
    seed: u64,
    on: AtomicBool,
    routes: Mutex<BTreeMap<String, Route>>,
    log: Mutex<File>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Route {
    asked: u64,
    odd: u64,
}

/// What one answer is drawn with.
pub(crate) struct Draw {
    odds: Arc<Odds>,
    route: String,
    n: u64,
    pub(crate) random: StdRng,
}

impl Odds {
    /// All is well until [`Odds::begin`]. A line for each odd answer is written to `log`.
    ///
    /// # Errors
    /// The file can't be made.
    pub fn new(seed: u64, log: &Path) -> anyhow::Result<Arc<Self>> {
        let file = File::create(log).with_context(|| format!("{}", log.display()))?;
        Ok(Arc::new(Self {
            seed,
            on: AtomicBool::new(false),
            routes: Mutex::default(),
            log: Mutex::new(file),
        }))
    }

    pub fn begin(&self) {
        self.on.store(true, Ordering::Relaxed);
    }

    /// From now on all is well.
    pub fn end(&self) {
        self.on.store(false, Ordering::Relaxed);
    }

    /// How many odd answers a route has given.
    pub fn odd(&self, route: &str) -> u64 {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.get(route).map_or(0, |route| route.odd)
    }

    /// Odd answers of all, by route, for people.
    pub fn table(&self) -> String {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = String::new();
        for (name, Route { asked, odd }) in &*routes {
            writeln!(table, "{odd:>6} odd of {asked:>6}  {name}").expect("a String takes all");
        }
        table
    }

    /// The next answer of a route: `None` if it is to be right, which `percent` of them are not.
    pub(crate) fn draw(self: &Arc<Self>, route: &str, percent: u32) -> Option<Draw> {
        if !self.on.load(Ordering::Relaxed) {
            return None;
        }
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = routes.entry(route.to_owned()).or_default();
        counts.asked += 1;
        let n = counts.asked;
        let mut hasher = DefaultHasher::new();
        (self.seed, route, n).hash(&mut hasher);
        let mut random = StdRng::seed_from_u64(hasher.finish());
        if !random.random_ratio(percent, 100) {
            return None;
        }
        counts.odd += 1;
        drop(routes);
        Some(Draw {
            odds: self.clone(),
            route: route.to_owned(),
            n,
            random,
        })
    }
}

impl Draw {
    /// Writes down what it came to.
    pub(crate) fn told(&self, what: &str) {
        let mut log = self.odds.log.lock().unwrap_or_else(PoisonError::into_inner);
        // What can't be written for people can be drawn again.
        drop(writeln!(log, "{} {}: {what}", self.route, self.n));
    }
}

/// A proxy in front of a server, which says odd things in its place. Dropping it closes everything.
#[derive(Debug)]
pub struct OddProxy {
    address: SocketAddr,
    _stop: DropGuard,
}

impl OddProxy {
    /// In front of an HTTP server (`host:port`). `route` names the route of a request; `None`: it is
    /// always answered right.
    ///
    /// # Errors
    /// It can't listen.
    pub async fn http(
        upstream: impl Into<String>,
        odds: &Arc<Odds>,
        route: fn(&Head) -> Option<String>,
    ) -> anyhow::Result<Self> {
        Self::before(upstream.into(), Answers::Drawn(odds.clone(), route)).await
    }

    /// In front of an HTTP server, of whose answers `change` makes other bodies.
    ///
    /// # Errors
    /// It can't listen.
    pub async fn bodies(
        upstream: impl Into<String>,
        change: impl Fn(&Head, Vec<u8>) -> Vec<u8> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        Self::before(upstream.into(), Answers::Changed(Box::new(change))).await
    }

    async fn before(upstream: String, answers: Answers) -> anyhow::Result<Self> {
        let listener = listener().await?;
        let server = Arc::new(http::Server {
            upstream,
            own: listener.local_addr()?.to_string(),
            answers,
        });
        Self::listen(listener, move |client| {
            let server = server.clone();
            async move { server.serve(client).await }
        })
    }

    /// In front of a broker.
    ///
    /// # Errors
    /// It can't listen.
    pub async fn amqp(upstream: impl Into<String>, odds: &Arc<Odds>) -> anyhow::Result<Self> {
        let (upstream, odds) = (Arc::<str>::from(upstream.into()), odds.clone());
        Self::listen(listener().await?, move |client| {
            let (upstream, odds) = (upstream.clone(), odds.clone());
            // Either side leaves when it likes.
            async move { drop(amqp::serve(client, &upstream, &odds).await) }
        })
    }

    /// In front of a broker, whose answers `answer` changes: it gets the number of the connection, that of
    /// the frame, and the frame. `None`: nothing more comes of that connection, and it stays open.
    ///
    /// # Errors
    /// It can't listen.
    pub async fn frames(
        upstream: impl Into<String>,
        answer: fn(usize, usize, Vec<u8>) -> Option<Vec<u8>>,
    ) -> anyhow::Result<Self> {
        let (upstream, connections) = (Arc::<str>::from(upstream.into()), AtomicUsize::new(0));
        Self::listen(listener().await?, move |client| {
            let upstream = upstream.clone();
            let connection = connections.fetch_add(1, Ordering::Relaxed);
            let answer = move |n, frame| answer(connection, n, frame);
            // Either side leaves when it likes.
            async move { drop(amqp::serve_frames(client, &upstream, answer).await) }
        })
    }

    /// In front of a Redis, of whose answers `percent` are odd.
    ///
    /// # Errors
    /// It can't listen.
    pub async fn redis(
        upstream: impl Into<String>,
        odds: &Arc<Odds>,
        route: &'static str,
        percent: u32,
    ) -> anyhow::Result<Self> {
        let (upstream, odds) = (Arc::<str>::from(upstream.into()), odds.clone());
        Self::listen(listener().await?, move |client| {
            let (upstream, odds) = (upstream.clone(), odds.clone());
            // Either side leaves when it likes.
            async move { drop(redis::serve(client, &upstream, &odds, (route, percent)).await) }
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://host:port`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn listen<F: Future<Output = ()> + Send + 'static>(
        listener: TcpListener,
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> anyhow::Result<Self> {
        let address = listener.local_addr().context("own address")?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                if let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(stopped.clone().run_until_cancelled_owned(serve(client)));
                }
            }
        }));
        Ok(Self {
            address,
            _stop: stop.drop_guard(),
        })
    }
}

async fn listener() -> anyhow::Result<TcpListener> {
    let address = (Ipv4Addr::LOCALHOST, ports::free());
    TcpListener::bind(address).await.context("an odd proxy")
}
