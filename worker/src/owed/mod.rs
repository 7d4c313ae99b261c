//! What is still to be done behind an acknowledgement, and what comes back into the stream.

mod bodies;
mod list;
pub mod media;
mod put;
pub mod readmit;
mod schedule;
mod settle;
pub mod spool;
pub mod state;
pub mod unknown;
mod work_off;

pub use self::work_off::work_off;
