//! Any headers and body: exactly one right header passes, and nothing else. The first byte says how
//! many headers there are, and what the last of them is.
#![no_main]

use std::sync::LazyLock;

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use hyper::header::{HeaderMap, HeaderValue};
use ingress::signature::{HEADER, SignatureVerifier};
use libfuzzer_sys::fuzz_target;
use sha2::Sha256;

static VERIFIER: LazyLock<SignatureVerifier> = LazyLock::new(|| {
    let secrets = "one,two".parse().expect("secrets");
    SignatureVerifier::parse(&secrets).expect("a verifier")
});

fn right(secret: &str, body: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
    mac.update(body);
    let hex = HEXLOWER.encode(&mac.finalize().into_bytes());
    format!("sha256={hex}").into_bytes()
}

fuzz_target!(|data: &[u8]| {
    let [shape, rest @ ..] = data else { return };
    let mut parts = rest.splitn(3, |byte| *byte == 0);
    let (first, second, body) = (parts.next(), parts.next(), parts.next());
    let body = body.unwrap_or_default();
    let mut headers = HeaderMap::new();
    let sent: Vec<_> = [first, second].into_iter().flatten().take(usize::from(shape % 3)).collect();
    for value in sent {
        let Ok(value) = HeaderValue::from_bytes(value) else {
            return;
        };
        headers.append(HEADER, value);
    }
    // The right one, right but for a bit, and in its place.
    let secret = if shape & 4 == 0 { "one" } else { "two" };
    if shape & 8 != 0 {
        let mut value = right(secret, body);
        if shape & 16 != 0 {
            let at = usize::from(first.and_then(|it| it.first()).copied().unwrap_or(0)) % value.len();
            value[at] ^= 1 << (shape >> 5);
        }
        let Ok(value) = HeaderValue::from_bytes(&value) else {
            return;
        };
        headers.append(HEADER, value);
    }
    let values: Vec<_> = headers.get_all(HEADER).iter().collect();
    let passes = match values[..] {
        [value] => ["one", "two"].iter().position(|secret| value.as_bytes() == right(secret, body)),
        _ => None,
    };
    assert_eq!(VERIFIER.verify(&headers, body).ok(), passes);
});
