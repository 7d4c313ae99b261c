//! Requests to others by HTTP: the one place that decides which of them go through a proxy. Every client
//! begins as [`client`].

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use clap::Args;
use reqwest::{Client, ClientBuilder, NoProxy, Proxy};
use url::Url;

/// Never asked for through a proxy: its loopback is another one.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";

static USED: OnceLock<Used> = OnceLock::new();

struct Used {
    proxy: Proxy,
    host: String,
}

/// Which proxy requests by https go through.
#[derive(Args, Debug, Clone)]
pub struct ProxyArgs {
    /// Proxy (http://host:port) for all requests by https; it looks their names up. Those by http, and
    /// those to this machine, go directly
    #[arg(
        long,
        env = "HTTPS_PROXY",
        hide_env_values = true,
        default_value = "",
        hide_default_value = true
    )]
    pub https_proxy: ProxyUrl,
    /// What is reached without the proxy, comma-separated: domains with all below them, addresses,
    /// networks
    #[arg(long, env = "NO_PROXY")]
    pub no_proxy: Option<String>,
}

/// Where a proxy is, if there is one. It never prints: it may have a password.
#[derive(Clone)]
pub struct ProxyUrl(Option<Url>);

impl FromStr for ProxyUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Set and empty is as not set.
        if text.trim().is_empty() {
            return Ok(Self(None));
        }
        let url = text.trim().parse::<Url>().ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        url.map(|url| Self(Some(url)))
            .ok_or("must be an http:// or https:// URL with a host")
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl ProxyArgs {
    /// Makes this process use it, from the next client on; once.
    ///
    /// # Errors
    /// A URL that no client takes; it is not repeated.
    pub fn apply(&self) -> anyhow::Result<()> {
        let Some(url) = &self.https_proxy.0 else {
            return Ok(());
        };
        let direct = match &self.no_proxy {
            Some(more) => format!("{LOOPBACK},{more}"),
            None => LOOPBACK.to_owned(),
        };
        let proxy = Proxy::https(url.as_str())
            .map_err(|_| anyhow::anyhow!("HTTPS_PROXY (--https-proxy) can't be used"))?
            .no_proxy(NoProxy::from_string(&direct));
        let host = url.host_str().unwrap_or_default().to_owned();
        drop(USED.set(Used { proxy, host }));
        Ok(())
    }
}

/// A client that keeps to the rule. What the environment says beside it (HTTP_PROXY, ALL_PROXY) does not
/// count.
pub fn client() -> ClientBuilder {
    let client = Client::builder().no_proxy();
    match USED.get() {
        Some(used) => client.proxy(used.proxy.clone()),
        None => client,
    }
}

/// The proxy's own host, which clients look up.
pub fn proxy_host() -> Option<&'static str> {
    USED.get().map(|used| used.host.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_url_and_never_printed() {
        let proxy: ProxyUrl = "http://user:pine@proxy:3128".parse().expect("a proxy");
        assert!(!format!("{proxy:?}").contains("pine"));
        assert!(" ".parse::<ProxyUrl>().expect("none").0.is_none());
        for wrong in ["proxy:3128", "socks5://proxy", "3128", "http://"] {
            assert!(wrong.parse::<ProxyUrl>().is_err(), "{wrong}");
        }
    }
}
