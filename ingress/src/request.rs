//! One request: where it goes, what it may take, and, for a webhook, the way from its headers to the
//! moment it is durable.

use std::panic::AssertUnwindSafe;
use std::time::{Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use futures::future::{FutureExt, join_all};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use shared::intake::{Delivery, Envelope, IntakeOutcome, RateWindow};
use shared::trace;
use shared::webhook::UnreadableBody;
use tracing::Instrument;
use uuid::Uuid;

use crate::admission::Admitted;
use crate::context::{Ingress, ServingThread};
use crate::error::{Refusal, write_window};
use crate::keep::{Keeping, NotStored};
use crate::request_log::RequestKind;
use crate::{challenge, ids, signature};

const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
const NO_SNIFFING: HeaderName = HeaderName::from_static("x-content-type-options");
const TRACEPARENT: &str = "traceparent";
/// Deliveries of one body that are stored side by side.
const ACCOUNTS_AT_ONCE: usize = 64;

/// Answers whatever comes.
pub(crate) async fn answer(thread: &ServingThread, request: Request<Incoming>) -> Response<Bytes> {
    let ingress = &*thread.ingress;
    let began = Instant::now();
    let id = correlation_id(request.headers());
    let correlation_id = id.to_string();
    let (method, asked) = (request.method().clone(), asked(ingress, &request));
    let mut response = catching_panics(route(thread, request, id, &correlation_id))
        .await
        .unwrap_or_else(|refusal| refusal.answer(&correlation_id, &ingress.refusals));
    let status = response.status().as_u16();
    let log = &ingress.requests;
    log.answered((&method, asked), status, &correlation_id, began.elapsed());
    add_correlation_id(&mut response, &correlation_id);
    response
}

fn add_correlation_id(response: &mut Response<Bytes>, correlation_id: &str) {
    if let Ok(value) = HeaderValue::from_str(correlation_id) {
        response.headers_mut().insert(CORRELATION_ID, value);
    }
}

fn status_of(outcome: &Result<Response<Bytes>, Refusal>) -> StatusCode {
    match outcome {
        Ok(response) => response.status(),
        Err(refusal) => refusal.status(),
    }
}

fn asked(ingress: &Ingress, request: &Request<Incoming>) -> RequestKind {
    match request.uri().path() {
        path if path == ingress.config.webhook_path => RequestKind::Webhook,
        "/health" | "/ready" => RequestKind::Probe,
        _ => RequestKind::Other,
    }
}

/// A panic ends its request, and nothing else.
async fn catching_panics<T>(
    handled: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let handled = AssertUnwindSafe(handled).catch_unwind().await;
    handled.unwrap_or(Err(Refusal::Panicked))
}

/// The answer to what never became a request.
pub(crate) fn refusal(ingress: &Ingress, refusal: &Refusal) -> Response<Bytes> {
    let correlation_id = Uuid::new_v4().to_string();
    ingress.metrics.answered(refusal.status().as_u16());
    let mut response = refusal.answer(&correlation_id, &ingress.refusals);
    add_correlation_id(&mut response, &correlation_id);
    response
}

async fn route(
    thread: &ServingThread,
    request: Request<Incoming>,
    id: Uuid,
    correlation_id: &str,
) -> Result<Response<Bytes>, Refusal> {
    let ingress = &*thread.ingress;
    let path = request.uri().path();
    if path != ingress.config.webhook_path {
        let probe = ingress.admin.public_probe(path).ok_or(Refusal::NotFound)?;
        return match *request.method() {
            // The body of an answer to HEAD is left out where it is written.
            Method::GET | Method::HEAD => Ok(probe),
            _ => Err(Refusal::Method {
                allowed: "GET, HEAD",
            }),
        };
    }
    let method = request.method();
    let challenged = ingress.secrets.verify_token.as_ref();
    let outcome = match (method, challenged) {
        (&Method::POST, _) => traced(thread, request, id, correlation_id).await,
        (&Method::GET, Some(token)) => {
            let query = request.uri().query().unwrap_or_default();
            let echo = challenge::answer(query, &token.current());
            echo.map(echoed).map_err(Refusal::Challenge)
        }
        (&Method::GET, None) => Err(Refusal::NotFound),
        (_, Some(_)) => Err(Refusal::Method {
            allowed: "GET, POST",
        }),
        (_, None) => Err(Refusal::Method { allowed: "POST" }),
    };
    ingress.metrics.answered(status_of(&outcome).as_u16());
    outcome
}

fn echoed(challenge: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(challenge));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(NO_SNIFFING, HeaderValue::from_static("nosniff"));
    response
}

