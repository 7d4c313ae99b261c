//! A TCP proxy that breaks the network in front of a server.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::ports;

/// What the proxy does with connections, those that are open included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Closes every connection, new ones as soon as they are accepted.
    Refuse,
    /// The same, by RST.
    Reset,
    /// Keeps connections open (and accepts new ones) and forwards nothing, either way. What was
    /// held back is forwarded when the mode changes again.
    Blackhole,
    /// Connections that are open when this begins forward nothing any more, whatever mode comes, until
    /// one that closes them: neither side hears that they are gone. New ones pass.
    HalfOpen,
    /// Requests arrive, answers are thrown away. A connection is closed when this mode ends: an
    /// answer is missing in it.
    LoseAnswers,
    /// Forwards each piece, either way, this much later.
    Slow(Duration),
    /// Forwards one byte, either way, and then waits this long.
    Drip(Duration),
    /// Closes a connection after this many bytes of requests, counted from when it was made or,
    /// if that was later, the mode set.
    CutRequestsAfter(usize),
    /// The same with answers.
    CutAnswersAfter(usize),
    /// Forwards all but requests that begin with these bytes: they never arrive, and their connection
    /// hangs until the mode changes.
    Hold(&'static [u8]),
    /// Forwards nothing: whatever is asked is answered with these bytes.
    Answer(&'static [u8]),
    /// Forwards all but requests that begin so: these are answered with the bytes beside it.
    AnswerTo(String, &'static [u8]),
}

/// A proxy in front of a server, or of several that do the same. Dropping it closes everything.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    _stop: DropGuard,
}

impl Proxy {
    /// Listens on a port of its own and passes on to `upstream` (`host:port`), which needs not be
    /// there yet.
    ///
    /// # Errors
    /// It can't listen.
    pub async fn start(upstream: impl Into<String>) -> anyhow::Result<Self> {
        Self::start_before(vec![upstream.into()]).await
    }

    /// Balances: each connection begins with the next of `upstreams`, and takes the first that lets it
    /// in.
    ///
    /// # Errors
    /// It can't listen.
    pub async fn start_before(upstreams: Vec<String>) -> anyhow::Result<Self> {
        let address = (Ipv4Addr::LOCALHOST, ports::free());
        Self::listen(address.into(), upstreams).await
    }

    /// The same at an address that is given.
    ///
    /// # Errors
    /// It can't listen.
    pub async fn start_at(
        address: SocketAddr,
        upstream: impl Into<String>,
    ) -> anyhow::Result<Self> {
        Self::listen(address, vec![upstream.into()]).await
    }

    async fn listen(address: SocketAddr, upstreams: Vec<String>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(address).await.context("proxy")?;
        let address = listener.local_addr()?;
        let (mode, modes) = watch::channel(Mode::Pass);
        let stop = CancellationToken::new();
        let serving = serve(listener, upstreams, modes);
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(serving).await });
        Ok(Self {
            address,
            mode,
            _stop: stop.drop_guard(),
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Closes the connections that are open; new ones pass.
    pub async fn cut(&self) {
        self.set(Mode::Refuse);
        // Every connection holds a receiver until it has closed; the listener holds the last.
        while self.mode.receiver_count() > 1 {
            tokio::task::yield_now().await;
        }
        self.set(Mode::Pass);
    }
}

/// Dropping the returned future drops every connection with it.
async fn serve(listener: TcpListener, mut upstreams: Vec<String>, modes: watch::Receiver<Mode>) {
    let tracker = TaskTracker::new();
    let all = CancellationToken::new();
    let _close_all = all.clone().drop_guard();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        upstreams.rotate_left(1);
        let connection = connect(client, upstreams.clone(), modes.clone());
        let closed = all.clone();
        tracker.spawn(async move { closed.run_until_cancelled(connection).await });
    }
}

async fn first_of(upstreams: &[String]) -> Option<TcpStream> {
    for upstream in upstreams {
        if let Ok(server) = TcpStream::connect(upstream).await {
            return Some(server);
        }
    }
    None
}

/// One connection, from accept to close. Errors on either side close both.
async fn connect(client: TcpStream, upstreams: Vec<String>, mut modes: watch::Receiver<Mode>) {
    // A held-back connection is made when it may pass.
    let held = modes.wait_for(|mode| *mode != Mode::Blackhole).await;
    let Ok(mode) = held.map(|mode| mode.clone()) else {
        return;
    };
    match mode {
        Mode::Refuse => return,
        Mode::Reset => return reset(&client),
        Mode::Pass
        | Mode::Blackhole
        | Mode::HalfOpen
        | Mode::LoseAnswers
        | Mode::Slow(_)
        | Mode::Drip(_)
        | Mode::CutRequestsAfter(_)
        | Mode::CutAnswersAfter(_)
        | Mode::Hold(_)
        | Mode::Answer(_)
        | Mode::AnswerTo(..) => {}
    }
    let Some(server) = first_of(&upstreams).await else {
        return;
    };
    // Without this the proxy adds up to 40 ms to every small answer.
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (mut client, mut server) = (client, server);
    let (mut gone, mut closing) = (modes.clone(), modes.clone());
    let ended_by_reset = {
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        // Answers of the proxy itself go the way of the server's.
        let client_writes = Mutex::new(client_writes);
        let server_writes = Mutex::new(server_writes);
        let requests = forward(
            client_reads,
            &server_writes,
            &client_writes,
            modes.clone(),
            Direction::Request,
        );
        let answers = forward(
            server_reads,
            &client_writes,
            &client_writes,
            modes,
            Direction::Answer,
        );
        tokio::select! {
            biased;
            () = becomes_half_open(&mut gone, &mode) => {
                let closes = |mode: &Mode| matches!(mode, Mode::Refuse | Mode::Reset);
                let closed = closing.wait_for(closes).await;
                closed.is_ok_and(|mode| *mode == Mode::Reset)
            }
            reset = requests => reset,
            reset = answers => reset,
        }
    };
    if ended_by_reset {
        reset(&client);
    }
}

/// Returns when [`Mode::HalfOpen`] begins after a connection was made in a mode.
async fn becomes_half_open(modes: &mut watch::Receiver<Mode>, made_in: &Mode) {
    if *made_in == Mode::HalfOpen {
        drop(modes.wait_for(|mode| *mode != Mode::HalfOpen).await);
    }
    drop(modes.wait_for(|mode| *mode == Mode::HalfOpen).await);
}

/// Makes the end of a connection a RST.
fn reset(stream: &TcpStream) {
    // Only fails on a connection that is gone already.
    drop(stream.set_zero_linger());
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Answer,
}

/// Copies one direction until it ends or the mode closes it; whether by RST.
async fn forward<'a>(
    mut from: ReadHalf<'_>,
    to: &Mutex<WriteHalf<'a>>,
    client: &Mutex<WriteHalf<'a>>,
    mut modes: watch::Receiver<Mode>,
    direction: Direction,
) -> bool {
    let mut buffer = vec![0; 64 * 1024];
    let mut lost = false;
    let mut passed = 0;
    loop {
        let mode = modes.borrow_and_update().clone();
        match mode {
            Mode::Refuse => return false,
            Mode::Reset => return true,
            Mode::Pass | Mode::HalfOpen | Mode::Slow(_) if lost => return false,
            Mode::Blackhole => match modes.changed().await {
                Ok(()) => continue,
                Err(_) => return false,
            },
            Mode::Pass
            | Mode::HalfOpen
            | Mode::LoseAnswers
            | Mode::Slow(_)
            | Mode::Drip(_)
            | Mode::CutRequestsAfter(_)
            | Mode::CutAnswersAfter(_)
            | Mode::Hold(_)
            | Mode::Answer(_)
            | Mode::AnswerTo(..) => {}
        }
        let most = match (&mode, direction) {
            (Mode::Drip(_), _) => 1,
            (Mode::CutRequestsAfter(most), Direction::Request)
            | (Mode::CutAnswersAfter(most), Direction::Answer) => {
                most.saturating_sub(passed).min(buffer.len())
            }
            _ => buffer.len(),
        };
        if most == 0 {
            return false;
        }
        // A mode that was set holds for what arrives with it.
        let length = tokio::select! {
            biased;
            changed = modes.changed() => match changed {
                Ok(()) => {
                    passed = 0;
                    continue;
                }
                Err(_) => return false,
            },
            read = from.read(&mut buffer[..most]) => match read {
                Ok(0) | Err(_) => return false,
                Ok(length) => length,
            },
        };
        passed += length;
        if let (Mode::Hold(start), Direction::Request) = (&mode, direction)
            && buffer[..length].starts_with(start)
        {
            drop(modes.changed().await);
            return false;
        }
        let (piece, to) = match (&mode, direction) {
            (Mode::LoseAnswers | Mode::Answer(_), Direction::Answer) => {
                lost = true;
                continue;
            }
            (Mode::Answer(bytes), Direction::Request) => (*bytes, client),
            (Mode::AnswerTo(start, bytes), Direction::Request)
                if buffer[..length].starts_with(start.as_bytes()) =>
            {
                (*bytes, client)
            }
            _ => (&buffer[..length], to),
        };
        if let Mode::Slow(pause) | Mode::Drip(pause) = &mode {
            tokio::time::sleep(*pause).await;
        }
        if to.lock().await.write_all(piece).await.is_err() {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An upstream that echoes, behind a proxy.
    async fn echo() -> (Proxy, DropGuard) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, ports::free()))
            .await
            .expect("a listener");
        let address = listener.local_addr().expect("an address").to_string();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let serving = async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut reads, mut writes) = stream.split();
                    drop(tokio::io::copy(&mut reads, &mut writes).await);
                });
            }
        };
        tokio::spawn(async move { stopped.run_until_cancelled(serving).await });
        (
            Proxy::start(address).await.expect("a proxy"),
            stop.drop_guard(),
        )
    }

    async fn asked(stream: &mut TcpStream, request: &[u8]) -> std::io::Result<Vec<u8>> {
        stream.write_all(request).await?;
        let mut answer = vec![0; 100];
        let length = stream.read(&mut answer).await?;
        answer.truncate(length);
        Ok(answer)
    }

    #[tokio::test]
    async fn each_mode_does_what_it_says() {
        let (proxy, _echo) = echo().await;
        let connect = || TcpStream::connect(proxy.address());
        let mut open = connect().await.expect("a connection");
        assert_eq!(asked(&mut open, b"one").await.expect("an echo"), b"one");
        proxy.set(Mode::Answer(b"-READONLY\r\n"));
        assert_eq!(
            asked(&mut open, b"two").await.expect("an answer"),
            b"-READONLY\r\n"
        );
        proxy.set(Mode::Drip(Duration::from_millis(1)));
        let mut slow = connect().await.expect("a connection");
        assert_eq!(asked(&mut slow, b"three").await.expect("an echo"), b"t");
        proxy.set(Mode::CutAnswersAfter(2));
        let mut cut = connect().await.expect("a connection");
        assert_eq!(asked(&mut cut, b"four").await.expect("an echo"), b"fo");
        assert_eq!(asked(&mut cut, b"").await.expect("an end"), b"");
        proxy.set(Mode::CutRequestsAfter(3));
        let mut cut = connect().await.expect("a connection");
        assert_eq!(
            asked(&mut cut, b"five").await.unwrap_or_default().len() % 3,
            0
        );
        proxy.set(Mode::Pass);
        let mut gone = connect().await.expect("a connection");
        assert_eq!(asked(&mut gone, b"1").await.expect("an echo"), b"1");
        proxy.set(Mode::HalfOpen);
        let unheard = tokio::time::timeout(Duration::from_millis(200), asked(&mut gone, b"2"));
        unheard.await.expect_err("no echo");
        let mut new = connect().await.expect("a connection");
        assert_eq!(asked(&mut new, b"3").await.expect("an echo"), b"3");
        proxy.set(Mode::Pass);
        assert_eq!(asked(&mut new, b"4").await.expect("an echo"), b"4");
        let unheard = tokio::time::timeout(Duration::from_millis(200), asked(&mut gone, b"5"));
        unheard.await.expect_err("no echo");
        let mut reset = connect().await.expect("a connection");
        assert_eq!(asked(&mut reset, b"six").await.expect("an echo"), b"six");
        proxy.set(Mode::Reset);
        let reset = asked(&mut reset, b"seven").await.map(|answer| answer.len());
        assert!(reset.is_err(), "{reset:?}");
    }
}
