//! Measurements, for people: how much, how fast, and how it goes when there is too much. Everything
//! runs on this machine (load, servers, programs), so compare figures of one run only.

pub mod ingress;
pub mod isolation;
pub mod load;
pub mod media;
pub mod wire;
