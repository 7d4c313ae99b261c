//! Who owns a business account.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

/// The owner of a business account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tenant {
    #[serde(rename = "tenantId")]
    pub id: String,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub status: TenantStatus,
    /// Webhooks per minute and account, instead of the limit that ingress is set to.
    #[serde(default)]
    pub rate_limit_per_minute: Option<u32>,
    /// The numbers of the account, where the Tenant Service says them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phone_number_ids: Vec<String>,
}

/// Stands where a tenant's id would, in routing keys and folders, of what is no account's.
pub const PLATFORM: &str = "_platform";

impl Tenant {
    /// Of what is no account's, and so no tenant's.
    pub fn platform() -> Self {
        Self {
            id: PLATFORM.to_owned(),
            ..Self::default()
        }
    }

    pub fn is_platform(&self) -> bool {
        self.id == PLATFORM
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TenantStatus {
    #[default]
    Active,
    Suspended,
    /// Anything else: nobody knows what may be done, so it counts as suspended.
    Other,
}

impl<'de> Deserialize<'de> for TenantStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let status = serde_json::Value::deserialize(deserializer)?;
        Ok(match status.as_str() {
            Some("active") => Self::Active,
            Some("suspended") => Self::Suspended,
            Some(_) | None => Self::Other,
        })
    }
}

/// Whose an account is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Active(Arc<Tenant>),
    Suspended(Arc<Tenant>),
    Unknown,
    /// The Tenant Service has been answering for a while what can't be used.
    Unusable,
}

impl Verdict {
    pub(crate) fn of(tenant: Option<Tenant>) -> Self {
        match tenant.map(Arc::new) {
            Some(tenant) => match tenant.status {
                TenantStatus::Active => Self::Active(tenant),
                TenantStatus::Suspended | TenantStatus::Other => Self::Suspended(tenant),
            },
            None => Self::Unknown,
        }
    }

    /// What goes out without a tenant.
    pub(crate) fn platform() -> Self {
        Self::Active(Arc::new(Tenant::platform()))
    }

    pub fn tenant_id(&self) -> Option<&str> {
        self.tenant().map(|tenant| &*tenant.id)
    }

    pub(crate) fn tenant(&self) -> Option<&Tenant> {
        match self {
            Self::Active(tenant) | Self::Suspended(tenant) => Some(tenant),
            Self::Unknown | Self::Unusable => None,
        }
    }
}
