//! Are these bytes what was declared? Counted, hashed, and their beginning compared with the MIME
//! type.

use bytes::Bytes;
use data_encoding::BASE64;
use sha2::{Digest, Sha256};

use super::names::essence;

/// What the webhook and the Graph API say of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declared {
    pub sha256: Option<[u8; 32]>,
    pub size_bytes: Option<u64>,
    pub mime_type: Option<String>,
}

/// How the bytes differ from what was declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("it has another size than declared")]
    Size,
    #[error("it has another digest than declared")]
    Digest,
    #[error("it is a text where media was declared")]
    Content,
    #[error("it is larger than allowed")]
    TooLarge,
}

/// What was seen of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    pub size_bytes: u64,
    pub sha256: [u8; 32],
}

/// Looks at a file as it passes. A right digest is proof, whatever else was declared: what differs is
/// a fault at once only where there is no digest, else it says why the digest is wrong.
pub struct MediaVerifier {
    declared: Declared,
    max_bytes: u64,
    seen_bytes: u64,
    sha: Sha256,
    doubt: Option<Mismatch>,
    /// What was promised to whoever gets the file.
    length: Option<u64>,
}

impl MediaVerifier {
    pub fn new(declared: Declared, max_bytes: u64) -> Self {
        Self {
            declared,
            max_bytes,
            seen_bytes: 0,
            sha: Sha256::new(),
            doubt: None,
            length: None,
        }
    }

    /// The file has to have exactly this length: an upload of it was announced so.
    pub fn must_have(&mut self, length: u64) {
        self.length = Some(length);
    }

    /// Something differs from what was declared.
    ///
    /// # Errors
    /// The difference, if nothing else can tell that the file is right.
    pub fn doubt(&mut self, mismatch: Mismatch) -> Result<(), Mismatch> {
        if self.declared.sha256.is_none() {
            return Err(mismatch);
        }
        self.doubt.get_or_insert(mismatch);
        Ok(())
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// [`Mismatch`], as soon as one shows.
    pub fn take(&mut self, piece: &Bytes) -> Result<(), Mismatch> {
        if self.seen_bytes == 0
            && let Some(mime_type) = &self.declared.mime_type
            && is_answer_instead_of(mime_type, piece)
        {
            self.doubt(Mismatch::Content)?;
        }
        self.seen_bytes += piece.len() as u64;
        if self.seen_bytes > self.max_bytes {
            return Err(Mismatch::TooLarge);
        }
        if self.length.is_some_and(|length| self.seen_bytes > length) {
            return Err(Mismatch::Size);
        }
        let size = self.declared.size_bytes;
        if size.is_some_and(|size| self.seen_bytes > size) {
            self.doubt(Mismatch::Size)?;
        }
        self.sha.update(piece);
        Ok(())
    }

    /// All pieces were taken.
    ///
    /// # Errors
    /// [`Mismatch`]
    pub fn end(&mut self) -> Result<Verified, Mismatch> {
        let sha256: [u8; 32] = self.sha.finalize_reset().into();
        let differs = |size: Option<u64>| size.is_some_and(|size| size != self.seen_bytes);
        if differs(self.length) {
            return Err(Mismatch::Size);
        }
        if differs(self.declared.size_bytes) {
            self.doubt(Mismatch::Size)?;
        }
        let digest = self.declared.sha256;
        if digest.is_some_and(|declared| declared != sha256) {
            return Err(self.doubt.unwrap_or(Mismatch::Digest));
        }
        Ok(Verified {
            size_bytes: self.seen_bytes,
            sha256,
        })
    }
}

/// A digest as object stores write it.
pub fn base64(sha256: &[u8; 32]) -> String {
    BASE64.encode(sha256)
}

/// Whether a served `Content-Type` says that this is an error page and not the file. The other
/// differences between declared and served types say nothing: Meta serves many as
/// `application/octet-stream`.
pub fn is_page_instead_of(declared: &str, served: &str) -> bool {
    let (declared, served) = (essence(declared), essence(served));
    declared != served && matches!(&*served, "text/html" | "application/json" | "text/json")
}

/// Whether a file that should be of a binary type begins like HTML, XML or JSON. Types whose first
/// bytes say nothing (`text/…`, documents of any kind) are believed; their digest is checked.
fn is_answer_instead_of(declared: &str, first: &[u8]) -> bool {
    let declared = essence(declared);
    let binary = ["image/", "audio/", "video/"]
        .iter()
        .any(|kind| declared.starts_with(kind))
        && !declared.contains("xml");
    let text = first.trim_ascii_start();
    binary
        && [&b"<!"[..], b"<html", b"<HTML", b"<?xml", b"{\"", b"[{"]
            .iter()
            .any(|start| text.starts_with(start))
}

/// The type that the first bytes of a file tell; `None` if they don't.
pub fn detected(first: &[u8]) -> Option<&'static str> {
    // It begins as a script does.
    if first.starts_with(b"#!AMR") {
        return Some("audio/amr");
    }
    infer::get(first).map(|kind| kind.mime_type())
}

/// Whether a file that is taken for one type ([`super::names::essence_of_file`]) is of another by its first
/// bytes. Such a file is stored as bytes, so that no browser guesses.
pub fn contradicts(taken_for: &str, detected: &str) -> bool {
    let detected = essence(detected);
    let (taken_for, detected) = (container(taken_for), container(&detected));
    // Documents of many kinds lie in these, and the first bytes don't tell which.
    let holds_others = matches!(detected, "application/zip" | "application/x-ole-storage");
    let is_document = taken_for.starts_with("application/");
    taken_for != detected && !(holds_others && is_document)
}

