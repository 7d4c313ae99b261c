//! The services that are asked: Tenant Service, State Manager and Graph API, all through [`neighbour`],
//! which has their time-outs, retries and breakers.

pub mod breaker;
pub mod graph;
pub mod neighbour;
pub mod numbers;
pub mod state;
pub mod tenants;
