//! What one worker looks at for all: the queues and who consumes them, and how accounts, numbers and
//! templates are. Whose turn it is, Redis says.

mod broker;
pub(crate) mod health;
mod polls;
mod queues;
mod turn;

use std::sync::Arc;
use std::time::Duration;

use shared::keys::Keys;
use shared::redis::Connection;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use self::broker::WatchBroker;
use self::health::HealthWatch;
use self::polls::Polls;
use self::turn::WatchTurn;
use crate::ask::graph::Graph;
use crate::ask::tenants::Tenants;
use crate::config::{Config, Secrets};
use crate::item::health::HealthNotes;
use crate::metrics::Metrics;

/// What webhooks said is written this often, by each worker.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// Writes between two looks of the one that watches.
const LOOK_EVERY: u32 = 5;
const LOOK_LIMIT: Duration = Duration::from_secs(8);

/// What the watch goes by.
pub struct WatchParts {
    pub redis: (Connection, Keys),
    pub tenants: Arc<Tenants>,
    pub graph: Arc<Graph>,
    pub notes: Arc<HealthNotes>,
    pub metrics: Metrics,
}

/// Writes what webhooks said of accounts, and looks while it is this worker's turn, until `stop`.
pub async fn keep_watch(
    parts: WatchParts,
    config: Config,
    secrets: Secrets,
    stop: CancellationToken,
) {
    let (connection, keys) = parts.redis.clone();
    let turn = WatchTurn::new(connection.clone(), keys.clone());
    let mut broker = WatchBroker::new(secrets.amqp.clone(), config.amqp.amqp_exchange.clone());
    let mut health = health_watch(&parts, &config, &secrets);
    let watching = async {
        let mut ticks = interval(WRITE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for n in 0_u32.. {
            ticks.tick().await;
            let notes = parts.notes.take();
            if let Err(error) = health::write(&connection, &keys, &notes).await {
                tracing::debug!(%error, "redis command failed: what webhooks said of accounts is written later");
                parts.notes.put_back(notes);
            }
            if !n.is_multiple_of(LOOK_EVERY) {
                continue;
            }
            if turn.is_ours().await {
                queues::look(&mut broker, &parts.metrics.queues).await;
                // Or another one's turn would begin meanwhile. What is cut off is done by the next look.
                match timeout(LOOK_LIMIT, health.look(&mut broker)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "redis command failed: the health of accounts is looked at later");
                    }
                    Err(_) => tracing::debug!("the health of accounts is looked at later"),
                }
            } else {
                broker.close().await;
                parts.metrics.queues.clear();
                health.leave();
            }
        }
    };
    stop.run_until_cancelled(watching).await;
    turn.leave().await;
}

fn health_watch(parts: &WatchParts, config: &Config, secrets: &Secrets) -> HealthWatch {
    let (connection, keys) = parts.redis.clone();
    let polls = Polls {
        connection: connection.clone(),
        keys: keys.clone(),
        tenants: parts.tenants.clone(),
        graph: parts.graph.clone(),
        directory: secrets.tenants.directory.clone(),
        interval: config.health_interval,
        callback_url: config.callback_url.clone(),
        last: None,
        due: Vec::new(),
    };
    let metrics = parts.metrics.health.clone();
    HealthWatch::new((connection, keys), parts.tenants.clone(), polls, metrics)
}
