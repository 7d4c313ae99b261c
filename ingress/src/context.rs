//! What a request needs: everything that the threads share, and what each of them has for itself.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use shared::admin::Admin;
use shared::limited::LimitedAccounts;
use shared::redis::Connection;
use shared::telemetry::SampledLog;

use crate::admission::Admission;
use crate::admission::rounds::AdmissionRounds;
use crate::config::{Config, Secrets};
use crate::error::Log;
use crate::intake::Intake;
use crate::keep::Keep;
use crate::metrics::Metrics;
use crate::request_log::RequestLog;

/// What all threads share.
pub(crate) struct Ingress {
    pub(crate) config: Config,
    pub(crate) secrets: Secrets,
    pub(crate) admission: Admission,
    pub(crate) keep: Keep,
    /// While Redis is short of memory, items are remembered for an hour only.
    pub(crate) short_of_memory: Arc<AtomicBool>,
    pub(crate) admin: Admin,
    pub(crate) metrics: Metrics,
    pub(crate) refusals: Log,
    pub(crate) requests: RequestLog,
    /// Webhooks that were stored beyond their account's limit.
    pub(crate) over_limit_log: SampledLog,
    pub(crate) proxied: SampledLog,
    /// Refused webhooks by account: in the log, and counted for operators.
    pub(crate) refused_log: SampledLog,
    pub(crate) limited_accounts: LimitedAccounts,
}

/// What a thread that serves has: everything, and a way to Redis of its own, so that no answer of
/// Redis has to wake another thread.
pub(crate) struct ServingThread {
    pub(crate) ingress: Arc<Ingress>,
    pub(crate) redis: Connection,
    pub(crate) intake: Arc<Intake>,
    pub(crate) turns: AdmissionRounds,
}