/// One webhook, and the trace that it is part of. A span is only made if somebody gets it.
async fn traced(
    thread: &ServingThread,
    request: Request<Incoming>,
    id: Uuid,
    correlation_id: &str,
) -> Result<Response<Bytes>, Refusal> {
    let caller = header(request.headers(), TRACEPARENT, 55);
    let caller = Some(caller).filter(|caller| trace::is_traceparent(caller));
    let recorded = caller.as_deref().is_none_or(trace::is_sampled);
    if !trace::exporting() || !recorded {
        let traceparent = caller.unwrap_or_else(|| trace::made(id));
        return webhook(thread, request, correlation_id, traceparent).await;
    }
    let span = tracing::debug_span!(
        "webhook",
        otel.kind = "server",
        correlation_id,
        http.response.status_code = tracing::field::Empty
    );
    trace::adopt(&span, caller.as_deref().unwrap_or_default());
    let traceparent = trace::traceparent(&span).or(caller);
    let traceparent = traceparent.unwrap_or_else(|| trace::made(id));
    let handled = webhook(thread, request, correlation_id, traceparent);
    let outcome = handled.instrument(span.clone()).await;
    span.record("http.response.status_code", status_of(&outcome).as_u16());
    outcome
}

/// One webhook. The body's bytes are given back when it is answered.
async fn webhook(
    thread: &ServingThread,
    request: Request<Incoming>,
    correlation_id: &str,
    traceparent: String,
) -> Result<Response<Bytes>, Refusal> {
    let ingress = &*thread.ingress;
    let (head, body) = request.into_parts();
    if is_encoded(&head.headers) {
        return Err(Refusal::Encoded);
    }
    let mut admitted = ingress.admission.webhook();
    let body = tokio::time::timeout(
        // Around the whole body: hyper has no time-out for it, and a byte a second is a body too.
        ingress.config.body_timeout,
        collect(body, ingress.config.max_body_bytes, &mut admitted),
    )
    .await
    .map_err(|_| Refusal::BodyTimeout)??;
    let arrived = Instant::now();
    admitted.turn(&thread.turns).await?;
    if let Some(verifier) = &ingress.secrets.verifier {
        let signed_by = verifier.current().verify(&head.headers, &body)?;
        if signed_by > 0 {
            ingress.metrics.further_secret.inc();
        }
    }
    admitted.in_flight(body.len())?;
    let _counted = ingress.metrics.webhook_in_flight();
    let envelope = Envelope {
        correlation_id: correlation_id.to_owned(),
        signature: header(&head.headers, signature::HEADER, 71),
        traceparent,
        received_at: SystemTime::now(),
    };
    let deliveries = deliveries(ingress, &body)?;
    let asked = Instant::now();
    let deadline = (arrived + ingress.config.request_deadline).into();
    let storing = store(thread, &deliveries, &envelope, deadline);
    let stored = tokio::time::timeout_at(deadline, storing).await;
    ingress
        .metrics
        .observe_durations(arrived.elapsed(), asked.elapsed());
    let mut response = Response::new(Bytes::new());
    if let Some(window) = stored.map_err(|_| Refusal::Deadline)?? {
        write_window(&window, response.headers_mut());
    }
    Ok(response)
}

/// What the body brings, by account. A signed one that can't be read is stored whole.
fn deliveries(ingress: &Ingress, body: &Bytes) -> Result<Vec<Delivery>, Refusal> {
    match ids::deliveries(body) {
        Ok(deliveries) => Ok(deliveries),
        Err(reason @ (UnreadableBody::NotJson | UnreadableBody::OtherObject))
            if ingress.secrets.verifier.is_none() =>
        {
            Err(Refusal::Unreadable(reason))
        }
        Err(reason) => Ok(vec![ids::unreadable(body, &reason)]),
    }
}

/// Stores all of them, or the sender must send the body again: what was stored is a duplicate then.
/// Tells of the account that has least left in its minute.
async fn store(
    thread: &ServingThread,
    deliveries: &[Delivery],
    envelope: &Envelope,
    deadline: tokio::time::Instant,
) -> Result<Option<RateWindow>, Refusal> {
    let ingress = &*thread.ingress;
    let mut least: Option<RateWindow> = None;
    let mut refused: Option<RateWindow> = None;
    for some in deliveries.chunks(ACCOUNTS_AT_ONCE) {
        let stored = join_all(some.iter().map(|it| keep(thread, it, envelope, deadline)));
        for (delivery, outcome) in some.iter().zip(stored.await) {
            if outcome.is_ok() {
                note_test(ingress, envelope, delivery);
            }
            match outcome {
                Ok(IntakeOutcome::Fresh { items, window }) => {
                    note_stored(envelope, delivery, items);
                    ingress.metrics.stored_items.inc_by(items as u64);
                    if let Some(window) = window {
                        note_over(ingress, envelope, delivery, &window);
                        let less = least.filter(|it| it.remaining <= window.remaining);
                        least = Some(less.unwrap_or(window));
                    }
                }
                Ok(IntakeOutcome::Duplicate) => {
                    note_stored(envelope, delivery, 0);
                    ingress.metrics.duplicates.inc();
                }
                Ok(IntakeOutcome::Spooled) => {
                    note_spooled(envelope, delivery);
                    ingress.metrics.spooled.inc();
                }
                // The others are stored all the same.
                Err(NotStored::Limited(window)) => {
                    note_limited(ingress, envelope, delivery, &window);
                    ingress.metrics.limited.count(&delivery.waba_id);
                    let longer = refused.filter(|it| it.resets_in >= window.resets_in);
                    refused = Some(longer.unwrap_or(window));
                }
                Err(
                    error @ (NotStored::Unseen
                    | NotStored::Overloaded(_)
                    | NotStored::Nowhere(_)
                    | NotStored::Redis(_)),
                ) => {
                    return Err(error.into());
                }
            }
        }
    }
    match refused {
        Some(window) => Err(NotStored::Limited(window).into()),
        None => Ok(least),
    }
}

