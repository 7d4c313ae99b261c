//! Any answer of the Graph API: it is understood as one of the known outcomes, and where its URL
//! leads is only followed to the hosts that are listed. Status, usage header, retry header and body, parted by line
//! ends.
#![no_main]

use std::net::IpAddr;
use std::sync::LazyLock;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use libfuzzer_sys::fuzz_target;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderValue};
use url::Url;
use worker::ask::graph::{self, GraphError};
use worker::out::media::safety::{AllowedHosts, is_public};
use worker::ask::neighbour::Answer;

static ALLOWED: LazyLock<AllowedHosts> = LazyLock::new(|| {
    let graph = "https://graph.facebook.com".parse().expect("a URL");
    AllowedHosts::new(&["lookaside.fbsbx.com".parse().expect("a host")], &graph)
});

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(4, |byte| *byte == b'\n');
    let [status, usage, retry, body] = [(); 4].map(|()| parts.next().unwrap_or_default());
    let status = std::str::from_utf8(status).ok().and_then(|it| it.parse().ok()).unwrap_or(200);
    let Ok(status) = StatusCode::from_u16(status) else {
        return;
    };
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("x-app-usage", usage),
        ("x-business-use-case-usage", usage),
        ("retry-after", retry),
    ] {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(name, value);
        }
    }
    let answer = Answer {
        status,
        headers,
        body: Bytes::copy_from_slice(body),
    };
    match graph::understood(&answer) {
        Some((Ok(media), _)) => {
            assert!(status.is_success());
            if let Ok(url) = Url::parse(&media.url)
                && ALLOWED.allow(&url)
            {
                assert_eq!(url.scheme(), "https");
                assert!(matches!(url.host_str(), Some("lookaside.fbsbx.com" | "graph.facebook.com")));
                assert!(url.port().is_none() && url.username().is_empty() && url.password().is_none());
            }
        }
        Some((Err(error), _)) => {
            assert!(!status.is_success());
            // What is told of it goes to logs: nothing that a stranger wrote.
            let told = error.to_string();
            assert!(told.len() < 100 && told.is_ascii());
            assert!(!matches!(error, GraphError::Neighbour(_)));
        }
        None => {}
    }
    let text = String::from_utf8_lossy(body);
    if let Some(digest) = graph::digest(&text) {
        let hex = HEXLOWER.encode(&digest);
        assert!(hex == text.to_ascii_lowercase() || text == worker::out::media::verify::base64(&digest));
    }
    // Only what may be routed on the public internet is public.
    if let Ok(IpAddr::V6(address)) = text.parse::<IpAddr>()
        && let Some(inner) = address.to_ipv4_mapped()
    {
        assert!(!is_public(IpAddr::V6(address)), "{inner}");
    }
});
