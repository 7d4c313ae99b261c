//! The watch's own connection to RabbitMQ.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Confirmation, Connection, ConnectionProperties};
use shared::secrets::{Rotating, Secret};
use tokio::time::timeout;

use crate::item::event::Event;
use crate::out::publisher::{properties, short};

/// A broker that takes longer is tried again.
pub(super) const LIMIT: Duration = Duration::from_secs(4);

pub(super) struct WatchBroker {
    amqp: Arc<Rotating<Secret>>,
    exchange: String,
    connection: Option<Connection>,
}

impl WatchBroker {
    pub(super) fn new(amqp: Arc<Rotating<Secret>>, exchange: String) -> Self {
        Self {
            amqp,
            exchange,
            connection: None,
        }
    }

    /// The connection, made if there is none that is well.
    pub(super) async fn connection(&mut self) -> Result<&Connection, lapin::Error> {
        let kept = self.connection.take();
        let connection = match kept.filter(|it| it.status().connected()) {
            Some(connection) => connection,
            None => {
                let url = self.amqp.current();
                Connection::connect(url.expose(), ConnectionProperties::default()).await?
            }
        };
        Ok(self.connection.insert(connection))
    }

    /// Publishes one event; true once a queue has it. After a failure the next one has a new connection.
    pub(super) async fn publish(&mut self, event: &Event) -> bool {
        let failed = match timeout(LIMIT, self.try_publish(event)).await {
            Ok(Ok(done)) => return done,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        tracing::debug!(failed, "a health event is published again later");
        self.forget();
        false
    }

    /// On a channel of its own: the one return that may come belongs to the one publication.
    async fn try_publish(&mut self, event: &Event) -> Result<bool, lapin::Error> {
        let exchange = short(&self.exchange);
        let channel = self.connection().await?.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let key = short(&event.routing_key);
        let sent = channel.basic_publish(exchange, key, options, &event.body, properties(event));
        let confirmed = sent.await?.await?;
        channel.close(200, short("done")).await?;
        Ok(matches!(confirmed, Confirmation::Ack(None)))
    }

    pub(super) fn forget(&mut self) {
        self.connection = None;
    }

    pub(super) async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(timeout(LIMIT, connection.close(200, short("done"))).await);
        }
    }
}
