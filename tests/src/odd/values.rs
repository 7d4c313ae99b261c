//! Odd texts, numbers and documents.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::Value;

/// Texts of JSON values, some of them none.
const JSON: [&str; 48] = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-1",
    "1",
    "0.1",
    "1e308",
    "-1e308",
    "1e999",
    "1e-999",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775809",
    "340282366920938463463374607431768211456",
    "NaN",
    "Infinity",
    "undefined",
    "'single'",
    "\"\"",
    "\" \"",
    "\"0\"",
    "\"-1\"",
    "\"1e400\"",
    "\"NaN\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"\\udfff\\ud800\"",
    "\"\\r\\nX-Odd: yes\"",
    "\"..\"",
    "\"../../etc/passwd\"",
    "\"%2e%2e%2f\"",
    "\"http://169.254.169.254/latest\"",
    "\"http://[::1]:1/\"",
    "\"file:///etc/passwd\"",
    "\"https://user:word@127.0.0.1:1/\"",
    "\"http://\"",
    "\"active\"",
    "\"suspended\"",
    "\"ACTIVE\"",
    "\"2026-13-45T99:99:99Z\"",
    "[]",
    "{}",
    "[[],{},null]",
    "{\"a\":1,\"a\":[2],\"\":null,\"__proto__\":{}}",
];

/// A place in a document that [`bent`] puts an odd text into.
const PLACE: &str = "@@odd place@@";

fn json(random: &mut StdRng) -> String {
    match random.random_range(0..60) {
        0 => nested(random, '[', ']'),
        1 => format!("\"{}\"", "a".repeat(random.random_range(1000..300_000))),
        2 => format!("[{}0]", "0,".repeat(random.random_range(1000..100_000))),
        3 => format!("\"{}\"", "\u{202e}\u{200b}ß\u{10ffff}".repeat(1000)),
        4 => random.random_range(i64::MIN..=i64::MAX).to_string(),
        5 => format!("1{}", "0".repeat(random.random_range(20..5000))),
        _ => (*JSON.choose(random).unwrap_or(&"null")).to_owned(),
    }
}

fn nested(random: &mut StdRng, open: char, close: char) -> String {
    let depth = random.random_range(100..100_000);
    let (open, close) = (open.to_string(), close.to_string());
    format!("{}{}", open.repeat(depth), close.repeat(depth))
}

