//! Connections: how many there are, how long each may take, and how it ends.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1::{Builder, Connection};
use hyper::service::{HttpService, service_fn};
use hyper::{Method, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Overloaded;
use crate::context::{Ingress, ServingThread};
use crate::error::Refusal;
use crate::request;

/// Meta sends about ten headers; more than this is not Meta.
const MAX_HEADERS: usize = 64;
/// Per connection; hyper's default would be 400 KB.
const READ_BUFFER_BYTES: usize = 32 * 1024;
/// What a balancer that speaks the PROXY protocol writes before a request, in its two versions; hyper
/// takes away the empty lines that the second one begins with.
const PROXY_HEADERS: [&[u8]; 2] = [b"PROXY ", b"\0\r\nQUIT\n"];
/// Whoever takes no answer for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(15);
/// A connection that ends takes what its client is still sending for this long: closed at once, it
/// would be reset, and the answer with it.
const LINGER: (Duration, usize) = (Duration::from_secs(1), 1024 * 1024);
/// Accepts until `shutdown`, then until the open connections have finished.
pub(crate) async fn accept(
    thread: Arc<ServingThread>,
    listener: TcpListener,
    shutdown: CancellationToken,
) {
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: some close soon.
                tracing::warn!(%error, "can't accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        match thread.ingress.admission.connection() {
            Ok(place) => {
                let room_wanted = thread.ingress.admission.room_wanted();
                let connection = (stream, place, room_wanted);
                tasks.spawn(serve(thread.clone(), connection, shutdown.clone()));
            }
            Err(told) => {
                thread.ingress.metrics.turned_away.inc();
                if let Some(place) = told {
                    tasks.spawn(turn_away(thread.ingress.clone(), stream, place));
                }
            }
        }
    }
    // New connections are refused while the open ones finish.
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn turn_away(ingress: Arc<Ingress>, mut stream: TcpStream, _permit: OwnedSemaphorePermit) {
    let answer = request::refusal(&ingress, &Overloaded::Connections.into());
    end(&mut stream, Some(answer)).await;
}

/// When a connection last had a webhook taken; ms since it was accepted.
struct Activity {
    accepted: Instant,
    taken_ms: AtomicU64,
    in_work: AtomicBool,
}

impl Activity {
    fn new() -> Self {
        Self {
            accepted: Instant::now(),
            taken_ms: AtomicU64::new(0),
            in_work: AtomicBool::new(false),
        }
    }

    fn taken(&self) {
        let ms = self.accepted.elapsed().as_millis() as u64;
        self.taken_ms.store(ms.max(1), Ordering::Relaxed);
    }

    /// Since the last one; `None` before the first.
    fn idle(&self) -> Option<Duration> {
        let taken = Duration::from_millis(self.taken_ms.load(Ordering::Relaxed));
        (!taken.is_zero()).then(|| self.accepted.elapsed().saturating_sub(taken))
    }

    /// It waits for another webhook.
    fn waits(&self) -> bool {
        !self.in_work.load(Ordering::Relaxed) && self.idle().is_some()
    }
}

/// One connection, from accept to close. hyper's time-out for headers also runs while nothing is
/// sent at all: a connection that was idle for so long is served on, one whose headers are on their
/// way is answered 408, which hyper would not do.
async fn serve(
    thread: Arc<ServingThread>,
    (stream, _permit, room_wanted): (TcpStream, OwnedSemaphorePermit, Arc<Notify>),
    shutdown: CancellationToken,
) {
    set_options(&stream);
    let ingress = &thread.ingress;
    let _open = ingress.metrics.open_connection();
    let http = http(ingress.config.header_timeout);
    let keep_alive = ingress.config.keep_alive_timeout;
    let activity = Arc::new(Activity::new());
    let mut io = TokioIo::new(stream);
    loop {
        let service = service_fn(|request| {
            let (thread, activity) = (thread.clone(), activity.clone());
            let answer: BoxFuture<'static, Result<_, Infallible>> = Box::pin(async move {
                activity.in_work.store(true, Ordering::Relaxed);
                let webhook = request.method() == Method::POST;
                let response = request::answer(&thread, request).await;
                // Only a sender of webhooks that were taken may stay: strangers would use up all
                // connections.
                if webhook && response.status() == StatusCode::OK {
                    activity.taken();
                }
                activity.in_work.store(false, Ordering::Relaxed);
                Ok(response.map(Full::new))
            });
            answer
        });
        let mut connection = http.serve_connection(io, service);
        let told = until_told(&shutdown, &room_wanted, &activity);
        let (served, stopping) = served(&mut connection, told).await;
        let parts = connection.into_parts();
        let started = !parts.read_buf.is_empty();
        io = parts.io;
        let late = served.as_ref().is_err_and(hyper::Error::is_timeout);
        let idle = activity.idle();
        // A client that closed ends without an error.
        if late && !started && !stopping && idle.is_some_and(|idle| idle < keep_alive) {
            continue;
        }
        let late = late && started;
        let answer = late.then(|| request::refusal(ingress, &Refusal::HeaderTimeout));
        if let Err(error) = served {
            tell_proxy_protocol(ingress, &error, &parts.read_buf);
            tracing::debug!(%error, "a connection ended early");
        }
        return end(io.inner_mut(), answer).await;
    }
}

