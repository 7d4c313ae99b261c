//! One file from its URL into the object store, in one pass: what arrives is counted and hashed and
//! goes on at once. The last piece is held back until all of it is verified, so the store never gets
//! a whole object of the wrong bytes, and an upload that breaks off is none.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use reqwest::Response;
use tokio::time::{Instant, timeout};

use super::outcome::{Fault, MediaFailure};
use super::verify::{Declared, MediaVerifier, Mismatch, Verified, contradicts, detected};
use super::{names, verify};
use crate::out::store::{MediaHead, MediaPutError, Store};

/// The first bytes must come within this time.
const FIRST_BYTES: Duration = Duration::from_secs(10);
/// How often a transfer must have come on by [`LEAST_BYTES`].
const WATCH: Duration = Duration::from_secs(10);
const LEAST_BYTES: u64 = 16 * 1024 * WATCH.as_secs();
/// A file of 100 MB must come at 114 KiB/s.
const LONGEST: Duration = Duration::from_secs(900);
/// What has no declared length is held in memory up to this size.
const MOST_HELD: usize = 4 * 1024 * 1024;

/// The first piece has this many bytes at least, unless the file has fewer: they tell its type.
const LEAST_FIRST: usize = 512;
/// Name of the metadata that has the type that the first bytes tell.
pub(super) const DETECTED: &str = "detected-mime-type";

/// A file on its way.
pub struct Transfer<'a> {
    pub response: Response,
    pub declared: Declared,
    pub max_bytes: u64,
    pub key: &'a str,
    pub filename: Option<&'a str>,
    pub metadata: Vec<(&'static str, String)>,
    /// Its host calls it a page where something else was declared.
    pub is_page: bool,
}

/// A file that is in the store now.
#[derive(Debug)]
pub struct TransferredFile {
    pub verified: Verified,
    /// The type that its first bytes tell.
    pub detected: Option<&'static str>,
}

/// What the stream of the upload tells about itself.
#[derive(Default)]
struct UploadProgress {
    bytes: AtomicU64,
    waits_for_source: AtomicBool,
    ended: Mutex<Option<Result<Verified, Fault>>>,
}

impl UploadProgress {
    fn end(&self, how: Result<Verified, Fault>) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(how);
    }

    fn ended(&self) -> Option<Result<Verified, Fault>> {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.take()
    }

    fn has_ended(&self) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.is_some()
    }
}

impl Transfer<'_> {
    /// Brings the file into the store. `None`: another worker was faster, and its object is there.
    ///
    /// # Errors
    /// [`Fault`]; then nothing of it is in the store.
    pub async fn run(mut self, store: &Store) -> Result<Option<TransferredFile>, Fault> {
        let length = self.length()?;
        let mut verifier = MediaVerifier::new(self.declared.clone(), self.max_bytes);
        if self.is_page {
            verifier.doubt(Mismatch::Content)?;
        }
        let first = timeout(FIRST_BYTES, first_bytes(&mut self.response))
            .await
            .map_err(|_| MediaFailure::TooSlow)??;
        verifier.take(&first)?;
        let detected = detected(&first);
        let head = self.head(detected);
        let progress = Arc::new(UploadProgress::default());
        let (length, body) = match length {
            Some(length) if length > 0 => {
                verifier.must_have(length);
                let source = DownloadStream {
                    response: self.response,
                    verifier,
                    held: VecDeque::from([first]),
                    progress: progress.clone(),
                };
                (length, reqwest::Body::wrap_stream(source.pieces()))
            }
            Some(_) | None => {
                let whole = collect(self.response, &mut verifier, first).await?;
                progress.end(Ok(verifier.end()?));
                (whole.len() as u64, whole.into())
            }
        };
        let put = store.put_media(self.key, &head, length, body);
        let put = tokio::select! {
            put = put => put,
            fault = watch(&progress) => return Err(fault),
        };
        match (progress.ended(), put) {
            (Some(Err(fault)), _) => Err(fault),
            (Some(Ok(verified)), Ok(())) => Ok(Some(TransferredFile { verified, detected })),
            (_, Err(MediaPutError::Exists)) => Ok(None),
            (_, Err(error)) => {
                tracing::warn!(%error, "a media object can't be written");
                Err(MediaFailure::Store.into())
            }
            (None, Ok(())) => Err(MediaFailure::Store.into()),
        }
    }

    /// How long the file will be; `None` if neither its host nor the Graph API says so, or if the Graph
    /// API alone does and the file can be held in memory until its digest is known.
    fn length(&self) -> Result<Option<u64>, Fault> {
        let served = self.response.content_length();
        let declared = self.declared.size_bytes;
        let has_digest = self.declared.sha256.is_some();
        let may_be_held = |size: &u64| has_digest && *size <= MOST_HELD as u64;
        let length = served.or(declared.filter(|size| !may_be_held(size)));
        if length.is_some_and(|length| length > self.max_bytes) {
            return Err(MediaFailure::TooLarge.into());
        }
        match (served, declared) {
            (Some(served), Some(declared)) if served != declared && !has_digest => {
                Err(MediaFailure::SizeMismatch.into())
            }
            _ => Ok(length),
        }
    }

    fn head(&self, detected: Option<&'static str>) -> MediaHead {
        let mime_type = self.declared.mime_type.as_deref().unwrap_or_default();
        let taken_for = names::essence_of_file(mime_type, self.filename);
        let content_type = if detected.is_some_and(|detected| contradicts(&taken_for, detected)) {
            names::BYTES
        } else {
            names::content_type(&taken_for)
        };
        let fallback = self.key.rsplit('/').next().unwrap_or_default();
        let mut metadata = self.metadata.clone();
        let sha256 = self.declared.sha256;
        metadata.extend(sha256.map(|sha256| ("sha256", HEXLOWER.encode(&sha256))));
        metadata.extend(detected.map(|detected| (DETECTED, detected.to_owned())));
        MediaHead {
            content_type: content_type.to_owned(),
            content_disposition: names::disposition(self.filename, fallback),
            metadata,
            sha256: sha256.map(|sha256| verify::base64(&sha256)),
        }
    }
}

