//! What is still to be done behind an acknowledgement, and what comes back into the stream.

pub mod follow_up;
pub mod later;
pub mod readmit;
pub mod spool;
pub mod unknown;
