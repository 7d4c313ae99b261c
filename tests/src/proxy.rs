//! A TCP proxy that breaks the network in front of a server.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::ports;

/// What the proxy does with connections, those that are open included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Closes every connection, new ones as soon as they are accepted.
    Refuse,
    /// Keeps connections open (and accepts new ones) and forwards nothing, either way. What was
    /// held back is forwarded when the mode changes again.
    Blackhole,
    /// Requests arrive, answers are thrown away. A connection is closed when this mode ends: an
    /// answer is missing in it.
    LoseAnswers,
    /// Forwards each piece, either way, this much later.
    Slow(Duration),
}

/// A proxy in front of one server. Dropping it closes everything.
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
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, ports::free()))
            .await
            .context("proxy")?;
        let address = listener.local_addr()?;
        let (mode, modes) = watch::channel(Mode::Pass);
        let stop = CancellationToken::new();
        let serving = serve(listener, upstream.into(), modes);
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
async fn serve(listener: TcpListener, upstream: String, modes: watch::Receiver<Mode>) {
    let tracker = TaskTracker::new();
    let all = CancellationToken::new();
    let _close_all = all.clone().drop_guard();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        let connection = connect(client, upstream.clone(), modes.clone());
        let closed = all.clone();
        tracker.spawn(async move { closed.run_until_cancelled(connection).await });
    }
}

/// One connection, from accept to close. Errors on either side close both.
async fn connect(client: TcpStream, upstream: String, mut modes: watch::Receiver<Mode>) {
    // A held-back connection is made when it may pass.
    let Ok(Mode::Pass | Mode::Slow(_) | Mode::LoseAnswers | Mode::Refuse) = modes
        .wait_for(|mode| *mode != Mode::Blackhole)
        .await
        .map(|mode| *mode)
    else {
        return;
    };
    if *modes.borrow() == Mode::Refuse {
        return;
    }
    let Ok(server) = TcpStream::connect(&upstream).await else {
        return;
    };
    // Without this the proxy adds up to 40 ms to every small answer.
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (client_reads, client_writes) = client.into_split();
    let (server_reads, server_writes) = server.into_split();
    let requests = forward(
        client_reads,
        server_writes,
        modes.clone(),
        Direction::Request,
    );
    let answers = forward(server_reads, client_writes, modes, Direction::Answer);
    tokio::select! {
        () = requests => {}
        () = answers => {}
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Answer,
}

/// Copies one direction until it ends or the mode closes it.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut modes: watch::Receiver<Mode>,
    direction: Direction,
) {
    let mut buffer = vec![0; 64 * 1024];
    let mut lost = false;
    loop {
        let mode = *modes.borrow_and_update();
        let length = match mode {
            Mode::Refuse => return,
            Mode::Blackhole => match modes.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            },
            Mode::Pass | Mode::Slow(_) if lost => return,
            Mode::Pass | Mode::Slow(_) | Mode::LoseAnswers => tokio::select! {
                changed = modes.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                read = from.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(length) => length,
                },
            },
        };
        match mode {
            Mode::Slow(delay) => tokio::time::sleep(delay).await,
            Mode::LoseAnswers if direction == Direction::Answer => {
                lost = true;
                continue;
            }
            Mode::Pass | Mode::LoseAnswers | Mode::Refuse | Mode::Blackhole => {}
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
