//! Where things go: files and raw payloads into the object store, events into RabbitMQ; and what
//! becomes of what fails.

pub mod archive;
pub mod error;
pub mod media;
pub mod publisher;
pub mod store;
pub mod topology;
