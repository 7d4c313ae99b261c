//! What a media object is called, and how it is handed to a browser: nothing that a sender wrote
//! decides where it lies or what runs.

use chrono::DateTime;

use crate::out::store::segment;

/// Spellings that are common and not registered.
const SPELLINGS: [(&str, &str); 19] = [
    ("application/csv", "text/csv"),
    ("application/x-gzip", "application/gzip"),
    ("application/x-pdf", "application/pdf"),
    ("application/x-rar", "application/vnd.rar"),
    ("application/x-rar-compressed", "application/vnd.rar"),
    ("application/x-zip", "application/zip"),
    ("application/x-zip-compressed", "application/zip"),
    ("audio/m4a", "audio/mp4"),
    ("audio/mp3", "audio/mpeg"),
    ("audio/vnd.wave", "audio/wav"),
    ("audio/wave", "audio/wav"),
    ("audio/x-m4a", "audio/mp4"),
    ("audio/x-wav", "audio/wav"),
    ("binary/octet-stream", BYTES),
    ("image/jpg", "image/jpeg"),
    ("text/comma-separated-values", "text/csv"),
    ("text/directory", "text/vcard"),
    ("text/x-csv", "text/csv"),
    ("text/x-vcard", "text/vcard"),
];

/// How files of a type are called where the table of `mime_guess` has several endings, another or none.
const ENDINGS: [(&str, &str); 24] = [
    ("application/gzip", "gz"),
    ("application/msword", "doc"),
    ("application/vnd.ms-excel", "xls"),
    ("application/vnd.ms-powerpoint", "ppt"),
    ("application/vnd.rar", "rar"),
    ("application/xml", "xml"),
    ("audio/amr", "amr"),
    ("audio/mp4", "m4a"),
    ("audio/mpeg", "mp3"),
    ("audio/ogg", "ogg"),
    ("audio/opus", "opus"),
    ("image/heic", "heic"),
    ("image/jpeg", "jpg"),
    ("image/svg+xml", "svg"),
    ("image/tiff", "tif"),
    ("image/vnd.dwg", "dwg"),
    ("text/html", "html"),
    ("text/plain", "txt"),
    ("text/vcard", "vcf"),
    ("video/3gpp", "3gp"),
    ("video/mp4", "mp4"),
    ("video/mpeg", "mpg"),
    ("video/quicktime", "mov"),
    ("video/x-matroska", "mkv"),
];

/// Documents and archives that no browser runs anything in.
const HARMLESS: [&str; 10] = [
    "application/epub+zip",
    "application/gzip",
    "application/msword",
    "application/pdf",
    "application/rtf",
    "application/vnd.rar",
    "application/x-7z-compressed",
    "application/zip",
    "text/csv",
    "text/plain",
];
const HARMLESS_FAMILIES: [&str; 7] = [
    "application/vnd.ms-excel",
    "application/vnd.ms-powerpoint",
    "application/vnd.oasis.opendocument.",
    "application/vnd.openxmlformats-officedocument.",
    "audio/",
    "image/",
    "video/",
];

/// The type that nothing is done with.
pub const BYTES: &str = "application/octet-stream";
/// Characters of a file name that are passed on.
const LONGEST_NAME: usize = 128;
/// Of the ending of a file name.
const LONGEST_ENDING: usize = 10;

/// A MIME type without its parameters, in lower case and in its usual spelling: `audio/ogg; codecs=opus` →
/// `audio/ogg`.
pub fn essence(mime_type: &str) -> String {
    let essence = mime_type.split(';').next().unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    let usual = SPELLINGS.iter().find(|(spelling, _)| *spelling == essence);
    usual.map_or(essence, |(_, usual)| (*usual).to_owned())
}

/// What a file is taken for: its MIME type; where that says nothing, what its name's ending says.
pub fn essence_of_file(mime_type: &str, filename: Option<&str>) -> String {
    let declared = essence(mime_type);
    if !declared.is_empty() && declared != BYTES {
        return declared;
    }
    let ending = filename.and_then(ending);
    let guessed = ending.and_then(|it| mime_guess::from_ext(&it).first_raw());
    guessed.map_or_else(|| BYTES.to_owned(), essence)
}

/// Endings of the files of a type; `None` for types that aren't known.
fn known_endings(essence: &str) -> Option<&'static [&'static str]> {
    // A star would stand for all of them.
    let is_one = !essence.contains('*');
    is_one.then(|| mime_guess::get_mime_extensions_str(essence))?
}