/// A document of nearly the right shape; text that is no JSON comes back as nonsense.
pub(super) fn bent(random: &mut StdRng, right: &[u8]) -> Vec<u8> {
    let Ok(mut document) = serde_json::from_slice::<Value>(right) else {
        return nonsense(random);
    };
    let mut places = Vec::new();
    for _ in 0..random.random_range(1..4) {
        let nodes = count(&document);
        let mut node = random.random_range(0..nodes);
        bend(random, &mut document, &mut node, &mut places);
    }
    let mut text = document.to_string();
    for odd in places {
        text = text.replacen(&format!("\"{PLACE}\""), &odd, 1);
    }
    text.into_bytes()
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// Does something to the node with this number; whether it was found.
fn bend(
    random: &mut StdRng,
    value: &mut Value,
    node: &mut usize,
    places: &mut Vec<String>,
) -> bool {
    if *node == 0 {
        *value = match (random.random_range(0..10), &*value) {
            (0, whole) => Value::Array(vec![whole.clone()]),
            (1, whole) => Value::String(whole.to_string()),
            (2, Value::Object(members)) => {
                let kept = members.iter().filter(|_| random.random_bool(0.7));
                Value::Object(
                    kept.map(|(name, value)| (name.clone(), value.clone()))
                        .collect(),
                )
            }
            (3, Value::Number(number)) => Value::String(number.to_string()),
            _ => {
                places.push(json(random));
                Value::String(PLACE.to_owned())
            }
        };
        return true;
    }
    *node -= 1;
    match value {
        Value::Array(items) => items
            .iter_mut()
            .any(|item| bend(random, item, node, places)),
        Value::Object(members) => members
            .values_mut()
            .any(|member| bend(random, member, node, places)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// A document of no shape at all.
pub(super) fn nonsense(random: &mut StdRng) -> Vec<u8> {
    match random.random_range(0..11) {
        0 => Vec::new(),
        1 => noise(random, 5000),
        2 => nested(random, '[', ']').into_bytes(),
        3 => "{\"a\":".repeat(random.random_range(100..50_000)).into_bytes(),
        4 => "<a>".repeat(random.random_range(100..50_000)).into_bytes(),
        5 => b"\xef\xbb\xbf{}".to_vec(),
        6 => b"\xff\xfe{\0}\0".to_vec(),
        7 => b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>".to_vec(),
        8 => b"<?xml version=\"1.0\"?><!DOCTYPE l [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;\">]><l>&b;</l>".to_vec(),
        9 => b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xab\xae\x05\0C\xbf\xa6\xa3\x02\0\0\0".to_vec(),
        _ => json(random).into_bytes(),
    }
}

pub(super) fn noise(random: &mut StdRng, most: usize) -> Vec<u8> {
    let length = random.random_range(1..=most);
    (0..length).map(|_| random.random()).collect()
}

/// Texts between tags that no reader of a listing hopes for.
const XML: [&str; 18] = [
    "",
    "-1",
    "18446744073709551616",
    "99999999999999999999999999",
    "1e9",
    "true",
    "TRUE",
    "false",
    "2026-13-45T99:99:99Z",
    "-262144-01-01T00:00:00Z",
    "+262143-12-31T23:59:60Z",
    "spool/../../x",
    "spool//",
    "spool/65536/x",
    "/",
    "&#0;",
    "&unknown;",
    "<Key>",
];

/// An XML document in which a text is another, or a tag is missing.
pub(super) fn bent_xml(random: &mut StdRng, right: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(right).into_owned();
    let ends: Vec<usize> = text.match_indices('>').map(|(at, _)| at + 1).collect();
    let Some(at) = ends.choose(random).copied() else {
        return nonsense(random);
    };
    let (before, after) = text.split_at(at);
    let next = after.find('<').unwrap_or(after.len());
    match random.random_range(0..6) {
        0 => before.as_bytes().to_vec(),
        1 => {
            let end = after.find('>').map_or(after.len(), |end| end + 1);
            format!("{before}{}", after.split_at(end).1).into_bytes()
        }
        2 => format!(
            "{before}{}{after}",
            "<x>".repeat(random.random_range(1..20_000))
        )
        .into_bytes(),
        3 => format!("{before}{before}{after}").into_bytes(),
        _ => {
            let odd = XML.choose(random).unwrap_or(&"");
            format!("{before}{odd}{}", after.split_at(next).1).into_bytes()
        }
    }
}

/// Numbers as headers have them.
const NUMBERS: [&str; 24] = [
    "0",
    "1",
    "-1",
    "+5",
    "0x10",
    "1e3",
    "1.5",
    "",
    " ",
    "NaN",
    "5, 5",
    "5, 6",
    "4294967296",
    "1099511627776",
    "1000000000000000",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "18446744073709551",
    "99999999999999999999999999999999999999",
    "-9223372036854775808",
    "3600",
    "\u{0661}\u{0662}",
];

const DATES: [&str; 10] = [
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "Thu, 99 Foo 2026 99:99:99 GMT",
    "Mon, 01 Jan 0000 00:00:00 GMT",
    "Mon, 01 Jan -9999 00:00:00 GMT",
    "Mon, 01 Jan 999999 00:00:00 GMT",
    "Sun Nov  6 08:49:37 1994",
    "2026-01-01T00:00:00Z",
    "now",
    "",
];

const USAGES: [&str; 8] = [
    "{\"call_count\":1e308,\"total_time\":-1e308}",
    "{\"call_count\":100,\"estimated_time_to_regain_access\":1e308}",
    "{\"1\":[{\"estimated_time_to_regain_access\":9223372036854775807}]}",
    "{\"1\":[{\"estimated_time_to_regain_access\":-5}],\"1\":[]}",
    "{\"1\":[{\"estimated_time_to_regain_access\":1e17}]}",
    "{\"1\":{}}",
    "[[[[[[",
    "NaN",
];

const WORDS: [&str; 12] = [
    "",
    "*/*",
    "text/html; charset=\"",
    "application/json; charset=utf-16",
    "multipart/byteranges",
    "gzip",
    "br, gzip, deflate, zstd",
    "close, keep-alive, upgrade",
    "h2c",
    "\"",
    "W/\"odd\"",
    "\u{1f4a9}\u{0000}",
];

const PLACES: [&str; 8] = [
    "http://169.254.169.254/latest/meta-data",
    "//127.0.0.1:1/",
    "/",
    "file:///etc/passwd",
    "http://[::1",
    "../../..",
    "",
    "http://\u{0}",
];

/// Headers that the programs or their libraries may look at, and what they may find.
const HEADERS: [(&[&str], &[&str]); 6] = [
    (
        &[
            "Retry-After",
            "Retry-After",
            "Age",
            "Keep-Alive",
            "Content-Range",
        ],
        &NUMBERS,
    ),
    (&["Date", "Last-Modified", "Expires", "Retry-After"], &DATES),
    (&["X-App-Usage", "X-Business-Use-Case-Usage"], &USAGES),
    (
        &[
            "Content-Type",
            "Content-Encoding",
            "Connection",
            "Upgrade",
            "ETag",
            "facebook-api-version",
            "x-amz-meta-sha256",
            "x-amz-version-id",
            "Content-Disposition",
        ],
        &WORDS,
    ),
    (&["Location"], &PLACES),
    (&["x-amz-meta-message-id", "Content-Type", "ETag"], &NUMBERS),
];

pub(super) fn header(random: &mut StdRng) -> (String, Vec<u8>) {
    let (names, values) = HEADERS[random.random_range(0..HEADERS.len())];
    let name = names.choose(random).copied().unwrap_or("X-Odd");
    let value = match random.random_range(0..12) {
        0 => noise(random, 50),
        1 => vec![b'9'; random.random_range(100..20_000)],
        _ => values
            .choose(random)
            .map(|text| text.as_bytes().to_vec())
            .unwrap_or_default(),
    };
    (name.to_owned(), value)
}

/// A line that says how long a body is, or how it is cut into pieces.
pub(super) fn framing(random: &mut StdRng) -> String {
    let number = NUMBERS.choose(random).copied().unwrap_or("0");
    let other = NUMBERS.choose(random).copied().unwrap_or("1");
    match random.random_range(0..8) {
        0 => String::new(),
        1 => "Transfer-Encoding: chunked\r\n".to_owned(),
        2 => "Transfer-Encoding: gzip, chunked\r\n".to_owned(),
        3 => "Transfer-Encoding: identity\r\n".to_owned(),
        4 => format!("Transfer-Encoding: chunked\r\nContent-Length: {number}\r\n"),
        5 => format!("Content-Length: {number}\r\nContent-Length: {other}\r\n"),
        _ => format!("Content-Length: {number}\r\n"),
    }
}

/// A size in front of a piece of a body.
pub(super) fn chunk_size(random: &mut StdRng) -> String {
    match random.random_range(0..6) {
        0 => "FFFFFFFFFFFFFFFF".to_owned(),
        1 => "FFFFFFFFFFFFFFFFF".to_owned(),
        2 => "-1".to_owned(),
        3 => "10000000000".to_owned(),
        4 => format!("5;{}", "x".repeat(random.random_range(1..100_000))),
        _ => "g".to_owned(),
    }
}

/// The first line of an answer, or what stands in its place.
pub(super) fn status_line(random: &mut StdRng) -> Vec<u8> {
    let lines: [&[u8]; 16] = [
        b"HTTP/1.1 99 Low\r\n",
        b"HTTP/1.1 1000 High\r\n",
        b"HTTP/1.1 -200 OK\r\n",
        b"HTTP/1.1 20 OK\r\n",
        b"HTTP/1.1  404 OK\r\n",
        b"HTTP/1.1\r\n",
        b"HTTP/0.9 404\r\n",
        b"HTTP/9.9 404 Odd\r\n",
        b"HTTP/2 500\r\n",
        b"ICY 404 OK\r\n",
        b"GET / HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x15\x03\x01\0\x02\x02\x28",
        b"SSH-2.0-odd\r\n",
        b"\r\n\r\n\r\n",
        b"\0",
    ];
    match random.random_range(0..20) {
        0 => noise(random, 500),
        1 => [b"HTTP/1.1 404 ", vec![b'x'; 200_000].as_slice(), b"\r\n"].concat(),
        _ => lines
            .choose(random)
            .map(|line| line.to_vec())
            .unwrap_or_default(),
    }
}

/// What a body that never ends repeats.
pub(super) fn endless(random: &mut StdRng) -> Vec<u8> {
    let pieces: [&[u8]; 6] = [
        b" ",
        b"[",
        b"{\"a\":",
        b"x",
        b"<Contents><Key>spool/0/x</Key><Size>1</Size></Contents>",
        b"\0",
    ];
    let piece = pieces.choose(random).copied().unwrap_or(b" ");
    piece.repeat(64 * 1024 / piece.len())
}
