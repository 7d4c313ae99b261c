//! Names of the keys in Redis, and which partition an account belongs to. `{p}` in a name is a hash
//! tag: all keys of a partition lie in one slot of a Redis Cluster.

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// Consumer group of the workers on every stream.
pub const GROUP: &str = "workers";
/// The one consumer name of the group. Who may read is decided by the lease, so that a takeover
/// finds everything pending in one place.
pub const CONSUMER: &str = "worker";

/// Kinds of what an acknowledged entry may owe.
pub const OWED: [&str; 5] = ["put", "state", "settle", "media", "other_media"];

/// Names of the keys of one deployment.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
    partitions: u16,
}

impl Keys {
    pub fn new(prefix: impl Into<String>, partitions: u16) -> Self {
        Self {
            prefix: prefix.into(),
            partitions,
        }
    }

    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// The partition of a business account: the first bytes of its id's SHA-256, modulo the count.
    pub fn partition_of(&self, waba_id: &str) -> u16 {
        let hash = Sha256::digest(waba_id.as_bytes());
        let head = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        (head % u32::from(self.partitions)) as u16
    }

    /// String: the partition count of the deployment.
    pub fn partition_count(&self) -> String {
        format!("{}:partitions", self.prefix)
    }

    /// Sorted set: live workers by expiry (ms).
    pub fn workers(&self) -> String {
        format!("{}:workers", self.prefix)
    }

    /// String: the version of a worker that lives; expires as its lease does.
    pub fn worker(&self, id: &str) -> String {
        format!("{}:workers:{id}", self.prefix)
    }

    /// Stream: accepted webhooks, deleted when done.
    pub fn stream(&self, partition: u16) -> String {
        self.of(partition, "stream")
    }

    /// Hash: generation of dedup marks → its levels, and `l<account>` → webhooks per minute where a
    /// tenant has a limit of its own (a key of its own would make the script fail while a slot moves,
    /// as long as there is none); and prefix of the hashes of the marks:
    /// `:<generation>:<level>:<number>` follows.
    pub fn seen(&self, partition: u16) -> String {
        self.of(partition, "seen")
    }

    /// Field of [`Keys::seen`]: webhooks per minute of an account whose tenant has a limit of its own.
    pub fn own_limit(waba_id: &str) -> String {
        format!("l{waba_id}")
    }

    /// List: times (ms) of an account's webhooks of the last minute.
    pub fn rate(&self, partition: u16, waba_id: &str) -> String {
        format!("{}:{}", self.of(partition, "rate"), account(waba_id))
    }

    /// String: what the Tenant Service said of an account, as JSON without its token; expires.
    pub fn tenant(&self, waba_id: &str) -> String {
        format!("{}:tenant:{}", self.prefix, account(waba_id))
    }

    /// String: a worker asks the Tenant Service about an account now; expires.
    pub fn tenant_asked(&self, waba_id: &str) -> String {
        format!("{}:asked:{}", self.prefix, account(waba_id))
    }

    /// String: an account's access token, encrypted; expires.
    pub fn token(&self, waba_id: &str) -> String {
        format!("{}:token:{}", self.prefix, account(waba_id))
    }

    /// Sorted set: accounts by when they were last seen (ms).
    pub fn tenants_seen(&self) -> String {
        format!("{}:tenants:seen", self.prefix)
    }

    /// Sorted set: accounts without a tenant, by how often something of theirs was set aside.
    pub fn tenants_unknown(&self) -> String {
        format!("{}:tenants:unknown", self.prefix)
    }

    /// String: the worker whose turn it is to look up the accounts without a tenant; expires.
    pub fn tenants_turn(&self) -> String {
        format!("{}:tenants:turn", self.prefix)
    }

    /// String: the worker whose turn it is to watch what no partition is about; expires.
    pub fn watch_turn(&self) -> String {
        format!("{}:watch:turn", self.prefix)
    }

    /// Hash: what isn't well of accounts, numbers and templates → JSON: since when, and whether it was told.
    pub fn health(&self) -> String {
        format!("{}:health", self.prefix)
    }

    /// List: what webhooks said of that, as JSON, for the worker that watches.
    pub fn health_notes(&self) -> String {
        format!("{}:health:notes", self.prefix)
    }

    /// Channel: accounts of which nothing remembered counts any more.
    pub fn tenants_changed(&self) -> String {
        format!("{}:tenants:changed", self.prefix)
    }

    /// Sorted set: hosts that media lies at and no token may go to, by when that was seen last (ms);
    /// expires.
    pub fn refused_hosts(&self) -> String {
        format!("{}:media:refused-hosts", self.prefix)
    }

    /// String: written and deleted by `worker doctor`.
    pub fn doctor(&self) -> String {
        format!("{}:doctor", self.prefix)
    }

    /// Hash: account → webhooks answered 429 in one period of ten minutes; expires.
    pub fn refused(&self, period: u64) -> String {
        format!("{}:refused:{period}", self.prefix)
    }

