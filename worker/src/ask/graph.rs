//! The Graph API: what a media id stands for, and what Meta knows of a business number. Its errors
//! are judged by their code, then by `is_transient`, then by the HTTP status: throttling comes as
//! 400, and 500 may be for good.

use std::time::Duration;

use data_encoding::{BASE64_NOPAD, HEXLOWER_PERMISSIVE};
use redis::RedisResult;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use shared::keys::Keys;
use shared::redis::Connection;
use shared::script::Script;
use shared::secrets::Secret;
use url::Url;

use crate::ask::neighbour::{Answer, AnswerClass, LONGEST_WAIT, Neighbour, NeighbourError, Trace};
use crate::item::event::channel::NumberProfile;
use crate::read::gate::TransferPace;
use clap::Args;

/// Where Meta is asked.
#[derive(Args, Debug, Clone)]
pub struct GraphArgs {
    /// Where the Graph API is
    #[arg(
        long,
        env = "GRAPH_BASE_URL",
        default_value = "https://graph.facebook.com"
    )]
    pub graph_base_url: Url,
    /// A version that Meta has retired is served as another one, which is logged
    #[arg(long, env = "GRAPH_API_VERSION", default_value = "v26.0", value_parser = graph_version)]
    pub graph_api_version: String,
    /// Requests per second and business phone number, over all workers
    #[arg(long, env = "GRAPH_REQUESTS_PER_SECOND", default_value_t = 80, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub graph_requests_per_second: u32,
}

fn graph_version(text: &str) -> Result<String, &'static str> {
    let numbers = text.strip_prefix('v').and_then(|text| text.split_once('.'));
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match numbers {
        Some((major, minor)) if number(major) && number(minor) => Ok(text.to_owned()),
        _ => Err("write it like v26.0"),
    }
}

/// One question, with what is tried again of it.
const TIME: Duration = Duration::from_secs(5);
/// A request waits this long for its place; what would wait longer is tried later.
const MOST_WAIT: Duration = Duration::from_secs(1);
/// When Meta wants fewer requests and doesn't say for how long.
const THROTTLE_PAUSE: Duration = Duration::from_secs(2);
/// When all of a budget is used and Meta doesn't say until when.
const EXHAUSTED_PAUSE: Duration = Duration::from_secs(60);
/// Between requests once most of a budget is used.
const SLOW_PAUSE: Duration = Duration::from_secs(1);
/// Meta's code for something wrong with a parameter.
const PARAMETER: i64 = 100;
/// A word of a text of Meta's with more digits, or longer, may be an id or a token.
const MOST_DIGITS: usize = 4;
const LONGEST_WORD: usize = 40;
const MOST_WORDS: usize = 40;
/// Percent of a budget from which on requests are slowed down.
const MOSTLY_USED: f64 = 80.0;

/// The id of a media object: digits, so that it can't lead elsewhere in a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaId(String);

impl MediaId {
    /// `None` for what is no id.
    pub fn parse(text: &str) -> Option<Self> {
        is_id(text).then(|| Self(text.to_owned()))
    }

    pub fn text(&self) -> &str {
        &self.0
    }
}

fn is_id(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What the Graph API says of a media object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaInfo {
    /// Works for five minutes, with the token. Where it leads is not looked at here.
    pub url: String,
    pub mime_type: Option<String>,
    pub sha256: Option<[u8; 32]>,
    pub size_bytes: Option<u64>,
}

/// Why the Graph API gave no answer of use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    #[error("it doesn't take the token")]
    Token,
    /// Permissions or the state of the account: an operator's to mend.
    #[error("it refuses (code {0})")]
    Refused(i64),
    #[error("it has nothing of this id, or not for this number")]
    Missing,
    #[error("it won't ever give this (code {0})")]
    Final(i64),
    #[error("it wants fewer requests")]
    Throttled(Duration),
    #[error(transparent)]
    Neighbour(#[from] NeighbourError),
}

/// Who asks, and for which number.
#[derive(Debug, Clone, Copy)]
pub struct GraphCall<'a> {
    pub token: &'a Secret,
    pub waba_id: &'a str,
    pub phone_number_id: Option<&'a str>,
    pub pace: TransferPace,
    pub trace: Trace<'a>,
}