/// The ending of a file's name, if it is a plain one, in lower case.
fn ending(filename: &str) -> Option<String> {
    let (_, ending) = filename.trim_end().rsplit_once('.')?;
    let plain = (1..=LONGEST_ENDING).contains(&ending.len())
        && ending.bytes().all(|byte| byte.is_ascii_alphanumeric());
    plain.then(|| ending.to_ascii_lowercase())
}

/// Ending of the files of a MIME type; of a type that isn't known, or says nothing, that of the file's own
/// name; else `bin`.
pub fn extension(mime_type: &str, filename: Option<&str>) -> String {
    let essence = essence(mime_type);
    let own = filename.and_then(ending);
    let usual = ENDINGS.iter().find(|(name, _)| *name == essence);
    if let Some((_, usual)) = usual {
        return (*usual).to_owned();
    }
    let known = known_endings(&essence).filter(|_| essence != BYTES);
    let Some(known) = known else {
        return own.unwrap_or_else(|| "bin".to_owned());
    };
    let own = own.filter(|own| known.contains(&own.as_str()));
    let subtype = essence.split('/').nth(1).filter(|it| known.contains(it));
    let first = || known.first().copied().unwrap_or("bin");
    own.unwrap_or_else(|| subtype.unwrap_or_else(first).to_owned())
}

/// `Content-Type` under which a file of this type ([`essence_of_file`]) is stored: the type itself if it is
/// known and a browser shows it without running anything in it.
pub fn content_type(essence: &str) -> &str {
    let is_known =
        ENDINGS.iter().any(|(name, _)| *name == essence) || known_endings(essence).is_some();
    let of_family = HARMLESS_FAMILIES.iter().any(|it| essence.starts_with(it));
    // Of SVG and its like.
    let is_xml = essence.ends_with("+xml");
    let is_harmless = HARMLESS.contains(&essence) || (of_family && !is_xml);
    if is_known && is_harmless {
        essence
    } else {
        BYTES
    }
}

/// Key of a media object. `message_name`: of the message, as [`crate::out::store`] names it.
pub fn key(
    tenant_id: &str,
    kind: &str,
    received_at_ms: i64,
    message_name: &str,
    mime_type: &str,
    filename: Option<&str>,
) -> String {
    let day = DateTime::from_timestamp_millis(received_at_ms)
        .unwrap_or_default()
        .format("%Y-%m-%d");
    let tenant = segment(tenant_id);
    format!(
        "{tenant}/{kind}/{day}/{message_name}.{}",
        extension(mime_type, filename)
    )
}

