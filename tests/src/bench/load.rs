//! Load: closed loop (each connection sends when it was answered), to find what is possible; open
//! loop (each request has its moment, whatever became of those before), to find what it costs.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::wire::{Requests, Wire};

/// What was answered, and how long after its moment.
#[derive(Debug, Default)]
pub struct Report {
    /// By status; 0: no answer.
    pub answers: BTreeMap<u16, u64>,
    times_us: BTreeMap<u16, Histogram<u64>>,
    /// From when it really was sent, whatever kept the sender: this machine, or too few connections.
    sent_us: BTreeMap<u16, Histogram<u64>>,
    pub seconds: f64,
    /// The moment of the first request of an open loop.
    pub start: Option<Instant>,
}

impl Report {
    fn add(&mut self, status: u16, moment: Instant, sent: Instant) {
        *self.answers.entry(status).or_default() += 1;
        record(&mut self.times_us, status, moment.elapsed());
        record(&mut self.sent_us, status, sent.elapsed());
    }

    pub fn total(&self) -> u64 {
        self.answers.values().sum()
    }

    pub fn of(&self, status: u16) -> u64 {
        self.answers.get(&status).copied().unwrap_or(0)
    }

    /// Ms below which this share of the answers of a status came, from when they were sent.
    pub fn sent_quantile_ms(&self, status: u16, share: f64) -> f64 {
        quantile_ms(&self.sent_us, status, share)
    }

    /// Ms below which this share of the answers of a status came, from their moments.
    pub fn quantile_ms(&self, status: u16, share: f64) -> f64 {
        quantile_ms(&self.times_us, status, share)
    }
}

fn record(times: &mut BTreeMap<u16, Histogram<u64>>, status: u16, took: Duration) {
    let times = times
        .entry(status)
        .or_insert_with(|| Histogram::new(3).expect("three digits are possible"));
    times
        .record(took.as_micros() as u64)
        .expect("a range that grows");
}

fn quantile_ms(times: &BTreeMap<u16, Histogram<u64>>, status: u16, share: f64) -> f64 {
    let times = times.get(&status);
    times.map_or(0.0, |times| times.value_at_quantile(share) as f64 / 1e3)
}

/// Sends as fast as `connections` are answered.
pub fn closed(
    address: &str,
    requests: &Requests,
    first: u64,
    connections: u64,
    time: Duration,
) -> Report {
    on_a_thread(|| async {
        let requests = Rc::new(requests.clone());
        let report = Rc::new(RefCell::new(Report::default()));
        let next = Rc::new(RefCell::new(first));
        let start = Instant::now();
        let mut tasks = Vec::new();
        for _ in 0..connections {
            let (report, next, requests) = (report.clone(), next.clone(), requests.clone());
            let address = address.to_owned();
            tasks.push(tokio::task::spawn_local(async move {
                let mut wire = None;
                while start.elapsed() < time {
                    let n = next.replace_with(|n| *n + 1);
                    let request = requests.request(n);
                    let sent = Instant::now();
                    let status = ask(&address, &mut wire, &request).await;
                    report.borrow_mut().add(status, sent, sent);
                }
            }));
        }
        for task in tasks {
            task.await.expect("no panic");
        }
        let mut report = report.take();
        report.seconds = start.elapsed().as_secs_f64();
        report
    })
}

/// What the tasks of an open loop share.
struct Pool {
    report: RefCell<Report>,
    /// Connections that have nothing to do.
    idle: RefCell<Vec<mpsc::Sender<Job>>>,
    /// Requests that no connection was free for.
    waiting: RefCell<VecDeque<Job>>,
}

#[derive(Debug, Clone, Copy)]
struct Job {
    n: u64,
    moment: Instant,
}

/// Of an open loop.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Number of its first request.
    pub first: u64,
    pub per_second: f64,
    pub time: Duration,
    pub most_connections: usize,
}

