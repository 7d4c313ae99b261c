//! What must never show in a log, a metric or a trace: what the tests themselves sent. Every program's
//! log is looked through when it is dropped, so that the whole suite checks it.

use std::collections::{BTreeMap, HashSet};
use std::sync::{LazyLock, Mutex, PoisonError};

/// Shorter ones could be anything.
const SHORTEST_PHONE: usize = 9;
const SHORTEST_SECRET: usize = 6;

static PHONES: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

/// Names that the payloads have.
const NAMES: [&str; 2] = ["Sheena Nelson", "Philz Coffee"];

/// Remembers a phone number that is about to be sent.
pub fn phone(digits: &str) {
    if digits.len() >= SHORTEST_PHONE && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let mut phones = PHONES.lock().unwrap_or_else(PoisonError::into_inner);
        if !phones.contains(digits) {
            phones.insert(digits.to_owned());
        }
    }
}

/// What of a text should not be there: phone numbers, names, message ids, access tokens of tenants, and
/// the secrets among a program's settings.
pub fn found_in(text: &str, settings: &BTreeMap<String, String>) -> Vec<String> {
    let phones = PHONES.lock().unwrap_or_else(PoisonError::into_inner);
    let digits = text.split(|c: char| !c.is_ascii_digit());
    let mut found: Vec<String> = digits
        .filter(|digits| digits.len() >= SHORTEST_PHONE && phones.contains(*digits))
        .map(str::to_owned)
        .collect();
    drop(phones);
    let words = NAMES.iter().map(|name| (*name).to_owned());
    let words = words.chain(["wamid.".to_owned()]).chain(secrets(settings));
    found.extend(words.filter(|word| text.contains(word)));
    let tokens = text.split("token-").skip(1);
    found.extend(
        tokens
            .filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            .map(|_| "token-…".to_owned()),
    );
    found.sort_unstable();
    found.dedup();
    found
}

fn secrets(settings: &BTreeMap<String, String>) -> Vec<String> {
    let secret = |name: &str| {
        let kinds = ["SECRET", "TOKEN", "KEY"];
        !name.ends_with("_FILE")
            && !name.ends_with("_TTL")
            && !name.ends_with("_PREFIX")
            && kinds.iter().any(|kind| name.contains(kind))
    };
    let values = settings.iter().filter(|(name, _)| secret(name));
    let mut secrets: Vec<String> = values
        .flat_map(|(_, value)| value.split(','))
        .filter(|value| value.len() >= SHORTEST_SECRET)
        .map(str::to_owned)
        .collect();
    let passwords = settings.values().filter_map(|value| {
        let (login, _) = value.split_once("://")?.1.rsplit_once('@')?;
        Some(login.split_once(':')?.1.to_owned())
    });
    secrets.extend(passwords.filter(|password| password.len() >= SHORTEST_SECRET));
    secrets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_not_be_told_is_found() {
        phone("4917012345678");
        let settings = BTreeMap::from([
            (
                "META_APP_SECRETS".to_owned(),
                "one-secret,two-secrets".to_owned(),
            ),
            ("REDIS_URL".to_owned(), "redis://:password@host".to_owned()),
            ("TOKEN_CACHE_TTL".to_owned(), "24 hours".to_owned()),
        ]);
        for text in [
            "from +4917012345678",
            "of Sheena Nelson",
            "wamid.HBgL",
            "Bearer token-123",
            "two-secrets",
            "redis://:password@host",
        ] {
            assert_eq!(found_in(text, &settings).len(), 1, "{text}");
        }
        let harmless = "4917012345679, 24 hours, admin token-file";
        assert_eq!(found_in(harmless, &settings), Vec::<String>::new());
    }
}
