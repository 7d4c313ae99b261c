//! The clients of the services that are asked, made of the settings.

use std::time::Duration;

use anyhow::Context;
use shared::keys::Keys;
use shared::outgoing;
use shared::redis::Connection;

use crate::ask::graph::{Graph, RequestPacer};
use crate::ask::neighbour::{self, Neighbour};
use crate::ask::state::{self, StateManager};
use crate::ask::tenants;
use crate::config::{Config, Secrets};
use crate::metrics::Metrics;
use crate::metrics::neighbours::NeighbourName;
use crate::out::media::safety::AllowedHosts;

/// Of the Graph API's answers; files come from elsewhere.
const GRAPH: neighbour::NeighbourSettings = neighbour::NeighbourSettings {
    connect_timeout: Duration::from_secs(2),
    attempt_timeout: Duration::from_secs(4),
    most_at_once: 64,
    largest_answer_bytes: 64 * 1024,
};

pub(crate) fn allowed_hosts(config: &Config) -> AllowedHosts {
    AllowedHosts::new(
        &config.media.media_allowed_hosts,
        &config.graph.graph_base_url,
    )
}

pub(crate) fn graph(
    config: &Config,
    metrics: &Metrics,
    (connection, keys): (Connection, Keys),
) -> anyhow::Result<Graph> {
    let client = outgoing::client().dns_resolver(allowed_hosts(config).resolver());
    let neighbour = Neighbour::with_client(
        NeighbourName::Graph,
        GRAPH,
        metrics.neighbours.clone(),
        client,
    );
    let neighbour = neighbour.context("the client of the Graph API")?;
    let pace = RequestPacer::new(connection, keys, config.graph.graph_requests_per_second);
    Ok(Graph::new(&config.graph, neighbour, pace))
}

pub(crate) fn tenant_service(metrics: &Metrics) -> anyhow::Result<Neighbour> {
    let (name, settings) = (NeighbourName::TenantService, tenants::SERVICE_SETTINGS);
    let neighbour = Neighbour::new(name, settings, metrics.neighbours.clone());
    neighbour.context("the client of the Tenant Service")
}

pub(crate) fn state_manager(
    config: &Config,
    secrets: &Secrets,
    metrics: &Metrics,
) -> anyhow::Result<Option<StateManager>> {
    let Some(url) = &config.state.state_manager_url else {
        return Ok(None);
    };
    let settings = state::settings(config.concurrency);
    let neighbour = Neighbour::new(
        NeighbourName::StateManager,
        settings,
        metrics.neighbours.clone(),
    );
    // Posts have time; a slow mapping must not hold them up.
    let (name, settings) = (
        NeighbourName::StateManagerMessages,
        state::settings(config.concurrency),
    );
    let posts = Neighbour::new(name, settings, metrics.neighbours.clone());
    Ok(Some(StateManager::new(
        neighbour.context("the client of the State Manager")?,
        posts.context("the client of the State Manager")?,
        url.clone(),
        secrets.state_manager_token.clone(),
        config.state.state_deadline,
    )))
}
