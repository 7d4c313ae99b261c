//! Takes a body apart into deliveries, one per business account, with the identity of each item.
//!
//! Everyday bodies (messages and statuses of one account) go through simd-json's tape; whatever
//! isn't everyday goes through [`shared::webhook::read`], whose result the fast path must equal.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use shared::intake::Delivery;
use shared::webhook::{
    self, Identity, IdentityParts, NO_WABA, OBJECT, Place, UnreadableBody, identity,
};
use simd_json::Buffers;
use simd_json::prelude::*;
use simd_json::tape::{Array, Object};

/// The deliveries of a body: one per account, in the order in which the accounts first stand in it.
///
/// # Errors
/// [`UnreadableBody`] as [`shared::webhook::read`] has it.
pub fn deliveries(body: &Bytes) -> Result<Vec<Delivery>, UnreadableBody> {
    match everyday(body) {
        Some(delivery) => Ok(vec![delivery]),
        None => by_account(body),
    }
}

/// The delivery that keeps a body which can't be read.
pub fn unreadable(body: &Bytes, reason: &UnreadableBody) -> Delivery {
    Delivery {
        unreadable: Some(reason.to_string()),
        ..without_items(NO_WABA, body.clone())
    }
}

fn without_items(waba_id: &str, body: Bytes) -> Delivery {
    Delivery {
        waba_id: waba_id.to_owned(),
        identities: vec![Identity::of_body(&body)],
        body,
        whole_body: true,
        unreadable: None,
        apart: Duration::ZERO,
    }
}

