//! A line for each request: all of them at debug, at info one a second for each status, with how many
//! it stands for. Nothing in it is the sender's own text but a well-formed correlation id.

use std::time::Duration;

use hyper::Method;
use shared::telemetry::SampledLog;

/// Whatever else is answered shares the last one.
const STATUSES: [u16; 12] = [200, 400, 401, 403, 404, 405, 408, 413, 415, 429, 500, 503];

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RequestKind {
    Webhook,
    Probe,
    Other,
}

#[derive(Default)]
pub(crate) struct RequestLog([SampledLog; STATUSES.len()]);

impl RequestLog {
    pub(crate) fn answered(
        &self,
        (method, asked): (&Method, RequestKind),
        status: u16,
        correlation_id: &str,
        took: Duration,
    ) {
        let method = match *method {
            Method::GET => "GET",
            Method::POST => "POST",
            _ => "other",
        };
        let route = match asked {
            RequestKind::Webhook => "webhook",
            RequestKind::Probe => "probe",
            RequestKind::Other => "other",
        };
        let duration_us = took.as_micros() as u64;
        let at = STATUSES.iter().position(|known| *known == status);
        let sampled = &self.0[at.unwrap_or(STATUSES.len() - 1)];
        // Probes are asked all the time and say what /ready says.
        let passed = match asked {
            RequestKind::Probe => None,
            RequestKind::Webhook | RequestKind::Other => sampled.pass(),
        };
        match passed {
            Some(skipped) => {
                tracing::info!(
                    method,
                    route,
                    status,
                    duration_us,
                    correlation_id,
                    skipped,
                    "answered"
                );
            }
            None => tracing::debug!(
                method,
                route,
                status,
                duration_us,
                correlation_id,
                "answered"
            ),
        }
    }
}
