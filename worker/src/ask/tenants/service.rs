//! The Tenant Service: `GET /tenants/by-business-account/{wabaId}`.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use shared::secrets::{Rotating, Secret};
use url::Url;

use crate::ask::neighbour::{
    Answer, AnswerClass, Neighbour, NeighbourError, NeighbourSettings, Trace,
};
use crate::item::tenant::{Tenant, TenantStatus};

/// How the Tenant Service is called.
pub const SETTINGS: NeighbourSettings = NeighbourSettings {
    connect_timeout: Duration::from_secs(1),
    attempt_timeout: Duration::from_secs(2),
    most_at_once: 32,
    largest_answer_bytes: 256 * 1024,
};

/// A tenant as the Tenant Service describes it, or the file that stands for it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct TenantRecord {
    #[serde(flatten)]
    pub tenant: Tenant,
    #[serde(rename = "businessAccountId", default)]
    pub waba_id: Option<String>,
    #[serde(rename = "accessToken", default, deserialize_with = "token")]
    pub token: Option<Secret>,
}

fn token<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    Ok(text.and_then(|text| text.parse().ok()))
}

pub(super) struct Service {
    neighbour: Neighbour,
    url: Url,
    token: Option<Arc<Rotating<Secret>>>,
}

impl Service {
    pub(super) fn new(
        neighbour: Neighbour,
        url: Url,
        token: Option<Arc<Rotating<Secret>>>,
    ) -> Self {
        Self {
            neighbour,
            url,
            token,
        }
    }

    /// The tenant of an account; `None` if it has none.
    pub(super) async fn ask(
        &self,
        waba_id: &str,
        within: Duration,
        trace: Trace<'_>,
    ) -> Result<Option<TenantRecord>, NeighbourError> {
        let mut url = self.url.clone();
        url.path_segments_mut()
            .map_err(|()| NeighbourError::Unsendable)?
            .pop_if_empty()
            .extend(["tenants", "by-business-account", waba_id]);
        let request = |client: &reqwest::Client| {
            let request = client.get(url.clone());
            match &self.token {
                Some(token) => request.bearer_auth(token.current().expose()),
                None => request,
            }
        };
        let classify = |answer: &Answer| match answer.status.as_u16() {
            200 => match serde_json::from_slice::<TenantRecord>(&answer.body) {
                Ok(found) if found.is_of(waba_id) => AnswerClass::Done(Some(found)),
                // Of the wrong shape, or another account's: no fault of the accounts beside it.
                Ok(_) | Err(_) => AnswerClass::Unusable,
            },
            404 => AnswerClass::Done(None),
            // It answers, but not about this account.
            400 | 410 | 422 => AnswerClass::Unusable,
            _ => AnswerClass::of_failure(answer),
        };
        let asked = self
            .neighbour
            .call(trace, waba_id, within, request, classify);
        let found = asked.await?;
        if let Some(found) = &found
            && found.tenant.status == TenantStatus::Other
        {
            tracing::warn!(
                waba_id,
                tenant_id = found.tenant.id,
                "a tenant's status is neither `active` nor `suspended`: it counts as suspended"
            );
        }
        Ok(found)
    }
}

impl TenantRecord {
    fn is_of(&self, waba_id: &str) -> bool {
        let other = self
            .waba_id
            .as_deref()
            .is_some_and(|named| named != waba_id);
        !self.tenant.id.is_empty() && !other
    }
}
