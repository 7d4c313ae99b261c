//! What of a payload is about a customer, and what is left of it without that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use bytes::Bytes;
use shared::entry::{StreamEntry, format_numbers, parse_numbers};
use shared::webhook::{Json, all_members, elements, members, scalar};

use super::ids::reduced;
use crate::item::customer::Customer;
use crate::item::event::media::media_kind;
use crate::item::payload::{Payload, PayloadItem};
use crate::out::store;

/// Nothing of a webhook lies deeper.
const DEEPEST: usize = 12;
/// Members that name a person where they stand in an element of a list.
const NAMING: [&str; 24] = [
    "from",
    "from_user_id",
    "from_parent_user_id",
    "to",
    "to_user_id",
    "to_parent_user_id",
    "recipient",
    "recipient_id",
    "recipient_user_id",
    "recipient_parent_user_id",
    "parent_recipient_user_id",
    "recipient_participant_id",
    "participant_recipient_id",
    "recipient_participant_user_id",
    "recipient_participant_parent_user_id",
    "wa_id",
    "new_wa_id",
    "customer",
    "user_id",
    "parent_user_id",
    "previous_user_id",
    "previous_parent_user_id",
    "input",
    "phone_number",
];
/// Those of them that name one person together where they stand in one object.
const OF_ONE: [&str; 8] = [
    "wa_id",
    "new_wa_id",
    "user_id",
    "parent_user_id",
    "previous_user_id",
    "previous_parent_user_id",
    "phone_number",
    "customer",
];
/// Where ids stand one level down: of a change, of what an echo wraps, of who changed their number, of
/// an entry of the address book.
const WITHIN: [&str; 4] = ["value", "message", "system", "contact"];

/// A payload without a customer.
pub(super) enum ClearedPayload {
    Untouched,
    Unreadable,
    Cut {
        gone: Vec<ErasedMedia>,
        /// Other ids of the same customer.
        other_ids: BTreeSet<String>,
        /// `None`: nobody else's item is left.
        rest: Option<RemainingPayload>,
    },
}

/// A message or call with a file that goes.
pub(super) struct ErasedMedia {
    pub id: String,
    pub kind: &'static str,
}

/// What is left of a payload.
pub(super) struct RemainingPayload {
    pub body: Vec<u8>,
    /// As the attribute `items` has them.
    pub items: String,
    /// What its object was called, and is to be called.
    names: [String; 2],
}

pub(super) fn clear(
    body: &[u8],
    described: &BTreeMap<String, String>,
    customer: &str,
) -> ClearedPayload {
    let Some(payload) = open(body) else {
        let text = String::from_utf8_lossy(body);
        return if text.contains(customer) {
            ClearedPayload::Unreadable
        } else {
            ClearedPayload::Untouched
        };
    };
    let cuts = cuts(body, customer);
    if cuts.is_empty() {
        return ClearedPayload::Untouched;
    }
    let is_cut = |item: &&PayloadItem| is_cut(&payload, item, &cuts);
    let cut: Vec<_> = payload.items.iter().filter(is_cut).collect();
    let gone = cut.iter().filter_map(|item| {
        let kind = media_kind(&payload, item)?.name();
        let id = item.id.clone()?;
        Some(ErasedMedia { id, kind })
    });
    let rest = rest(&payload, described, &cuts, |item| !is_cut(&item));
    ClearedPayload::Cut {
        gone: gone.collect(),
        other_ids: other_ids(&payload, &cut, &cuts, customer),
        rest,
    }
}

/// The items of a payload that are a customer's; `None`: nothing in it is about them.
pub(in crate::operator) fn items_of<'p>(
    payload: &'p Payload,
    customer: &str,
) -> Option<Vec<&'p PayloadItem>> {
    let cuts = cuts(&payload.entry.body, customer);
    let items = payload.items.iter();
    let theirs = items.filter(|item| is_cut(payload, item, &cuts)).collect();
    (!cuts.is_empty()).then_some(theirs)
}

fn is_cut(payload: &Payload, item: &PayloadItem, cuts: &[Range<usize>]) -> bool {
    let at = payload.raw(item).range(&payload.entry.body);
    let mut cuts = cuts.iter();
    cuts.any(|cut| cut.start <= at.start && at.end <= cut.end)
}