impl GraphCall<'_> {
    /// Whose budget of requests it is.
    fn budget(&self) -> &str {
        self.phone_number_id.unwrap_or(self.waba_id)
    }
}

/// The Graph API.
pub struct Graph {
    neighbour: Neighbour,
    base_url: Url,
    version: String,
    pace: RequestPacer,
    version_told: std::sync::Once,
}

/// An answer that was understood, and how long its headers ask to wait.
struct ParsedAnswer<T> {
    result: Result<T, GraphError>,
    /// Of an error, what it says in words.
    text: Option<String>,
    pause: Option<Duration>,
    served_version: Option<String>,
}

impl Graph {
    pub fn new(args: &GraphArgs, neighbour: Neighbour, pace: RequestPacer) -> Self {
        Self {
            neighbour,
            base_url: args.graph_base_url.clone(),
            version: args.graph_api_version.clone(),
            pace,
            version_told: std::sync::Once::new(),
        }
    }

    /// Whether nothing is asked for an account now, since most of it would fail.
    pub fn breaker_refuses(&self, waba_id: &str) -> bool {
        self.neighbour.refuses(waba_id)
    }

    /// Takes a place among the requests for a number; for requests that aren't the Graph API's own
    /// too.
    ///
    /// # Errors
    /// [`GraphError::Throttled`]
    pub async fn place(&self, call: GraphCall<'_>) -> Result<(), GraphError> {
        self.pace.place(call.budget(), call.pace).await
    }

    /// Where a media object lies, and what it should be.
    ///
    /// # Errors
    /// [`GraphError`]
    pub async fn media(&self, id: &MediaId, call: GraphCall<'_>) -> Result<MediaInfo, GraphError> {
        let number = call.phone_number_id.filter(|number| is_id(number));
        let query = number.map(|number| ("phone_number_id", number));
        let media: MediaAnswer = self.get(id.text(), query, call).await?;
        Ok(media.into())
    }

    /// What Meta knows of a business phone number.
    ///
    /// # Errors
    /// [`GraphError`]
    pub async fn number(&self, id: &str, call: GraphCall<'_>) -> Result<NumberProfile, GraphError> {
        if !is_id(id) {
            return Err(GraphError::Missing);
        }
        self.get(id, Some(("fields", NumberProfile::FIELDS)), call)
            .await
    }

    /// The app that the token is of.
    ///
    /// # Errors
    /// [`GraphError`]
    pub async fn app(&self, call: GraphCall<'_>) -> Result<SubscribedApp, GraphError> {
        self.get("app", None, call).await
    }

    /// Apps that get the webhooks of the account that is asked for.
    ///
    /// # Errors
    /// [`GraphError`]
    pub async fn subscriptions(
        &self,
        call: GraphCall<'_>,
    ) -> Result<Vec<Subscription>, GraphError> {
        if !is_id(call.waba_id) {
            return Err(GraphError::Missing);
        }
        let path = [call.waba_id, "subscribed_apps"];
        let apps: Subscriptions = self.get_below(&path, None, call).await?;
        Ok(apps.data)
    }

    async fn get<T: DeserializeOwned>(
        &self,
        id: &str,
        query: Option<(&str, &str)>,
        call: GraphCall<'_>,
    ) -> Result<T, GraphError> {
        self.get_below(&[id], query, call).await
    }

