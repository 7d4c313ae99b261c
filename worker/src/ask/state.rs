//! The State Manager: what it knows of a conversation goes into a message's event, and of each
//! published message it gets a post, which is owed when the event is out.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use shared::secrets::{Rotating, Secret};
use shared::webhook::{Place, members, scalar, string};
use url::Url;
use uuid::Uuid;

use crate::ask::neighbour::{
    Answer, AnswerClass, Neighbour, NeighbourError, NeighbourSettings, Trace,
};
use crate::item::customer::Customer;
use crate::item::event::Timestamp;
use crate::item::payload::{Payload, PayloadItem};
use crate::item::tenant::Tenant;
use clap::Args;
use shared::config::duration;
use std::path::PathBuf;

/// Who knows a conversation's state.
#[derive(Args, Debug, Clone)]
pub struct StateArgs {
    /// Without it, events have no conversation
    #[arg(long, env = "STATE_MANAGER_URL")]
    pub state_manager_url: Option<Url>,
    /// Sent as a bearer token
    #[arg(long, env = "STATE_MANAGER_TOKEN", hide_env_values = true)]
    pub state_manager_token: Option<Secret>,
    /// File that has it, read again when it changes
    #[arg(long, env = "STATE_MANAGER_TOKEN_FILE")]
    pub state_manager_token_file: Option<PathBuf>,
    /// A message waits no longer for its conversation
    #[arg(long, env = "STATE_DEADLINE", default_value = "300ms", value_parser = duration)]
    pub state_deadline: Duration,
}

/// What an event says that lacks its conversation.
pub const DEGRADED: &[&str] = &["state-manager"];
/// The post of one message, all attempts; what fails is still owed.
const POST_TIME: Duration = Duration::from_secs(3);
const LARGEST_ANSWER_BYTES: usize = 64 * 1024;

/// How the State Manager is called: each conversation in work may ask at once.
pub fn settings(concurrency: usize) -> NeighbourSettings {
    NeighbourSettings {
        connect_timeout: Duration::from_secs(1),
        attempt_timeout: Duration::from_secs(2),
        most_at_once: concurrency,
        largest_answer_bytes: LARGEST_ANSWER_BYTES,
    }
}

/// What is known of a message's conversation.
#[derive(Debug, Default)]
pub struct KnownConversation {
    /// A JSON object; `None` if there is none yet, or it can't be had.
    pub known: Option<Box<RawValue>>,
    /// What an event made with it lacks.
    pub degraded: &'static [&'static str],
}

/// The body of `POST /state/message`; idempotent by `eventId`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MessagePost<'a> {
    tenant_id: &'a str,
    event_id: Uuid,
    message_id: Option<&'a str>,
    wa_id: Option<&'a str>,
    user_id: Option<&'a str>,
    conversation_id: Option<&'a str>,
    direction: &'static str,
    #[serde(rename = "type")]
    kind: Cow<'a, str>,
    /// As in the event.
    timestamp: Option<Timestamp>,
    correlation_id: &'a str,
}

/// What became of a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostOutcome {
    Accepted,
    /// It doesn't want this one, now or ever.
    Refused(u16),
}

/// The State Manager.
pub struct StateManager {
    neighbour: Neighbour,
    posts: Neighbour,
    url: Url,
    token: Option<Arc<Rotating<Secret>>>,
    deadline: Duration,
}

impl StateManager {
    pub fn new(
        neighbour: Neighbour,
        posts: Neighbour,
        url: Url,
        token: Option<Arc<Rotating<Secret>>>,
        deadline: Duration,
    ) -> Self {
        Self {
            neighbour,
            posts,
            url,
            token,
            deadline,
        }
    }

    /// What is known of the conversation of a message. Only messages have one.
    pub async fn conversation(
        &self,
        payload: &Payload,
        item: &PayloadItem,
        tenant: &Tenant,
    ) -> KnownConversation {
        let customer = Customer::of(payload, item);
        let Some(customer_id) = customer.known_wa_id().or(customer.known_user_id()) else {
            return KnownConversation::default();
        };
        let number = payload.phone_number_id(item).unwrap_or_default();
        match self
            .mapping(customer_id, &tenant.id, number, trace(payload))
            .await
        {
            Ok(known) => KnownConversation {
                known,
                degraded: &[],
            },
            Err(error) => {
                let entry = &payload.entry;
                tracing::debug!(
                    correlation_id = entry.correlation_id,
                    %error,
                    "State Manager call failed: the event has no conversation"
                );
                KnownConversation {
                    known: None,
                    degraded: DEGRADED,
                }
            }
        }
    }

