//! How a command failed, and what that says about Redis.

use redis::{ErrorKind, RedisError};

/// How a command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FailureClass {
    Timeout,
    Connection,
    /// What was answered is no reply, or not one to this.
    Protocol,
    Loading,
    /// In a script that doesn't end.
    Busy,
    /// Electing, or moving a slot.
    Cluster,
    OutOfMemory,
    ReadOnly,
    NoScript,
    Denied,
    Other,
}

impl FailureClass {
    fn of(error: &RedisError) -> Self {
        match error.code() {
            Some("LOADING") => Self::Loading,
            Some("BUSY") => Self::Busy,
            Some("CLUSTERDOWN" | "MASTERDOWN" | "TRYAGAIN" | "MOVED" | "ASK") => Self::Cluster,
            Some("OOM") => Self::OutOfMemory,
            Some("READONLY" | "NOREPLICAS" | "MISCONF") => Self::ReadOnly,
            Some("NOSCRIPT") => Self::NoScript,
            Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED") => Self::Denied,
            Some(_) => Self::Other,
            None => match error.kind() {
                ErrorKind::AuthenticationFailed => Self::Denied,
                ErrorKind::Parse | ErrorKind::UnexpectedReturnType => Self::Protocol,
                _ if error.is_timeout() => Self::Timeout,
                _ => Self::Connection,
            },
        }
    }
}

/// Logs a failed command that the caller tries again.
pub fn warn_will_retry(error: &RedisError) {
    tracing::warn!(class = class(error), %error, "redis command failed, will retry");
}

/// How a command failed, in one word: `class` of log lines and answers.
pub fn class(error: &RedisError) -> &'static str {
    match FailureClass::of(error) {
        FailureClass::Timeout => "timeout",
        FailureClass::Connection => "connection",
        FailureClass::Protocol => "protocol",
        FailureClass::Loading => "loading",
        FailureClass::Busy => "busy",
        FailureClass::Cluster => "cluster",
        FailureClass::OutOfMemory => "oom",
        FailureClass::ReadOnly => "readonly",
        FailureClass::NoScript => "noscript",
        FailureClass::Denied => "denied",
        FailureClass::Other => "other",
    }
}

/// What a failed command says about Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// No answer: down, cut off, or too slow. Whether the command was done is unknown.
    NoAnswer,
    /// It says itself that it will be back: loading its data, electing, moving a slot, in a script.
    Recovering,
    /// Out of memory.
    OutOfMemory,
    /// A replica, or one that lost its replicas or its disk: takes no writes.
    ReadOnly,
    /// Anything else: a wrong type at a key, a refused login. Somebody must mend it.
    NeedsRepair,
}

impl FailureKind {
    pub const ALL: [Self; 5] = [
        Self::NoAnswer,
        Self::Recovering,
        Self::OutOfMemory,
        Self::ReadOnly,
        Self::NeedsRepair,
    ];

    pub fn of(error: &RedisError) -> Self {
        match FailureClass::of(error) {
            FailureClass::Timeout | FailureClass::Connection | FailureClass::Protocol => {
                Self::NoAnswer
            }
            FailureClass::Loading | FailureClass::Busy | FailureClass::Cluster => Self::Recovering,
            FailureClass::OutOfMemory => Self::OutOfMemory,
            FailureClass::ReadOnly => Self::ReadOnly,
            FailureClass::NoScript | FailureClass::Denied | FailureClass::Other => {
                Self::NeedsRepair
            }
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::NoAnswer => "away",
            Self::Recovering => "soon",
            Self::OutOfMemory => "full",
            Self::ReadOnly => "read_only",
            Self::NeedsRepair => "broken",
        }
    }

    /// Whether it may be over within a second.
    pub fn passes(self) -> bool {
        match self {
            Self::NoAnswer | Self::Recovering | Self::ReadOnly => true,
            Self::OutOfMemory | Self::NeedsRepair => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use redis::ServerErrorKind;

    use super::*;

    #[test]
    fn what_a_cluster_says_while_its_nodes_change_places_passes() {
        use ServerErrorKind::{Ask, ClusterDown, MasterDown, Moved, TryAgain};
        for kind in [Ask, ClusterDown, MasterDown, Moved, TryAgain] {
            let error = RedisError::from((ErrorKind::Server(kind), "as a server says it"));
            assert!(FailureKind::of(&error).passes(), "{error}");
        }
    }

    #[test]
    fn a_failure_has_one_class() {
        use ServerErrorKind::{BusyLoading, NoPerm, NoScript, ReadOnly};
        let io = |kind| RedisError::from(std::io::Error::from(kind));
        let answered = |kind| RedisError::from((kind, "as a server says it"));
        for (error, expected) in [
            (io(std::io::ErrorKind::TimedOut), "timeout"),
            (io(std::io::ErrorKind::ConnectionReset), "connection"),
            (answered(ErrorKind::Parse), "protocol"),
            (answered(ErrorKind::AuthenticationFailed), "denied"),
            (answered(ErrorKind::Server(BusyLoading)), "loading"),
            (answered(ErrorKind::Server(ReadOnly)), "readonly"),
            (answered(ErrorKind::Server(NoScript)), "noscript"),
            (answered(ErrorKind::Server(NoPerm)), "denied"),
        ] {
            assert_eq!(class(&error), expected, "{error}");
        }
    }
}
