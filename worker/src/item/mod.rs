//! What an entry's bytes say: its items, their customers, and the event that each becomes. No I/O.

pub mod customer;
pub mod event;
pub mod health;
pub mod meta_error;
pub mod payload;
pub mod tenant;
pub mod traffic;