/// Serves until the connection ends by itself, or until `told`: then what is in work is answered first.
/// With how it ended, and whether it was told to.
async fn served<S>(
    connection: &mut Connection<TokioIo<TcpStream>, S>,
    told: impl Future<Output = ()>,
) -> (hyper::Result<()>, bool)
where
    S: HttpService<Incoming, ResBody = Full<Bytes>, Error = Infallible> + Unpin,
    S::Future: Unpin,
{
    let mut told = std::pin::pin!(told);
    let mut stopping = false;
    let served = poll_fn(|context| {
        let served = connection.poll_without_shutdown(context);
        // Asked afterwards, since what the connection did may have made it idle.
        if served.is_ready() || stopping || told.as_mut().poll(context).is_pending() {
            return served;
        }
        stopping = true;
        std::pin::Pin::new(&mut *connection).graceful_shutdown();
        connection.poll_without_shutdown(context)
    });
    (served.await, stopping)
}

/// Until the program stops, or others want this connection's place while it is idle. It is polled
/// after each step of the connection.
async fn until_told(shutdown: &CancellationToken, room_wanted: &Notify, activity: &Activity) {
    let mut wanted = std::pin::pin!(None::<Notified<'_>>);
    let others = poll_fn(|context| {
        if !activity.waits() {
            // Whoever is busy leaves what it may have heard to another one.
            wanted.set(None);
            return Poll::Pending;
        }
        if wanted.is_none() {
            wanted.set(Some(room_wanted.notified()));
        }
        let wanted = wanted.as_mut().as_pin_mut();
        wanted.map_or(Poll::Pending, |wanted| wanted.poll(context))
    });
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = others => {}
    }
}

/// A balancer that is set up so gets 400 for everything, and nobody would know why.
fn tell_proxy_protocol(ingress: &Ingress, error: &hyper::Error, received: &[u8]) {
    let begins = |header: &&[u8]| received.starts_with(header);
    if error.is_parse()
        && PROXY_HEADERS.iter().any(begins)
        && let Some(skipped) = ingress.proxied.pass()
    {
        tracing::warn!(
            skipped,
            "a connection began with the PROXY protocol, which is not understood here: turn it off in the \
             balancer"
        );
    }
}

fn set_options(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let set = stream
        .set_nodelay(true)
        .and_then(|()| socket.set_tcp_user_timeout(Some(WRITE_TIMEOUT)));
    if let Err(error) = set {
        tracing::debug!(%error, "a connection without its options");
    }
}

fn http(header_timeout: Duration) -> Builder {
    let mut http = Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(READ_BUFFER_BYTES);
    http
}

/// Writes a last answer, if there is one, and closes.
async fn end(stream: &mut TcpStream, answer: Option<Response<Bytes>>) {
    let (time, most) = LINGER;
    let ending = async {
        if let Some(answer) = answer {
            stream.write_all(&plain(&answer)).await?;
        }
        stream.shutdown().await?;
        let (mut buffer, mut taken) = ([0; 4096], 0);
        while taken < most {
            match stream.read(&mut buffer).await? {
                0 => break,
                length => taken += length,
            }
        }
        Ok::<_, std::io::Error>(())
    };
    if let Ok(Err(error)) = timeout(time, ending).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// An answer as bytes, for where hyper can't write it.
fn plain(answer: &Response<Bytes>) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 {}\r\ncontent-length: {}\r\n",
        answer.status(),
        answer.body().len()
    )
    .into_bytes();
    for (name, value) in answer.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(answer.body());
    bytes
}
