//! Traces: the W3C `traceparent` that goes from a webhook to its events, and the export of spans over
//! OTLP where `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector. Without one no span is made for it.
//!
//! Spans hold what logs hold: ids, never what a message says.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState,
    TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    Config, SamplingResult, SdkTracer, SdkTracerProvider, ShouldSample,
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use url::Url;
use uuid::Uuid;

use crate::telemetry::SampledLog;

/// A batch of spans; the collector is near.
const EXPORT_TIME: Duration = Duration::from_secs(5);
/// What is left when the program ends.
const LAST_EXPORT_TIME: Duration = Duration::from_secs(2);

static EXPORTING: AtomicBool = AtomicBool::new(false);

/// Whether spans go anywhere.
pub fn exporting() -> bool {
    EXPORTING.load(Ordering::Relaxed)
}

/// A `traceparent` taken apart; `None` if it is none.
fn parsed(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, length| {
        let digits = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        text.len() == length && text.bytes().all(digits)
    };
    let whole = hex(version, 2) && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
    if !whole || version != "00" || parts.next().is_some() {
        return None;
    }
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

/// Whether it is a `traceparent` of the version that is known.
pub fn is_traceparent(text: &str) -> bool {
    parsed(text).is_some()
}

/// Whether the caller records its trace.
pub fn is_sampled(traceparent: &str) -> bool {
    parsed(traceparent).is_some_and(|context| context.is_sampled())
}

/// A `traceparent` for a webhook that came without one and of which no span is made: its trace id is
/// the correlation id, its span id the lower half of that.
pub fn made(correlation_id: Uuid) -> String {
    let id = correlation_id.as_u128();
    // The variant bits keep the lower half from being zero.
    let span = id as u64;
    format!("00-{id:032x}-{span:016x}-00")
}

/// Whether it was [`made`].
fn is_made(context: &SpanContext) -> bool {
    let (trace, span) = (context.trace_id().to_bytes(), context.span_id().to_bytes());
    !context.is_sampled() && trace.ends_with(&span)
}

/// Decides as `OTEL_TRACES_SAMPLER` says, by default as the parent. A `traceparent` that ingress made because
/// it exports nothing is no parent: a worker that exports alone decides for itself.
#[derive(Debug, Clone)]
struct Sampling(Box<dyn ShouldSample>);

impl ShouldSample for Sampling {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let parent = parent.filter(|parent| !is_made(parent.span().span_context()));
        self.0
            .should_sample(parent, trace_id, name, kind, attributes, links)
    }
}

/// Makes a span part of a caller's trace.
pub fn adopt(span: &Span, traceparent: &str) {
    if !exporting() {
        return;
    }
    if let Some(context) = parsed(traceparent) {
        // Only fails for a span that nobody records.
        drop(span.set_parent(Context::new().with_remote_span_context(context)));
    }
}

/// The `traceparent` that what a span asks of others has; `None` if nothing is exported.
pub fn traceparent(span: &Span) -> Option<String> {
    if !exporting() {
        return None;
    }
    let context = span.context();
    let span = context.span();
    let context = span.span_context();
    context.is_valid().then(|| {
        let (trace, span) = (context.trace_id(), context.span_id());
        format!("00-{trace}-{span}-{:02x}", context.trace_flags().to_u8())
    })
}

/// The export of spans; dropping it sends what is left.
pub struct Export {
    provider: SdkTracerProvider,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Export {
    /// Exports to a collector, under the program's name unless `OTEL_SERVICE_NAME` says another. The other
    /// variables of the OpenTelemetry specification count too. What the collector can't take is dropped:
    /// at most 2048 spans wait (`OTEL_BSP_MAX_QUEUE_SIZE`).
    ///
    /// # Errors
    /// Its client can't be made.
    pub(crate) fn start(
        endpoint: &Url,
        program: &'static str,
    ) -> anyhow::Result<(Self, SdkTracer)> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("otlp")
            .enable_all()
            .build()
            .context("the runtime of the export of spans")?;
        let client = Client {
            http: crate::outgoing::client().timeout(EXPORT_TIME).build()?,
            runtime: runtime.handle().clone(),
        };
        let endpoint = format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/'));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIME)
            .build()
            .context("OTEL_EXPORTER_OTLP_ENDPOINT (--otel-exporter-otlp-endpoint)")?;
        let mut resource = Resource::builder();
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name(program);
        }
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .with_sampler(Sampling(Config::default().sampler))
            .build();
        let tracer = provider.tracer("whatsapp");
        EXPORTING.store(true, Ordering::Relaxed);
        let runtime = Some(runtime);
        Ok((Self { provider, runtime }, tracer))
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        if self
            .provider
            .shutdown_with_timeout(LAST_EXPORT_TIME)
            .is_err()
        {
            tracing::warn!("the last spans could not be exported");
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The HTTP client that everything here uses, on a thread of its own: the exporter calls it outside of
/// any runtime.
#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    runtime: tokio::runtime::Handle,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (http, request) = (self.http.clone(), request.try_into()?);
        let sent = self.runtime.spawn(async move {
            let answer = http.execute(request).await?;
            let status = answer.status();
            Ok::<_, reqwest::Error>((status, answer.bytes().await?))
        });
        let (status, body) = match sent.await? {
            Ok(answered) => answered,
            Err(error) => {
                warn("no answer");
                return Err(error.without_url().into());
            }
        };
        if !status.is_success() {
            warn(status.canonical_reason().unwrap_or("an odd status"));
        }
        let mut response = Response::new(body);
        *response.status_mut() = status;
        Ok(response)
    }
}

fn warn(problem: &str) {
    static ONCE_A_SECOND: OnceLock<SampledLog> = OnceLock::new();
    if let Some(skipped) = ONCE_A_SECOND.get_or_init(SampledLog::default).pass() {
        tracing::warn!(problem, skipped, "spans can't be exported");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_traceparent_is_taken_for_one() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(is_traceparent(good) && is_sampled(good));
        assert!(!is_sampled(&good.replace("-01", "-00")));
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }

    #[test]
    fn what_is_made_is_one() {
        let id = Uuid::new_v4();
        let made = made(id);
        assert!(is_traceparent(&made) && !is_sampled(&made), "{made}");
        assert!(made.contains(&id.simple().to_string()));
    }
}