    pub(crate) async fn mapping(
        &self,
        customer_id: &str,
        tenant_id: &str,
        phone_number_id: &str,
        trace: Trace<'_>,
    ) -> Result<Option<Box<RawValue>>, NeighbourError> {
        let mut url = self.path(&["state", "mapping", customer_id])?;
        url.query_pairs_mut()
            .append_pair("tenantId", tenant_id)
            .append_pair("phoneNumberId", phone_number_id);
        let request = |client: &reqwest::Client| self.signed(client.get(url.clone()));
        let classify = |answer: &Answer| match answer.status.as_u16() {
            200 => match serde_json::from_slice::<Box<RawValue>>(&answer.body) {
                Ok(known) if known.get().starts_with('{') => AnswerClass::Done(Some(known)),
                Ok(_) | Err(_) => AnswerClass::Transient(None),
            },
            404 => AnswerClass::Done(None),
            _ => AnswerClass::of_failure(answer),
        };
        self.neighbour
            .call(trace, tenant_id, self.deadline, request, classify)
            .await
    }

    /// Posts one message of a tenant, with the body that [`message_post`] made.
    ///
    /// # Errors
    /// It can't be posted now.
    pub async fn post_message(
        &self,
        tenant_id: &str,
        body: &str,
    ) -> Result<PostOutcome, NeighbourError> {
        let url = self.path(&["state", "message"])?;
        let request = |client: &reqwest::Client| {
            let request = client.post(url.clone()).body(body.to_owned());
            self.signed(request.header("content-type", "application/json"))
        };
        let classify = |answer: &Answer| match answer.status.as_u16() {
            200..=299 => AnswerClass::Done(PostOutcome::Accepted),
            // It understood, and doesn't want it. A wrong token or a missing route is mended some day.
            status @ (400 | 409 | 410 | 413 | 422) => {
                AnswerClass::Done(PostOutcome::Refused(status))
            }
            _ => AnswerClass::of_failure(answer),
        };
        let correlation_id = correlation_id(body);
        let trace = Trace {
            correlation_id: &correlation_id,
            traceparent: "",
        };
        self.posts
            .call(trace, tenant_id, POST_TIME, request, classify)
            .await
    }

    fn path(&self, segments: &[&str]) -> Result<Url, NeighbourError> {
        let mut url = self.url.clone();
        url.path_segments_mut()
            .map_err(|()| NeighbourError::Unsendable)?
            .pop_if_empty()
            .extend(segments);
        Ok(url)
    }

    fn signed(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token.current().expose()),
            None => request,
        }
    }
}

fn trace(payload: &Payload) -> Trace<'_> {
    Trace {
        correlation_id: &payload.entry.correlation_id,
        traceparent: &payload.entry.traceparent,
    }
}

fn correlation_id(body: &str) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct WithCorrelationId {
        correlation_id: String,
    }
    serde_json::from_str(body).map_or_else(
        |_| String::new(),
        |part: WithCorrelationId| part.correlation_id,
    )
}

/// Whether the State Manager gets a post about an item.
pub fn has_post(item: &PayloadItem) -> bool {
    item.place == Place::Message
}

/// The post about a published message; `None` of anything else.
pub fn message_post(
    payload: &Payload,
    item: &PayloadItem,
    tenant_id: &str,
    event_id: Uuid,
    conversation_id: Option<&str>,
) -> Option<String> {
    if !has_post(item) {
        return None;
    }
    let customer = Customer::of(payload, item);
    let [kind, timestamp] = members(payload.raw(item), ["type", "timestamp"]).unwrap_or_default();
    let post = MessagePost {
        tenant_id,
        event_id,
        message_id: item.id.as_deref(),
        wa_id: customer.known_wa_id(),
        user_id: customer.known_user_id(),
        conversation_id,
        direction: "inbound",
        kind: kind.and_then(string).unwrap_or(Cow::Borrowed("unknown")),
        timestamp: timestamp
            .and_then(scalar)
            .and_then(|seconds| Timestamp::of_seconds(&seconds)),
        correlation_id: &payload.entry.correlation_id,
    };
    serde_json::to_string(&post).ok()
}

/// `conversationId` of what the State Manager knows.
pub fn conversation_id(known: &RawValue) -> Option<String> {
    let [id] = members(known.into(), ["conversationId"])?;
    id.and_then(scalar).map(Cow::into_owned)
}
