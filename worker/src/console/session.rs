//! Who may look at contents or change something. Whoever gives the admin token gets a cookie that is signed with
//! that token: every worker of the deployment accepts it, none keeps it, and another token ends all of them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{COOKIE, HOST, ORIGIN, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use chrono::Utc;
use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use shared::secrets::{Rotating, Secret};
use shared::telemetry::audit;
use uuid::Uuid;

use super::Console;
use super::problem::ConsoleProblem;
use crate::out::store;

const COOKIE_NAME: &str = "whatsapp_console";
const CSRF_HEADER: &str = "x-csrf-token";
const LIFE_SECONDS: i64 = 12 * 3600;
const LONGEST_NAME: usize = 64;
/// Wrong tokens of an address within a while, and addresses that are remembered.
const MOST_ATTEMPTS: u32 = 5;
const ATTEMPTS_PERIOD: Duration = Duration::from_secs(60);
const MOST_ADDRESSES: usize = 1000;

/// Whoever has signed in.
#[derive(Debug, Clone)]
pub(super) struct ConsoleSession {
    /// As he calls himself, for the audit.
    pub(super) by: String,
    /// In seconds since 1970.
    expires_at: i64,
    csrf_token: String,
}

/// Makes sessions, and knows them again.
pub(super) struct SignIn {
    /// `None`: nobody can sign in.
    token: Option<Arc<Rotating<Secret>>>,
    /// By address, wrong tokens and when the first of them came.
    attempts: Mutex<HashMap<IpAddr, (u32, Instant)>>,
}

impl SignIn {
    pub(super) fn new(token: Option<Arc<Rotating<Secret>>>) -> Self {
        Self {
            token,
            attempts: Mutex::default(),
        }
    }

    /// A cookie's value: when it ends, what makes it its own, who has it, and the signature of these.
    fn begin(&self, by: &str) -> Option<String> {
        let expires_at = Utc::now().timestamp() + LIFE_SECONDS;
        let (nonce, by) = (
            Uuid::new_v4().simple(),
            BASE64URL_NOPAD.encode(by.as_bytes()),
        );
        let told = format!("{expires_at}.{nonce}.{by}");
        let signature = self.signature("session", &told)?;
        Some(format!("{told}.{signature}"))
    }

    fn session(&self, cookie: &str) -> Option<ConsoleSession> {
        let (told, signature) = cookie.rsplit_once('.')?;
        let given = BASE64URL_NOPAD.decode(signature.as_bytes()).ok()?;
        self.mac("session", told)?.verify_slice(&given).ok()?;
        let mut parts = told.split('.');
        let expires_at: i64 = parts.next()?.parse().ok()?;
        let by = BASE64URL_NOPAD.decode(parts.nth(1)?.as_bytes()).ok()?;
        (Utc::now().timestamp() < expires_at).then_some(ConsoleSession {
            by: String::from_utf8(by).ok()?,
            expires_at,
            csrf_token: self.signature("csrf", cookie)?,
        })
    }

    fn of_request(&self, headers: &HeaderMap) -> Option<ConsoleSession> {
        let cookies = headers.get_all(COOKIE).into_iter();
        let cookies = cookies.filter_map(|cookies| cookies.to_str().ok());
        let mut values = cookies
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|it| {
                let (name, value) = it.trim().split_once('=')?;
                (name == COOKIE_NAME).then_some(value)
            });
        values.find_map(|value| self.session(value))
    }

    fn signature(&self, of: &str, text: &str) -> Option<String> {
        let signature = self.mac(of, text)?.finalize().into_bytes();
        Some(BASE64URL_NOPAD.encode(&signature))
    }

    fn mac(&self, of: &str, text: &str) -> Option<Hmac<Sha256>> {
        let token = self.token.as_ref()?.current();
        let mut mac = Hmac::new_from_slice(token.expose().as_bytes()).ok()?;
        mac.update(format!("whatsapp console {of}\n{text}").as_bytes());
        Some(mac)
    }

    /// How long an address has to wait that gave too many wrong tokens.
    fn wait(&self, address: IpAddr) -> Option<Duration> {
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, since) = attempts.get(&address)?;
        let wait = ATTEMPTS_PERIOD.checked_sub(since.elapsed())?;
        (*count >= MOST_ATTEMPTS).then_some(wait)
    }

    fn note_wrong(&self, address: IpAddr) {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        if attempts.len() >= MOST_ADDRESSES {
            attempts.retain(|_, (_, since)| since.elapsed() < ATTEMPTS_PERIOD);
        }
        if attempts.len() >= MOST_ADDRESSES {
            attempts.clear();
        }
        let (count, since) = attempts.entry(address).or_insert((0, Instant::now()));
        if since.elapsed() >= ATTEMPTS_PERIOD {
            (*count, *since) = (0, Instant::now());
        }
        *count += 1;
    }
}

/// What the page knows of its session.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionReport {
    signed_in: bool,
    /// The deployment has an admin token.
    can_sign_in: bool,
    by: Option<String>,
    /// In seconds since 1970.
    expires_at: Option<i64>,
    /// Goes with whatever changes something, in `X-CSRF-Token`.
    csrf_token: Option<String>,
}

