//! What both programs must agree on: how a webhook body is read ([`webhook`]), the keys and
//! partitions of the stream ([`keys`]), the form of a stream entry ([`entry`]) and how it comes there
//! ([`intake`]), what was refused of it ([`limited`]), the form of what waits outside of Redis ([`spool`]), and the plumbing that both start
//! with ([`config`], [`secrets`], [`redis`], [`script`], [`write_probe`], [`outgoing`], [`store`],
//! [`telemetry`], [`tasks`], [`trace`], [`private`], [`admin`], [`process`], [`health`], [`status`]).

pub mod webhook;

pub mod entry;
pub mod keys;

pub mod redis;
pub mod script;
pub mod write_probe;

pub mod intake;
pub mod limited;

pub mod outgoing;
pub mod spool;
pub mod store;

pub mod admin;
pub mod config;
pub mod health;
pub mod private;
pub mod process;
pub mod secrets;
pub mod status;
pub mod tasks;
pub mod telemetry;
pub mod trace;