/// Other ids of the customer in what is cut.
fn other_ids(
    payload: &Payload,
    items: &[&PayloadItem],
    cuts: &[Range<usize>],
    customer: &str,
) -> BTreeSet<String> {
    let of_items = items.iter().flat_map(|item| {
        let ids = Customer::of(payload, item);
        let business = payload.change(item).display_phone_number.as_deref();
        let business = business.map(reduced);
        let ids: Vec<String> = ids.ids().map(reduced).collect();
        ids.into_iter()
            .filter(move |id| Some(id) != business.as_ref())
    });
    let elements = cuts.iter().filter_map(|cut| {
        let json = payload.entry.body.get(cut.clone())?;
        Json::parse(json)
    });
    let of_elements = elements.flat_map(|element| {
        let inner = members(element, WITHIN).unwrap_or([None; WITHIN.len()]);
        let objects = inner.into_iter().flatten().chain([element]);
        let named = objects.flat_map(|object| members(object, OF_ONE).unwrap_or_default());
        let ids = named.flatten().filter_map(scalar);
        ids.map(|id| reduced(&id)).collect::<Vec<_>>()
    });
    let all = of_items.chain(of_elements);
    all.filter(|id| id != customer && !id.is_empty()).collect()
}

fn rest(
    payload: &Payload,
    described: &BTreeMap<String, String>,
    cuts: &[Range<usize>],
    is_kept: impl Fn(&PayloadItem) -> bool,
) -> Option<RemainingPayload> {
    let body = without(&payload.entry.body, cuts);
    let left = open(&body)?;
    let listed = described.get("items").filter(|items| !items.is_empty());
    let listed = listed.and_then(|items| parse_numbers(items));
    let listed = listed.unwrap_or_else(|| (0..payload.items.len()).collect());
    let listed: Vec<&PayloadItem> = listed
        .iter()
        .filter_map(|n| payload.items.get(*n))
        .collect();
    // By identity: what stood beside cut items may count as an item of its own now.
    let numbers: HashMap<[u8; 32], usize> = left
        .items
        .iter()
        .enumerate()
        .map(|(n, item)| (item.identity.0, n))
        .collect();
    let kept = listed.iter().filter(|item| is_kept(item));
    let mut items: Vec<usize> = kept
        .filter_map(|item| numbers.get(&item.identity.0).copied())
        .collect();
    items.sort_unstable();
    let first = left.items.get(*items.first()?)?;
    let names = [
        store::item_name(payload, listed.first()?),
        store::item_name(&left, first),
    ];
    Some(RemainingPayload {
        items: format_numbers(items),
        names,
        body,
    })
}

/// The key of what is left: a message's id holds its sender's number.
pub(super) fn renamed(key: &str, rest: &RemainingPayload) -> String {
    let [old, new] = &rest.names;
    match key.strip_suffix(&format!("-{old}.json")) {
        Some(front) => format!("{front}-{new}.json"),
        None => key.to_owned(),
    }
}

fn open(body: &[u8]) -> Option<Payload> {
    let entry = StreamEntry {
        waba_id: String::new(),
        correlation_id: String::new(),
        received_at_ms: 0,
        items: 0,
        fresh: Vec::new(),
        body: Bytes::copy_from_slice(body),
        signature: String::new(),
        traceparent: String::new(),
        unreadable: None,
        returned: None,
    };
    Payload::open(entry).ok()
}

/// Elements of lists that are about a customer, in the order of the body.
pub(super) fn cuts(body: &[u8], customer: &str) -> Vec<Range<usize>> {
    let mut cuts = Vec::new();
    let changes = shared::webhook::read(body).map(|webhook| {
        let entries = webhook.entries.into_iter();
        let changes = entries.filter_map(|entry| members(entry.raw, ["changes"])?[0]);
        let mut changes = changes.collect::<Vec<_>>();
        // An element that names several accounts is an entry of each.
        changes.dedup_by_key(|changes| changes.get().as_ptr());
        changes
    });
    for changes in changes.unwrap_or_default() {
        walk(body, changes, customer, 0, &mut cuts);
    }
    cuts
}

fn walk(body: &[u8], json: Json<'_>, customer: &str, depth: usize, cuts: &mut Vec<Range<usize>>) {
    if depth > DEEPEST {
        return;
    }
    if let Some(elements) = elements(json) {
        for element in elements {
            if is_about(element, customer) {
                cuts.push(element.range(body));
            } else {
                walk(body, element, customer, depth + 1, cuts);
            }
        }
    } else if let Some(all) = all_members(json) {
        for (_, member) in all {
            walk(body, member, customer, depth + 1, cuts);
        }
    }
}

fn is_about(element: Json<'_>, customer: &str) -> bool {
    let is = |text: Json<'_>| scalar(text).is_some_and(|text| reduced(&text) == customer);
    let names = |object: Json<'_>| {
        let named = members(object, NAMING).unwrap_or([None; NAMING.len()]);
        named.into_iter().flatten().any(is)
    };
    let within = members(element, WITHIN).unwrap_or([None; WITHIN.len()]);
    // A thread of the history.
    let thread = match members(element, ["messages", "id", "context"]) {
        Some([Some(_), id, context]) => id.is_some_and(is) || context.is_some_and(names),
        Some(_) | None => false,
    };
    is(element) || thread || names(element) || within.into_iter().flatten().any(names)
}

