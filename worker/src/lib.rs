//! The way out: turns stored webhooks into events.
//!
//! [`leases`] says which partitions are ours; [`partition`] owns one: it reads through [`stream`],
//! keeps what has no known tenant [`parked`], lets [`lanes`] and a [`gate`] say what may run, takes the
//! body apart ([`payload`], [`customer`]), asks whose it is ([`tenants`]), where its [`media`] is and what
//! is known of the conversation ([`state`]), makes the [`event`], and hands it to the [`publisher`]; the
//! raw body goes to the [`store`]. What is acknowledged and still owed, [`later`] does; [`readmit`] puts
//! back what was set aside for want of a tenant, and [`spool`] what ingress left in the store while Redis
//! was away. [`error`] decides what becomes of what fails. All other
//! services are called through [`neighbour`]. What operators do by hand, [`commands`] does.

pub mod config;
pub mod run;

pub mod leases;
pub mod partition;

pub mod stream;

pub mod gate;
pub mod lanes;
pub mod parked;

pub mod customer;
pub mod payload;

pub mod tenants;
pub mod traffic;

pub mod event;

pub mod graph;
pub mod media;
pub mod numbers;

pub mod publisher;
pub mod topology;

pub mod later;
pub mod presign;
pub mod readmit;
pub mod replay;
pub mod spool;
pub mod state;
pub mod store;

pub mod commands;

pub mod breaker;
pub mod neighbour;

pub mod error;
pub mod meta_error;
pub mod metrics;
pub mod retry;