    async fn get_below<T: DeserializeOwned>(
        &self,
        path_below: &[&str],
        query: Option<(&str, &str)>,
        call: GraphCall<'_>,
    ) -> Result<T, GraphError> {
        let answer = self.ask(path_below, query, call).await?;
        let (
            Err(GraphError::Refused(PARAMETER) | GraphError::Missing),
            Some(text),
            Some((parameter, _)),
        ) = (&answer.result, &answer.text, query)
        else {
            return answer.result;
        };
        if !names(text, parameter) {
            return answer.result;
        }
        let (code, text) = (PARAMETER, without_ids(text));
        tracing::warn!(
            parameter,
            code,
            text,
            "the Graph API does not take a parameter: it is asked without it"
        );
        self.ask(path_below, None, call).await?.result
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        path_below: &[&str],
        query: Option<(&str, &str)>,
        call: GraphCall<'_>,
    ) -> Result<ParsedAnswer<T>, GraphError> {
        if self.breaker_refuses(call.waba_id) {
            return Err(NeighbourError::BreakerOpen.into());
        }
        self.place(call).await?;
        let mut url = self.base_url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push(&self.version).extend(path_below);
        }
        if let Some((name, value)) = query {
            url.query_pairs_mut().append_pair(name, value);
        }
        let understood: ParsedAnswer<T> = self
            .neighbour
            .call(
                call.trace,
                call.waba_id,
                TIME,
                |client| client.get(url.clone()).bearer_auth(call.token.expose()),
                understand,
            )
            .await?;
        if let Some(served) = &understood.served_version {
            self.warn_of_version(served);
        }
        let throttled = match &understood.result {
            Err(GraphError::Throttled(pause)) => Some(*pause),
            Ok(_) | Err(_) => None,
        };
        if let Some(pause) = understood.pause.max(throttled) {
            self.pace.pause(call.budget(), pause).await;
            if throttled.is_some() {
                return Err(GraphError::Throttled(pause));
            }
        }
        Ok(understood)
    }

    /// A version that Meta has retired is served as another, silently.
    fn warn_of_version(&self, served: &str) {
        if served != self.version {
            self.version_told.call_once(|| {
                let asked = &self.version;
                tracing::warn!(
                    asked,
                    served,
                    "the Graph API serves another version than asked for"
                );
            });
        }
    }
}

/// Requests for a business phone number, evenly spaced over all workers.
pub struct RequestPacer {
    connection: Connection,
    keys: Keys,
    per_second: u32,
    place: Script,
    pause: Script,
}

impl RequestPacer {
    /// `per_second`: at least 1.
    pub fn new(connection: Connection, keys: Keys, per_second: u32) -> Self {
        Self {
            connection,
            keys,
            per_second,
            place: Script::new(include_str!("../lua/pace.lua")),
            pause: Script::new(include_str!("../lua/pause.lua")),
        }
    }

    /// What isn't for a received message takes a place among its like before, of which there are a quarter
    /// as many: a received message finds most places free, however much else is asked for.
    async fn place(&self, number: &str, pace: TransferPace) -> Result<(), GraphError> {
        match pace {
            TransferPace::Inbound => {}
            TransferPace::Beside | TransferPace::History => {
                let fewer = self.per_second.div_ceil(4);
                self.take_place(number, self.keys.other_pace(number), fewer)
                    .await?;
            }
        }
        self.take_place(number, self.keys.pace(number), self.per_second)
            .await
    }

    async fn take_place(
        &self,
        number: &str,
        key: String,
        per_second: u32,
    ) -> Result<(), GraphError> {
        let call = self
            .place
            .call([key, self.keys.pause(number)])
            .arg(per_second)
            .arg(MOST_WAIT.as_millis() as u64);
        let waits: RedisResult<i64> = call.run(&mut self.connection.clone()).await;
        match waits {
            Ok(ms) => {
                let wait = Duration::from_millis(ms.unsigned_abs());
                if ms < 0 {
                    return Err(GraphError::Throttled(wait.min(LONGEST_WAIT)));
                }
                tokio::time::sleep(wait.min(MOST_WAIT)).await;
                Ok(())
            }
            // Few requests are under way then: nothing new is read.
            Err(error) => {
                tracing::debug!(%error, "redis command failed: a request to the Graph API is not paced");
                Ok(())
            }
        }
    }

    async fn pause(&self, number: &str, pause: Duration) {
        let call = self.pause.call([self.keys.pause(number)]);
        let call = call.arg((pause.as_millis() as u64).max(1));
        let paused: RedisResult<()> = call.run(&mut self.connection.clone()).await;
        if let Err(error) = paused {
            tracing::debug!(%error, "redis command failed: other workers don't know of a pause of the Graph API");
        }
    }
}

/// Whether an error's text is about a parameter of the request, or about a field that it asks for.
fn names(text: &str, parameter: &str) -> bool {
    text.contains(parameter) || (parameter == "fields" && text.contains("nonexisting field"))
}

