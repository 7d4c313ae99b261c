//! The sockets below lapin's connections. lapin has a thread for each connection, which waits for as long
//! as the broker says nothing, whoever has given the connection up: here the socket ends with it.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_rs::Tokio;
use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::Task;
use futures::Stream;
use futures::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Tokio, with sockets that end when `given_up` is cancelled.
#[derive(Debug, Clone)]
pub(super) struct SocketRuntime {
    tokio: Tokio,
    given_up: CancellationToken,
}

impl SocketRuntime {
    pub(super) fn new(given_up: CancellationToken) -> Self {
        Self {
            tokio: Tokio::current(),
            given_up,
        }
    }
}

impl RuntimeKit for SocketRuntime {}

impl Executor for SocketRuntime {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.tokio.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        future: F,
    ) -> Task<Self::Task<T>> {
        self.tokio.spawn(future)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(
        &self,
        work: F,
    ) -> Task<Self::Task<T>> {
        self.tokio.spawn_blocking(work)
    }
}

impl Reactor for SocketRuntime {
    type TcpStream = Socket;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.tokio.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.tokio.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.tokio.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Socket>> + Send + 'static {
        let given_up = self.given_up.clone();
        let connecting = self.tokio.tcp_connect_addr(address);
        async move {
            // lapin tries again by itself what ends before it is set up.
            let connected = given_up.run_until_cancelled(connecting).await;
            let stream = connected.unwrap_or_else(|| Err(ended()))?;
            let given_up = Box::pin(given_up.cancelled_owned());
            Ok(Socket { stream, given_up })
        }
    }
}

/// A connection's socket.
pub(super) struct Socket {
    stream: <Tokio as Reactor>::TcpStream,
    given_up: Pin<Box<WaitForCancellationFutureOwned>>,
}

fn ended() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        if self.given_up.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(ended()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(context)
    }
}