impl SessionReport {
    fn of(sign_in: &SignIn, session: Option<ConsoleSession>) -> Self {
        Self {
            signed_in: session.is_some(),
            can_sign_in: sign_in.token.is_some(),
            by: session.as_ref().map(|it| it.by.clone()),
            expires_at: session.as_ref().map(|it| it.expires_at),
            csrf_token: session.map(|it| it.csrf_token),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct SignInArgs {
    token: String,
    /// For the audit.
    name: Option<String>,
}

pub(super) async fn current(
    State(console): State<Arc<Console>>,
    headers: HeaderMap,
) -> Json<SessionReport> {
    let session = console.sign_in.of_request(&headers);
    Json(SessionReport::of(&console.sign_in, session))
}

pub(super) async fn begin(
    State(console): State<Arc<Console>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    asked: Result<Json<SignInArgs>, JsonRejection>,
) -> Result<Response, ConsoleProblem> {
    let Json(SignInArgs { token, name }) = asked?;
    let sign_in = &console.sign_in;
    let no_token = || {
        let error = "WORKER_ADMIN_TOKEN is not set: nobody can sign in";
        ConsoleProblem::new(StatusCode::NOT_FOUND, error)
    };
    let expected = sign_in.token.as_ref().ok_or_else(no_token)?.current();
    if let Some(wait) = sign_in.wait(peer.ip()) {
        return Err(ConsoleProblem::too_many_attempts(wait));
    }
    if !expected.is(token.trim().as_bytes()) {
        sign_in.note_wrong(peer.ip());
        tracing::warn!(address = %peer.ip(), "a wrong token was given to the console");
        let error = "that is not the admin token";
        return Err(ConsoleProblem::new(StatusCode::UNAUTHORIZED, error));
    }
    let by = store::header_text(name.unwrap_or_default().trim());
    let by: String = by.chars().take(LONGEST_NAME).collect();
    let by = if by.is_empty() { "console" } else { &by };
    let cookie = sign_in.begin(by).ok_or_else(no_token)?;
    audit("console sign-in", by, "console", 1);
    let https = headers.get("x-forwarded-proto");
    let secure = match https.is_some_and(|it| it == "https") {
        true => "; Secure",
        false => "",
    };
    let set = format!(
        "{COOKIE_NAME}={cookie}; Path=/console; HttpOnly; SameSite=Strict; Max-Age={LIFE_SECONDS}{secure}"
    );
    let report = SessionReport::of(sign_in, sign_in.session(&cookie));
    Ok(([(SET_COOKIE, set)], Json(report)).into_response())
}

/// Takes the cookie from the browser.
pub(super) async fn end(Extension(session): Extension<ConsoleSession>) -> Response {
    audit("console sign-out", &session.by, "console", 1);
    let gone = format!("{COOKIE_NAME}=; Path=/console; HttpOnly; SameSite=Strict; Max-Age=0");
    (StatusCode::NO_CONTENT, [(SET_COOKIE, gone)]).into_response()
}

/// Refuses what another page's script asks for. Who sends no `Origin` is no browser's script.
pub(super) async fn own_origin(request: Request, next: Next) -> Result<Response, ConsoleProblem> {
    let (origin, host) = (request.headers().get(ORIGIN), request.headers().get(HOST));
    let is_own = origin.is_none_or(|origin| {
        let origin = origin.to_str().unwrap_or_default();
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        authority.is_some_and(|it| host.is_some_and(|host| host == it))
    });
    match is_own {
        true => Ok(next.run(request).await),
        false => {
            let error = "that comes from another page";
            Err(ConsoleProblem::new(StatusCode::FORBIDDEN, error))
        }
    }
}

/// Lets whoever has signed in through, and what changes something with its CSRF token only.
pub(super) async fn signed_in(
    State(console): State<Arc<Console>>,
    mut request: Request,
    next: Next,
) -> Result<Response, ConsoleProblem> {
    let session = console.sign_in.of_request(request.headers());
    let Some(session) = session else {
        let error = "sign in with the admin token first";
        return Err(ConsoleProblem::new(StatusCode::UNAUTHORIZED, error));
    };
    let csrf_token = request.headers().get(CSRF_HEADER);
    let is_its = csrf_token.is_some_and(|token| token == session.csrf_token.as_str());
    if !request.method().is_safe() && !is_its {
        let error = "the CSRF token is missing or wrong";
        return Err(ConsoleProblem::new(StatusCode::FORBIDDEN, error));
    }
    request.extensions_mut().insert(session);
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign_in(token: &str) -> SignIn {
        let token: Secret = token.parse().expect("a secret");
        let token = Rotating::plain("X", Some(&token), None);
        SignIn::new(token.expect("readable"))
    }

    #[test]
    fn a_cookie_counts_at_every_worker_with_the_same_token_and_no_other() {
        let cookie = sign_in("one").begin("Ada").expect("a cookie");
        let session = sign_in("one").session(&cookie).expect("a session");
        assert_eq!(session.by, "Ada");
        assert!(sign_in("two").session(&cookie).is_none());
        let (told, signature) = cookie.rsplit_once('.').expect("parts");
        let (_, rest) = told.split_once('.').expect("parts");
        let longer = format!("9999999999.{rest}.{signature}");
        assert!(sign_in("one").session(&longer).is_none());
    }

    #[test]
    fn a_cookie_ends_after_its_time() {
        let sign_in = sign_in("one");
        let signed = |expires_at: i64| {
            let told = format!("{expires_at}.nonce.QWRh");
            let signature = sign_in.signature("session", &told).expect("a token");
            format!("{told}.{signature}")
        };
        let now = Utc::now().timestamp();
        assert!(sign_in.session(&signed(now + 60)).is_some());
        assert!(sign_in.session(&signed(now)).is_none());
    }

    #[test]
    fn an_address_waits_after_five_wrong_tokens_and_no_other_does() {
        let sign_in = sign_in("one");
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        for _ in 0..MOST_ATTEMPTS {
            assert_eq!(sign_in.wait(address(1)), None);
            sign_in.note_wrong(address(1));
        }
        assert!(sign_in.wait(address(1)).is_some());
        assert_eq!(sign_in.wait(address(2)), None);
    }
}
