//! Versions of Redis and Valkey with holes that are known. A row is one hole of one server, with the first
//! version of each of its branches that is mended, and where its vendor or maintainer says so. Distributions
//! mend older versions without changing their number, so this is a warning and no more.

/// One hole.
struct Advisory {
    server: &'static str,
    id: &'static str,
    what: &'static str,
    /// Ascending. A branch without a row of its own is judged by the one above it.
    mended: &'static [[u32; 3]],
    /// The first version that has it.
    since: [u32; 3],
    source: &'static str,
}

const ADVISORIES: [Advisory; 5] = [
    Advisory {
        server: "redis",
        id: "CVE-2025-49844",
        what: "a script can run code of its own in the server",
        mended: &[[6, 2, 20], [7, 2, 11], [7, 4, 6], [8, 0, 4], [8, 2, 2]],
        since: [0, 0, 0],
        source: "https://redis.io/blog/security-advisory-cve-2025-49844/",
    },
    Advisory {
        server: "valkey",
        id: "CVE-2025-49844",
        what: "a script can run code of its own in the server",
        mended: &[[7, 2, 11], [8, 0, 6], [8, 1, 4]],
        since: [0, 0, 0],
        source: "https://github.com/valkey-io/valkey/releases/tag/8.1.4",
    },
    Advisory {
        server: "redis",
        id: "CVE-2026-23631",
        what: "a hole in its Lua",
        mended: &[[7, 4, 9], [8, 2, 6], [8, 4, 3], [8, 6, 3]],
        // https://github.com/redis/redis/issues/15233: 6.2 is not affected.
        since: [7, 0, 0],
        source: "https://github.com/redis/docs/pull/3292",
    },
    Advisory {
        server: "redis",
        id: "CVE-2026-23479",
        what: "memory is used after it was freed when a blocked client is evicted",
        mended: &[[7, 4, 9], [8, 2, 6], [8, 4, 3], [8, 6, 3]],
        since: [7, 2, 0],
        source: "https://www.sentinelone.com/vulnerability-database/cve-2026-23479/",
    },
    Advisory {
        server: "redis",
        id: "CVE-2026-81934",
        what: "a hole in its TLS",
        mended: &[[8, 2, 9], [8, 4, 6], [8, 6, 6], [8, 8, 2], [8, 10, 1]],
        since: [8, 0, 0],
        source: "https://github.com/redis/redis/releases",
    },
];

impl Advisory {
    fn concerns(&self, server: &str, version: [u32; 3]) -> bool {
        let branch = |of: &[u32; 3]| [of[0], of[1]];
        let mended = self.mended.iter().find(|it| branch(it) >= branch(&version));
        // A branch behind the last one is newer than the hole.
        self.server == server && version >= self.since && mended.is_some_and(|it| version < *it)
    }
}

/// What is known against a server, one sentence each, by what `INFO server` says of it.
pub(super) fn known_holes(info: &str) -> Vec<String> {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name));
    // Valkey calls itself redis, too, in `redis_version`, for old clients.
    let (server, version) = match field("valkey_version:") {
        Some(version) => ("valkey", version),
        None => ("redis", field("redis_version:").unwrap_or_default()),
    };
    let version = version.trim();
    let Some(number) = numbers(version) else {
        return Vec::new();
    };
    let known = ADVISORIES.iter().filter(|it| it.concerns(server, number));
    let said = known.map(|it| {
        let Advisory { id, what, source, .. } = it;
        let mended = it.mended.iter().map(|[a, b, c]| format!("{a}.{b}.{c}"));
        let mended = mended.collect::<Vec<_>>().join(", ");
        format!(
            "{server} {version} has {id} ({what}) unless its distribution mended it: upgrade to {mended}; {source}"
        )
    });
    said.collect()
}

/// The three numbers of a version; what follows the third is left out.
fn numbers(version: &str) -> Option<[u32; 3]> {
    let mut parts = version.split(['.', '-']).map(str::parse::<u32>);
    let mut next = || parts.next()?.ok();
    Some([next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(info: &str) -> Vec<String> {
        let words = known_holes(info).into_iter();
        words
            .filter_map(|text| Some(text.split_whitespace().nth(3)?.to_owned()))
            .collect()
    }

    #[test]
    fn a_version_is_judged_by_its_own_branch() {
        let of = |version: &str| {
            ids(&format!(
                "redis_version:{version}\r\nredis_mode:standalone\r\n"
            ))
        };
        assert_eq!(of("7.4.9"), Vec::<String>::new());
        assert_eq!(of("7.4.8"), ["CVE-2026-23631", "CVE-2026-23479"]);
        assert_eq!(of("8.2.8"), ["CVE-2026-81934"]);
        assert_eq!(of("8.2.9"), Vec::<String>::new());
        // A branch that is mended in none of its versions.
        assert_eq!(of("7.0.15"), ["CVE-2025-49844", "CVE-2026-23631"]);
        assert_eq!(of("8.10.0"), ["CVE-2026-81934"]);
        assert_eq!(of("9.0.0"), Vec::<String>::new());
        assert_eq!(of("nonsense"), Vec::<String>::new());
    }

    #[test]
    fn valkey_is_no_redis() {
        let of = |version: &str| {
            let info = format!(
                "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:{version}\r\n"
            );
            ids(&info)
        };
        assert_eq!(of("8.1.3"), ["CVE-2025-49844"]);
        assert_eq!(of("8.1.4"), Vec::<String>::new());
        assert_eq!(of("9.0.1"), Vec::<String>::new());
    }

    #[test]
    fn every_row_says_where_it_is_from() {
        for it in &ADVISORIES {
            assert!(it.source.starts_with("https://") && it.id.starts_with("CVE-"));
            assert!(it.mended.is_sorted(), "{}", it.id);
        }
    }
}
