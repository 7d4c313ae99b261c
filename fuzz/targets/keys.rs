//! Any ids: no key of an object leaves its folder, and two ids never share one. Two ids, parted by a
//! zero byte; the first byte chooses what they are ids of.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shared::keys::Keys;
use worker::out::store::{archive_key, failed_key, folder};

const MS: i64 = 1_700_000_000_000;

fn parts_of(key: &str) -> Vec<&str> {
    let parts: Vec<_> = key.split('/').collect();
    for part in &parts {
        assert!(!part.is_empty() && *part != "." && *part != "..", "{key}");
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-=%".contains(&byte);
        assert!(part.bytes().all(plain) && part.len() <= 700, "{key}");
    }
    parts
}

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (one, two) = text.split_once('\0').unwrap_or((&text, ""));
    for id in [one, two].into_iter().filter(|id| !id.is_empty()) {
        let (tenant, unresolved) = (folder(Some(id), "0"), folder(None, id));
        let archived = archive_key(&tenant, MS, "wamid.A");
        assert_eq!(parts_of(&archived)[1..], ["2023-11-14", "1700000000000-wamid.A.json"]);
        let failed = failed_key(&unresolved, MS, &tenant);
        assert_eq!(parts_of(&failed)[..2], ["failed", "_unresolved"]);
        // In Redis: one hash tag, which no id opens or closes, and no key of any length.
        let keys = Keys::new("whatsapp", 16);
        let partition = keys.partition_of(id);
        assert!(partition < 16);
        for key in [keys.rate(partition, id), keys.pace(id), keys.tenant(id), keys.token(id)] {
            assert!(key.len() < 100 && key.matches('{').count() <= 1, "{key}");
            assert!(key.bytes().all(|byte| byte.is_ascii_graphic()), "{key}");
        }
        assert!(keys.rate(partition, id).starts_with(&format!("whatsapp:{{{partition}}}:rate:")));
    }
    if one != two {
        assert_ne!(folder(Some(one), "0"), folder(Some(two), "0"));
        assert_ne!(folder(None, one), folder(None, two));
    }
});
