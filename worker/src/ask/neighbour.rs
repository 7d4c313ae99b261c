//! The one way to call an HTTP neighbour: time-outs, retries of what passes, a circuit breaker, a
//! bound on calls at once, trace headers, and errors that name no URL, since URLs name people.

#![deny(clippy::wildcard_enum_match_arm)]

mod admission;
mod answer;
mod error;

use std::sync::Mutex;
use std::time::Duration;

use bytes::BytesMut;
use reqwest::header::HeaderValue;
use reqwest::{Client, ClientBuilder, RequestBuilder};
use shared::{outgoing, trace};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument, Span};

pub use self::answer::{Answer, AnswerClass, LONGEST_WAIT, retry_after};
pub use self::error::{NeighbourError, reason};
use crate::ask::breaker::Breaker;
use crate::metrics::neighbours::{NeighbourMetrics, NeighbourName};
use crate::retry::Backoff;

pub const USER_AGENT: &str = concat!("whatsapp-worker/", env!("CARGO_PKG_VERSION"));
/// The pause before the second attempt; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How a neighbour is called.
#[derive(Debug, Clone)]
pub struct NeighbourSettings {
    pub connect_timeout: Duration,
    /// One attempt, from connecting to the last byte.
    pub attempt_timeout: Duration,
    /// Calls at once; others wait for their turn, within their time.
    pub most_at_once: usize,
    pub largest_answer_bytes: usize,
}

/// What a call is part of; passed on as `X-Correlation-Id` and `traceparent`. Empty: not sent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trace<'a> {
    pub correlation_id: &'a str,
    pub traceparent: &'a str,
}

/// One neighbour.
#[derive(Debug)]
pub struct Neighbour {
    name: NeighbourName,
    client: Client,
    settings: NeighbourSettings,
    turns: Semaphore,
    breaker: Mutex<Breaker>,
    metrics: NeighbourMetrics,
}

impl Neighbour {
    /// # Errors
    /// The HTTP client can't be built.
    pub fn new(
        name: NeighbourName,
        settings: NeighbourSettings,
        metrics: NeighbourMetrics,
    ) -> reqwest::Result<Self> {
        Self::with_client(name, settings, metrics, outgoing::client())
    }

    /// One whose client connects in a way of its own.
    ///
    /// # Errors
    /// The HTTP client can't be built.
    pub fn with_client(
        name: NeighbourName,
        settings: NeighbourSettings,
        metrics: NeighbourMetrics,
        client: ClientBuilder,
    ) -> reqwest::Result<Self> {
        let client = client
            .user_agent(USER_AGENT)
            .connect_timeout(settings.connect_timeout)
            .pool_idle_timeout(Duration::from_secs(30))
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        metrics.create_known(name);
        Ok(Self {
            name,
            client,
            turns: Semaphore::new(settings.most_at_once),
            settings,
            breaker: Mutex::default(),
            metrics,
        })
    }

    /// Whether a call about a subject would be refused now.
    pub fn refuses(&self, subject: &str) -> bool {
        self.breaker().refuses(Instant::now(), subject)
    }

