//! What a media object is called, and how it is handed to a browser: nothing that a sender wrote
//! decides where it lies or what runs.

use chrono::DateTime;

use crate::out::store::segment;

/// MIME types whose files are called otherwise than their subtype, and what they are called.
const EXTENSIONS: [(&str, &str); 33] = [
    ("application/gzip", "gz"),
    ("application/json", "json"),
    ("application/msword", "doc"),
    ("application/pdf", "pdf"),
    ("application/rtf", "rtf"),
    ("application/vnd.ms-excel", "xls"),
    ("application/vnd.ms-powerpoint", "ppt"),
    (
        "application/vnd.openxmlformats-officedocument.presentationml.presentation",
        "pptx",
    ),
    (
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "xlsx",
    ),
    (
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "docx",
    ),
    ("application/xml", "xml"),
    ("application/zip", "zip"),
    ("audio/aac", "aac"),
    ("audio/amr", "amr"),
    ("audio/mp4", "m4a"),
    ("audio/mpeg", "mp3"),
    ("audio/ogg", "ogg"),
    ("audio/opus", "opus"),
    ("audio/wav", "wav"),
    ("audio/x-wav", "wav"),
    ("image/gif", "gif"),
    ("image/heic", "heic"),
    ("image/jpeg", "jpg"),
    ("image/jpg", "jpg"),
    ("image/png", "png"),
    ("image/webp", "webp"),
    ("text/csv", "csv"),
    ("text/html", "html"),
    ("text/plain", "txt"),
    ("text/vcard", "vcf"),
    ("video/3gpp", "3gp"),
    ("video/mp4", "mp4"),
    ("video/quicktime", "mov"),
];

/// Types that a browser shows without running anything in them. All else is stored as bytes.
const HARMLESS: [&str; 20] = [
    "application/msword",
    "application/pdf",
    "application/vnd.ms-excel",
    "application/vnd.ms-powerpoint",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "audio/aac",
    "audio/amr",
    "audio/mp4",
    "audio/mpeg",
    "audio/ogg",
    "image/gif",
    "image/jpeg",
    "image/png",
    "image/webp",
    "text/csv",
    "text/plain",
    "video/3gpp",
    "video/mp4",
];

/// The type that nothing is done with.
pub const BYTES: &str = "application/octet-stream";
/// Characters of a file name that are passed on.
const LONGEST_NAME: usize = 128;

/// A MIME type without its parameters, in lower case: `audio/ogg; codecs=opus` → `audio/ogg`.
pub fn essence(mime_type: &str) -> String {
    let essence = mime_type.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

/// Extension of the files of a MIME type; `bin` for those we don't know.
pub fn extension(mime_type: &str) -> &'static str {
    let essence = essence(mime_type);
    let known = EXTENSIONS.iter().find(|(name, _)| *name == essence);
    known.map_or("bin", |(_, extension)| extension)
}

/// `Content-Type` under which a file of this MIME type is stored.
pub fn content_type(mime_type: &str) -> &'static str {
    let essence = essence(mime_type);
    let harmless = HARMLESS.iter().find(|name| **name == essence);
    harmless.copied().unwrap_or(BYTES)
}

/// Key of a media object. `message_name`: of the message, as [`crate::out::store`] names it.
pub fn key(
    tenant_id: &str,
    kind: &str,
    received_at_ms: i64,
    message_name: &str,
    mime_type: &str,
) -> String {
    let day = DateTime::from_timestamp_millis(received_at_ms)
        .unwrap_or_default()
        .format("%Y-%m-%d");
    let tenant = segment(tenant_id);
    format!(
        "{tenant}/{kind}/{day}/{message_name}.{}",
        extension(mime_type)
    )
}

/// `Content-Disposition` that makes a browser save the file (RFC 6266). Its name is the sender's
/// without folders, control and direction characters, encoded by RFC 5987; else `fallback`.
pub fn disposition(filename: Option<&str>, fallback: &str) -> String {
    let name = filename.map(file_name).filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| fallback.to_owned());
    let encoded: String = name
        .bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect();
    format!("attachment; filename*=UTF-8''{encoded}")
}

fn file_name(sent: &str) -> String {
    let last = sent.rsplit(['/', '\\']).next().unwrap_or_default();
    let kept: String = last
        .chars()
        .filter(|c| !c.is_control() && !turns_text(*c))
        .take(LONGEST_NAME)
        .collect();
    kept.trim_start_matches(|c: char| c == '.' || c.is_whitespace())
        .trim_end()
        .to_owned()
}

/// Characters that show a name otherwise than it is: `gpj.exe` as `exe.jpg`, or nothing at all.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_extension_of_its_type() {
        let key = |mime| key("t/1", "audio", 1_700_000_000_000, "wamid.A==", mime);
        let folder = "t%2F1/audio/2023-11-14/wamid.A==";
        assert_eq!(key("audio/ogg; codecs=opus"), format!("{folder}.ogg"));
        assert_eq!(key("Audio/MPEG"), format!("{folder}.mp3"));
        for odd in ["", "x", "image/png\r\nX: y", "image/../../x", "a/b;c"] {
            assert_eq!(key(odd), format!("{folder}.bin"), "{odd}");
        }
    }

    #[test]
    fn what_a_browser_would_run_is_bytes() {
        assert_eq!(content_type("image/jpeg"), "image/jpeg");
        assert_eq!(content_type("audio/ogg; codecs=opus"), "audio/ogg");
        for mime in [
            "text/html",
            "image/svg+xml",
            "application/xhtml+xml",
            "application/x-msdownload",
            "image/png\r\nX: y",
            "",
        ] {
            assert_eq!(content_type(mime), BYTES, "{mime}");
        }
    }

    #[test]
    fn a_name_is_one_name_and_no_header() {
        let named = |name| disposition(Some(name), "f.bin");
        let plain = |name: &str| format!("attachment; filename*=UTF-8''{name}");
        assert_eq!(
            named("Currículum café.pdf"),
            plain("Curr%C3%ADculum%20caf%C3%A9.pdf")
        );
        assert_eq!(named("../../etc/passwd"), plain("passwd"));
        assert_eq!(named("C:\\x\\y.txt"), plain("y.txt"));
        assert_eq!(named("a\r\nSet-Cookie: b"), plain("aSet-Cookie%3A%20b"));
        assert_eq!(named("\"; filename=x"), plain("%22%3B%20filename%3Dx"));
        assert_eq!(named("\u{202e}gpj.exe"), plain("gpj.exe"));
        assert_eq!(named("a  b\0"), plain("a%20%20b"));
        assert_eq!(named(". .ssh"), plain("ssh"), "found by fuzzing");
        for nothing in ["", "..", ".", "/", "\0", " . "] {
            assert_eq!(named(nothing), plain("f.bin"), "{nothing:?}");
        }
        assert_eq!(disposition(None, "f.bin"), plain("f.bin"));
        assert!(named(&"ä".repeat(70_000)).len() < 1000);
    }
}
