//! Where RabbitMQ is: its URL as settings have it, and as connections want it.

use lapin::uri::AMQPUri;
use shared::secrets::Secret;

/// The largest frame in bytes unless the URL names another: RabbitMQ's own. A broker may name none, and
/// lapin sets aside 64 times as much for a connection.
const FRAME_MAX: u32 = 131_072;
/// The same for connections that only publish: events have 2 KB, and larger ones go in several frames.
const FRAME_MAX_TO_PUBLISH: u32 = 32_768;

/// The URL, if it is one, with a limit of frames, and with `/` for a virtual host that is written as
/// nothing, as other clients of RabbitMQ read it.
///
/// # Errors
/// It isn't; the message does not repeat it.
pub fn parse(url: &Secret) -> Result<Secret, String> {
    let wrong = || "is no amqp:// or amqps:// URL".to_owned();
    let (scheme, rest) = url.expose().split_once("://").ok_or_else(wrong)?;
    // In a host, or behind it, stands none of these.
    if let Some((login, _)) = rest.rsplit_once('@')
        && let Some(raw) = login.chars().find(|c| matches!(c, '#' | '@' | '/' | '?'))
    {
        return Err(format!(
            "has a `{raw}` in its user or password that must be written as %{:02X}",
            u32::from(raw)
        ));
    }
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, format!("?{query}")),
        None => (rest, String::new()),
    };
    let with_vhost = match place.strip_suffix('/') {
        Some(host) if !host.contains('/') => format!("{scheme}://{host}/%2f{query}"),
        Some(_) | None => url.expose().to_owned(),
    };
    let read: AMQPUri = with_vhost.parse().map_err(|_| wrong())?;
    let mut limited: url::Url = with_vhost.parse().map_err(|_| wrong())?;
    if read.query.frame_max.is_none() {
        limited
            .query_pairs_mut()
            .append_pair("frame_max", &FRAME_MAX.to_string());
    }
    limited.as_str().parse().map_err(|_| wrong())
}

/// A URL that was [`parse`]d, for connections that only publish.
pub(super) fn to_publish(url: &str) -> String {
    let name = |frame_max: u32| format!("frame_max={frame_max}");
    url.replace(&name(FRAME_MAX), &name(FRAME_MAX_TO_PUBLISH))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<AMQPUri, String> {
        let url = parse(&text.parse().expect("not empty"))?;
        url.expose().parse()
    }

    #[test]
    fn who_only_publishes_asks_for_smaller_frames_unless_the_url_names_others() {
        for (text, frame_max) in [
            ("amqp://host", FRAME_MAX_TO_PUBLISH),
            ("amqps://user:word@host/v?heartbeat=5", FRAME_MAX_TO_PUBLISH),
            ("amqp://host?frame_max=65536", 65_536),
        ] {
            let url = parse(&text.parse().expect("not empty")).expect("a URL");
            let to_publish = to_publish(url.expose());
            let to_publish: AMQPUri = to_publish.parse().expect("a URL");
            assert_eq!(to_publish.query.frame_max, Some(frame_max), "{text}");
        }
    }

    #[test]
    fn a_virtual_host_that_is_not_written_is_the_default_one() {
        for (text, vhost) in [
            ("amqp://host", "/"),
            ("amqp://host:5672/", "/"),
            ("amqp://host:5672/?heartbeat=5", "/"),
            ("amqps://user:pass@host/", "/"),
            ("amqp://user:pass@host:5672/%2f", "/"),
            ("amqp://user:p%40ss@host/my-vhost", "my-vhost"),
            ("amqp://host/a%2fb", "a/b"),
        ] {
            assert_eq!(read(text).expect(text).vhost, vhost, "{text}");
        }
    }

    #[test]
    fn a_login_that_is_not_encoded_is_refused_with_what_to_write() {
        for (text, encoded) in [
            ("amqp://user:plum#jam@host/", "%23"),
            ("amqp://user:12#jam@host/", "%23"),
            ("amqp://user:plum@jam@host/", "%40"),
            ("amqp://user:plum/jam@host/", "%2F"),
            ("amqp://user:plum?jam@host/", "%3F"),
        ] {
            let told = read(text).expect_err(text);
            assert!(told.contains(encoded), "{told}");
            assert!(!told.contains("plum") && !told.contains("jam"), "{told}");
        }
        assert!(read("http://host/").is_err() && read("host:5672").is_err());
    }
}