/// A text of the Graph API for the log: words that may be an id or a token are left out.
fn without_ids(text: &str) -> String {
    let is_id = |word: &str| {
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        digits > MOST_DIGITS || word.len() > LONGEST_WORD
    };
    let words = text.split_whitespace();
    let words = words.map(|word| if is_id(word) { "…" } else { word });
    words.take(MOST_WORDS).collect::<Vec<_>>().join(" ")
}

/// An app that gets the webhooks of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Subscription {
    #[serde(default, rename = "whatsapp_business_api_data")]
    pub app: SubscribedApp,
    /// Where they go instead of the app's own URL.
    #[serde(default)]
    pub override_callback_uri: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct SubscribedApp {
    #[serde(default)]
    pub id: String,
    #[serde(default)]
    pub name: String,
}

#[derive(Deserialize)]
struct Subscriptions {
    data: Vec<Subscription>,
}

/// Without its URL it is of no use; of the rest, what isn't as it should be is as if it weren't said.
#[derive(Deserialize)]
struct MediaAnswer {
    url: String,
    #[serde(default)]
    mime_type: Value,
    #[serde(default)]
    sha256: Value,
    #[serde(default)]
    file_size: Value,
}

impl From<MediaAnswer> for MediaInfo {
    fn from(media: MediaAnswer) -> Self {
        Self {
            sha256: media.sha256.as_str().and_then(digest),
            // A number in recorded answers, a string in Meta's documents.
            size_bytes: match &media.file_size {
                Value::String(text) => text.parse().ok(),
                other => other.as_u64(),
            },
            mime_type: media.mime_type.as_str().map(str::to_owned),
            url: media.url,
        }
    }
}

/// A SHA-256: 64 hex digits (Graph API), or 44 characters of base64 (webhooks). `None` for anything
/// else, such as the placeholders of Meta's examples.
pub fn digest(text: &str) -> Option<[u8; 32]> {
    let bytes = if text.len() == 64 {
        HEXLOWER_PERMISSIVE.decode(text.as_bytes())
    } else {
        // `BASE64` would take padding in the midst of it, too.
        BASE64_NOPAD.decode(text.strip_suffix('=')?.as_bytes())
    };
    bytes.ok()?.try_into().ok().filter(is_of_something)
}

/// Nothing has the digest of zeros: it is a placeholder too.
fn is_of_something(digest: &[u8; 32]) -> bool {
    *digest != [0; 32]
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: ErrorBody,
}

