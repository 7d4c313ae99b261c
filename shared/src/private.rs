//! What may be said of a person's data: nothing but that two places mean the same one.

use std::fmt;

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// An id that holds a phone number, such as a message's (`wamid.…`), for logs and traces: shown as 16
/// hex digits of its SHA-256, which `printf %s wamid.… | sha256sum` gives too. Not for phone numbers: there
/// are so few that a hash hides none.
#[derive(Clone, Copy)]
pub struct Hashed<'a>(pub &'a str);

impl fmt::Display for Hashed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = Sha256::digest(self.0);
        HEXLOWER.encode_write(&digest[..8], f)
    }
}

impl fmt::Debug for Hashed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_shown_as_a_hash() {
        let id = Hashed("wamid.HBgLMTY1MDU1NTEyMzQ=");
        assert_eq!(format!("{id}"), format!("{id:?}"));
        assert_eq!(Hashed("abc").to_string(), "ba7816bf8f01cfea");
    }
}
