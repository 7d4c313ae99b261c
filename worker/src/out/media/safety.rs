//! Where a token may go: hosts that are listed, over https, at addresses of the public internet. An
//! entry of the list that is written as an origin allows just that one, wherever it is.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use shared::outgoing;
use url::{Host, Origin, Url};

/// An entry of `--media-allowed-hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedHost {
    /// This host, by https on its usual port.
    Exact(String),
    /// The hosts below this one, whose name begins with a dot here; the same way.
    Below(String),
    /// This scheme, host and port, even if it is not of the public internet.
    Origin(Url),
}

impl FromStr for AllowedHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            let url: Url = text.parse().map_err(|error| format!("`{text}`: {error}"))?;
            let bare = matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.path() == "/"
                && url.query().is_none()
                && no_user(&url);
            return if bare {
                Ok(Self::Origin(url))
            } else {
                Err(format!(
                    "`{text}` is no origin such as http://127.0.0.1:9090"
                ))
            };
        }
        let below = text.strip_prefix('.');
        match (below, Host::parse(below.unwrap_or(text))) {
            (_, Ok(_)) if text.contains([':', '*', '/']) || text.contains("..") => {}
            (None, Ok(Host::Domain(host))) => return Ok(Self::Exact(host)),
            // A whole top-level domain is no company's.
            (Some(_), Ok(Host::Domain(host))) if host.contains('.') => {
                return Ok(Self::Below(format!(".{host}")));
            }
            (_, Ok(_) | Err(_)) => {}
        }
        Err(format!(
            "`{text}` is no host name, nor the end of one such as .fbcdn.net; an address or a port must be \
             written as an origin"
        ))
    }
}

fn no_user(url: &Url) -> bool {
    url.username().is_empty() && url.password().is_none()
}

/// The hosts that a token may be sent to.
#[derive(Debug, Clone)]
pub struct AllowedHosts {
    hosts: HashSet<String>,
    ends: Vec<String>,
    origins: Vec<Origin>,
    /// Hosts of the origins: they are where their operator says, and not looked at further.
    trusted: HashSet<String>,
}

impl AllowedHosts {
    /// `list`, and the Graph API's own origin.
    pub fn new(list: &[AllowedHost], graph: &Url) -> Self {
        let mut allowed = Self {
            hosts: HashSet::new(),
            ends: Vec::new(),
            origins: Vec::new(),
            trusted: HashSet::new(),
        };
        // It is where its operator says, and looks up by itself what is behind it.
        let proxy = outgoing::proxy_host().map(str::to_owned);
        allowed.trusted.extend(proxy);
        // A Graph API by https is a host of the public internet like any other.
        match (graph.scheme(), graph.domain(), graph.port()) {
            ("https", Some(host), None) => {
                allowed.hosts.insert(host.to_owned());
            }
            _ => allowed.trust(graph),
        }
        for entry in list {
            match entry {
                AllowedHost::Exact(host) => {
                    allowed.hosts.insert(host.clone());
                }
                AllowedHost::Below(end) => allowed.ends.push(end.clone()),
                AllowedHost::Origin(url) => allowed.trust(url),
            }
        }
        allowed
    }

    fn trust(&mut self, origin: &Url) {
        self.origins.push(origin.origin());
        self.trusted.extend(origin.host_str().map(str::to_owned));
    }

    /// Whether a token may be sent to `url`.
    pub fn allow(&self, url: &Url) -> bool {
        let listed = url.scheme() == "https"
            && url.port().is_none()
            && url.domain().is_some_and(|host| self.has(host));
        no_user(url) && (listed || self.origins.contains(&url.origin()))
    }

    fn has(&self, host: &str) -> bool {
        let is_below = |end: &String| {
            let label = host.strip_suffix(end.as_str());
            label.is_some_and(|label| !label.is_empty())
        };
        self.hosts.contains(host) || self.ends.iter().any(is_below)
    }

    /// Looks names up, and hands out public addresses only, so that what is connected to is what
    /// was checked.
    pub fn resolver(&self) -> Arc<CheckedResolver> {
        Arc::new(CheckedResolver {
            trusted: self.trusted.clone(),
        })
    }
}

/// See [`AllowedHosts::resolver`].
pub struct CheckedResolver {
    trusted: HashSet<String>,
}

/// A name of which no address may be connected to.
#[derive(Debug)]
pub struct NotPublic;

impl fmt::Display for NotPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the host has no address of the public internet")
    }
}

impl std::error::Error for NotPublic {}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let trusted = self.trusted.contains(name.as_str());
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses: Vec<SocketAddr> = found
                .filter(|address| trusted || is_public(address.ip()))
                .collect();
            if addresses.is_empty() {
                return Err(NotPublic.into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of the public internet (IANA's special-purpose registries).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        // Shared by carriers, protocol assignments, 6to4 relays, benchmarks
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19));
    !special
}

