//! The files of the page, and the runbook that it links to. Nothing comes from elsewhere, and nothing but these
//! files runs.

use std::sync::LazyLock;

use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{Html, IntoResponse, Response};

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const RUNBOOK: &str = include_str!("../../../docs/runbook.md");

pub(super) async fn page() -> Html<&'static str> {
    Html(include_str!("page.html"))
}

pub(super) async fn script() -> impl IntoResponse {
    let kind = "text/javascript; charset=utf-8";
    ([(CONTENT_TYPE, kind)], include_str!("app.js"))
}

pub(super) async fn style() -> impl IntoResponse {
    let kind = "text/css; charset=utf-8";
    ([(CONTENT_TYPE, kind)], include_str!("style.css"))
}

/// docs/runbook.md of this version, each section under its anchor.
pub(super) async fn runbook() -> Html<&'static str> {
    static PAGE: LazyLock<String> = LazyLock::new(|| runbook_page(RUNBOOK));
    Html(&PAGE)
}

fn runbook_page(text: &str) -> String {
    let mut page = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
        content=\"width=device-width, initial-scale=1\"><link rel=\"icon\" href=\"data:,\"><title>Runbook</title>\
        <link rel=\"stylesheet\" href=\"style.css\"></head><body><main class=\"runbook\"><div>"
        .to_owned();
    for line in text.lines() {
        let title = line.trim_start_matches('#');
        page += &match line.len() - title.len() {
            level @ 1..=4 if title.starts_with(' ') => format!(
                "</div><h{level} id=\"{}\">{}</h{level}><div>",
                anchor(title.trim()),
                escaped(title.trim())
            ),
            _ => escaped(line) + "\n",
        };
    }
    page + "</div></main></body></html>"
}

/// As GitHub makes it of a heading.
fn anchor(title: &str) -> String {
    let kept = title
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;")
}

/// Every answer of the console, also those that fail.
pub(super) async fn protected(mut answer: Response) -> Response {
    let headers = answer.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_of_the_runbook_that_the_page_links_to_is_there() {
        let page = runbook_page(RUNBOOK);
        let script = include_str!("app.js");
        let mut links = script.split("runbook(\"").skip(1);
        let linked = links.try_fold(0, |count, rest| {
            let (section, _) = rest.split_once('"')?;
            assert!(page.contains(&format!(" id=\"{section}\"")), "{section}");
            Some(count + 1)
        });
        assert!(linked > Some(5), "{linked:?}");
        assert!(page.contains("<h3 id=\"workersgone\">WorkersGone</h3>"));
    }

    #[test]
    fn what_the_runbook_says_is_text() {
        let page = runbook_page("# A & b\n<script>\n#!no heading");
        assert!(page.contains("<h1 id=\"a--b\">A &amp; b</h1>"), "{page}");
        assert!(page.contains("&lt;script&gt;\n#!no heading"), "{page}");
    }
}
