//! Prints one line per event of a queue. `AMQP_URL` and `QUEUE` say which; `BIND` makes the queue its own.

use whatsapp_events::{Consumer, Event, Ranks};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let setting = |name| std::env::var(name).ok();
    let bind = setting("BIND").unwrap_or_default();
    let consumer = Consumer {
        url: setting("AMQP_URL").unwrap_or_default(),
        queue: setting("QUEUE").unwrap_or("INBOUND_WHATSAPP_MESSAGES".to_owned()),
        bind: bind.split_terminator(',').map(str::to_owned).collect(),
    };
    let mut ranks = Ranks::default();
    let handle = async |event: &Event, replay_id: &str| {
        println!("{}", line(event, replay_id, &mut ranks));
        Ok(())
    };
    consumer.run(handle).await
}

fn line(event: &Event, replay_id: &str, ranks: &mut Ranks) -> String {
    let mut words = vec![event.event_type.clone()];
    match (&event.message, &event.status) {
        (Some(message), _) if event.event_type == "message.received" => {
            words.push(message.kind.clone());
            words.extend(message.id.clone());
        }
        (Some(message), _) if event.event_type.starts_with("media.") => {
            words.extend(message.id.clone());
            words.extend(message.media.clone().and_then(|media| media.key));
        }
        (_, Some(status)) if event.event_type == "status.updated" => {
            words.push(status.status.clone());
            words.extend(status.message_id.clone());
            words.extend(ranks.is_late(status).then(|| "late".to_owned()));
        }
        _ => words.push(event.event_id.clone()),
    }
    words.extend((!replay_id.is_empty()).then(|| "replay".to_owned()));
    words.join(" ")
}
