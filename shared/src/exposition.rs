//! `/metrics` in the form that is asked for: OpenMetrics for a Prometheus that says so, else its older
//! text format, which names counters whole and knows no end mark.

use hyper::header::{ACCEPT, HeaderMap};
use prometheus_client::registry::Registry;

/// What is answered: its content type and its text.
///
/// # Errors
/// A metric can't be written.
pub fn write(
    registry: &Registry,
    head: &HeaderMap,
) -> Result<(&'static str, String), std::fmt::Error> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    let open = head.get_all(ACCEPT).iter().any(|accepted| {
        let accepted = accepted.to_str().unwrap_or_default();
        accepted.contains("application/openmetrics-text")
    });
    if open {
        let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        return Ok((form, text));
    }
    Ok(("text/plain; version=0.0.4; charset=utf-8", older(&text)))
}

/// The same metrics in the older format.
fn older(text: &str) -> String {
    let mut older = String::with_capacity(text.len());
    let mut help = None;
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap_or((typed, "untyped"));
            let whole = if kind == "counter" { "_total" } else { "" };
            if let Some((_, text)) = help.take() {
                older += &format!("# HELP {name}{whole} {text}\n");
            }
            older += &format!("# TYPE {name}{whole} {kind}\n");
        } else if !line.starts_with('#') {
            older.push_str(line);
            older.push('\n');
        }
    }
    older
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;

    #[test]
    fn the_older_format_names_counters_whole() {
        let mut registry = Registry::default();
        let counter = Counter::<u64>::default();
        counter.inc_by(3);
        registry.register("seen", "Seen so far", counter);
        registry.register("now", "Seen now", Gauge::<i64>::default());
        let (form, text) = write(&registry, &HeaderMap::new()).expect("text");
        assert!(form.starts_with("text/plain"));
        assert_eq!(
            text,
            "# HELP seen_total Seen so far.\n# TYPE seen_total counter\nseen_total 3\n\
             # HELP now Seen now.\n# TYPE now gauge\nnow 0\n"
        );
        let mut asked = HeaderMap::new();
        let accepts = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;q=0.5";
        asked.insert(ACCEPT, HeaderValue::from_static(accepts));
        let (form, text) = write(&registry, &asked).expect("text");
        assert!(form.starts_with("application/openmetrics-text") && text.ends_with("# EOF\n"));
    }
}