/// The body without some elements of its lists, each with a comma beside it.
fn without(body: &[u8], cuts: &[Range<usize>]) -> Vec<u8> {
    let mut body = body.to_vec();
    for cut in cuts.iter().rev() {
        let space = |byte: &&u8| byte.is_ascii_whitespace();
        let after = cut.end + body[cut.end..].iter().take_while(space).count();
        let before = cut.start - body[..cut.start].iter().rev().take_while(space).count();
        if body.get(after) == Some(&b',') {
            body.drain(cut.start..=after);
        } else if before > 0 && body[before - 1] == b',' {
            body.drain(before - 1..cut.end);
        } else {
            body.drain(cut.clone());
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[
        {"field":"messages","value":{"metadata":{"phone_number_id":"7"},
          "contacts":[{"wa_id":"111"} , {"wa_id":"222"}],
          "messages":[{"from":"111","id":"wamid.A","type":"image"}, {"from":"222","id":"wamid.B"},
            {"from":"+111","id":"wamid.C"}],
          "statuses":[{"id":"wamid.D","recipient_id":"111","status":"sent"}]}},
        {"field":"history","value":{"history":[{"threads":[{"id":"111","messages":[{"id":"x"}]}]}]}}]}]}"#;

    fn described(items: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("items".to_owned(), items.to_owned())])
    }

    #[test]
    fn a_customers_items_are_cut_out_and_the_rest_stays_byte_for_byte() {
        let ClearedPayload::Cut { gone, rest, .. } = clear(BODY.as_bytes(), &described(""), "111")
        else {
            panic!("111 is in it");
        };
        assert_eq!(gone.len(), 1);
        assert_eq!((&*gone[0].id, gone[0].kind), ("wamid.A", "image"));
        let rest = rest.expect("222 is left");
        let text = String::from_utf8(rest.body.clone()).expect("text");
        assert!(!text.contains("111"), "{text}");
        for part in [
            r#""contacts":[ {"wa_id":"222"}]"#,
            r#""messages":[ {"from":"222","id":"wamid.B"}]"#,
            r#""statuses":[]"#,
            r#""threads":[]"#,
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
        assert_eq!(renamed("t/d/5-wamid.A.json", &rest), "t/d/5-wamid.B.json");
        assert_eq!(renamed("t/d/5-other.json", &rest), "t/d/5-other.json");
    }

    #[test]
    fn the_files_of_every_place_go_with_their_customer() {
        let body = r#"{"object":"whatsapp_business_account","entry":[{"id":"1","changes":[
            {"field":"smb_message_echoes","value":{"message_echoes":[
              {"to":"111","id":"wamid.E","type":"video","video":{"id":"1"}},
              {"to":"111","id":"wamid.F","type":"edit","edit":{"message":{"type":"image"}}}]}},
            {"field":"standby","value":{"standby":{"message_echoes":[
              {"id":"wamid.S","message":{"to":"111","type":"document","document":{"id":"2"}}}]}}},
            {"field":"calls","value":{"calls":[
              {"from":"111","id":"wacid.C","call_recording":{"audio":{"id":"3"}}}]}}]}]}"#;
        let cleared = clear(body.as_bytes(), &described(""), "111");
        let ClearedPayload::Cut { gone, .. } = cleared else {
            panic!("111 is in it");
        };
        let gone: Vec<_> = gone.iter().map(|it| (&*it.id, it.kind)).collect();
        let expected = [
            ("wamid.E", "video"),
            ("wamid.F", "image"),
            ("wamid.S", "document"),
            ("wacid.C", "audio"),
        ];
        assert_eq!(gone, expected);
    }

    #[test]
    fn the_items_of_a_failure_keep_their_meaning() {
        let ClearedPayload::Cut { rest, .. } = clear(BODY.as_bytes(), &described("1-2"), "111")
        else {
            panic!("111 is in it");
        };
        assert_eq!(rest.expect("222 is left").items, "0");
        // Only the first message had failed: nobody else's is left to do.
        let ClearedPayload::Cut { rest, .. } = clear(BODY.as_bytes(), &described("0"), "111")
        else {
            panic!("111 is in it");
        };
        assert!(rest.is_none());
    }

    #[test]
    fn who_is_not_in_it_changes_nothing() {
        for nobody in ["333", "11", "1", "7", "wamid.A"] {
            let cleared = clear(BODY.as_bytes(), &described(""), nobody);
            assert!(matches!(cleared, ClearedPayload::Untouched), "{nobody}");
        }
        assert!(matches!(
            clear(b"{ 111", &described(""), "111"),
            ClearedPayload::Unreadable
        ));
    }
}
