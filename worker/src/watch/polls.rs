//! What is asked now and then: which numbers are silent, and at the Graph API each account's token and
//! subscription.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use shared::keys::Keys;
use shared::redis::Connection;
use shared::secrets::Rotating;
use tokio::time::Instant;
use url::Url;

use crate::ask::graph::{Graph, GraphCall, GraphError, SubscribedApp, Subscription};
use crate::ask::neighbour::Trace;
use crate::ask::tenants::tokens::Tokens;
use crate::ask::tenants::{Directory, Tenants};
use crate::item::event::health::HealthKind;
use crate::item::health::HealthNote;
use crate::item::traffic;
use crate::read::gate::TransferPace;

/// Accounts that are asked for, those seen last first, and how many side by side.
const MOST_ACCOUNTS: usize = 500;
const AT_ONCE: usize = 4;
/// Accounts of one look: it must end before the turn does.
const A_LOOK: usize = 16;

/// How often is asked, and how.
pub(super) struct Polls {
    pub(super) connection: Connection,
    pub(super) keys: Keys,
    pub(super) tenants: Arc<Tenants>,
    pub(super) graph: Arc<Graph>,
    /// The file of tenants, if there is one.
    pub(super) directory: Option<Arc<Rotating<Directory>>>,
    pub(super) interval: Duration,
    /// The deployment's webhook; an override to another one is told if it is known.
    pub(super) callback_url: Option<Url>,
    pub(super) last: Option<Instant>,
    /// Accounts that are still to be asked for.
    pub(super) due: Vec<String>,
}

impl Polls {
    /// The next look asks at once.
    pub(super) fn begin_anew(&mut self) {
        self.last = None;
        self.due.clear();
    }

    /// What is seen, unless it was looked for a short time ago. `known`: what isn't well.
    pub(super) async fn look(&mut self, known: &[HealthNote]) -> Vec<HealthNote> {
        let now_ms = traffic::now_ms();
        let over = known.iter().filter(|it| ended(it, now_ms));
        let mut seen: Vec<_> = over.map(|it| turned(it, "lifted", now_ms)).collect();
        if self.interval.is_zero() {
            return seen;
        }
        let is_time = self.last.is_none_or(|last| last.elapsed() >= self.interval);
        if is_time && self.due.is_empty() {
            self.last = Some(Instant::now());
            seen.extend(self.begin(known, now_ms).await);
        }
        let some = self.due.len().saturating_sub(A_LOOK);
        let accounts = self.due.split_off(some);
        for some in accounts.chunks(AT_ONCE) {
            let mut asked = Vec::new();
            for account in some {
                asked.push(self.account(account, now_ms));
            }
            seen.extend(join_all(asked).await.into_iter().flatten());
        }
        seen
    }