/// Sends at a rate, over as many connections as that takes. Times count from the moment a request
/// should have been sent. `progress` is called once a second.
pub fn open(
    address: &str,
    requests: &Requests,
    rate: Rate,
    progress: fn(&Report, Duration),
) -> Report {
    let Rate {
        first,
        per_second: rate,
        time,
        most_connections,
    } = rate;
    on_a_thread(|| async {
        let requests = Rc::new(requests.clone());
        let pool = Rc::new(Pool {
            report: RefCell::default(),
            idle: RefCell::default(),
            waiting: RefCell::default(),
        });
        let start = Instant::now();
        let (mut sent, mut connections, mut told) = (0_u64, 0, 0);
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        while start.elapsed() < time {
            ticks.tick().await;
            // The first is due at once.
            let due = (start.elapsed().as_secs_f64() * rate) as u64 + 1;
            while sent < due {
                let job = Job {
                    n: first + sent,
                    moment: start + Duration::from_secs_f64(sent as f64 / rate),
                };
                sent += 1;
                let idle = pool.idle.borrow_mut().pop();
                match idle {
                    Some(connection) => drop(connection.try_send(job)),
                    None if connections < most_connections => {
                        connections += 1;
                        let (pool, requests) = (pool.clone(), requests.clone());
                        tokio::task::spawn_local(connection(
                            address.to_owned(),
                            requests,
                            pool,
                            job,
                        ));
                    }
                    None => pool.waiting.borrow_mut().push_back(job),
                }
            }
            if start.elapsed().as_secs() > told {
                told = start.elapsed().as_secs();
                progress(&pool.report.borrow(), start.elapsed());
            }
        }
        pool.waiting.borrow_mut().clear();
        let unanswered = async {
            while pool.report.borrow().total() < sent {
                ticks.tick().await;
            }
        };
        // What was sent at the end has this long to be answered.
        drop(tokio::time::timeout(Duration::from_secs(5), unanswered).await);
        let mut report = pool.report.take();
        report.seconds = time.as_secs_f64();
        report.start = Some(start);
        report
    })
}

async fn connection(address: String, requests: Rc<Requests>, pool: Rc<Pool>, first: Job) {
    let (me, mut jobs) = mpsc::channel(1);
    let (mut wire, mut next) = (None, Some(first));
    while let Some(job) = match next.take() {
        Some(job) => Some(job),
        None => jobs.recv().await,
    } {
        let request = requests.request(job.n);
        let sent = Instant::now();
        let status = ask(&address, &mut wire, &request).await;
        pool.report.borrow_mut().add(status, job.moment, sent);
        next = pool.waiting.borrow_mut().pop_front();
        if next.is_none() {
            pool.idle.borrow_mut().push(me.clone());
        }
    }
}

/// The status of the answer; 0 if there is none. A kept connection that was closed meanwhile is made
/// again, as senders of webhooks do.
async fn ask(address: &str, wire: &mut Option<Wire>, request: &[u8]) -> u16 {
    let kept = wire.is_some();
    match ask_over(address, wire, request).await {
        Err(error) if kept && is_closed(&error) => ask_over(address, wire, request).await,
        outcome => outcome,
    }
    .unwrap_or(0)
}

async fn ask_over(address: &str, wire: &mut Option<Wire>, request: &[u8]) -> io::Result<u16> {
    let mut open = match wire.take() {
        Some(kept) => kept,
        None => Wire::open(address).await?,
    };
    let (status, goes_on) = open.exchange(request).await?;
    *wire = goes_on.then_some(open);
    Ok(status)
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// One thread for all the load, so that the rest of the machine is the service's.
fn on_a_thread<F: Future>(work: impl FnOnce() -> F + Send) -> F::Output
where
    F::Output: Send,
{
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        LocalSet::new().block_on(&runtime, work())
    };
    std::thread::scope(|scope| scope.spawn(run).join().expect("no panic"))
}
