//! Fixtures spoilt at random: whatever comes, there is an event for every item, fit for the schema,
//! and nothing of the item is lost.

use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

use crate::json_walk::count_items;
use crate::{check, events, json_files, manifest_dir, open, validator};

/// JSON as text can be: with names that stand twice, and literals that not every reader takes.
#[derive(Debug, Clone)]
enum Node {
    Literal(String),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    fn of(value: &Value) -> Self {
        match value {
            Value::Array(elements) => Self::Array(elements.iter().map(Self::of).collect()),
            Value::Object(members) => Self::Object(
                members
                    .iter()
                    .map(|(name, value)| (name.clone(), Self::of(value)))
                    .collect(),
            ),
            scalar => Self::Literal(scalar.to_string()),
        }
    }

    fn text(&self) -> String {
        let list = |parts: Vec<String>| parts.join(" , ");
        match self {
            Self::Literal(text) => text.clone(),
            Self::Array(elements) => {
                format!("[{}]", list(elements.iter().map(Self::text).collect()))
            }
            Self::Object(members) => {
                let member = |(name, value): &(String, Self)| {
                    format!("{}: {}", Value::from(name.as_str()), value.text())
                };
                format!("{{{}}}", list(members.iter().map(member).collect()))
            }
        }
    }

    fn size(&self) -> usize {
        1 + match self {
            Self::Literal(_) => 0,
            Self::Array(elements) => elements.iter().map(Self::size).sum(),
            Self::Object(members) => members.iter().map(|(_, value)| value.size()).sum(),
        }
    }

    /// The node of a number, counted from the root.
    fn nth(&mut self, n: usize) -> Option<&mut Self> {
        if n == 0 {
            return Some(self);
        }
        let children: Vec<&mut Self> = match self {
            Self::Literal(_) => Vec::new(),
            Self::Array(elements) => elements.iter_mut().collect(),
            Self::Object(members) => members.iter_mut().map(|(_, value)| value).collect(),
        };
        let mut left = n - 1;
        for child in children {
            let size = child.size();
            if left < size {
                return child.nth(left);
            }
            left -= size;
        }
        None
    }
}

#[derive(Debug, Clone)]
enum Spoil {
    Replace(Node),
    /// Adds a member or an element.
    Add(String, Node),
    /// Takes the first out.
    Shorten,
    /// Repeats a member's name, or an element.
    Repeat(Node),
}

fn literal() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|truth| truth.to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>()
            .prop_filter("JSON has finite numbers only", |number| number.is_finite())
            .prop_map(|number| format!("{number:e}")),
        (1_000_000_000u64..9_999_999_999).prop_map(|seconds| format!("\"{seconds}\"")),
        any::<String>().prop_map(|text| Value::from(text).to_string()),
        prop::sample::select(vec![
            r#""\ud83d""#,
            r#""a\ude00b\ud83d""#,
            r#""\ud83d\ude00\u0000\/""#,
            "1e400",
            "-1e-400",
            "123456789012345678901234567890",
            "0.1234567890123456789",
            r#""007""#,
            r#""""#,
            "{}",
            "[]",
        ])
        .prop_map(str::to_owned),
        Just(format!("{}1{}", "[".repeat(200), "]".repeat(200))),
        Just(format!("{}1{}", r#"{"a":"#.repeat(80), "}".repeat(80))),
    ]
}

/// Names that Meta uses, so that what is typed meets the wrong type, and others.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "id",
            "type",
            "timestamp",
            "text",
            "image",
            "body",
            "errors",
            "context",
            "message",
            "content",
            "media",
            "from",
            "status",
            "wa_id",
            "code",
            "pricing",
            "conversation",
            "interactive",
            "contacts",
            "group_id",
            "referral",
            "sha256",
            "response_json",
            "value",
            "direction",
            "recipient_id",
            "conversation_context",
            "participant_recipient_id",
            "groups",
            "event",
            "timestamp",
            "display_phone_number",
            "max_daily_conversations_per_business",
            "waba_info",
        ])
        .prop_map(str::to_owned),
        "[a-z_]{1,6}",
        any::<String>(),
    ]
}

fn node() -> impl Strategy<Value = Node> {
    let leaf = literal().prop_map(Node::Literal);
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Node::Array),
            prop::collection::vec((name(), inner), 0..4).prop_map(Node::Object),
        ]
    })
}

fn spoil() -> impl Strategy<Value = Spoil> {
    prop_oneof![
        node().prop_map(Spoil::Replace),
        (name(), node()).prop_map(|(name, node)| Spoil::Add(name, node)),
        Just(Spoil::Shorten),
        node().prop_map(Spoil::Repeat),
    ]
}