async fn keep(
    thread: &ServingThread,
    delivery: &Delivery,
    envelope: &Envelope,
    deadline: tokio::time::Instant,
) -> Result<IntakeOutcome, NotStored> {
    let ingress = &thread.ingress;
    let keeping = Keeping {
        intake: &thread.intake,
        admission: &ingress.admission,
        delivery,
        envelope: &envelope.of(delivery),
        deadline,
    };
    ingress.keep.keep(keeping).await
}

fn note_stored(envelope: &Envelope, delivery: &Delivery, items: usize) {
    let (correlation_id, waba_id) = (&envelope.correlation_id, &delivery.waba_id);
    tracing::debug!(correlation_id, waba_id, items, "webhook stored");
}

/// Meta's dashboard sends its tests for the account `0`, each time with the same ids, so that the second
/// one is a duplicate: an operator who presses the button looks for either.
fn note_test(ingress: &Ingress, envelope: &Envelope, delivery: &Delivery) {
    if delivery.is_test() {
        ingress.metrics.tests.inc();
        tracing::info!(
            correlation_id = envelope.correlation_id,
            "a test webhook of Meta's dashboard (account 0) arrived"
        );
    }
}

fn note_spooled(envelope: &Envelope, delivery: &Delivery) {
    let (correlation_id, waba_id) = (&envelope.correlation_id, &delivery.waba_id);
    tracing::debug!(correlation_id, waba_id, "webhook spooled");
}

fn note_over(ingress: &Ingress, envelope: &Envelope, delivery: &Delivery, window: &RateWindow) {
    if window.over {
        ingress.metrics.over_limit.inc();
        if let Some(skipped) = ingress.over_limit_log.pass() {
            tracing::warn!(
                correlation_id = envelope.correlation_id,
                waba_id = delivery.waba_id,
                limit = window.limit,
                skipped,
                "a webhook beyond its account's limit was stored"
            );
        }
    }
}

fn note_limited(ingress: &Ingress, envelope: &Envelope, delivery: &Delivery, window: &RateWindow) {
    ingress.limited_accounts.note(&delivery.waba_id);
    if let Some(skipped) = ingress.refused_log.pass() {
        tracing::warn!(
            correlation_id = envelope.correlation_id,
            waba_id = delivery.waba_id,
            limit = window.limit,
            skipped,
            "refused: a webhook is beyond its account's limit"
        );
    }
}

/// `identity` is what a body is without the header.
fn is_encoded(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(CONTENT_ENCODING).iter();
    let mut codings = codings.map(|coding| coding.as_bytes().trim_ascii());
    codings.any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
}

/// The whole body. What comes in one piece is not copied.
async fn collect(
    mut body: Incoming,
    limit: usize,
    admitted: &mut Admitted<'_>,
) -> Result<Bytes, Refusal> {
    let declared = body.size_hint().lower();
    if declared > limit as u64 {
        return Err(Refusal::TooLarge { limit });
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::BodyBroken)?;
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        if first.len() + all.len() + piece.len() > limit {
            return Err(Refusal::TooLarge { limit });
        }
        admitted.body(piece.len())?;
        if first.is_empty() && all.is_empty() {
            first = piece;
            continue;
        }
        // Many small pieces kept as they are would each hold on to a whole read buffer. Memory that is
        // only reserved takes none.
        if all.is_empty() {
            all.reserve(declared as usize);
        }
        all.extend_from_slice(&std::mem::take(&mut first));
        all.extend_from_slice(&piece);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// The caller's, if it is a well-formed UUID v4, or a new one.
fn correlation_id(headers: &HeaderMap) -> Uuid {
    headers
        .get(CORRELATION_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|text| text.len() == 36)
        .and_then(|text| Uuid::try_parse(text).ok())
        .filter(|id| id.get_version_num() == 4)
        .unwrap_or_else(Uuid::new_v4)
}

/// A header's text, empty if it is missing or longer than it can rightly be.
fn header(headers: &HeaderMap, name: &str, longest: usize) -> String {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .filter(|text| text.len() <= longest)
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_one_request_s_answer() {
        let handled: Result<(), _> = catching_panics(async { panic!("a bug") }).await;
        let refusal = handled.expect_err("a refusal");
        assert_eq!(refusal.status(), 500);
    }
}
