//! The way out: turns stored webhooks into events. The folders are the path of a message, in this
//! order: [`read`] (whose partition, which entries, who may go), [`item`] (what the bytes say), [`ask`]
//! (whose is it, what is known of it), [`out`] (files, events, raw payloads), [`owed`] (what is left to
//! do behind an acknowledgement); [`partition`] drives them.
//! [`watch`] looks at what no partition is about, one worker for all. What people do by hand is in [`operator`], and [`console`] is a page for it.
//!
//! A folder imports from those before it only; `tests/structure.rs` holds that.

pub mod metrics;
pub mod retry;

pub mod read;

pub mod item;

pub mod ask;

pub mod out;

pub mod config;

pub mod clients;

pub mod context;

pub mod owed;

pub mod partition;

pub mod watch;

pub mod operator;

pub(crate) mod console;

pub mod cli;
pub mod run;
