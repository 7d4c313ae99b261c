//! Files of other places than received messages: echoes, standby, calls, edits, history. They are fetched,
//! stored and followed up like a received message's where the setting says so, and hold none of these up.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tests::Stage;
use tests::events::{EVENTS, Event, MESSAGES};
use tests::meta::payload::{self, Number};
use tests::neighbours::{Fault, Service};

use crate::SOON;

/// All of them.
const ALL: &str = "message,call,echo,standby,edit,history";
/// No machine is too slow for it.
const PATIENT: &str = "60s";

fn image(media_id: &str) -> Value {
    payload::image("16505551234", media_id)
}

fn edit(media_id: &str) -> Value {
    let edited = json!({"type": "image", "image": {"id": media_id, "mime_type": "image/jpeg"}});
    let content = json!({"original_message_id": "wamid.old", "message": edited});
    payload::message("16505551234", "edit", content)
}

fn echo(number: &Number, item: Value) -> Value {
    number.change("smb_message_echoes", json!({"message_echoes": [item]}))
}

fn call(number: &Number, event: &str, content: Value) -> Value {
    let (outer, inner) = match event {
        "call_recording_available" => ("call_recording", "audio"),
        _ => ("call_transcript", "document"),
    };
    let call = json!({
        "id": payload::wamid().replace("wamid", "wacid"),
        "from": "16505551234",
        "event": event,
        "timestamp": payload::timestamp(),
        outer: {inner: content},
    });
    number.change("calls", json!({"calls": [call]}))
}

fn history(number: &Number, items: Vec<Value>) -> Value {
    number.change("history", json!({"messages": items}))
}

/// A change with a file at each place: the place, the file's id, and the change.
fn at_each_place(number: &Number) -> Vec<(&'static str, String, Value)> {
    let ids = (0..9).map(|n| format!("99800000000{n}"));
    let [
        message,
        edited,
        echoed,
        echo_edited,
        stood_by,
        recorded,
        transcribed,
        wrapped,
        old,
    ] = ids.collect::<Vec<_>>().try_into().expect("as many");
    let audio = json!({"id": recorded, "mime_type": "audio/ogg"});
    let document = json!({"id": transcribed, "mime_type": "application/json"});
    let mut ancient = image(&old);
    ancient["timestamp"] = "1700000000".into();
    let sent = json!({"type": "image", "to": "16505551234", "image": {"id": wrapped}});
    let sent = json!({"id": payload::wamid(), "timestamp": payload::timestamp(), "message": sent});
    let standby_echo = number.change("standby", json!({"standby": {"message_echoes": [sent]}}));
    vec![
        (
            "message",
            message.clone(),
            number.messages([image(&message)]),
        ),
        ("edit", edited.clone(), number.messages([edit(&edited)])),
        ("echo", echoed.clone(), echo(number, image(&echoed))),
        (
            "edit",
            echo_edited.clone(),
            echo(number, edit(&echo_edited)),
        ),
        (
            "standby",
            stood_by.clone(),
            payload::standby(number, image(&stood_by)),
        ),
        (
            "call",
            recorded,
            call(number, "call_recording_available", audio),
        ),
        (
            "call",
            transcribed,
            call(number, "call_transcription_available", document),
        ),
        ("standby", wrapped, standby_echo),
        ("history", old, history(number, vec![ancient])),
    ]
}

/// What an event says of its media; `null`: nothing.
fn media(event: &Event) -> &Value {
    let of = |part: &str| event.payload.pointer(&format!("/{part}/media"));
    of("message").or_else(|| of("call")).unwrap_or(&Value::Null)
}

fn is_follow_up(event: &Event) -> bool {
    event
        .kind
        .as_deref()
        .is_some_and(|kind| kind.starts_with("media."))
}

/// How often the Graph API was asked for a file.
fn asked(stage: &Stage, media_id: &str) -> usize {
    let requests = stage.neighbours.received(Service::Graph);
    let of_file = requests.iter().filter(|it| it.path.contains(media_id));
    of_file.count()
}

#[tokio::test]
async fn a_file_of_each_place_is_stored_and_told_by_the_queue_of_its_event() {
    let stage = Stage::new().await;
    let worker = stage.worker().env("MEDIA_PLACES", ALL);
    let worker = worker.env("MEDIA_DEADLINE", PATIENT);
    let (ingress, _worker) = (stage.ingress().start().await, worker.start().await);
    let (number, sender) = (Number::fresh(), stage.sender(&ingress));
    let all = at_each_place(&number);
    for (_, _, change) in &all {
        sender.send(number.webhook([change.clone()])).await;
    }
    let events = stage.events();
    // That of the history is told twice.
    let seen = events.wait_for(all.len() + 1, SOON).await;
    crate::drained(&stage).await;
    let stored = stage.media().list("").await.expect("a list");
    for (place, id, _) in &all {
        let of_file: Vec<_> = seen.iter().filter(|it| media(it)["id"] == **id).collect();
        let last = of_file.last().expect("an event");
        assert_eq!(media(last)["status"], "stored", "{place}: {}", last.payload);
        assert_eq!(media(last)["place"], *place);
        let key = media(last)["key"].as_str().expect("a key").to_owned();
        let id = match last.text("/message/id") {
            "" => last.text("/call/id"),
            id => id,
        };
        let name = key.rsplit('/').next().expect("a name");
        assert!(name.starts_with(&format!("{id}.")), "{key}");
        assert!(stored.contains(&key), "{key}");
        let follow_ups = of_file.iter().filter(|it| is_follow_up(it)).count();
        assert_eq!(follow_ups, usize::from(*place == "history"), "{place}");
    }
    assert_eq!(stored.len(), all.len());
}

