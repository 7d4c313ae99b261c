//! A private Redis Cluster: three nodes without replicas, so that one that is away is missed.

use std::time::Duration;

use anyhow::{Context, ensure};
use redis::aio::MultiplexedConnection;

use super::redis::{Redis, RedisOptions};
use crate::ports;
use crate::waiting::eventually;

pub const SLOTS: u16 = 16384;
const SOON: Duration = Duration::from_secs(60);

/// redis-servers that share the slots evenly. A slot whose node is away leaves the others
/// served.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Redis>,
}

impl RedisCluster {
    /// Three nodes.
    ///
    /// # Errors
    /// As [`RedisCluster::of`].
    pub async fn start() -> anyhow::Result<Self> {
        Self::of(3, RedisOptions::default()).await
    }

    /// Starts it; every node knows all others when this returns (about 2 s). Of `size` nodes, the nth
    /// has the nth part of the slots.
    ///
    /// # Errors
    /// redis-server is not installed, or the nodes don't find each other.
    pub async fn of(size: usize, options: RedisOptions) -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        let size = size as u16;
        for n in 0..size {
            let bus = ports::free();
            let arguments = [
                "--cluster-enabled yes",
                "--cluster-require-full-coverage no",
                "--cluster-node-timeout 2000",
                &format!("--cluster-port {bus}"),
            ];
            let options = RedisOptions {
                arguments: arguments.join(" ").split(' ').map(str::to_owned).collect(),
                ..options.clone()
            };
            let node = Redis::start(options).await?;
            let mut connection = node.connection().await;
            let share = SLOTS / size;
            let last = if n == size - 1 {
                SLOTS - 1
            } else {
                (n + 1) * share - 1
            };
            // Epochs of their own, so that nodes needn't agree on them first.
            cluster("SET-CONFIG-EPOCH")
                .arg(n + 1)
                .exec_async(&mut connection)
                .await?;
            let slots = cluster("ADDSLOTSRANGE").arg(n * share).arg(last).to_owned();
            slots.exec_async(&mut connection).await?;
            nodes.push((node, bus));
        }
        let mut first = nodes[0].0.connection().await;
        for (node, bus) in &nodes[1..] {
            let mut meet = cluster("MEET");
            meet.arg("127.0.0.1").arg(node.port).arg(*bus);
            meet.exec_async(&mut first).await.context("CLUSTER MEET")?;
        }
        let nodes = nodes.into_iter().map(|(node, _)| node).collect();
        let cluster = Self { nodes };
        cluster.whole().await;
        Ok(cluster)
    }

    /// All nodes, as `REDIS_URL` wants them.
    pub fn url(&self) -> String {
        let urls: Vec<_> = self.nodes.iter().map(Redis::url).collect();
        urls.join(",")
    }

    /// The nodes by themselves.
    pub fn into_nodes(self) -> Vec<Redis> {
        self.nodes
    }

    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// Which node has `key`.
    ///
    /// # Panics
    /// If no node answers.
    pub async fn node_of(&self, key: &str) -> usize {
        let slot = self.slot_of(key).await;
        for (n, node) in self.nodes.iter().enumerate() {
            let Ok(mut connection) = node.try_connection().await else {
                continue;
            };
            let own: String = cluster("NODES")
                .query_async(&mut connection)
                .await
                .expect("NODES");
            let own = own
                .lines()
                .find(|line| line.contains("myself"))
                .expect("itself");
            // id address flags primary ping pong epoch state, then the slots
            let served = own
                .split(' ')
                .skip(8)
                .filter(|range| !range.starts_with('['));
            let serves = |range: &str| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                (first.parse().unwrap_or(SLOTS)..=last.parse().unwrap_or(0)).contains(&slot)
            };
            if served.into_iter().any(serves) {
                return n;
            }
        }
        panic!("no node that answers has {key}");
    }

    /// A connection to the node of `key`, for looking.
    pub async fn connection_for(&self, key: &str) -> MultiplexedConnection {
        self.nodes[self.node_of(key).await].connection().await
    }

    /// `kill -9` of one node.
    pub fn kill(&mut self, n: usize) {
        self.nodes[n].kill();
    }

    /// Starts a node again with its data.
    ///
    /// # Panics
    /// If it doesn't come back, or the others don't take it back.
    pub async fn restart(&mut self, n: usize) {
        self.nodes[n]
            .restart()
            .await
            .expect("a node of the cluster");
        self.whole().await;
    }

    /// Begins to move the slot of `key` to node `to`: what it has stays where it is, and clients that
    /// ask for what it doesn't have are sent on by ASK.
    ///
    /// # Errors
    /// A node refuses.
    pub async fn begin_move(&self, key: &str, to: usize) -> anyhow::Result<()> {
        let (slot, from) = (self.slot_of(key).await, self.node_of(key).await);
        ensure!(from != to, "the slot is there already");
        let (from_id, to_id) = (self.id(from).await, self.id(to).await);
        let mut importing = cluster("SETSLOT");
        importing.arg(slot).arg("IMPORTING").arg(from_id);
        importing
            .exec_async(&mut self.nodes[to].connection().await)
            .await?;
        let mut migrating = cluster("SETSLOT");
        migrating.arg(slot).arg("MIGRATING").arg(to_id);
        migrating
            .exec_async(&mut self.nodes[from].connection().await)
            .await?;
        Ok(())
    }

    /// Moves what the slot has, and then the slot: clients that ask its old node are sent on by MOVED.
    ///
    /// # Errors
    /// A node refuses.
    pub async fn finish_move(&self, key: &str, to: usize) -> anyhow::Result<()> {
        let (slot, from) = (self.slot_of(key).await, self.node_of(key).await);
        let to_id = self.id(to).await;
        let mut source = self.nodes[from].connection().await;
        loop {
            let mut some = cluster("GETKEYSINSLOT");
            let keys: Vec<String> = some.arg(slot).arg(100).query_async(&mut source).await?;
            if keys.is_empty() {
                break;
            }
            let mut migrate = redis::cmd("MIGRATE");
            migrate
                .arg("127.0.0.1")
                .arg(self.nodes[to].port)
                .arg("")
                .arg(0)
                .arg(5000);
            migrate
                .arg("KEYS")
                .arg(keys)
                .exec_async(&mut source)
                .await?;
        }
        for n in [to, from, 3 - to - from] {
            let mut set = cluster("SETSLOT");
            set.arg(slot).arg("NODE").arg(&to_id);
            set.exec_async(&mut self.nodes[n].connection().await)
                .await?;
        }
        Ok(())
    }

    async fn slot_of(&self, key: &str) -> u16 {
        for node in &self.nodes {
            if let Ok(mut connection) = node.try_connection().await {
                let mut slot = cluster("KEYSLOT");
                return slot
                    .arg(key)
                    .query_async(&mut connection)
                    .await
                    .expect("KEYSLOT");
            }
        }
        panic!("no node answers");
    }

    async fn id(&self, n: usize) -> String {
        let mut connection = self.nodes[n].connection().await;
        cluster("MYID")
            .query_async(&mut connection)
            .await
            .expect("MYID")
    }

    async fn whole(&self) {
        for node in &self.nodes {
            eventually(SOON, "a node sees the whole cluster", async || {
                let mut connection = node.try_connection().await.ok()?;
                let info: String = cluster("INFO").query_async(&mut connection).await.ok()?;
                let nodes: String = cluster("NODES").query_async(&mut connection).await.ok()?;
                let whole = info.contains("cluster_state:ok")
                    && info.contains("cluster_slots_ok:16384")
                    && info.contains("cluster_known_nodes:3")
                    && !nodes.contains("fail")
                    && !nodes.contains("handshake");
                whole.then_some(())
            })
            .await;
        }
    }
}

fn cluster(command: &str) -> redis::Cmd {
    let mut cluster = redis::cmd("CLUSTER");
    cluster.arg(command);
    cluster
}

#[cfg(test)]
mod tests {
    use redis::AsyncCommands;

    use super::*;

    #[tokio::test]
    async fn a_killed_node_comes_back_with_its_data_and_a_slot_moves() {
        let mut cluster = RedisCluster::start().await.expect("a cluster");
        let owner = cluster.node_of("{3}:x").await;
        let mut connection = cluster.connection_for("{3}:x").await;
        connection.set::<_, _, ()>("{3}:x", "1").await.expect("SET");
        cluster.kill(owner);
        cluster.restart(owner).await;
        let to = (owner + 1) % 3;
        cluster.begin_move("{3}:x", to).await.expect("moving");
        cluster.finish_move("{3}:x", to).await.expect("moved");
        assert_eq!(cluster.node_of("{3}:x").await, to);
        let mut connection = cluster.connection_for("{3}:x").await;
        let value: String = connection.get("{3}:x").await.expect("GET");
        assert_eq!(value, "1");
    }
}
