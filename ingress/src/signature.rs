//! `X-Hub-Signature-256`: HMAC-SHA256 over the raw body, keyed with the app secret's text. Checked
//! before anything looks into the body.

use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use hyper::HeaderMap;
use sha2::Sha256;
use shared::secrets::Secret;

/// The header Meta signs with. The older SHA-1 header is ignored.
pub const HEADER: &str = "x-hub-signature-256";

/// Secrets any of which may have signed: several apps, or one app in rotation.
pub struct SignatureVerifier {
    keys: Vec<Hmac<Sha256>>,
}

/// No signature, more than one, a malformed one, or one by a key we don't have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the signature is missing or wrong")]
pub struct SignatureRefused;

impl SignatureVerifier {
    /// A verifier that knows the secrets in `text`, separated by commas or line ends.
    ///
    /// # Errors
    /// An empty one: it would let in whoever signs with nothing.
    pub fn parse(text: &Secret) -> Result<Self, String> {
        let keys = text.expose().split([',', '\n']).map(|secret| {
            let secret = secret.trim();
            if secret.is_empty() {
                return Err("one of the comma-separated secrets is empty".to_owned());
            }
            Hmac::new_from_slice(secret.as_bytes()).map_err(|error| error.to_string())
        });
        Ok(Self {
            keys: keys.collect::<Result<_, _>>()?,
        })
    }

    /// Checks the one signature header against `body`. The answer tells which secret had signed.
    ///
    /// # Errors
    /// [`SignatureRefused`], for whatever reason: the answer must not help to forge one.
    pub fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Result<usize, SignatureRefused> {
        let mut values = headers.get_all(HEADER).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(SignatureRefused);
        };
        let signature = decode(value.as_bytes()).ok_or(SignatureRefused)?;
        self.keys
            .iter()
            .position(|key| {
                let mut mac = key.clone();
                mac.update(body);
                mac.verify_slice(&signature).is_ok()
            })
            .ok_or(SignatureRefused)
    }
}

/// `sha256=` and 64 lowercase hex digits, as Meta writes it and nothing else.
fn decode(value: &[u8]) -> Option<[u8; 32]> {
    let hex = value.strip_prefix(b"sha256=")?;
    if hex.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    HEXLOWER.decode_mut(hex, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, value.parse().expect("a header value"));
        }
        headers
    }

    #[test]
    fn an_empty_secret_is_none() {
        for text in ["a,,b", "a,", ","] {
            let secrets = text.parse().expect("not all empty");
            assert!(SignatureVerifier::parse(&secrets).is_err(), "{text}");
        }
    }

    /// The example of RFC 4231, test case 2.
    const JEFE: &str = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";

    #[test]
    fn only_the_exact_header_passes() {
        let secrets = "other, Jefe".parse().expect("secrets");
        let verifier = SignatureVerifier::parse(&secrets).expect("a verifier");
        let body = b"what do ya want for nothing?";
        assert_eq!(verifier.verify(&headers(&[JEFE]), body), Ok(1));
        for wrong in [
            vec![],
            vec![JEFE, JEFE],
            vec!["sha256="],
            vec![JEFE.trim_end_matches("43")],
            vec![&JEFE.replace("sha256", "SHA256")],
            vec![&JEFE.replace('c', "C")],
            vec![&JEFE.replace("5b", "5c")],
            vec![&format!(" {JEFE}")],
        ] {
            assert_eq!(
                verifier.verify(&headers(&wrong), body),
                Err(SignatureRefused),
                "{wrong:?}"
            );
        }
        assert_eq!(
            verifier.verify(&headers(&[JEFE]), b"something else"),
            Err(SignatureRefused)
        );
    }
}
