//! The harness: real servers, the real programs, and Meta and the neighbours played over real HTTP.
//!
//! The path of a test: [`stage::Stage`] sets up a private Redis, a fresh vhost of the run's RabbitMQ,
//! buckets of its own in the run's S3 and [`neighbours`]; [`meta`] builds and posts signed webhooks;
//! [`programs`] are the real binaries; [`events`] collects what comes out of the queues and
//! [`store`] reads what lies in the buckets. [`proxy`] stands in front of a server to break the
//! network, [`servers`] and [`process`] can be stopped, frozen and killed. [`chaos`] does all of that at
//! random.
//!
//! Tests need the RabbitMQ and S3 that `lab run` starts once for all of them: run them through
//! `deploy/local/test.sh`.

pub mod stage;

pub mod meta;
pub mod programs;

pub mod events;
pub mod store;

pub mod neighbours;
pub mod odd;
pub mod preload;
pub mod proxy;
pub mod servers;

pub mod bench;
pub mod browser;
pub mod canaries;
pub mod chaos;
pub mod collector;
pub mod corpus;
pub mod demo;
pub mod env_example;
pub mod json_walk;
pub mod load;
pub mod output;
pub mod panics;
pub mod ports;
pub mod process;
pub mod waiting;

pub use stage::{Stage, StageOptions};
pub use waiting::eventually;

/// Makes ring the TLS provider of this program. HTTP clients can't be built before, not even for
/// plain HTTP. Calling it again does nothing.
pub fn install_tls_provider() {
    // The error of a second installation is the provider that is already there.
    drop(rustls::crypto::ring::default_provider().install_default());
}
