//! RabbitMQ: whether it takes the credentials, has the topology, and confirms a publication.

use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties};
use tokio::time::timeout;
use uuid::Uuid;

use super::finding::{CheckStatus, Finding, Findings, fail, ok, unknown, warn};
use crate::config::Config;
use crate::operator::Deployment;
use crate::out::publisher::refuses_size;
use crate::out::topology::{self, QueueType, TopologyError};

const CHECK: &str = "rabbitmq";
/// A publication of ours is confirmed within this time, unless the broker takes none.
const CONFIRM_LIMIT: Duration = Duration::from_secs(5);
/// An event has up to 1.7 times the bytes of its body.
const EVENT_TENTHS: usize = 17;
/// Bytes of the largest message that is tried.
const LARGEST_PROBE: usize = 16 << 20;

pub(super) async fn check(deployment: &Deployment, config: &Config) -> Findings {
    let url = deployment.secrets.amqp.current();
    let connection = Connection::connect(url.expose(), ConnectionProperties::default());
    let connection = connection.await?;
    let mut found = vec![ok(CHECK, "answers, and takes the credentials")];
    let (queues, all_exist) = queues(&connection).await;
    found.extend(queues);
    // Nothing is created: all of it is there.
    if all_exist {
        found.push(declared(&connection, config).await);
        if config.amqp.amqp_queue_type == QueueType::Classic {
            found.push(warn(CHECK, topology::CLASSIC, "quorum is the default"));
        }
        found.push(dead_letters(&connection, config, url.expose()).await);
    }
    let published = publish(&connection).await;
    let confirms = published.status == CheckStatus::Ok;
    found.push(published);
    if confirms {
        found.push(largest_event(&connection, config.read_bytes).await);
    }
    found.push(unknown(CHECK,
        "version and policies can't be seen over AMQP",
        "rabbitmqctl version tells the one; see that none of the policies sets message-ttl, expires or max-length on these queues (rabbitmqctl list_policies)",
    ));
    drop(connection.close(200, "done".into()).await);
    Ok(found)
}

/// What each queue holds, and whether all of them exist.
async fn queues(connection: &Connection) -> (Vec<Finding>, bool) {
    let mut all_exist = true;
    let mut found = Vec::new();
    for (queue, counts) in topology::counts(connection).await {
        let dead = topology::is_of_dead_letters(&queue);
        found.push(match counts {
            Ok(counts) if dead && counts.messages > 0 => warn(
                CHECK,
                format!("{queue}: {} dead letters", counts.messages),
                "see why consumers reject them",
            ),
            Ok(counts) if !dead && counts.messages > 0 && counts.consumers == 0 => warn(
                CHECK,
                format!("{queue}: {} messages and no consumer", counts.messages),
                "start a consumer",
            ),
            Ok(counts) => ok(
                CHECK,
                format!(
                    "{queue}: {} messages, {} consumers",
                    counts.messages, counts.consumers
                ),
            ),
            Err(error) => {
                all_exist = false;
                fail(
                    CHECK,
                    format!("{queue}: {error}"),
                    "start a worker with AMQP_DECLARE_TOPOLOGY=true, or declare it",
                )
            }
        });
    }
    (found, all_exist)
}

/// Whether exchanges, queues and bindings are as a worker would declare them.
async fn declared(connection: &Connection, config: &Config) -> Finding {
    let ensured = topology::ensure(connection, &config.amqp).await;
    match ensured {
        Ok(()) if config.amqp.amqp_declare_topology => ok(
            CHECK,
            "exchanges, queues, their arguments and bindings are right",
        ),
        Ok(()) => unknown(
            CHECK,
            "the topology is there; its arguments are not looked at",
            "AMQP_DECLARE_TOPOLOGY=false: whoever declares it sees to them",
        ),
        Err(TopologyError::Refused(reason)) => fail(
            CHECK,
            reason,
            "delete or migrate what differs; a user without the right to configure needs AMQP_DECLARE_TOPOLOGY=false",
        ),
        Err(error) => fail(CHECK, error.to_string(), ""),
    }
}

/// Whether dead letters stay, however often somebody looks at them and puts them back.
async fn dead_letters(connection: &Connection, config: &Config, url: &str) -> Finding {
    match topology::dead_letters_that_differ(connection, &config.amqp).await {
        Ok(None) => ok(CHECK, "dead letters stay, however often they are put back"),
        Ok(Some(difference)) => {
            let vhost = url
                .parse::<AMQPUri>()
                .map_or_else(|_| "/".to_owned(), |url| url.vhost);
            let advice = format!(
                "RabbitMQ 4 drops a dead letter that is put back for the 21st time, unless a policy (which \
                 can't be seen from here) says otherwise: {}",
                topology::dead_letter_policy(&vhost)
            );
            warn(CHECK, difference, advice)
        }
        Err(error) => unknown(
            CHECK,
            format!("arguments of the queues of dead letters: {error}"),
            "see that each has x-delivery-limit 2147483647, or a policy with that delivery-limit",
        ),
    }
}

/// Publishes a message to a queue of its own and awaits its confirm: a broker with a memory or disk
/// alarm takes none.
async fn publish(connection: &Connection) -> Finding {
    let publishing = async {
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let options = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        let queue = channel.queue_declare("".into(), options, FieldTable::default());
        let queue = queue.await?;
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let properties = BasicProperties::default();
        let sent = channel.basic_publish("".into(), queue.name().clone(), options, b"", properties);
        sent.await?.await
    };
    match timeout(CONFIRM_LIMIT, publishing).await {
        Ok(Ok(Confirmation::Ack(None))) => ok(CHECK, "confirms a publication"),
        Ok(Ok(_)) => fail(CHECK, "refuses a publication", "see its log"),
        Ok(Err(error)) => unknown(
            CHECK,
            format!("no publication could be tried: {error}"),
            "this user may not declare a queue of its own; see that it may write to the exchange",
        ),
        Err(_) => fail(
            CHECK,
            "confirms nothing",
            "most likely a memory or disk alarm: rabbitmq-diagnostics alarms",
        ),
    }
}

/// Whether the broker takes the event of a body of half of READ_BYTES, the largest that there may be: it
/// tells nobody its limit, so a message of that size is published that no queue gets, and comes back.
async fn largest_event(connection: &Connection, read_bytes: usize) -> Finding {
    let size_bytes = (read_bytes / 2 / 10 * EVENT_TENTHS).min(LARGEST_PROBE);
    let size = format!("{:.1} MB", size_bytes as f64 / 1e6);
    let publishing = async {
        let channel = connection.create_channel().await?;
        let options = ConfirmSelectOptions::default();
        channel.confirm_select(options).await?;
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let nowhere = Uuid::new_v4().to_string();
        let properties = BasicProperties::default();
        let body = vec![0; size_bytes];
        let sent = channel.basic_publish("".into(), nowhere.into(), options, &body, properties);
        sent.await?.await
    };
    match timeout(CONFIRM_LIMIT, publishing).await {
        Ok(Ok(_)) => ok(CHECK, format!("takes an event of {size}")),
        Ok(Err(error)) if refuses_size(&error) => warn(
            CHECK,
            format!("its max_message_size is less than {size}, which an event may have"),
            "raise it in rabbitmq.conf: what is larger is set aside as too_large",
        ),
        Ok(Err(error)) => unknown(
            CHECK,
            format!("no message of {size} could be tried: {error}"),
            "see that max_message_size in rabbitmq.conf isn't less",
        ),
        Err(_) => unknown(
            CHECK,
            format!("a message of {size} is not confirmed in time"),
            "see that max_message_size in rabbitmq.conf isn't less",
        ),
    }
}