    /// Hash: account and number → the hours in which it had traffic.
    pub fn traffic(&self) -> String {
        format!("{}:traffic", self.prefix)
    }

    /// String: the owner's token, with expiry.
    pub fn lease(&self, partition: u16) -> String {
        self.of(partition, "lease")
    }

    /// String: token of the last owner that hasn't released cleanly.
    pub fn owner(&self, partition: u16) -> String {
        self.of(partition, "owner")
    }

    /// Hash: entry id → numbers of its items already confirmed.
    pub fn progress(&self, partition: u16) -> String {
        self.of(partition, "progress")
    }

    /// Hash: entry id → crashes it was pending at.
    pub fn suspects(&self, partition: u16) -> String {
        self.of(partition, "suspects")
    }

    /// Hash: entry id → deaths of its own.
    pub fn deaths(&self, partition: u16) -> String {
        self.of(partition, "deaths")
    }

    /// String: the suspected entry that is in work alone, and the token of the tenure.
    pub fn alone(&self, partition: u16) -> String {
        self.of(partition, "alone")
    }

    /// Hash: entry id → what the first publications of its items said of media that wasn't stored.
    pub fn media(&self, partition: u16) -> String {
        self.of(partition, "media")
    }

    /// Hash: account → the tenant that its entries were given, and former ones with the last entry of each
    /// (JSON).
    pub fn tenants(&self, partition: u16) -> String {
        self.of(partition, "tenants")
    }

    /// String: time (µs) of the next free place among the Graph API requests for a business phone
    /// number, over all workers. The number is its hash tag, since its account's partition may be
    /// any.
    pub fn pace(&self, phone_number_id: &str) -> String {
        format!(
            "{}:{{graph:{}}}:pace",
            self.prefix,
            account(phone_number_id)
        )
    }

    /// String with expiry: no Graph API requests for a business phone number until then.
    pub fn pause(&self, phone_number_id: &str) -> String {
        format!(
            "{}:{{graph:{}}}:pause",
            self.prefix,
            account(phone_number_id)
        )
    }

    /// String with expiry: when the next Graph API request for a business phone number may go (µs) that
    /// isn't for a received message's file.
    pub fn other_pace(&self, phone_number_id: &str) -> String {
        format!(
            "{}:{{graph:{}}}:other-pace",
            self.prefix,
            account(phone_number_id)
        )
    }

    /// String: written to see whether the partition's node takes writes; expires.
    pub fn write_probe(&self, partition: u16) -> String {
        self.of(partition, "write-probe")
    }

    /// Sorted set: what acknowledged entries still owe of one kind, by when it is due (ms).
    pub fn owed_list(&self, partition: u16, kind: &str) -> String {
        self.of(partition, &format!("owed:{kind}"))
    }

    /// The sorted sets of all kinds, in the order in which scripts number them.
    pub fn owed_lists(&self, partition: u16) -> [String; 5] {
        OWED.map(|kind| self.owed_list(partition, kind))
    }

    /// Hash: `entries` → how many acknowledged entries still owe something and lie in the stream; entry
    /// id → pieces that are left of one that owes several; `<entry id>:settle` → objects that are to be
    /// written before the piece that stands behind.
    pub fn owed(&self, partition: u16) -> String {
        self.of(partition, "owed")
    }

    /// Hash: key of an object that was put back → the entry that it is now; empty once that is
    /// acknowledged and the object's place isn't settled yet.
    pub fn returning(&self, partition: u16) -> String {
        self.of(partition, "returning")
    }

    /// What a version before the first release owed: nothing reads it any more.
    pub fn former_owed(&self, partition: u16, list: &str) -> String {
        self.of(partition, list)
    }

    /// Hash: how often objects that were put back were settled, in fields that each count those of many
    /// keys.
    pub fn settled(&self, partition: u16) -> String {
        self.of(partition, "settled")
    }

    /// Hash: what the last replay did here: `i` its id, `k` key of the last object it put back, `n` how
    /// many; `d` how many of these went out, `f` how many were set aside again.
    pub fn replayed(&self, partition: u16) -> String {
        self.of(partition, "replayed")
    }

    /// Hash: the last replay of the deployment.
    pub fn replay(&self) -> String {
        format!("{}:replay", self.prefix)
    }

    fn of(&self, partition: u16, what: &str) -> String {
        format!("{}:{{{partition}}}:{what}", self.prefix)
    }
}

/// An account's or a number's id as part of a key. Ids are digits; what else is sent as one must not make a key of
/// any length, or move it to another slot.
fn account(waba_id: &str) -> String {
    if waba_id.len() <= 32 && waba_id.bytes().all(|byte| byte.is_ascii_digit()) {
        return waba_id.to_owned();
    }
    let hash = Sha256::digest(waba_id.as_bytes());
    HEXLOWER.encode(&hash[..12])
}
