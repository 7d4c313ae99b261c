//! The GET with which Meta asks, when a webhook is configured, whether it was meant:
//! `?hub.mode=subscribe&hub.verify_token=…&hub.challenge=…`.

use shared::secrets::Secret;
use subtle::ConstantTimeEq;

/// Longest challenge that is echoed. Meta sends a number of about ten digits.
const LONGEST: usize = 256;

/// Why a challenge is not answered.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChallengeRefused {
    #[error("the verify token is missing or wrong")]
    Token,
    #[error(
        "the challenge must be 1 to {LONGEST} letters, digits or any of - . _ ~, and be given once"
    )]
    Malformed,
}

/// The challenge to echo, if `query` brings the right token.
///
/// # Errors
/// [`ChallengeRefused`]. Nothing is echoed that could be markup in somebody's browser.
pub fn answer(query: &str, verify_token: &Secret) -> Result<String, ChallengeRefused> {
    let only = |name: &str| {
        let mut values = url::form_urlencoded::parse(query.as_bytes())
            .filter(|(found, _)| found == name)
            .map(|(_, value)| value);
        let value = values.next();
        match values.next() {
            None => Ok(value),
            Some(_) => Err(ChallengeRefused::Malformed),
        }
    };
    let (mode, token) = (only("hub.mode")?, only("hub.verify_token")?);
    let right = token.is_some_and(|token| {
        let (given, expected) = (token.as_bytes(), verify_token.expose().as_bytes());
        given.ct_eq(expected).into()
    });
    if mode.as_deref() != Some("subscribe") || !right {
        return Err(ChallengeRefused::Token);
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    only("hub.challenge")?
        .filter(|challenge| (1..=LONGEST).contains(&challenge.len()))
        .filter(|challenge| challenge.bytes().all(plain))
        .map(Into::into)
        .ok_or(ChallengeRefused::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_token_gets_its_challenge_back() {
        let token: Secret = "to ken".parse().expect("a token");
        let right = "hub.mode=subscribe&hub.verify_token=to+ken";
        let cases = [
            (
                format!("{right}&hub.challenge=1158201444"),
                Ok("1158201444"),
            ),
            (format!("hub.challenge=a-b_c~d.e&{right}"), Ok("a-b_c~d.e")),
            (
                format!("{right}&hub.challenge={}", "1".repeat(256)),
                Ok(&*"1".repeat(256)),
            ),
            (
                format!("{right}&hub.challenge={}", "1".repeat(257)),
                Err(ChallengeRefused::Malformed),
            ),
            (
                format!("{right}&hub.challenge=%3Cscript%3E"),
                Err(ChallengeRefused::Malformed),
            ),
            (
                format!("{right}&hub.challenge=1%0d%0aX:1"),
                Err(ChallengeRefused::Malformed),
            ),
            (
                format!("{right}&hub.challenge=1&hub.challenge=2"),
                Err(ChallengeRefused::Malformed),
            ),
            (
                format!("{right}&hub.verify_token=x&hub.challenge=1"),
                Err(ChallengeRefused::Malformed),
            ),
            (
                format!("{right}&hub.challenge="),
                Err(ChallengeRefused::Malformed),
            ),
            (right.to_owned(), Err(ChallengeRefused::Malformed)),
            (
                "hub.mode=subscribe&hub.verify_token=to&hub.challenge=1".into(),
                Err(ChallengeRefused::Token),
            ),
            (
                "hub.mode=subscribe&hub.challenge=1".into(),
                Err(ChallengeRefused::Token),
            ),
            (
                "hub.verify_token=to+ken&hub.challenge=1".into(),
                Err(ChallengeRefused::Token),
            ),
            (
                "hub_mode=subscribe&hub_verify_token=to+ken&hub_challenge=1".into(),
                Err(ChallengeRefused::Token),
            ),
            (String::new(), Err(ChallengeRefused::Token)),
        ];
        for (query, expected) in cases {
            let expected = expected.map(str::to_owned);
            assert_eq!(answer(&query, &token), expected, "{query}");
        }
    }
}