    /// Calls until there is an answer, asking is of no use, or `within` is over. `subject`: the account
    /// or tenant that it is about, whose failures are its own as long as others are answered.
    /// `request` builds the request; `classify` says what its answer means: a `Done` ends the call,
    /// whatever its status.
    ///
    /// # Errors
    /// Why the last attempt brought nothing.
    pub async fn call<T>(
        &self,
        trace: Trace<'_>,
        subject: &str,
        within: Duration,
        request: impl Fn(&Client) -> RequestBuilder,
        classify: impl Fn(&Answer) -> AnswerClass<T>,
    ) -> Result<T, NeighbourError> {
        let until = Instant::now() + within;
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let span = self.span();
            let asked = span.in_scope(|| trace.apply(request(&self.client)));
            let attempt = self
                .attempt(subject, until, asked, &classify)
                .instrument(span);
            let failed = match attempt.await {
                Ok(done) => return Ok(done),
                Err(failed) => failed,
            };
            let Some(asked_for) = failed.passes() else {
                return Err(failed);
            };
            let pause = backoff.pause().max(asked_for);
            if pause >= until.saturating_duration_since(Instant::now()) {
                return Err(failed);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt<T>(
        &self,
        subject: &str,
        until: Instant,
        request: RequestBuilder,
        classify: impl Fn(&Answer) -> AnswerClass<T>,
    ) -> Result<T, NeighbourError> {
        let admission = self.admit(subject, until).await?;
        let until = until.min(Instant::now() + self.settings.attempt_timeout);
        let answer = timeout_at(until, self.exchange(request))
            .await
            .unwrap_or(Err(NeighbourError::TimedOut));
        let outcome = answer.and_then(|answer| {
            let status = answer.status.as_u16();
            match classify(&answer) {
                AnswerClass::Done(done) => Ok(done),
                AnswerClass::Transient(retry_after) => Err(NeighbourError::Transient {
                    status,
                    retry_after,
                }),
                AnswerClass::Throttled(retry_after) => Err(NeighbourError::Throttled {
                    status,
                    retry_after,
                }),
                AnswerClass::Final => Err(NeighbourError::Final { status }),
                AnswerClass::Unusable => Err(NeighbourError::Unusable { status }),
            }
        });
        admission.ended(outcome.as_ref().err());
        outcome
    }

    async fn exchange(&self, request: RequestBuilder) -> Result<Answer, NeighbourError> {
        let largest = self.settings.largest_answer_bytes;
        let mut response = request.send().await.map_err(|error| reason(&error))?;
        if response
            .content_length()
            .is_some_and(|length| length > largest as u64)
        {
            return Err(NeighbourError::TooLarge(largest));
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| reason(&error))? {
            if body.len() + chunk.len() > largest {
                return Err(NeighbourError::TooLarge(largest));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            status: response.status(),
            headers: std::mem::take(response.headers_mut()),
            body: body.freeze(),
        })
    }

    /// One request, for traces.
    fn span(&self) -> Span {
        let (name, neighbour) = (self.name.text(), self.name.text());
        tracing::debug_span!("call", otel.name = name, otel.kind = "client", neighbour)
    }
}

impl Trace<'_> {
    /// Adds the headers, with the span that this is part of if spans are exported; what can't be a header's value is left out.
    pub fn apply(self, mut request: RequestBuilder) -> RequestBuilder {
        let own = trace::traceparent(&Span::current());
        for (name, value) in [
            ("x-correlation-id", self.correlation_id),
            ("traceparent", own.as_deref().unwrap_or(self.traceparent)),
        ] {
            if let Ok(value) = HeaderValue::from_str(value)
                && !value.is_empty()
            {
                request = request.header(name, value);
            }
        }
        request
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prometheus_client::registry::Registry;

    use super::*;
    use ::tests::neighbours::{Fault, Neighbours, Service};

    const SOON: Duration = Duration::from_secs(10);

    fn neighbour(settings: NeighbourSettings) -> (Neighbour, Registry) {
        ::tests::install_tls_provider();
        let mut registry = Registry::default();
        let metrics = NeighbourMetrics::new(&mut registry);
        let neighbour = Neighbour::new(NeighbourName::TenantService, settings, metrics);
        (neighbour.expect("a client"), registry)
    }

    fn settings() -> NeighbourSettings {
        NeighbourSettings {
            connect_timeout: SOON,
            attempt_timeout: SOON,
            most_at_once: 4,
            largest_answer_bytes: 1024,
        }
    }

    async fn ask(
        neighbour: &Neighbour,
        server: &Neighbours,
        within: Duration,
    ) -> Result<Bytes, NeighbourError> {
        let url = format!("{}/tenants/by-business-account/1", server.url());
        let trace = Trace {
            correlation_id: "c-1",
            traceparent: "00-1",
        };
        let classify = |answer: &Answer| match answer.status.as_u16() {
            200 if answer.body.starts_with(b"{") => AnswerClass::Done(answer.body.clone()),
            200 => AnswerClass::Transient(None),
            _ => AnswerClass::of_failure(answer),
        };
        neighbour
            .call(trace, "1", within, |client| client.get(&url), classify)
            .await
    }

    fn series(registry: &Registry, name: &str) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).expect("metrics");
        let line = text.lines().find(|line| line.starts_with(name));
        line.unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn each_fault_ends_in_its_own_error_and_in_time() {
        let server = Neighbours::start().await.expect("neighbours");
        for (fault, error) in [
            (Fault::Hang, NeighbourError::TimedOut),
            (Fault::Slow(SOON), NeighbourError::TimedOut),
            (Fault::Close, NeighbourError::CutOff),
            (Fault::Cut(10), NeighbourError::CutOff),
            (
                Fault::Garbage,
                NeighbourError::Transient {
                    status: 200,
                    retry_after: None,
                },
            ),
            (
                Fault::Status(503),
                NeighbourError::Transient {
                    status: 503,
                    retry_after: None,
                },
            ),
            (
                Fault::Status(429),
                NeighbourError::Throttled {
                    status: 429,
                    retry_after: None,
                },
            ),
            (Fault::Status(401), NeighbourError::Final { status: 401 }),
            (Fault::Status(302), NeighbourError::Final { status: 302 }),
        ] {
            let (neighbour, _) = neighbour(NeighbourSettings {
                attempt_timeout: if error == NeighbourError::TimedOut {
                    Duration::from_millis(300)
                } else {
                    SOON
                },
                ..settings()
            });
            server.set_fault(Service::Tenants, fault);
            let began = Instant::now();
            let seen = ask(&neighbour, &server, Duration::from_millis(50)).await;
            assert_eq!(seen, Err(error), "{fault}");
            assert!(began.elapsed() < SOON, "{fault}");
        }
        drop(server);
        let nobody = Neighbours::start().await.expect("neighbours");
        let url = nobody.url();
        drop(nobody);
        let (neighbour, _) = neighbour(settings());
        let seen = neighbour
            .call(
                Trace::default(),
                "1",
                Duration::from_millis(50),
                |client| client.get(&url),
                |_| AnswerClass::Done(()),
            )
            .await;
        assert_eq!(seen, Err(NeighbourError::Connect));
    }

    #[tokio::test]
    async fn what_passes_is_tried_again_and_carries_its_trace() {
        let server = Neighbours::start().await.expect("neighbours");
        let (neighbour, _) = neighbour(settings());
        server.set_fault(Service::Tenants, Fault::Status(500));
        let healing = async {
            while server.requests(Service::Tenants) < 2 {
                tokio::task::yield_now().await;
            }
            server.set_fault(Service::Tenants, Fault::None);
        };
        let healing = tokio::time::timeout(SOON, healing);
        let (seen, healed) = tokio::join!(ask(&neighbour, &server, SOON), healing);
        healed.expect("it is asked again");
        assert!(seen.is_ok_and(|body| body.starts_with(b"{")));
        let requests = server.received(Service::Tenants);
        assert!(requests.len() >= 3);
        for request in requests {
            assert_eq!(request.headers["x-correlation-id"], "c-1");
            assert_eq!(request.headers["traceparent"], "00-1");
            assert_eq!(request.headers["user-agent"], USER_AGENT);
        }
    }

    #[tokio::test]
    async fn a_wait_that_no_clock_can_add_ends_the_call() {
        let server = Neighbours::start().await.expect("neighbours");
        let (neighbour, _) = neighbour(settings());
        let url = server.url();
        let seen = neighbour
            .call(
                Trace::default(),
                "",
                SOON,
                |client| client.get(&url),
                |_| AnswerClass::<()>::Throttled(Some(Duration::MAX)),
            )
            .await;
        assert!(matches!(seen, Err(NeighbourError::Throttled { .. })));
    }

    #[tokio::test]
    async fn an_answer_without_end_is_not_kept() {
        let server = Neighbours::start().await.expect("neighbours");
        let (neighbour, _) = neighbour(NeighbourSettings {
            largest_answer_bytes: 10,
            ..settings()
        });
        let seen = ask(&neighbour, &server, SOON).await;
        assert_eq!(seen, Err(NeighbourError::TooLarge(10)));
    }

    #[tokio::test]
    async fn the_breaker_opens_half_opens_and_closes() {
        // Two, since a call that was given up may still arrive at the first one and be counted there.
        let failing = Neighbours::start().await.expect("neighbours");
        let server = Neighbours::start().await.expect("neighbours");
        let (neighbour, registry) = neighbour(settings());
        failing.set_fault(Service::Tenants, Fault::Status(500));
        for _ in 0..5 {
            ask(&neighbour, &failing, Duration::ZERO)
                .await
                .expect_err("500");
        }
        assert!(neighbour.refuses("1"));
        let seen = ask(&neighbour, &server, SOON).await;
        assert_eq!(seen, Err(NeighbourError::BreakerOpen));
        assert_eq!(server.requests(Service::Tenants), 0);
        assert!(series(&registry, "whatsapp_breaker_state").ends_with(" 2"));

        server.set_fault(Service::Tenants, Fault::Slow(Duration::from_millis(100)));
        while neighbour.refuses("1") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let both = tokio::join!(
            ask(&neighbour, &server, SOON),
            ask(&neighbour, &server, SOON)
        );
        assert!(both.0.is_ok());
        assert_eq!(both.1, Err(NeighbourError::BreakerOpen));
        assert_eq!(server.requests(Service::Tenants), 1);
        assert!(ask(&neighbour, &server, SOON).await.is_ok());
        assert!(series(&registry, "whatsapp_breaker_state").ends_with(" 0"));
    }

    #[tokio::test]
    async fn no_more_calls_at_once_than_allowed() {
        let server = Neighbours::start().await.expect("neighbours");
        let (neighbour, _) = neighbour(NeighbourSettings {
            most_at_once: 1,
            ..settings()
        });
        server.set_fault(Service::Tenants, Fault::Hang);
        let second = async {
            let arrived = async || (server.requests(Service::Tenants) == 1).then_some(());
            ::tests::waiting::eventually(SOON, "the first call", arrived).await;
            ask(&neighbour, &server, Duration::from_millis(100)).await
        };
        let second = tokio::select! {
            first = ask(&neighbour, &server, SOON) => panic!("{first:?} although nobody answers"),
            second = second => second,
        };
        assert_eq!(second, Err(NeighbourError::Busy));
        assert_eq!(server.requests(Service::Tenants), 1);
    }

    #[tokio::test]
    async fn a_call_that_was_given_up_is_no_verdict() {
        let server = Neighbours::start().await.expect("neighbours");
        let (neighbour, _) = neighbour(settings());
        server.set_fault(Service::Tenants, Fault::Hang);
        for _ in 0..10 {
            let given_up =
                tokio::time::timeout(Duration::from_millis(10), ask(&neighbour, &server, SOON));
            given_up.await.expect_err("it hangs");
        }
        assert!(!neighbour.refuses("1"));
    }

    #[test]
    fn errors_name_nobody() {
        ::tests::install_tls_provider();
        let client = Client::new();
        let error = client
            .get("http://%/4915112345678")
            .build()
            .expect_err("no URL");
        assert_eq!(reason(&error), NeighbourError::Unsendable);
        assert!(!format!("{0} {0:?}", reason(&error)).contains("49151"));
    }
}