    /// Looks for silence, and lists the accounts to ask for.
    async fn begin(&mut self, known: &[HealthNote], now_ms: i64) -> Vec<HealthNote> {
        match self.accounts().await {
            Ok(accounts) => self.due = accounts,
            Err(error) => {
                tracing::debug!(%error, "redis command failed: accounts are not looked at")
            }
        }
        match self.silence(known, now_ms).await {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "redis command failed: silence is not looked for");
                Vec::new()
            }
        }
    }

    async fn silence(
        &self,
        known: &[HealthNote],
        now_ms: i64,
    ) -> redis::RedisResult<Vec<HealthNote>> {
        let numbers = traffic::read(&self.connection, &self.keys).await?;
        let hour = traffic::this_hour();
        let silent = numbers.iter().filter_map(|(account, number, hours)| {
            let quiet = hours.silent(hour)?;
            Some(HealthNote {
                kind: HealthKind::Silence,
                account: account.clone(),
                subject: Some(number.clone()),
                state: "silent".to_owned(),
                detail: Some(format!("nothing for {quiet} hours")),
                at_ms: now_ms,
                until: None,
            })
        });
        let mut seen: Vec<_> = silent.collect();
        let silent: HashSet<String> = seen.iter().map(HealthNote::key).collect();
        // A number that is silent for days is so no more once that is usual: only traffic brings it back.
        let with_traffic = numbers.iter().filter(|(.., hours)| hours.quiet(hour) <= 1);
        let with_traffic: HashSet<_> = with_traffic.map(|(a, n, _)| (&**a, &**n)).collect();
        let back = known.iter().filter(|it| {
            let of = (&*it.account, it.subject.as_deref().unwrap_or_default());
            it.kind == HealthKind::Silence
                && !silent.contains(&it.key())
                && with_traffic.contains(&of)
        });
        seen.extend(back.map(|it| turned(it, "back", now_ms)));
        Ok(seen)
    }

    async fn accounts(&self) -> redis::RedisResult<Vec<String>> {
        if let Some(file) = &self.directory {
            let file = file.current();
            let accounts = file.limits().map(|(account, _)| account.to_owned());
            return Ok(accounts.take(MOST_ACCOUNTS).collect());
        }
        let mut range = redis::cmd("ZREVRANGE");
        range.arg(self.keys.tenants_seen()).arg(0);
        range.arg(MOST_ACCOUNTS - 1);
        range.query_async(&mut self.connection.clone()).await
    }

    /// An account's token and subscription; nothing where they can't be seen.
    async fn account(&self, account: &str, now_ms: i64) -> Vec<HealthNote> {
        let Some(token) = Tokens::new(self.tenants.clone()).get(account).await else {
            return Vec::new();
        };
        let call = GraphCall {
            token: &token,
            waba_id: account,
            phone_number_id: None,
            pace: TransferPace::Inbound,
            trace: Trace::default(),
        };
        let note = |kind, state: &str, detail| HealthNote {
            kind,
            account: account.to_owned(),
            subject: None,
            state: state.to_owned(),
            detail,
            at_ms: now_ms,
            until: None,
        };
        match self.graph.subscriptions(call).await {
            Ok(apps) => {
                let own = self.graph.app(call).await.ok();
                let (state, detail) = subscription(&apps, own, self.callback_url.as_ref());
                vec![
                    note(HealthKind::Token, "accepted", None),
                    note(HealthKind::Subscription, state, detail),
                ]
            }
            Err(GraphError::Token) => vec![note(HealthKind::Token, "refused", None)],
            Err(_) => Vec::new(),
        }
    }
}

fn ended(note: &HealthNote, now_ms: i64) -> bool {
    let over = note.until.is_some_and(|until| until <= now_ms / 1000);
    over && !note.is_well()
}

/// The same thing in another state.
fn turned(note: &HealthNote, state: &str, now_ms: i64) -> HealthNote {
    HealthNote {
        state: state.to_owned(),
        detail: None,
        at_ms: now_ms,
        until: None,
        ..note.clone()
    }
}

/// What the apps mean that an account is subscribed by. `own`: the one that its token is of.
fn subscription(
    apps: &[Subscription],
    own: Option<SubscribedApp>,
    callback_url: Option<&Url>,
) -> (&'static str, Option<String>) {
    let is_own = |it: &&Subscription| own.as_ref().is_none_or(|own| own.id == it.app.id);
    let Some(ours) = apps.iter().find(is_own) else {
        return ("unsubscribed", None);
    };
    let elsewhere = ours.override_callback_uri.as_deref();
    let elsewhere = elsewhere.and_then(|uri| Url::parse(uri).ok());
    match (elsewhere, callback_url) {
        (Some(elsewhere), Some(here)) if elsewhere != *here => {
            // Without what may be secret in it.
            let origin = elsewhere.origin().ascii_serialization();
            ("overridden", Some(format!("{origin}{}", elsewhere.path())))
        }
        _ => ("subscribed", None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(id: &str, elsewhere: Option<&str>) -> Subscription {
        Subscription {
            app: SubscribedApp {
                id: id.to_owned(),
                name: String::new(),
            },
            override_callback_uri: elsewhere.map(str::to_owned),
        }
    }

    #[test]
    fn an_override_to_another_address_than_ours_is_told() {
        let here: Url = "https://example.com/webhook/meta".parse().expect("a URL");
        let own = || Some(app("1", None).app);
        let of = |apps: &[Subscription], url| subscription(apps, own(), url).0;
        let elsewhere = [app("1", Some("https://other.example/x?secret=1"))];
        assert_eq!(of(&[], None), "unsubscribed");
        assert_eq!(of(&[app("2", None)], None), "unsubscribed");
        assert_eq!(
            of(&[app("2", None), app("1", None)], Some(&here)),
            "subscribed"
        );
        assert_eq!(of(&elsewhere, None), "subscribed");
        assert_eq!(
            of(&[app("1", Some(here.as_str()))], Some(&here)),
            "subscribed"
        );
        let (state, detail) = subscription(&elsewhere, own(), Some(&here));
        assert_eq!(
            (state, detail.as_deref()),
            ("overridden", Some("https://other.example/x"))
        );
    }
}
