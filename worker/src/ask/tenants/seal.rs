//! Access tokens at rest: XChaCha20-Poly1305 under `TOKEN_ENCRYPTION_KEY`. A sealed token is
//! `1`, 4 bytes that name the key, a random nonce of 24 bytes, and the ciphertext. It opens only for the
//! tenant and account that it was sealed for.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use data_encoding::BASE64_NOPAD;
use sha2::{Digest, Sha256};
use shared::secrets::Secret;

const VERSION: u8 = 1;
const KEY_ID: usize = 4;
const NONCE: usize = 24;

/// The first key seals, all open.
pub struct Keyring(Vec<SealingKey>);

struct SealingKey {
    id: [u8; KEY_ID],
    cipher: XChaCha20Poly1305,
}

/// Why a sealed token can't be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsealable {
    #[error("it is no sealed token of a version that this worker knows")]
    Malformed,
    #[error("the key that sealed it is not among ours")]
    UnknownKey,
    #[error("it was changed, or sealed for another tenant")]
    Refused,
}

impl Keyring {
    /// Reads comma-separated keys of 32 bytes in base64.
    ///
    /// # Errors
    /// What is wrong, without repeating any of it.
    pub fn parse(text: &Secret) -> Result<Self, String> {
        let keys = text.expose().split(',').enumerate().map(|(n, key)| {
            // `BASE64` would take padding in the midst of it, too.
            let digits = key.trim().strip_suffix('=');
            let bytes = digits.and_then(|digits| BASE64_NOPAD.decode(digits.as_bytes()).ok());
            let bytes: Option<[u8; 32]> = bytes.and_then(|bytes| bytes.try_into().ok());
            let bytes = bytes.ok_or_else(|| format!("key {} is not 32 bytes in base64", n + 1))?;
            let hash = Sha256::digest(bytes);
            Ok(SealingKey {
                id: [hash[0], hash[1], hash[2], hash[3]],
                cipher: XChaCha20Poly1305::new(&Key::from(bytes)),
            })
        });
        keys.collect::<Result<_, String>>().map(Self)
    }

    /// Seals a token; `None` only if the cipher refuses, which it does for no input of this size.
    pub fn seal(&self, token: &Secret, tenant_id: &str, waba_id: &str) -> Option<Vec<u8>> {
        let key = self.0.first()?;
        let nonce: [u8; NONCE] = rand::random();
        let payload = Payload {
            msg: token.expose().as_bytes(),
            aad: &bound_to(&key.id, tenant_id, waba_id),
        };
        let ciphertext = key.cipher.encrypt(&XNonce::from(nonce), payload).ok()?;
        let mut sealed = vec![VERSION];
        sealed.extend(key.id);
        sealed.extend(nonce);
        sealed.extend(ciphertext);
        Some(sealed)
    }

    /// Opens a sealed token.
    ///
    /// # Errors
    /// [`Unsealable`].
    pub fn open(
        &self,
        sealed: &[u8],
        tenant_id: &str,
        waba_id: &str,
    ) -> Result<Secret, Unsealable> {
        let rest = sealed
            .strip_prefix(&[VERSION])
            .ok_or(Unsealable::Malformed)?;
        let (id, rest) = rest
            .split_first_chunk::<KEY_ID>()
            .ok_or(Unsealable::Malformed)?;
        let (nonce, ciphertext) = rest
            .split_first_chunk::<NONCE>()
            .ok_or(Unsealable::Malformed)?;
        let key = self
            .0
            .iter()
            .find(|key| key.id == *id)
            .ok_or(Unsealable::UnknownKey)?;
        let payload = Payload {
            msg: ciphertext,
            aad: &bound_to(id, tenant_id, waba_id),
        };
        let opened = key.cipher.decrypt(&XNonce::from(*nonce), payload);
        let text = String::from_utf8(opened.map_err(|_| Unsealable::Refused)?);
        let text = text.map_err(|_| Unsealable::Refused)?;
        text.parse().map_err(|_| Unsealable::Refused)
    }
}

/// Length-prefixed, so that no two pairs read alike.
fn bound_to(key_id: &[u8; KEY_ID], tenant_id: &str, waba_id: &str) -> Vec<u8> {
    let mut bound = vec![VERSION];
    bound.extend(key_id);
    for part in [tenant_id, waba_id] {
        bound.extend((part.len() as u64).to_be_bytes());
        bound.extend(part.as_bytes());
    }
    bound
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    const NEW: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

    fn keys(text: &str) -> Keyring {
        let text = text.parse().expect("not empty");
        Keyring::parse(&text).expect("keys")
    }

    fn token() -> Secret {
        "canary-token".parse().expect("a token")
    }

    #[test]
    fn a_sealed_token_opens_for_its_tenant_alone() {
        let keys = keys(OLD);
        let sealed = keys.seal(&token(), "t", "1").expect("sealed");
        assert!(!sealed.windows(6).any(|window| window == b"canary"));
        assert_eq!(keys.open(&sealed, "t", "1"), Ok(token()));
        for (tenant, waba) in [("u", "1"), ("t", "2"), ("t1", ""), ("", "t1")] {
            assert_eq!(keys.open(&sealed, tenant, waba), Err(Unsealable::Refused));
        }
        assert_ne!(keys.seal(&token(), "t", "1"), Some(sealed));
    }

    #[test]
    fn keys_rotate() {
        let sealed = keys(OLD).seal(&token(), "t", "1").expect("sealed");
        let both = keys(&format!("{NEW}, {OLD}"));
        assert_eq!(both.open(&sealed, "t", "1"), Ok(token()));
        let sealed = both.seal(&token(), "t", "1").expect("sealed");
        assert_eq!(keys(NEW).open(&sealed, "t", "1"), Ok(token()));
        assert_eq!(
            keys(OLD).open(&sealed, "t", "1"),
            Err(Unsealable::UnknownKey)
        );
    }

    #[test]
    fn what_was_changed_does_not_open() {
        let keys = keys(OLD);
        let sealed = keys.seal(&token(), "t", "1").expect("sealed");
        for length in 0..sealed.len() {
            keys.open(&sealed[..length], "t", "1").expect_err("cut");
        }
        for n in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[n] ^= 1;
            keys.open(&changed, "t", "1").expect_err("changed");
        }
        assert_eq!(
            keys.open(b"canary-token", "t", "1"),
            Err(Unsealable::Malformed)
        );
    }

    #[test]
    fn a_bad_key_is_not_repeated() {
        for text in [
            "canary",
            &format!("{OLD},c2hvcnQ="),
            &format!("{OLD},"),
            &format!("AQE={}", "AQEB".repeat(10)),
        ] {
            let error = Keyring::parse(&text.parse().expect("not empty"))
                .err()
                .expect("bad");
            assert!(!error.contains("canary") && error.ends_with("is not 32 bytes in base64"));
        }
    }
}
