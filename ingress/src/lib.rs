//! Ingress: takes Meta's webhooks and makes each durable before it says 200.
//!
//! A connection comes in through [`connections`], which bounds what it may take; [`request`] leads
//! each of its requests to an answer: [`challenge`] for Meta's GET, and for a webhook [`budget`] while
//! its body comes in, its [`admission`] round where its thread has too much to do, [`signature`] before anything
//! looks inside, [`ids`], which takes it apart into one delivery per business account, and [`intake`],
//! which writes each with one atomic script unless the [`queue`] for it is long. While Redis can't take
//! it, it goes to the [`spool`].
//! [`error`] turns whatever went wrong into the answer.

pub mod config;
pub mod server;

mod redis_watch;

mod admission;
mod connections;
mod request;

pub mod challenge;

pub mod budget;
pub mod signature;

pub mod ids;

pub mod intake;
mod queue;

pub mod spool;
mod spool_bucket;

pub mod error;
pub mod metrics;
mod request_log;
