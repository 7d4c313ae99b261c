//! Ingress: takes Meta's webhooks and makes each durable before it says 200.
//!
//! A connection comes in through [`connections`]; [`request`] leads each of its requests to an answer:
//! [`challenge`] for Meta's GET, and for a webhook [`admission`], which has all that bounds the work that is
//! taken on, [`signature`] before anything looks inside, [`ids`], which takes it apart into one delivery per
//! business account, and [`keep`], which makes each durable: by [`intake`], one atomic script in Redis, or,
//! while Redis can't take it, in the [`spool`]. [`error`] turns whatever went wrong into the answer.
//! [`context`] is what all of them share, [`server`] puts it together.

pub mod config;
pub mod server;

mod connections;
mod request;

pub mod challenge;

pub mod admission;
pub mod signature;

pub mod ids;

mod keep;

pub mod intake;
mod spool;

pub mod error;

mod context;
pub mod metrics;
mod redis_watch;
mod request_log;
mod spool_bucket;
mod top_accounts;
