//! What an HTTP answer of a neighbour means, and how long it asks to wait.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};

/// Whatever an answer asks for, it is not waited for longer: the header of one answer must not end a
/// conversation with a neighbour for good.
pub const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// See [`retry_after`].
    pub fn retry_after(&self) -> Option<Duration> {
        retry_after(&self.headers)
    }
}

/// `Retry-After`, if it says how long: seconds or a date, [`LONGEST_WAIT`] at most. The longest of
/// several.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(RETRY_AFTER).iter();
    values.filter_map(asked_wait).max()
}

fn asked_wait(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    let wait = if let Ok(date) = DateTime::parse_from_rfc2822(text) {
        let wait = date.to_utc().signed_duration_since(Utc::now());
        wait.to_std().unwrap_or_default()
    } else {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let seconds = digits.then(|| text.parse().unwrap_or(u64::MAX));
        Duration::from_secs(seconds?)
    };
    Some(wait.min(LONGEST_WAIT))
}

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerClass<T> {
    /// An answer, a definite no included: the neighbour is well.
    Done(T),
    /// The neighbour isn't well: again, not before the given time.
    Transient(Option<Duration>),
    /// It is well and asks for patience. The breaker doesn't count this.
    Throttled(Option<Duration>),
    /// Asking again is of no use. The breaker doesn't count this.
    Final,
    /// It answers, and what it says of this subject is of no use. The breaker doesn't count this.
    Unusable,
}

impl<T> AnswerClass<T> {
    /// What a status means where the neighbour has no rules of its own and `T` is no answer.
    pub fn of_failure(answer: &Answer) -> Self {
        match answer.status.as_u16() {
            429 => Self::Throttled(answer.retry_after()),
            408 | 425 | 500..=599 => Self::Transient(answer.retry_after()),
            _ => Self::Final,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_that_is_asked_for_is_an_hour_at_most() {
        let of = |value: &[u8]| {
            let value = HeaderValue::from_bytes(value).expect("a value");
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value)]))
        };
        let soon = Some(Duration::from_secs(7));
        assert_eq!(
            (of(b"7"), of(b" 7 "), of(b"0")),
            (soon, soon, Some(Duration::ZERO))
        );
        for long in [
            "3601",
            "9223372036854775807",
            "18446744073709551615",
            "99999999999999999999999999",
            "Fri, 31 Dec 9999 23:59:59 GMT",
        ] {
            assert_eq!(of(long.as_bytes()), Some(LONGEST_WAIT), "{long}");
        }
        let past = of(b"Wed, 21 Oct 2015 07:28:00 GMT");
        assert_eq!(past, Some(Duration::ZERO));
        for nonsense in [&b""[..], b"-1", b"+7", b"1e9", b"7.5", b"soon", b"\xff"] {
            assert_eq!(of(nonsense), None, "{nonsense:?}");
        }
        let mut several = HeaderMap::new();
        for value in ["soon", "7", "99999999999999999999999999", "-1"] {
            several.append(RETRY_AFTER, HeaderValue::from_static(value));
        }
        assert_eq!(retry_after(&several), Some(LONGEST_WAIT));
    }
}