fn apply(root: &mut Node, at: Index, spoil: Spoil) {
    // Never the value itself: it is what lists the items.
    let n = 1 + at.index(root.size().max(2) - 1);
    let Some(node) = root.nth(n) else {
        return;
    };
    match (spoil, node) {
        (Spoil::Replace(with), node) => *node = with,
        (Spoil::Add(name, value), Node::Object(members)) => members.push((name, value)),
        (Spoil::Add(_, value), Node::Array(elements)) => elements.push(value),
        (Spoil::Add(_, value), node @ Node::Literal(_)) => *node = value,
        (Spoil::Shorten, Node::Object(members)) if !members.is_empty() => drop(members.remove(0)),
        (Spoil::Shorten, Node::Array(elements)) if !elements.is_empty() => drop(elements.remove(0)),
        (Spoil::Shorten, _) => {}
        (Spoil::Repeat(value), Node::Object(members)) => {
            if let Some((name, _)) = members.first().cloned() {
                members.push((name, value));
            }
        }
        (Spoil::Repeat(_), Node::Array(elements)) => {
            if let Some(first) = elements.first().cloned() {
                elements.push(first);
            }
        }
        (Spoil::Repeat(_), Node::Literal(_)) => {}
    }
}

/// Field and value of every fixture.
static FIXTURES: LazyLock<Vec<(String, Node)>> = LazyLock::new(|| {
    let files = json_files(manifest_dir().join("tests/fixtures")).expect("fixtures");
    let read = |(_, body): (String, Vec<u8>)| {
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let change = &body["entry"][0]["changes"][0];
        let field = change["field"].as_str().expect("a field").to_owned();
        (field, Node::of(&change["value"]))
    };
    files.into_iter().map(read).collect()
});

static VALIDATOR: LazyLock<jsonschema::Validator> = LazyLock::new(validator);

fn body_of(field: &str, value: &str) -> Vec<u8> {
    let field = Value::from(field);
    format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"1","changes":[{{"field":{field},"value":{value}}}]}}]}}"#
    )
    .into_bytes()
}

/// Every item has an event, and it holds it.
fn judge(body: &[u8]) -> Result<(), TestCaseError> {
    let payload = open(body).expect("a webhook");
    let made = events(&payload);
    // What serde_json's Value can't hold, the other count can't read.
    if let Ok(read) = serde_json::from_slice::<Value>(body) {
        prop_assert_eq!(count_items(&read), made.len());
    }
    for made in &made {
        if let Err(problem) = check(&VALIDATOR, made) {
            return Err(TestCaseError::fail(problem));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_spoilt_item_is_still_an_event_that_holds_it(
        fixture in any::<Index>(),
        spoils in prop::collection::vec((any::<Index>(), spoil()), 1..6),
    ) {
        let (field, mut value) = fixture.get(&FIXTURES[..]).clone();
        for (at, spoil) in spoils {
            apply(&mut value, at, spoil);
        }
        judge(&body_of(&field, &value.text()))?;
    }

    #[test]
    fn anything_at_all_is_an_event_that_holds_it(
        place in prop::sample::select(vec![
            ("messages", "messages"), ("messages", "statuses"), ("messages", "user_actions"),
            ("smb_message_echoes", "message_echoes"), ("history", "messages"),
            ("calls", "calls"), ("calls", "statuses"), ("tea_time", "cups"),
            ("group_participants_update", "groups"), ("smb_app_state_sync", "state_sync"),
            ("automatic_events", "automatic_events"), ("message_echoes", "messages"),
        ]),
        items in prop::collection::vec(node(), 0..4),
    ) {
        let (field, list) = place;
        let value = Node::Object(vec![(list.to_owned(), Node::Array(items))]);
        judge(&body_of(field, &value.text()))?;
    }

    /// Whatever holds no item of its own, but something else, is an event that holds it: a change beside an
    /// empty value, an entry beside empty changes, a body beside an empty `entry`.
    #[test]
    fn what_stands_beside_nothing_is_an_event(
        value in prop::sample::select(vec![
            "", r#""value":null,"#, r#""value":{},"#, r#""value":{"metadata":{"phone_number_id":"1"}},"#,
            r#""value":{"messages":[{"id":"a"}]},"#,
        ]),
        of_entry in prop::sample::select(vec![
            "", r#""value":{"messages":[{"id":"a"}]},"#, r#""changes":null,"#,
        ]),
        changes in 0..3_usize,
        entries in 0..3_usize,
        beside in [name(), name(), name()],
        content in [node(), node(), node()],
    ) {
        let [beside_change, beside_entry, beside_body] =
            [0, 1, 2].map(|n| format!("{}:{}", Value::from(&*beside[n]), content[n].text()));
        let change = format!(r#"{{{value}"field":"messages",{beside_change}}}"#);
        let entry = format!(r#"{{"id":"1","changes":[{}],{of_entry}{beside_entry}}}"#, vec![change; changes].join(","));
        let body = format!(
            r#"{{"object":"whatsapp_business_account","entry":[{}],{beside_body}}}"#,
            vec![entry; entries].join(",")
        );
        judge(body.as_bytes())?;
    }
}