#[derive(Deserialize)]
struct ErrorBody {
    code: ErrorCode,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    error_subcode: Option<i64>,
    #[serde(default)]
    is_transient: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ErrorCode {
    Number(i64),
    Text(String),
}

fn understand<T: DeserializeOwned>(answer: &Answer) -> AnswerClass<ParsedAnswer<T>> {
    let (result, text) = if answer.status.is_success() {
        match serde_json::from_slice(&answer.body) {
            Ok(answer) => (Ok(answer), None),
            Err(_) => return AnswerClass::Transient(None),
        }
    } else {
        match error_verdict(answer) {
            ErrorVerdict::Definite(error, text) => (Err(error), text),
            ErrorVerdict::Transient => return AnswerClass::Transient(answer.retry_after()),
        }
    };
    let header = |name: &str| answer.headers.get(name)?.to_str().ok().map(str::to_owned);
    AnswerClass::Done(ParsedAnswer {
        result,
        text,
        pause: usage_pause(&answer.headers),
        served_version: header("facebook-api-version"),
    })
}

/// What an answer about a media object says, and how long its headers ask to wait; `None` where the
/// same question may succeed in a moment.
#[cfg(fuzzing)]
pub fn understood(answer: &Answer) -> Option<(Result<MediaInfo, GraphError>, Option<Duration>)> {
    match understand::<MediaAnswer>(answer) {
        AnswerClass::Done(understood) => {
            Some((understood.result.map(Into::into), understood.pause))
        }
        _ => None,
    }
}

enum ErrorVerdict {
    /// With its words.
    Definite(GraphError, Option<String>),
    /// The same question may succeed in a moment.
    Transient,
}

fn error_verdict(answer: &Answer) -> ErrorVerdict {
    let throttled = || GraphError::Throttled(answer.retry_after().unwrap_or(THROTTLE_PAUSE));
    let Ok(ErrorAnswer { error }) = serde_json::from_slice::<ErrorAnswer>(&answer.body) else {
        return match answer.status.as_u16() {
            401 => ErrorVerdict::Definite(GraphError::Token, None),
            404 => ErrorVerdict::Definite(GraphError::Missing, None),
            429 => ErrorVerdict::Definite(throttled(), None),
            400..=499 => ErrorVerdict::Definite(GraphError::Refused(0), None),
            _ => ErrorVerdict::Transient,
        };
    };
    let code = match error.code {
        ErrorCode::Number(code) => code,
        ErrorCode::Text(code) => code.parse().unwrap_or(0),
    };
    // Meta's list of error codes; see the module's first lines.
    let error_kind = match code {
        4 | 80_007 | 130_429 | 131_056 => throttled(),
        1 | 2 | 131_000 | 131_016 | 131_057 | 133_004 | 133_015 | 2_494_100 => {
            return ErrorVerdict::Transient;
        }
        0 | 102 | 190 => GraphError::Token,
        100 if error.error_subcode == Some(33) => GraphError::Missing,
        131_051..=131_053 => GraphError::Final(code),
        3 | 10 | 33 | 200..=299 | 368 | 131_005 | 131_031 | 131_045 => GraphError::Refused(code),
        _ if error.is_transient => return ErrorVerdict::Transient,
        _ => match answer.status.as_u16() {
            401 => GraphError::Token,
            429 => throttled(),
            500..=599 => return ErrorVerdict::Transient,
            _ => GraphError::Refused(code),
        },
    };
    ErrorVerdict::Definite(error_kind, error.message)
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    call_count: f64,
    #[serde(default)]
    total_cputime: f64,
    #[serde(default)]
    total_time: f64,
    /// Minutes.
    #[serde(default)]
    estimated_time_to_regain_access: f64,
}

impl Usage {
    fn pause(&self) -> Option<Duration> {
        let used = self.call_count.max(self.total_cputime).max(self.total_time);
        if self.estimated_time_to_regain_access > 0.0 {
            let seconds = self.estimated_time_to_regain_access * 60.0;
            let pause = Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_WAIT);
            return Some(pause.min(LONGEST_WAIT));
        }
        match used {
            used if used >= 100.0 => Some(EXHAUSTED_PAUSE),
            used if used > MOSTLY_USED => Some(SLOW_PAUSE),
            _ => None,
        }
    }
}