#[tokio::test]
async fn a_follow_up_goes_to_the_queue_of_the_event_that_it_follows() {
    let stage = Stage::new().await;
    let worker = stage.worker().env("MEDIA_PLACES", ALL);
    let worker = worker.env("MEDIA_DEADLINE", "1ms");
    let (ingress, _worker) = (stage.ingress().start().await, worker.start().await);
    let (number, sender) = (Number::fresh(), stage.sender(&ingress));
    let all = at_each_place(&number);
    stage
        .neighbours
        .set_fault(Service::Graph, Fault::Status(503));
    for (_, _, change) in &all {
        sender.send(number.webhook([change.clone()])).await;
    }
    let events = stage.events();
    events.wait_for(all.len(), SOON).await;
    stage.neighbours.set_fault(Service::Graph, Fault::None);
    let seen = events.wait_for(2 * all.len(), SOON * 3).await;
    crate::drained(&stage).await;
    assert_eq!(events.count(), 2 * all.len(), "each is told once");
    let mut queues: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    for event in &seen {
        let id = media(event)["id"].as_str().expect("an id");
        queues.entry(id).or_default().push(event);
    }
    for (place, id, _) in &all {
        let [first, second] = queues[&**id][..] else {
            panic!("{place}: not two events");
        };
        assert_eq!(media(first)["status"], "pending", "{place}");
        assert_eq!(media(second)["status"], "stored", "{place}");
        assert_eq!(second.queue, first.queue, "{place}");
        let is_message = first.kind.as_deref() == Some("message.received");
        assert_eq!(first.queue, if is_message { MESSAGES } else { EVENTS });
        let key = format!("media.stored.tenant-{}", number.waba_id);
        assert_eq!(second.routing_key, key);
        let direction = |event: &Event| event.text("/message/direction").to_owned();
        assert_eq!(direction(second), direction(first), "{place}");
    }
}

#[tokio::test]
async fn a_place_that_is_not_set_is_left_alone() {
    let stage = Stage::new().await;
    let ingress = stage.ingress().start().await;
    for (setting, fetched) in [
        (Some("message"), &["message"][..]),
        (None, &["message", "edit", "echo", "standby", "call"]),
    ] {
        let worker = stage.worker().env("MEDIA_DEADLINE", PATIENT);
        let worker = setting
            .iter()
            .fold(worker, |worker, places| worker.env("MEDIA_PLACES", *places));
        let mut worker = worker.start().await;
        let number = Number::fresh();
        let all = at_each_place(&number);
        let before: Vec<_> = all.iter().map(|(_, id, _)| asked(&stage, id)).collect();
        let events = stage.events();
        for (_, _, change) in &all {
            let body = number.webhook([change.clone()]);
            stage.sender(&ingress).send(body).await;
        }
        let seen = events.wait_for(all.len(), SOON).await;
        crate::drained(&stage).await;
        for ((place, id, _), before) in all.iter().zip(before) {
            let is_fetched = fetched.contains(place);
            let told = seen.iter().any(|event| media(event)["id"] == **id);
            assert_eq!(told, is_fetched, "{place} of {setting:?}");
            assert_eq!(
                asked(&stage, id) > before,
                is_fetched,
                "{place} of {setting:?}"
            );
        }
        assert_eq!(events.count(), all.len());
        worker.stop(SOON).await;
    }
}

/// Nothing is measured: the history's files hang, and a received message's is stored all the same.
#[tokio::test]
async fn a_history_of_files_holds_up_no_file_of_a_received_message() {
    let stage = Stage::new().await;
    let worker = stage.worker().env("MEDIA_PLACES", ALL);
    let worker = worker.env("MEDIA_DEADLINE", PATIENT);
    let (ingress, _worker) = (stage.ingress().start().await, worker.start().await);
    let (number, sender) = (Number::fresh(), stage.sender(&ingress));
    let old = "7712";
    let hang = Fault::Hang;
    let of_history = format!("_download/{old}");
    (stage.neighbours).set_fault_about(Service::Download, &of_history, hang);
    let count = 2000;
    let events = stage.events();
    for bundle in 0..count / 100 {
        let files = (0..100).map(|n| {
            let n = bundle * 100 + n;
            payload::image(&format!("1650555{n:04}"), &format!("{old}{n:08}"))
        });
        let change = history(&number, files.collect());
        sender.send(number.webhook([change])).await;
    }
    let seen = events.wait_for(count, SOON * 3).await;
    assert!(seen.iter().all(|event| media(event)["status"] == "pending"));
    let hanging = || asked(&stage, "/7712") > 0;
    tests::eventually(SOON, "the history's files are fetched", async || {
        hanging().then_some(())
    })
    .await;
    let lives: Vec<_> = (0..20).map(|n| format!("8812{n:08}")).collect();
    for id in &lives {
        sender.send(number.message(image(id))).await;
    }
    let seen = events.wait_for(count + lives.len(), SOON).await;
    for event in &seen[count..] {
        assert_eq!(event.queue, MESSAGES);
        assert_eq!(media(event)["status"], "stored", "{}", event.payload);
    }
    assert!(asked(&stage, "/7712") < count, "most of the history waits");
}
