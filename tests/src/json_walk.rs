//! Counts the items of a body by its JSON tree alone. Deliberately shares nothing with the walk that
//! the programs use, so that the two can be held against each other.

use serde_json::Value;

/// How many items, and so how many events, a webhook body has. A body of another shape has none.
pub fn count_items(body: &Value) -> usize {
    let of_entry = |entry: &Value| {
        let changes = each(entry, "changes").map(|change| {
            // Two of Meta's published examples carry `field` beside `changes`.
            let field = change["field"].as_str().or(entry["field"].as_str());
            let items = count_change(field.unwrap_or_default(), &change["value"]);
            or_whole(
                items,
                change,
                &["id", "time", "uid", "object", "field", "changes", "value"],
            )
        });
        let envelope = ["id", "time", "uid", "object", "field", "changes"];
        or_whole(changes.sum(), entry, &envelope)
    };
    // Another product's body is set aside as a whole.
    match &body["object"] {
        Value::String(object) if object != "whatsapp_business_account" => 0,
        _ if !body["entry"].is_array() => 0,
        _ => {
            let items = each(body, "entry").map(of_entry).sum();
            or_whole(items, body, &["object", "entry"])
        }
    }
}

/// Of something without items: one if it has more than names of itself.
fn or_whole(items: usize, whole: &Value, envelope: &[&str]) -> usize {
    let members = whole.as_object().into_iter().flatten();
    let mut content = members.filter(|(name, _)| !envelope.contains(&name.as_str()));
    match items {
        0 => usize::from(content.any(|(_, member)| !is_hollow(member))),
        items => items,
    }
}

fn count_change(field: &str, value: &Value) -> usize {
    let listed = match field {
        "messages" => {
            length(value, "messages") + length(value, "statuses") + length(value, "user_actions")
        }
        "standby" => {
            let standby = &value["standby"];
            length(standby, "messages")
                + length(standby, "statuses")
                + length(standby, "message_echoes")
        }
        "smb_message_echoes" | "message_echoes" => {
            length(value, "message_echoes") + length(value, "messages")
        }
        "history" => {
            let threads = each(value, "history").flat_map(|chunk| each(chunk, "threads"));
            threads
                .map(|thread| length(thread, "messages"))
                .sum::<usize>()
                + length(value, "messages")
                + length(value, "message_echoes")
        }
        "calls" => length(value, "calls") + length(value, "statuses"),
        _ => return usize::from(!is_nothing(value)),
    };
    // Nothing listed: what else the value holds, `errors` for example, is one item.
    match value {
        _ if listed > 0 => listed,
        Value::Object(members) => usize::from(members.iter().any(|(name, member)| {
            !matches!(name.as_str(), "messaging_product" | "metadata" | "contacts")
                && !is_hollow(member)
        })),
        other => usize::from(!is_nothing(other)),
    }
}

fn each<'a>(parent: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    parent[name].as_array().into_iter().flatten()
}

fn length(parent: &Value, name: &str) -> usize {
    parent[name].as_array().map_or(0, Vec::len)
}

/// A value that says nothing: missing, `null`, or an object without members.
fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty)
}

/// Empty all the way down: `null`, `[]`, `{}`, `[{}]`. Of an object only one without members.
fn is_hollow(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(elements) => elements
            .iter()
            .all(|element| !element.is_null() && is_hollow(element)),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn count(field: &str, value: Value) -> usize {
        count_items(&json!({"entry": [{"changes": [{"field": field, "value": value}]}]}))
    }

    #[test]
    fn every_listed_item_counts() {
        let both = json!({"messages": [{}, {}], "statuses": [{}], "errors": [{"code": 1}]});
        assert_eq!(count("messages", both), 3);
        assert_eq!(count("messages", json!({"user_actions": [{}]})), 1);
        assert_eq!(
            count(
                "standby",
                json!({"standby": {"messages": [{}], "message_echoes": [{}]}})
            ),
            2
        );
        assert_eq!(
            count("message_echoes", json!({"message_echoes": [{}, {}]})),
            2
        );
        assert_eq!(count("message_echoes", json!({"messages": [{}, {}]})), 2);
        let history = json!({
            "history": [{"threads": [{"messages": [{}, {}]}, {"messages": [{}]}]}],
            "messages": [{}],
        });
        assert_eq!(count("history", history), 4);
        assert_eq!(count("calls", json!({"calls": [{}], "statuses": [{}]})), 2);
    }

    #[test]
    fn what_lists_nothing_is_one_item_or_none() {
        assert_eq!(count("messages", json!({"errors": [{"code": 131035}]})), 1);
        assert_eq!(
            count(
                "history",
                json!({"history": [{"errors": [{"code": 2593109}]}]})
            ),
            1
        );
        assert_eq!(count("messages", json!({"polls": [{}], "news": 1})), 1);
        assert_eq!(
            count(
                "account_update",
                json!({"event": "X", "messages": [{}, {}]})
            ),
            1
        );
        assert_eq!(count("", json!("text")), 1);
        let envelope =
            json!({"messaging_product": "whatsapp", "metadata": {"a": 1}, "messages": []});
        assert_eq!(count("messages", envelope), 0);
        assert_eq!(count("standby", json!({"metadata": {}, "standby": {}})), 0);
        assert_eq!(count("account_update", json!({})), 0);
        assert_eq!(count("account_update", Value::Null), 0);
    }

    #[test]
    fn what_has_another_shape_counts_once() {
        let wrapped = json!({"field": "messages", "data": {"messages": [{}, {}]}});
        let other = json!({"id": "1", "time": 2, "messaging": [{"a": 1}]});
        let nothing = json!({"id": "1", "changes": null, "field": "messages"});
        let body = json!({"entry": [{"changes": [wrapped, {"field": "x"}]}, other, nothing]});
        assert_eq!(count_items(&body), 2);
        let beside = json!({"field": "messages", "value": {"metadata": {}}, "news": 1});
        let full = json!({"field": "messages", "value": {"messages": [{}]}, "news": 1});
        for (entry, items) in [
            (json!([{"changes": [beside, full]}]), 2),
            (json!([{"changes": [], "news": 1}]), 1),
            (
                json!([{"field": "messages", "value": {"messages": [{}, {}]}}]),
                1,
            ),
            (json!([{"changes": [{"value": {}}], "news": 1}]), 1),
            (json!([{"changes": [full], "news": 1}]), 1),
            (json!([]), 1),
        ] {
            assert_eq!(count_items(&json!({"entry": entry, "news": 1})), items);
        }
    }

    #[test]
    fn all_entries_and_changes_count() {
        let change = json!({"field": "messages", "value": {"messages": [{}]}});
        let body = json!({"entry": [{"changes": [change, change]}, {"changes": [change]}, {}]});
        assert_eq!(count_items(&body), 3);
        assert_eq!(count_items(&json!([1])), 0);
    }
}