/// How long the budgets that an answer reports ask to wait.
fn usage_pause(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let app = text("x-app-usage")
        .and_then(|text| serde_json::from_str::<Usage>(text).ok())
        .and_then(|usage| usage.pause());
    let accounts = text("x-business-use-case-usage")
        .and_then(|text| {
            serde_json::from_str::<std::collections::HashMap<String, Vec<Usage>>>(text).ok()
        })
        .and_then(|accounts| {
            let usages = accounts.into_values().flatten();
            usages.filter_map(|usage| usage.pause()).max()
        });
    app.max(accounts)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use reqwest::StatusCode;

    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Answer {
        let headers = headers.iter().map(|(name, value)| {
            let name = reqwest::header::HeaderName::from_static(name);
            (name, reqwest::header::HeaderValue::from_static(value))
        });
        Answer {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: headers.collect(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    /// `None`: it is tried again at once.
    fn error_of(status: u16, body: &str) -> Option<GraphError> {
        match error_verdict(&answer(status, &[], body)) {
            ErrorVerdict::Definite(error, _) => Some(error),
            ErrorVerdict::Transient => None,
        }
    }

    fn code(status: u16, code: &str) -> Option<GraphError> {
        error_of(status, &format!("{{\"error\":{{\"code\":{code}}}}}"))
    }

    #[test]
    fn the_code_decides_then_is_transient_then_the_status() {
        let throttled = Some(GraphError::Throttled(THROTTLE_PAUSE));
        for number in ["4", "80007", "130429", "\"130429\""] {
            assert_eq!(code(400, number), throttled, "{number}");
        }
        assert_eq!(code(500, "131000"), None);
        assert_eq!(code(500, "3"), Some(GraphError::Refused(3)));
        assert_eq!(code(400, "190"), Some(GraphError::Token));
        assert_eq!(code(403, "200"), Some(GraphError::Refused(200)));
        assert_eq!(code(400, "131052"), Some(GraphError::Final(131_052)));
        assert_eq!(code(400, "100"), Some(GraphError::Refused(100)));
        let missing = r#"{"error":{"code":100,"error_subcode":33}}"#;
        assert_eq!(error_of(400, missing), Some(GraphError::Missing));
        let transient = r#"{"error":{"code":77777,"is_transient":true}}"#;
        assert_eq!(error_of(400, transient), None);
        assert_eq!(code(503, "77777"), None);
        assert_eq!(code(400, "77777"), Some(GraphError::Refused(77777)));
        for (status, error) in [
            (401, Some(GraphError::Token)),
            (404, Some(GraphError::Missing)),
            (429, throttled),
            (418, Some(GraphError::Refused(0))),
            (502, None),
        ] {
            assert_eq!(error_of(status, "<html>"), error, "{status}");
        }
    }

    #[test]
    fn a_size_is_a_number_or_a_text_and_a_digest_hex_or_base64() {
        let read = |body: &str| {
            let answer = serde_json::from_str::<MediaAnswer>(body);
            MediaInfo::from(answer.expect("an answer"))
        };
        let number = read(r#"{"url":"https:\/\/a\/","file_size":182859}"#);
        assert_eq!(number.size_bytes, Some(182_859));
        assert_eq!(number.url, "https://a/");
        let text = read(r#"{"url":"u","file_size":"303833"}"#);
        assert_eq!(text.size_bytes, Some(303_833));
        let odd = r#"{"url":"u","file_size":1.5,"sha256":7,"mime_type":["image/png"]}"#;
        let odd = read(odd);
        assert_eq!(
            (odd.size_bytes, odd.sha256, odd.mime_type),
            (None, None, None)
        );
        let hex = "c86c28d437534f74367e73b2155a6cb8f3fcd78cac3e3ad6a8ddd5ebf9d65141";
        let base64 = "yGwo1DdTT3Q2fnOyFVpsuPP814ysPjrWqN3V6/nWUUE=";
        assert!(digest(hex).is_some());
        assert_eq!(digest(hex), digest(base64));
        for odd in [
            "",
            "placeholder",
            "yGwo1DdTT3Q2fnOyFVpsuPP82A==",
            &format!("AQE={}", "AQEB".repeat(10)),
            &"+f".repeat(32),
            &"0".repeat(64),
            &"ä".repeat(32),
        ] {
            assert_eq!(digest(odd), None, "{odd}");
        }
    }

    #[test]
    fn budgets_that_are_used_up_make_a_pause() {
        let pause = |headers: &[(&'static str, &'static str)]| {
            usage_pause(&answer(200, headers, "").headers)
        };
        let account = "x-business-use-case-usage";
        let used =
            r#"{"1":[{"type":"whatsapp","call_count":100,"estimated_time_to_regain_access":12}]}"#;
        assert_eq!(pause(&[(account, used)]), Some(Duration::from_secs(720)));
        for odd in ["61", "1e300", "1.7976931348623157e308"] {
            let used = format!(
                r#"{{"1":[{{"call_count":100,"estimated_time_to_regain_access":{odd}}}]}}"#
            );
            assert_eq!(
                pause(&[(account, used.leak())]),
                Some(LONGEST_WAIT),
                "{odd}"
            );
        }
        let app = "x-app-usage";
        assert_eq!(
            pause(&[(app, r#"{"call_count":101}"#)]),
            Some(EXHAUSTED_PAUSE)
        );
        assert_eq!(pause(&[(app, r#"{"total_time":85}"#)]), Some(SLOW_PAUSE));
        assert_eq!(pause(&[(app, r#"{"call_count":80}"#)]), None);
        assert_eq!(pause(&[(app, "nonsense"), (account, "[]")]), None);
    }
}
