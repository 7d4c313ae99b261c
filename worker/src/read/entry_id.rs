//! Ids of stream entries, to compare and to keep many of them.

/// An entry's id in the stream: 16 bytes, where its text has about 40.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(u64, u64);

impl EntryId {
    /// Before every entry.
    pub const ZERO: Self = Self(0, 0);

    pub fn new(ms: u64, number: u64) -> Self {
        Self(ms, number)
    }

    pub fn parse(text: &str) -> Option<Self> {
        let (ms, number) = text.split_once('-')?;
        Some(Self(ms.parse().ok()?, number.parse().ok()?))
    }
}

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}
