//! Hosts that media was refused to be fetched from.

use anyhow::Context;
use url::Url;

use super::finding::{Findings, ok, warn};
use crate::clients;
use crate::config::Config;
use crate::operator::Deployment;
use crate::out::media::refused_hosts::RefusedHosts;

const CHECK: &str = "media";

pub(super) async fn check(deployment: &Deployment, config: &Config) -> Findings {
    let connection = deployment.connection.clone();
    let refused = RefusedHosts::new(connection, deployment.keys.clone());
    let mut refused = refused.all().await.context("Redis")?;
    let allowed = clients::allowed_hosts(config);
    refused.retain(|host| {
        let url = Url::parse(&format!("https://{host}/"));
        !url.is_ok_and(|url| allowed.allow(&url))
    });
    if refused.is_empty() {
        let text = "no file lies at a host that isn't allowed";
        return Ok(vec![ok(CHECK, text)]);
    }
    let found = refused.into_iter().map(|host| {
        let text = format!("files lie at {host}, which MEDIA_ALLOWED_HOSTS doesn't have");
        warn(CHECK,
            text,
            "they wait for up to seven days: if the host is Meta's, add it, or an end of its name such as .fbcdn.net",
        )
    });
    Ok(found.collect())
}
