//! `TENANTS_FILE`: the tenants of those who run no Tenant Service. A JSON array of the objects that
//! the service would answer.

use std::collections::HashMap;

use shared::secrets::Secret;

use super::service::TenantRecord;
use crate::item::tenant::{Tenant, TenantStatus, Verdict};

/// The tenants of a file, by business account.
#[derive(Debug, Default)]
pub struct Directory(HashMap<String, (Tenant, Option<Secret>)>);

impl Directory {
    /// Reads the array.
    ///
    /// # Errors
    /// What is wrong with it, without repeating any of it.
    pub fn parse(text: &Secret) -> Result<Self, String> {
        let found: Vec<TenantRecord> = serde_json::from_str(text.expose()).map_err(|error| {
            format!(
                "is no JSON array of tenants: line {}, column {}",
                error.line(),
                error.column()
            )
        })?;
        let mut tenants = HashMap::new();
        for (n, found) in found.into_iter().enumerate() {
            let place = n + 1;
            let waba_id = found
                .waba_id
                .ok_or_else(|| format!("tenant {place} of the array has no businessAccountId"))?;
            if found.tenant.id.is_empty() {
                return Err(format!("tenant {place} of the array has an empty tenantId"));
            }
            // Somebody writes this by hand: a slip is reported, where the service's word would be taken.
            if found.tenant.status == TenantStatus::Other {
                return Err(format!(
                    "tenant {place} of the array has a status other than active and suspended"
                ));
            }
            let before = tenants.insert(waba_id, (found.tenant, found.token));
            if before.is_some() {
                return Err(format!(
                    "tenant {place} of the array has the businessAccountId of one before"
                ));
            }
        }
        Ok(Self(tenants))
    }

    pub fn verdict(&self, waba_id: &str) -> Verdict {
        let tenant = self.0.get(waba_id).map(|(tenant, _)| tenant.clone());
        Verdict::of(tenant)
    }

    /// Accounts, and the limits of those that have their own.
    pub fn limits(&self) -> impl Iterator<Item = (&str, Option<u32>)> {
        let all = self.0.iter();
        all.map(|(waba_id, (tenant, _))| (waba_id.as_str(), tenant.rate_limit_per_minute))
    }

    pub fn token(&self, waba_id: &str) -> Option<Secret> {
        self.0.get(waba_id)?.1.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Directory, String> {
        Directory::parse(&text.parse().expect("not empty"))
    }

    #[test]
    fn a_broken_file_is_told_by_its_place_alone() {
        for (text, problem) in [
            (
                "[{\"tenantId\":\"canary\"",
                "is no JSON array of tenants: line 1, column 21",
            ),
            (
                r#"[{"tenantId":"t","businessAccountId":"1","accessToken":{"canary":1}}]"#,
                "is no JSON array of tenants: line 1, column 55",
            ),
            (
                r#"[{"tenantId":"t","businessAccountId":"1","status":"canary"}]"#,
                "tenant 1 of the array has a status other than active and suspended",
            ),
            (
                r#"[{"tenantId":"canary"}]"#,
                "tenant 1 of the array has no businessAccountId",
            ),
            (
                r#"[{"tenantId":"a","businessAccountId":"1"},{"tenantId":"b","businessAccountId":"1"}]"#,
                "tenant 2 of the array has the businessAccountId of one before",
            ),
        ] {
            let error = parse(text).expect_err("broken");
            assert!(!error.contains("canary"), "{error}");
            assert_eq!(error, problem);
        }
    }

    #[test]
    fn a_tenant_has_its_account_and_token() {
        let text = r#"[{"tenantId":"t","name":"T","businessAccountId":"1","accessToken":"x","more":[1]},
            {"tenantId":"u","businessAccountId":"2","status":"suspended"}]"#;
        let directory = parse(text).expect("tenants");
        assert_eq!(directory.verdict("1").tenant_id(), Some("t"));
        assert!(matches!(directory.verdict("2"), Verdict::Suspended(_)));
        assert_eq!(directory.verdict("3"), Verdict::Unknown);
        assert_eq!(directory.token("1").expect("a token").expose(), "x");
        assert!(directory.token("2").is_none());
    }
}