/// Sound and film have the same first bytes in many cases: one name for these.
fn container(essence: &str) -> &str {
    match essence {
        "audio/aac" | "audio/mp4" | "video/3gpp" | "video/3gpp2" | "video/mp4"
        | "video/quicktime" | "video/x-m4v" => "video/mp4",
        "application/ogg" | "audio/ogg" | "audio/opus" | "video/ogg" => "audio/ogg",
        "audio/webm" | "video/webm" | "video/x-matroska" => "video/webm",
        "image/heic" | "image/heif" => "image/heif",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verify(
        declared: Declared,
        max: u64,
        pieces: &[&'static [u8]],
    ) -> Result<Verified, Mismatch> {
        let mut verifier = MediaVerifier::new(declared, max);
        for piece in pieces {
            verifier.take(&Bytes::from_static(piece))?;
        }
        verifier.end()
    }

    fn jpeg() -> Declared {
        Declared {
            sha256: Some(Sha256::digest(b"\xff\xd8\xff12").into()),
            size_bytes: Some(5),
            mime_type: Some("image/jpeg".to_owned()),
        }
    }

    #[test]
    fn what_was_declared_passes_and_nothing_else() {
        let seen = verify(jpeg(), 5, &[b"\xff\xd8", b"\xff12"]).expect("what was declared");
        assert_eq!(seen.size_bytes, 5);
        assert_eq!(
            verify(jpeg(), 5, &[b"\xff\xd8\xff13"]),
            Err(Mismatch::Digest)
        );
        // What was wrong besides says more.
        assert_eq!(verify(jpeg(), 5, &[b"\xff\xd8\xff1"]), Err(Mismatch::Size));
        assert_eq!(
            verify(jpeg(), 9, &[b"\xff\xd8\xff123"]),
            Err(Mismatch::Size)
        );
        assert_eq!(
            verify(jpeg(), 4, &[b"\xff\xd8\xff12"]),
            Err(Mismatch::TooLarge)
        );
        assert_eq!(
            verify(jpeg(), 20, &[b" {\"error\":"]),
            Err(Mismatch::Content)
        );
        assert_eq!(verify(jpeg(), 5, &[]), Err(Mismatch::Size));
        let anything = verify(Declared::default(), 5, &[]).expect("nothing was declared");
        assert_eq!(anything.size_bytes, 0);
    }

    #[test]
    fn a_right_digest_is_proof() {
        let json = b"{\"a\":1}";
        let declared = |sha256| Declared {
            sha256,
            size_bytes: Some(3),
            mime_type: Some("image/jpeg".to_owned()),
        };
        let right = declared(Some(Sha256::digest(json).into()));
        let seen = verify(right.clone(), 9, &[json]).expect("the digest is right");
        assert_eq!(seen.size_bytes, 7);
        assert_eq!(verify(right.clone(), 6, &[json]), Err(Mismatch::TooLarge));
        assert_eq!(verify(declared(None), 9, &[json]), Err(Mismatch::Content));
        assert_eq!(verify(declared(None), 9, &[b"1234"]), Err(Mismatch::Size));
        // An upload that was announced with a length can't have another one.
        for length in [6, 8] {
            let mut verifier = MediaVerifier::new(right.clone(), 9);
            verifier.must_have(length);
            let taken = verifier.take(&Bytes::from_static(json));
            assert_eq!(taken.and_then(|()| verifier.end()), Err(Mismatch::Size));
        }
    }

    #[test]
    fn an_error_page_is_told_from_a_file() {
        assert!(is_page_instead_of("image/jpeg", "text/html; charset=utf-8"));
        assert!(is_page_instead_of("application/pdf", "application/json"));
        assert!(!is_page_instead_of("text/html", "text/html; charset=utf-8"));
        assert!(!is_page_instead_of(
            "image/jpeg",
            "application/octet-stream"
        ));
        assert!(is_answer_instead_of(
            "audio/ogg; codecs=opus",
            b"\n<!DOCTYPE html>"
        ));
        assert!(!is_answer_instead_of("text/plain", b"{\"a\":1}"));
    }

    #[test]
    fn first_bytes_tell_a_type_or_nothing() {
        for (first, mime_type) in [
            (&b"\xff\xd8\xff\xe0 a picture"[..], Some("image/jpeg")),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", Some("image/heif")),
            (b"RIFF\x24\0\0\0WEBPVP8 ", Some("image/webp")),
            (b"#!AMR\n", Some("audio/amr")),
            (b"ID3\x04\0", Some("audio/mpeg")),
            (b"%PDF-1.7", Some("application/pdf")),
            (b"media 12345", None),
            (b"{\"a\":1}", None),
            (b"", None),
        ] {
            assert_eq!(detected(first), mime_type, "{first:?}");
        }
    }

    #[test]
    fn types_contradict_each_other_unless_their_first_bytes_are_the_same() {
        for (taken_for, detected, expected) in [
            ("image/jpeg", "application/pdf", true),
            ("image/jpeg", "image/heif", true),
            ("image/heic", "image/heif", false),
            ("audio/ogg", "audio/opus", false),
            ("audio/ogg", "audio/ogg", false),
            ("audio/mp4", "audio/m4a", false),
            ("audio/aac", "video/mp4", false),
            ("video/quicktime", "video/mp4", false),
            ("audio/mpeg", "audio/x-wav", true),
            (
                "application/vnd.oasis.opendocument.text",
                "application/zip",
                false,
            ),
            ("image/png", "application/zip", true),
            ("text/plain", "text/html", true),
        ] {
            assert_eq!(
                contradicts(taken_for, detected),
                expected,
                "{taken_for} {detected}"
            );
        }
    }
}
