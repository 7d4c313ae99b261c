//! The door: takes Meta's webhooks and makes each durable before it says 200.
//!
//! A request comes in through [`server`], which bounds it; [`signature`] checks it before anything
//! looks inside; [`ids`] takes it apart into one delivery per business account; [`intake`] writes
//! each with one atomic script; [`error`] turns whatever happened into the answer.

pub mod config;
pub mod server;

pub mod signature;

pub mod ids;

pub mod intake;

pub mod error;
pub mod metrics;