/// A file being read for an upload.
struct DownloadStream {
    response: Response,
    verifier: MediaVerifier,
    /// Pieces not yet handed on: the last one waits for the verdict on all.
    held: VecDeque<Bytes>,
    progress: Arc<UploadProgress>,
}

impl DownloadStream {
    fn pieces(self) -> impl futures::Stream<Item = std::io::Result<Bytes>> + Send + 'static {
        futures::stream::try_unfold(Some(self), async |source| match source {
            Some(source) => source.next().await,
            None => Ok(None),
        })
    }

    /// The next piece to hand on, and what is left then.
    async fn next(mut self) -> std::io::Result<Option<(Bytes, Option<Self>)>> {
        loop {
            self.progress
                .waits_for_source
                .store(true, Ordering::Relaxed);
            let read = self.response.chunk().await;
            self.progress
                .waits_for_source
                .store(false, Ordering::Relaxed);
            match read {
                Ok(Some(piece)) => {
                    if let Err(mismatch) = self.verifier.take(&piece) {
                        return Err(self.fail(mismatch.into()));
                    }
                    self.progress
                        .bytes
                        .fetch_add(piece.len() as u64, Ordering::Relaxed);
                    self.held.push_back(piece);
                    // Many files that come fast must not keep the threads from everything else.
                    tokio::task::yield_now().await;
                    if self.held.len() > 1
                        && let Some(piece) = self.held.pop_front()
                    {
                        return Ok(Some((piece, Some(self))));
                    }
                }
                Ok(None) => {
                    let verified = match self.verifier.end() {
                        Ok(verified) => verified,
                        Err(mismatch) => return Err(self.fail(mismatch.into())),
                    };
                    self.progress.end(Ok(verified));
                    return Ok(self.held.pop_front().map(|last| (last, None)));
                }
                Err(_) => return Err(self.fail(MediaFailure::CutOff.into())),
            }
        }
    }

    fn fail(&self, fault: Fault) -> std::io::Error {
        self.progress.end(Err(fault));
        std::io::Error::other("the upload is given up")
    }
}

async fn first_bytes(response: &mut Response) -> Result<Bytes, Fault> {
    let mut pieces = Vec::new();
    let mut length = 0;
    while length < LEAST_FIRST {
        let piece = response.chunk().await.map_err(|_| MediaFailure::CutOff)?;
        let Some(piece) = piece else {
            break;
        };
        length += piece.len();
        pieces.push(piece);
    }
    Ok(match pieces.len() {
        1 => pieces.swap_remove(0),
        _ => pieces.concat().into(),
    })
}

async fn collect(
    mut response: Response,
    verifier: &mut MediaVerifier,
    first: Bytes,
) -> Result<Bytes, Fault> {
    let until = Instant::now() + WATCH;
    let mut whole = first.to_vec();
    loop {
        let read = tokio::time::timeout_at(until, response.chunk())
            .await
            .map_err(|_| MediaFailure::TooSlow)?;
        let Some(piece) = read.map_err(|_| MediaFailure::CutOff)? else {
            return Ok(whole.into());
        };
        verifier.take(&piece)?;
        if whole.len() + piece.len() > MOST_HELD {
            return Err(MediaFailure::NoLength.into());
        }
        whole.extend_from_slice(&piece);
    }
}

/// Returns when a transfer has stood still, or taken, for too long.
async fn watch(progress: &UploadProgress) -> Fault {
    let began = Instant::now();
    let mut before = 0;
    let mut had_ended = false;
    loop {
        tokio::time::sleep(WATCH).await;
        let bytes = progress.bytes.load(Ordering::Relaxed);
        // All is handed on, and the store doesn't say that it has it.
        let ended = progress.has_ended();
        let stands = (ended && had_ended) || (!ended && bytes - before < LEAST_BYTES);
        if stands || began.elapsed() > LONGEST {
            let source = !ended && progress.waits_for_source.load(Ordering::Relaxed);
            return Fault::of(if source {
                MediaFailure::TooSlow
            } else {
                MediaFailure::Store
            });
        }
        (before, had_ended) = (bytes, ended);
    }
}