fn by_account(body: &Bytes) -> Result<Vec<Delivery>, UnreadableBody> {
    let webhook = webhook::read(body)?;
    let mut accounts: Vec<(&str, Vec<&webhook::WebhookEntry<'_>>)> = Vec::new();
    for entry in &webhook.entries {
        match accounts.iter_mut().find(|(id, _)| *id == entry.waba_id) {
            Some((_, entries)) => entries.push(entry),
            None => accounts.push((&entry.waba_id, vec![entry])),
        }
    }
    let [] = accounts[..] else {
        let alone = accounts.len() == 1;
        let apart = apart(&accounts);
        return Ok(accounts
            .into_iter()
            .zip(apart)
            .map(|((waba_id, entries), apart)| {
                let body = if alone {
                    body.clone()
                } else {
                    body_of(&entries)
                };
                let identities: Vec<_> = entries
                    .iter()
                    .flat_map(|entry| entry.items.iter().map(|item| item.identity))
                    .collect();
                if identities.is_empty() {
                    without_items(waba_id, body)
                } else {
                    Delivery {
                        waba_id: waba_id.to_owned(),
                        body,
                        identities,
                        whole_body: false,
                        unreadable: None,
                        apart,
                    }
                }
            })
            .collect());
    };
    Ok(vec![without_items(NO_WABA, body.clone())])
}

/// Of each account how much later it counts as received: those that have a message id of an account
/// before them one millisecond more each.
fn apart(accounts: &[(&str, Vec<&webhook::WebhookEntry<'_>>)]) -> Vec<Duration> {
    let mut met: HashSet<&str> = HashSet::new();
    let mut apart = Duration::ZERO;
    let mut all = Vec::new();
    for (_, entries) in accounts {
        let items = entries.iter().flat_map(|entry| &entry.items);
        let ids: HashSet<&str> = items.filter_map(|item| item.id.as_deref()).collect();
        if accounts.len() > 1 && !met.is_disjoint(&ids) {
            apart += Duration::from_millis(1);
        }
        met.extend(ids);
        all.push(apart);
    }
    all
}

/// A body of one account out of a mixed one. Each entry's bytes are untouched, unless it names several
/// accounts itself.
fn body_of(entries: &[&webhook::WebhookEntry<'_>]) -> Bytes {
    let entries: Vec<_> = entries.iter().map(|entry| entry.json()).collect();
    format!(r#"{{"object":"{OBJECT}","entry":[{}]}}"#, entries.join(",")).into()
}

thread_local! {
    /// What simd-json works with: made anew, it would be cleared for each body.
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}
/// Bytes of the largest body that is parsed with them: they grow to several times its size, and stay.
const LARGEST_FOR_BUFFERS: usize = 64 * 1024;

/// The delivery of an everyday body, or `None` for any other.
fn everyday(body: &Bytes) -> Option<Delivery> {
    let mut scratch = body.to_vec();
    let tape = if scratch.len() > LARGEST_FOR_BUFFERS {
        simd_json::to_tape(&mut scratch)
    } else {
        BUFFERS.with_borrow_mut(|kept| simd_json::to_tape_with_buffers(&mut scratch, kept))
    };
    let tape = tape.ok()?;
    let top = tape.as_value().as_object()?;
    let (mut object, mut entries) = (None, None);
    for (name, value) in &top {
        match name {
            "object" => object = Some(value),
            "entry" => entries = Some(value),
            _ => {}
        }
    }
    if object?.as_str()? != OBJECT {
        return None;
    }
    let entries = entries?.as_array()?;
    if entries.len() > webhook::MOST_ENTRIES {
        return None;
    }
    let mut waba_id = None;
    let mut identities = Vec::new();
    for entry in &entries {
        let id = read_entry(&entry.as_object()?, &mut identities)?;
        if *waba_id.get_or_insert(id) != id {
            return None;
        }
    }
    (!identities.is_empty()).then_some(())?;
    Some(Delivery {
        waba_id: waba_id?.to_owned(),
        body: body.clone(),
        identities,
        whole_body: false,
        unreadable: None,
        apart: Duration::ZERO,
    })
}

fn read_entry<'i>(entry: &Object<'_, 'i>, identities: &mut Vec<Identity>) -> Option<&'i str> {
    let (mut id, mut changes) = (None, None);
    for (name, value) in entry {
        match name {
            "id" => id = Some(value),
            "changes" => changes = Some(value),
            _ => {}
        }
    }
    let id = id?.into_string().filter(|id: &&str| !id.is_empty())?;
    let before = identities.len();
    for change in &changes?.as_array()? {
        let (mut field, mut value) = (None, None);
        for (name, member) in &change.as_object()? {
            match name {
                "field" => field = Some(member),
                "value" => value = Some(member),
                _ => {}
            }
        }
        if field?.as_str()? != "messages" {
            return None;
        }
        read_value(&value?.as_object()?, identities)?;
    }
    (identities.len() > before).then_some(id)
}

fn read_value(value: &Object<'_, '_>, identities: &mut Vec<Identity>) -> Option<()> {
    let (mut metadata, mut messages, mut statuses) = (None, None, None);
    for (name, member) in value {
        match name {
            "metadata" => metadata = Some(member),
            "messages" => messages = Some(member),
            "statuses" => statuses = Some(member),
            "contacts" | "messaging_product" | "errors" | "conversation_context" => {}
            _ => return None,
        }
    }
    let mut number = None;
    for (name, member) in &metadata?.as_object()? {
        if name == "phone_number_id" {
            number = Some(member);
        }
    }
    let number = number?.into_string()?;
    let before = identities.len();
    if let Some(messages) = messages {
        read_items(Place::Message, &messages.as_array()?, number, identities)?;
    }
    if let Some(statuses) = statuses {
        read_items(Place::Status, &statuses.as_array()?, number, identities)?;
    }
    (identities.len() > before).then_some(())
}

fn read_items(
    place: Place,
    items: &Array<'_, '_>,
    number: &str,
    identities: &mut Vec<Identity>,
) -> Option<()> {
    for item in items {
        let (mut id, mut status, mut participants) = (None, None, [None; 3]);
        for (name, member) in &item.as_object()? {
            let text = member.into_string();
            match (name, place) {
                ("id", _) => id = text,
                // A status with a type is a payment or a call.
                ("type", Place::Status) => return None,
                ("status", Place::Status) => status = text,
                ("recipient_participant_id", Place::Status) => participants[0] = text,
                ("participant_recipient_id", Place::Status) => participants[1] = text,
                ("recipient_participant_user_id", Place::Status) => participants[2] = text,
                _ => {}
            }
        }
        let parts = IdentityParts {
            id: Some(Cow::Borrowed(id.filter(|id: &&str| !id.is_empty())?)),
            status: status.map(Cow::Borrowed),
            participant: (participants.into_iter().flatten())
                .find(|it| !it.is_empty())
                .map(Cow::Borrowed),
            event: None,
            has_type: false,
        };
        if (place == Place::Status && parts.status.is_none())
            || identities.len() == webhook::MOST_ITEMS
        {
            return None;
        }
        identities.push(identity(place, "messages", number, &parts, b"", b""));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = r#"{"object":"whatsapp_business_account","entry":[{"id":"7","changes":[{"value":{
        "messaging_product":"whatsapp","metadata":{"display_phone_number":"1","phone_number_id":"n"},
        "messages":[{"from":"2","id":"a\/b","timestamp":"1","type":"text","text":{"body":"x"}}],
        "statuses":[{"id":"s","status":"sent","recipient_participant_id":"p"},{"id":"s","status":"sent"}]
        },"field":"messages"}]}]}"#;

    #[test]
    fn the_fast_walk_finds_what_the_plain_one_finds() {
        let body = Bytes::from_static(TEXT.as_bytes());
        let fast = everyday(&body).expect("an everyday body");
        let plain = by_account(&body).expect("a readable body");
        assert_eq!(fast.identities, plain[0].identities);
        assert_eq!(fast.identities.len(), 3);
        assert_eq!(fast.waba_id, plain[0].waba_id);
    }

    #[test]
    fn a_body_is_read_alike_whatever_the_buffers_were_used_for_before() {
        let body = Bytes::from_static(TEXT.as_bytes());
        let first = everyday(&body).expect("an everyday body");
        for end in 0..body.len() {
            assert_eq!(everyday(&body.slice(..end)), None, "{end}");
            assert_eq!(everyday(&body), Some(first.clone()), "{end}");
        }
    }

    #[test]
    fn a_mixed_body_is_split_with_each_entry_untouched() {
        let body = Bytes::from_static(
            br#"{"object":"whatsapp_business_account","entry":[{ "id":"1","changes":[] },{"id":"2"},{"id":"1","x":1.0}]}"#,
        );
        let deliveries = deliveries(&body).expect("a readable body");
        let bodies: Vec<_> = deliveries
            .iter()
            .map(|d| (&*d.waba_id, &d.body[..]))
            .collect();
        assert_eq!(
            bodies,
            [
                ("1", &br#"{"object":"whatsapp_business_account","entry":[{ "id":"1","changes":[] },{"id":"1","x":1.0}]}"#[..]),
                ("2", &br#"{"object":"whatsapp_business_account","entry":[{"id":"2"}]}"#[..]),
            ]
        );
    }

    /// Receipts of a group have one id: whoever withholds the phone is known by another id.
    #[test]
    fn receipts_of_a_group_are_told_apart_by_whatever_names_the_member() {
        let status = |member: &str| format!(r#"{{"id":"s","status":"read",{member}}}"#);
        let statuses = [
            status(r#""recipient_participant_id":"","recipient_participant_user_id":"1""#),
            status(r#""recipient_participant_id":"","recipient_participant_user_id":"2""#),
            status(r#""participant_recipient_id":"3""#),
        ];
        let body = Bytes::from(format!(
            r#"{{"object":"{OBJECT}","entry":[{{"id":"7","changes":[{{"field":"messages","value":{{"metadata":{{"phone_number_id":"n"}},"statuses":[{}]}}}}]}}]}}"#,
            statuses.join(",")
        ));
        let fast = everyday(&body).expect("an everyday body");
        let different: HashSet<_> = fast.identities.iter().map(|it| format!("{it:?}")).collect();
        assert_eq!(different.len(), 3);
        assert_same(&body);
    }

    /// A portfolio's changes may be of several of its accounts; one that names none is the portfolio's.
    #[test]
    fn an_entry_that_names_several_accounts_is_a_delivery_of_each() {
        let change = |of: &str, n: u8| {
            format!(r#"{{"field":"account_update","value":{{{of}"event":"E{n}"}}}}"#)
        };
        let info = |id: &str| format!(r#""waba_info":{{"waba_id":"{id}"}},"#);
        let [a1, b2, none3, a4] = [
            change(&info("a"), 1),
            change(&info("b"), 2),
            change("", 3),
            change(&info("a"), 4),
        ];
        let body_of = |beside: &str, changes: &str| {
            format!(
                r#"{{"object":"{OBJECT}","entry":[{{"id":"p","time":1,{beside}"changes":[{changes}]}}]}}"#
            )
        };
        // What tells nothing, and what is unknown, stays with the first.
        let (unknown, silent) = (r#""x\"y":2,"#, r#"{"field":"messages"}"#);
        let body = Bytes::from(body_of(
            unknown,
            &format!("{silent},{a1},{b2},{none3},{a4}"),
        ));
        let found = deliveries(&body).expect("a readable body");
        let found: Vec<_> = found
            .iter()
            .map(|it| (&*it.waba_id, String::from_utf8_lossy(&it.body)))
            .collect();
        let wanted = [
            ("p", body_of(unknown, &format!("{silent},{none3}"))),
            ("a", body_of("", &format!("{a1},{a4}"))),
            ("b", body_of("", &b2)),
        ];
        let wanted = wanted.map(|(id, body)| (id, body.into()));
        assert_eq!(found, wanted);
        assert_same(&body);
    }

    /// However many accounts an element names, its bytes are stored about once.
    #[test]
    fn an_entry_of_many_accounts_is_not_copied_for_each() {
        let of = |accounts: usize, beside: &str| {
            let changes = (0..accounts).map(|n| {
                format!(
                    r#"{{"field":"account_update","value":{{"waba_info":{{"waba_id":"{n}"}}}}}}"#
                )
            });
            let changes = changes.collect::<Vec<_>>().join(",");
            Bytes::from(format!(
                r#"{{"object":"{OBJECT}","entry":[{{{beside}"changes":[{changes}]}}]}}"#
            ))
        };
        let long = "x".repeat(100_000);
        let body = of(100, &format!(r#""news":"{long}","#));
        let stored = deliveries(&body).expect("a readable body");
        let bytes: usize = stored.iter().map(|it| it.body.len()).sum();
        assert_eq!(stored.len(), 100);
        assert!(bytes < 2 * body.len(), "{bytes} of {}", body.len());
        assert_same(&body);
        for more in [of(101, ""), of(2, &format!(r#""id":"{long}","#))] {
            assert_eq!(deliveries(&more), Err(UnreadableBody::TooMany));
        }
    }

    #[test]
    fn both_walks_refuse_more_entries_than_may_be() {
        let entry = r#"{"id":"7","changes":[{"field":"messages","value":{"metadata":{"phone_number_id":"n"},"messages":[{"id":"a"}]}}]}"#;
        let of = |count| {
            let entries = vec![entry; count].join(",");
            Bytes::from(format!(r#"{{"object":"{OBJECT}","entry":[{entries}]}}"#))
        };
        let most = of(webhook::MOST_ENTRIES);
        let plain = by_account(&most).expect("a readable body");
        assert_eq!(everyday(&most).expect("an everyday body"), plain[0]);
        let more = of(webhook::MOST_ENTRIES + 1);
        assert!(everyday(&more).is_none());
        assert_eq!(by_account(&more), Err(UnreadableBody::TooMany));
    }

    #[test]
    fn as_many_items_as_may_be_are_read_and_one_more_is_too_many() {
        let of = |count| {
            let items = vec![r#"{"id":"a"}"#; count].join(",");
            Bytes::from(format!(
                r#"{{"object":"{OBJECT}","entry":[{{"id":"7","changes":[{{"field":"messages","value":{{"metadata":{{"phone_number_id":"n"}},"messages":[{items}]}}}}]}}]}}"#
            ))
        };
        let most = of(webhook::MOST_ITEMS);
        let fast = everyday(&most).expect("an everyday body");
        let plain = by_account(&most).expect("a readable body");
        assert_eq!(fast.identities.len(), webhook::MOST_ITEMS);
        assert_eq!(fast.identities, plain[0].identities);
        let more = of(webhook::MOST_ITEMS + 1);
        assert!(everyday(&more).is_none());
        assert_eq!(by_account(&more), Err(UnreadableBody::TooMany));
    }

    /// What a body says beside its entries is its only account's, or nobody's, and is not split.
    #[test]
    fn a_body_that_says_something_itself_is_one_delivery() {
        for (entries, waba_id) in [
            ("", "0"),
            (r#"{"id":"1"}"#, "1"),
            (r#"{"id":"1"},{"id":"1","changes":[]}"#, "1"),
            (r#"{"id":"1"},{"id":"2"}"#, "0"),
        ] {
            let body = Bytes::from(format!(
                r#"{{"object":"{OBJECT}","entry":[{entries}],"changes":[{{"field":"messages"}}]}}"#
            ));
            let found = deliveries(&body).expect("a readable body");
            assert_eq!(found.len(), 1, "{body:?}");
            assert_eq!(found[0].waba_id, waba_id);
            assert_eq!(found[0].body, body);
            assert!(!found[0].whole_body);
            assert_same(&body);
        }
    }

    /// JSON of a member that may be odd: the value itself, escaped, of another type, twice, or gone.
    fn member(name: &'static str, value: &'static str) -> impl Strategy<Value = String> {
        prop_oneof![
            8 => Just(format!(r#""{name}":"{value}","#)),
            1 => Just(format!(r#""{name}":"\u0061\/{value}","#)),
            1 => Just(format!(r#""{name}":"x","{name}":"{value}","#)),
            1 => Just(format!(r#""{name}":7,"#)),
            1 => Just(format!(r#""{name}":null,"#)),
            1 => Just(format!(r#""{name}":"","#)),
            1 => Just(String::new()),
        ]
    }

    fn item() -> impl Strategy<Value = String> {
        let members = (
            prop_oneof![member("id", "a"), member("id", "b"), member("id", "c")],
            prop_oneof![Just(String::new()), member("type", "text")],
            prop_oneof![
                member("status", "sent"),
                member("status", "read"),
                Just(String::new())
            ],
            prop_oneof![Just(String::new()), member("recipient_participant_id", "p")],
            prop_oneof![
                Just(String::new()),
                member("recipient_participant_user_id", "q")
            ],
        );
        let object = members.prop_map(|(id, kind, status, one, two)| {
            format!(r#"{{{id}{kind}{status}{one}{two}"timestamp":"1"}}"#)
        });
        prop_oneof![20 => object, 1 => Just("5".to_owned()), 1 => Just("{}".to_owned())]
    }

    fn value() -> impl Strategy<Value = String> {
        let list = |name: &'static str| {
            prop::collection::vec(item(), 0..4).prop_map(move |items| match items.len() {
                0 => String::new(),
                _ => format!(r#""{name}":[{}],"#, items.join(",")),
            })
        };
        let odd = prop_oneof![
            6 => Just(""),
            1 => Just(r#""user_actions":[{}],"#),
            1 => Just(r#""errors":[{"code":1}],"#),
            1 => Just(r#""waba_info":{"waba_id":"9"},"#),
            1 => Just(r#""messages":null,"#),
        ];
        (
            list("messages"),
            list("statuses"),
            odd,
            member("phone_number_id", "n"),
        )
            .prop_map(|(messages, statuses, odd, number)| {
                format!(r#"{{{messages}{statuses}{odd}"metadata":{{{number}"x":1}}}}"#)
            })
    }

    /// What one walk makes of a body, the other makes of it too: both refuse it, or both find the same
    /// accounts and items.
    ///
    /// The worker reads what is stored: it must find in a delivery what ingress has marked.
    fn assert_same(body: &Bytes) {
        let plain = by_account(body);
        for delivery in plain.iter().flatten().filter(|it| !it.whole_body) {
            let read_again = webhook::read(&delivery.body).expect("what ingress reads");
            let items = read_again.entries.iter().flat_map(|entry| &entry.items);
            let identities: Vec<_> = items.map(|item| item.identity).collect();
            assert_eq!(identities, delivery.identities, "{body:?}");
            let account = &delivery.waba_id;
            assert!(
                read_again
                    .entries
                    .iter()
                    .all(|entry| entry.waba_id == *account),
                "{body:?}"
            );
        }
        if let Some(fast) = everyday(body) {
            let plain = plain.expect("what the fast walk reads");
            assert_eq!(plain.len(), 1, "{body:?}");
            assert_eq!(fast.identities, plain[0].identities, "{body:?}");
            assert_eq!(fast.waba_id, plain[0].waba_id, "{body:?}");
            assert_eq!(fast.whole_body, plain[0].whole_body, "{body:?}");
        }
    }

    /// Payloads beside the checkout, where there are any: each is read alike by both walks.
    #[test]
    fn both_walks_read_a_corpus_alike() {
        let Some(bodies) = ::tests::corpus::payloads("both_walks_read_a_corpus_alike") else {
            return;
        };
        let all = bodies.len();
        let mut everyday_ones = 0;
        for (_, body) in bodies {
            let body = Bytes::from(body);
            assert_same(&body);
            everyday_ones += usize::from(everyday(&body).is_some());
        }
        // Most traffic is what the fast walk is for.
        assert!(everyday_ones * 3 > all, "{everyday_ones} of {all}");
    }

    /// What may stand where a value stood.
    fn odd_value() -> impl Strategy<Value = String> {
        prop_oneof![
            Just(r#""\ud83d""#.to_owned()),
            Just(r#""a\u0000\/\u00e9\ud83d\ude00""#.to_owned()),
            Just("\"\u{1f600}\"".to_owned()),
            Just("1e400".to_owned()),
            Just("123456789012345678901234567890".to_owned()),
            Just("-0.0".to_owned()),
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("{}".to_owned()),
            Just(r#"{"id":"x","id":"y"}"#.to_owned()),
            (1..300_usize).prop_map(|depth| "[".repeat(depth) + &"]".repeat(depth)),
            (1..300_usize).prop_map(|depth| r#"{"a":"#.repeat(depth) + "1" + &"}".repeat(depth)),
        ]
    }

    proptest! {
        // Odd members are rare, and two that must meet rarer.
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// Any value of a body replaced by an odd one, and any byte by another.
        #[test]
        fn both_walks_read_a_mutated_body_alike(
            at in any::<prop::sample::Index>(),
            odd in odd_value(),
            bytes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ) {
            let ends = |c: char| matches!(c, ',' | '}' | ']');
            let starts: Vec<_> = TEXT.match_indices(':').map(|(at, _)| at + 1).collect();
            let start = starts[at.index(starts.len())];
            // Of an object or array only its start, so that the rest is out of shape.
            let (before, value) = TEXT.split_at(start);
            let (_, after) = value.split_at(value.find(ends).expect("an end"));
            let mut body = format!("{before}{odd}{after}").into_bytes();
            assert_same(&Bytes::from(body.clone()));
            for (at, byte) in bytes {
                let at = at.index(body.len());
                body[at] = byte;
            }
            assert_same(&Bytes::from(body));
        }

        /// Ingress numbers the items by the fast walk, the worker by the plain one.
        #[test]
        fn both_walks_find_the_same_items(
            entries in prop::collection::vec(
                (prop::collection::vec((value(), member("field", "messages")), 0..4), member("id", "1")),
                1..3,
            ),
            beside in prop::sample::select(vec![
                "", r#""news":1,"#, r#""time":2,"#, r#""field":"messages","value":{"messages":[{"id":"a"}]},"#,
            ]),
            of_body in prop::sample::select(vec![
                "", r#""news":1,"#, r#""id":"9","#, r#""changes":5,"#,
                r#""changes":[{"field":"messages","value":{"messages":[{"id":"a"},{"id":"b"}]}}],"#,
            ]),
        ) {
            let entries = entries.iter().map(|(values, waba_id)| {
                let changes = values
                    .iter()
                    .map(|(value, field)| format!(r#"{{{beside}{field}"value":{value}}}"#));
                let changes = changes.collect::<Vec<_>>().join(",");
                // An entry with a value of its own has no `changes`, rather than an empty list.
                let changes = match changes.is_empty() && beside.contains("value") {
                    true => String::new(),
                    false => format!(r#""changes":[{changes}],"#),
                };
                format!(r#"{{{beside}{waba_id}{changes}"uid":1}}"#)
            });
            let entries = entries.collect::<Vec<_>>().join(",");
            let body =
                Bytes::from(format!(r#"{{{of_body}"object":"{OBJECT}","entry":[{entries}]}}"#));
            assert_same(&body);
        }
    }
}