/// `Content-Disposition` that makes a browser save the file (RFC 6266). Its name is the sender's
/// without folders, control and direction characters, encoded by RFC 5987; else `fallback`.
pub fn disposition(filename: Option<&str>, fallback: &str) -> String {
    let name = filename.map(file_name).filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| fallback.to_owned());
    let start = "attachment; filename*=UTF-8''";
    let mut disposition = String::with_capacity(start.len() + name.len());
    disposition.push_str(start);
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' => {
                disposition.push(char::from(byte));
            }
            other => disposition.push_str(&format!("%{other:02X}")),
        }
    }
    disposition
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
        let key = |mime| key("t/1", "audio", 1_700_000_000_000, "wamid.A==", mime, None);
        let folder = "t%2F1/audio/2023-11-14/wamid.A==";
        assert_eq!(key("audio/ogg; codecs=opus"), format!("{folder}.ogg"));
        assert_eq!(key("Audio/MPEG"), format!("{folder}.mp3"));
        for odd in [
            "",
            "x",
            "image/png\r\nX: y",
            "image/../../x",
            "a/b;c",
            "*/*",
            "image/*",
        ] {
            assert_eq!(key(odd), format!("{folder}.bin"), "{odd}");
        }
    }

    const DOCX: &str = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
    const ODT: &str = "application/vnd.oasis.opendocument.text";
    const XLSM: &str = "application/vnd.ms-excel.sheet.macroenabled.12";
    const APK: &str = "application/vnd.android.package-archive";
    const RAR: &str = "application/vnd.rar";
    const ZIP: &str = "application/x-zip-compressed";

    #[test]
    fn everyday_files_have_their_usual_ending_and_type() {
        for (mime, name, ending, served) in [
            ("audio/mp3", "", "mp3", "audio/mpeg"),
            ("audio/x-m4a", "", "m4a", "audio/mp4"),
            ("audio/webm", "", "weba", "audio/webm"),
            ("audio/aac", "", "aac", "audio/aac"),
            ("image/heif", "", "heif", "image/heif"),
            ("image/jpeg", "a.jpeg", "jpg", "image/jpeg"),
            ("image/vnd.dwg", "plan.dwg", "dwg", "image/vnd.dwg"),
            ("video/x-matroska", "", "mkv", "video/x-matroska"),
            (ODT, "text.odt", "odt", ODT),
            (DOCX, "", "docx", DOCX),
            (XLSM, "macro.xlsm", "xlsm", XLSM),
            ("application/epub+zip", "", "epub", "application/epub+zip"),
            (RAR, "all.rar", "rar", RAR),
            (ZIP, "all.zip", "zip", "application/zip"),
            ("text/comma-separated-values", "l.csv", "csv", "text/csv"),
            (BYTES, "letter.docx", "docx", DOCX),
            ("", "letter.DOCX ", "docx", DOCX),
            (BYTES, "", "bin", BYTES),
            (BYTES, "..", "bin", BYTES),
            (BYTES, "a.b/c", "bin", BYTES),
            (BYTES, "a.elevenchars", "bin", BYTES),
            (BYTES, "page.html", "html", BYTES),
            (BYTES, "unheard.of9", "of9", BYTES),
            ("application/x-unheard-of", "a.xyz", "xyz", BYTES),
            (APK, "app.apk", "apk", BYTES),
            ("text/plain", "page.html", "txt", "text/plain"),
            ("application/pdf", "page.html", "pdf", "application/pdf"),
        ] {
            let name = Some(name);
            assert_eq!(extension(mime, name), ending, "{mime} {name:?}");
            let taken_for = essence_of_file(mime, name);
            assert_eq!(content_type(&taken_for), served, "{mime} {name:?}");
        }
    }

    #[test]
    fn a_type_has_one_ending_however_it_is_spelt() {
        for (mime, ending, served) in [
            ("application/csv", "csv", "text/csv"),
            ("text/x-csv", "csv", "text/csv"),
            ("application/gzip", "gz", "application/gzip"),
            ("application/x-gzip", "gz", "application/gzip"),
            ("application/x-pdf", "pdf", "application/pdf"),
            ("application/x-rar", "rar", RAR),
            ("application/x-rar-compressed", "rar", RAR),
            ("application/x-zip", "zip", "application/zip"),
            (
                "application/x-7z-compressed",
                "7z",
                "application/x-7z-compressed",
            ),
            ("application/msword", "doc", "application/msword"),
            (
                "application/vnd.ms-excel",
                "xls",
                "application/vnd.ms-excel",
            ),
            (
                "application/vnd.ms-powerpoint",
                "ppt",
                "application/vnd.ms-powerpoint",
            ),
            ("application/rtf", "rtf", "application/rtf"),
            ("application/xml", "xml", BYTES),
            ("audio/amr", "amr", "audio/amr"),
            ("audio/m4a", "m4a", "audio/mp4"),
            ("audio/ogg; codecs=opus", "ogg", "audio/ogg"),
            ("audio/opus", "opus", "audio/opus"),
            ("audio/vnd.wave", "wav", "audio/wav"),
            ("audio/wave", "wav", "audio/wav"),
            ("audio/x-wav", "wav", "audio/wav"),
            ("image/heic", "heic", "image/heic"),
            ("image/jpg", "jpg", "image/jpeg"),
            ("image/svg+xml", "svg", BYTES),
            ("image/tiff", "tif", "image/tiff"),
            ("text/directory", "vcf", BYTES),
            ("text/vcard", "vcf", BYTES),
            ("text/x-vcard", "vcf", BYTES),
            ("text/html", "html", BYTES),
            ("video/3gpp", "3gp", "video/3gpp"),
            ("video/mp4", "mp4", "video/mp4"),
            ("video/mpeg", "mpg", "video/mpeg"),
            ("video/quicktime", "mov", "video/quicktime"),
        ] {
            assert_eq!(extension(mime, None), ending, "{mime}");
            assert_eq!(content_type(&essence(mime)), served, "{mime}");
        }
        // These say nothing, and the name does.
        for mime in ["", BYTES, "binary/octet-stream"] {
            let name = Some("letter.docx");
            assert_eq!(extension(mime, name), "docx", "{mime}");
            assert_eq!(essence_of_file(mime, name), DOCX, "{mime}");
        }
    }

    #[test]
    fn what_a_browser_would_run_is_bytes() {
        assert_eq!(content_type("image/jpeg"), "image/jpeg");
        for mime in [
            "text/html",
            "image/svg+xml",
            "application/xhtml+xml",
            "application/x-msdownload",
            "image/png\r\nX: y",
            "image/*",
            "application/javascript",
            "application/x-shockwave-flash",
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
