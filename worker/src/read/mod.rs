//! Which partitions are ours, and what lies in them: leases, fenced reads, and who may go first.

pub mod entry_id;
pub mod gate;
pub mod lanes;
pub mod leases;
pub mod owed;
pub mod parked;
pub mod stream;
pub mod suspects;
pub mod turns;
