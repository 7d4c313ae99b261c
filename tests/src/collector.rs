//! An OTLP collector that keeps the spans it gets.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// One span as it came.
#[derive(Debug, Clone)]
pub struct Span {
    /// `service.name`
    pub service: String,
    pub name: String,
    /// Hex, as in a `traceparent`.
    pub trace_id: String,
    pub span_id: String,
    /// Empty for the first of a trace.
    pub parent_id: String,
    pub attributes: BTreeMap<String, String>,
}

/// A running collector; dropping it stops it.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    _stop: DropGuard,
}

impl Collector {
    /// # Errors
    /// It can't listen.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr().context("own address")?;
        let (spans, stop) = (Arc::<Mutex<Vec<Span>>>::default(), CancellationToken::new());
        let (kept, stopped) = (spans.clone(), stop.clone());
        tokio::spawn(stopped.run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = kept.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request| take(request, &kept));
                    let http = hyper::server::conn::http1::Builder::new();
                    let served = http.serve_connection(TokioIo::new(stream), service);
                    // A client may leave when it likes.
                    drop(served.await);
                });
            }
        }));
        Ok(Self {
            address,
            spans,
            _stop: stop.drop_guard(),
        })
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The spans so far.
    pub fn spans(&self) -> Vec<Span> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.clone()
    }
}

async fn take(
    request: Request<Incoming>,
    kept: &Mutex<Vec<Span>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut answer = Response::new(Full::default());
    let is_traces = request.uri().path() == "/v1/traces";
    let body = request.into_body().collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    match ExportTraceServiceRequest::decode(body) {
        Ok(export) if is_traces => {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend(spans(export));
        }
        Ok(_) => *answer.status_mut() = StatusCode::NOT_FOUND,
        Err(_) => *answer.status_mut() = StatusCode::BAD_REQUEST,
    }
    Ok(answer)
}

fn spans(export: ExportTraceServiceRequest) -> impl Iterator<Item = Span> {
    export.resource_spans.into_iter().flat_map(|resource| {
        let of = resource.resource.map(|it| texts(it.attributes));
        let service = of.and_then(|mut of| of.remove("service.name"));
        let service = service.unwrap_or_default();
        let spans = resource
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans);
        spans.map(move |span| Span {
            service: service.clone(),
            name: span.name,
            trace_id: HEXLOWER.encode(&span.trace_id),
            span_id: HEXLOWER.encode(&span.span_id),
            parent_id: HEXLOWER.encode(&span.parent_span_id),
            attributes: texts(span.attributes),
        })
    })
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let texts = attributes.into_iter().map(|attribute| {
        let value = attribute.value.and_then(|value| value.value);
        let text = match value {
            Some(Value::StringValue(text)) => text,
            other => format!("{other:?}"),
        };
        (attribute.key, text)
    });
    texts.collect()
}