/// Global unicast (2000::/3) without what embeds or tunnels an IPv4 address; `::ffff:0:0/96`,
/// `64:ff9b::/96` (NAT64), ULA and link-local lie outside of it.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let special = first == 0x2002                   // 6to4
        || (first == 0x2001 && second < 0x0200)      // Teredo, ORCHID, benchmarks
        || (first == 0x2001 && second == 0x0db8)     // documentation
        || (first == 0x3fff && second < 0x1000); // documentation
    first & 0xe000 == 0x2000 && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(list: &[&str], graph: &str) -> AllowedHosts {
        let list: Vec<AllowedHost> = list
            .iter()
            .map(|entry| entry.parse().expect("an entry"))
            .collect();
        AllowedHosts::new(&list, &graph.parse().expect("a URL"))
    }

    #[test]
    fn a_token_goes_to_the_very_hosts_that_are_listed() {
        let meta = allowed(&["lookaside.fbsbx.com"], "https://graph.facebook.com");
        let may = |url: &str| url.parse().is_ok_and(|url| meta.allow(&url));
        assert!(may("https://lookaside.fbsbx.com/a?b=c"));
        assert!(may("https://LOOKASIDE.fbsbx.com:443/a"));
        assert!(may("https://graph.facebook.com/v26.0/1"));
        for refused in [
            "http://lookaside.fbsbx.com/a",
            "https://lookaside.fbsbx.com:8443/a",
            "https://lookaside.fbsbx.com.evil.example/a",
            "https://evil@lookaside.fbsbx.com/a",
            "https://evil.example/lookaside.fbsbx.com",
            "https://sub.lookaside.fbsbx.com/",
            "https://lookaside.fbsbx.com./",
            "https://lооkaside.fbsbx.com/",
            "http://169.254.169.254/latest",
            "https://2130706433/",
            "https://0177.0.0.1/",
            "https://[::1]/",
            "file:///etc/passwd",
            "data:text/plain,x",
        ] {
            assert!(!may(refused), "{refused}");
        }
    }

    #[test]
    fn a_suffix_allows_what_lies_below_it() {
        let meta = allowed(&[".fbcdn.net"], "https://graph.facebook.com");
        let may = |url: &str| url.parse().is_ok_and(|url| meta.allow(&url));
        assert!(may("https://scontent.xx.fbcdn.net/v") && may("https://SCONTENT.fbcdn.net/"));
        for refused in [
            "http://scontent.fbcdn.net/",
            "https://scontent.fbcdn.net:8443/",
            "https://fbcdn.net/",
            "https://evilfbcdn.net/",
            "https://fbcdn.net.evil.example/",
            "https://evil@scontent.fbcdn.net/",
            "https://scontent.fbcdn.net./",
            "https://.fbcdn.net/",
            "https://[::1]/",
        ] {
            assert!(!may(refused), "{refused}");
        }
        for wrong in [
            ".",
            ".net",
            "..fbcdn.net",
            ".127.0.0.1",
            ".0.1",
            "*.fbcdn.net",
            ".fbcdn.net:443",
            ".fbcdn.net/",
        ] {
            assert!(wrong.parse::<AllowedHost>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_origin_allows_just_itself() {
        let local = allowed(&["http://127.0.0.1:9090"], "http://127.0.0.1:9091/");
        let may = |url: &str| local.allow(&url.parse().expect("a URL"));
        assert!(may("http://127.0.0.1:9090/x") && may("http://127.0.0.1:9091/x"));
        assert!(!may("http://127.0.0.1:9092/x") && !may("https://127.0.0.1:9090/x"));
        assert!(!may("http://127.0.0.1/x") && !may("http://localhost:9090/x"));
        for wrong in ["127.0.0.1", "host:8080", "ftp://host", "http://h/path", ""] {
            assert!(wrong.parse::<AllowedHost>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        for public in ["157.240.1.1", "8.8.8.8", "2a03:2880:f1::1", "2606:4700::1"] {
            assert!(is_public(public.parse().expect("an address")), "{public}");
        }
        for special in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::a00:1",
            "2002:a00:1::",
            "2001:0:1::",
            "2001:db8::1",
        ] {
            assert!(
                !is_public(special.parse().expect("an address")),
                "{special}"
            );
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_not_connected_to() {
        let name = || "localhost".parse::<Name>().expect("a name");
        let meta = allowed(&[], "https://graph.facebook.com");
        assert!(meta.resolver().resolve(name()).await.is_err());
        let local = allowed(&["http://localhost:1"], "https://graph.facebook.com");
        assert!(local.resolver().resolve(name()).await.is_ok());
    }
}
