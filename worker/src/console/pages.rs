//! The files of the page, and the runbook that it links to. Nothing comes from elsewhere, and nothing but these
//! files runs.

use std::sync::LazyLock;

use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{Html, IntoResponse, Response};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd, html};

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
        <link rel=\"stylesheet\" href=\"style.css\"></head><body><main class=\"runbook\">"
        .to_owned();
    let read = Parser::new_ext(text, Options::ENABLE_TABLES).map(as_text);
    let mut parts: Vec<Event<'_>> = read.collect();
    for n in 0..parts.len() {
        let title: String = parts[n..].iter().map_while(of_title).collect();
        if let Event::Start(Tag::Heading { id, .. }) = &mut parts[n] {
            *id = Some(anchor(&title).into());
        }
    }
    let mut in_file = false;
    // What lies beside the runbook isn't served.
    parts.retain(|part| match part {
        Event::Start(Tag::Link { dest_url, .. }) => {
            in_file = !dest_url.starts_with('#') && !dest_url.starts_with("https://");
            !in_file
        }
        Event::End(TagEnd::Link) => !in_file,
        _ => true,
    });
    html::push_html(&mut page, parts.into_iter());
    page + "</main></body></html>"
}

/// HTML in the text is shown as it stands there.
fn as_text(part: Event<'_>) -> Event<'_> {
    match part {
        Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
        part => part,
    }
}

/// The text of a part of a heading; `None` behind it.
fn of_title<'p>(part: &'p Event<'_>) -> Option<&'p str> {
    match part {
        Event::Text(text) | Event::Code(text) => Some(text),
        Event::End(TagEnd::Heading(_)) => None,
        _ => Some(""),
    }
}

/// As GitHub makes it of a heading.
fn anchor(title: &str) -> String {
    let kept = title
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
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
        let page = runbook_page(
            "# A & `b`\n<i>x</i>\n\n| x |\n| --- |\n| [in](#a--b) [beside](faq.md) |\n",
        );
        for part in [
            "<h1 id=\"a--b\">A &amp; <code>b</code></h1>",
            "&lt;i&gt;x&lt;/i&gt;",
            "<td><a href=\"#a--b\">in</a> beside</td>",
        ] {
            assert!(page.contains(part), "{page}");
        }
    }
}
