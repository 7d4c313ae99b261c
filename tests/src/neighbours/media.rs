//! Files that the Graph API knows: written out, or of a size, so that 100 MB need no memory.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use futures::{Stream, StreamExt, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use sha2::{Digest, Sha256};

use super::Closed;

const PIECE: usize = 64 * 1024;

/// What a file consists of.
#[derive(Debug, Clone)]
pub enum Content {
    Bytes(Bytes),
    /// So many bytes that depend on their offset and on the number.
    Sized(usize, u8),
}

impl Content {
    pub fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Sized(length, _) => *length,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn pieces(&self) -> Box<dyn Iterator<Item = Bytes> + Send + Sync> {
        match self {
            Self::Bytes(bytes) => {
                let bytes = bytes.clone();
                let starts = (0..bytes.len()).step_by(PIECE);
                Box::new(starts.map(move |at| bytes.slice(at..bytes.len().min(at + PIECE))))
            }
            Self::Sized(length, number) => {
                let (length, number) = (*length, *number);
                let piece: Bytes = (0..PIECE)
                    .map(|at| (at as u8).wrapping_mul(31).wrapping_add(number))
                    .collect();
                let starts = (0..length).step_by(PIECE);
                Box::new(starts.map(move |at| piece.slice(..PIECE.min(length - at))))
            }
        }
    }

    /// Its SHA-256 in hex.
    pub fn digest(&self) -> String {
        let mut sha = Sha256::new();
        self.pieces().for_each(|piece| sha.update(&piece));
        HEXLOWER.encode(&sha.finalize())
    }

    /// As the body of an answer, which breaks off after `cut` bytes.
    pub(super) fn body(&self, cut: Option<usize>) -> BoxBody<Bytes, Closed> {
        let mut left = cut.unwrap_or(usize::MAX);
        let pieces = self.pieces().map(move |piece| {
            let sent = piece.slice(..piece.len().min(left));
            left -= sent.len();
            (sent, left == 0)
        });
        let mut over = false;
        let pieces = pieces.flat_map(move |(sent, end)| {
            let first = (!over).then_some(Ok(Frame::data(sent)));
            let broken = (end && !over && cut.is_some()).then_some(Err(Closed));
            over |= end && cut.is_some();
            first.into_iter().chain(broken)
        });
        // The pieces before are written before the error closes the connection.
        let pieces = stream::iter(pieces).then(async |piece| {
            tokio::task::yield_now().await;
            piece
        });
        boxed(Box::pin(pieces))
    }

    /// One byte at a time, this far apart.
    pub(super) fn dripping(&self, pause: Duration) -> BoxBody<Bytes, Closed> {
        let bytes = self
            .pieces()
            .flat_map(|piece| (0..piece.len()).map(move |at| piece.slice(at..=at)));
        let bytes = stream::iter(bytes).then(move |byte| async move {
            tokio::time::sleep(pause).await;
            Ok(Frame::data(byte))
        });
        boxed(Box::pin(bytes))
    }
}

type Frames = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Closed>> + Send + Sync>>;

fn boxed(frames: Frames) -> BoxBody<Bytes, Closed> {
    BodyExt::boxed(StreamBody::new(frames))
}
