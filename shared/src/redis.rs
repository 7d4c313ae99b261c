//! One Redis or a Redis Cluster: connecting, and the checks both programs make before they rely on
//! it: that the partition count is the deployment's, and that it keeps what it acknowledges.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use arc_swap::ArcSwapOption;
use futures::future::join_all;
use redis::aio::{
    ConnectionLike, ConnectionManager, ConnectionManagerConfig, MultiplexedConnection, PubSub,
};
use redis::cluster::{ClusterClient, ClusterClientBuilder, ClusterConfig};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue,
    IntoConnectionInfo, Pipeline, RedisError, RedisFuture, RedisResult, ServerErrorKind, Value,
};

use crate::config::RedisArgs;
use crate::keys::Keys;
use crate::secrets::{Rotating, Secret, WatchedFile};

/// How long a TCP connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A link to a cluster is not suspected before it is so old: it may still be made.
const CLUSTER_LINK_PATIENCE: Duration = Duration::from_secs(5);
/// A server that vanished without a word is noticed after `KEEPALIVE_IDLE` and `KEEPALIVE_PROBES`
/// unanswered probes, and so is one that acknowledges nothing of what was sent: otherwise the kernel takes
/// two hours, or a quarter of one. Firewalls that forget quiet connections don't get to.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Whoever is asked over a connection of its own answers within this time, or is away.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
/// The client's own retries in a cluster, for a slot that is moving. What is away for longer is
/// tried again by whoever asked.
const CLUSTER_RETRIES: u32 = 3;
const CLUSTER_RETRY_MS: (u64, u64) = (5, 50);

/// Where the configured Redis is. Clones share it; when `REDIS_URL_FILE` changes, new connections
/// and those handed out go to the new address with the new password.
#[derive(Clone)]
pub struct Redis(Arc<Rotating<Target>>);

enum Target {
    One(Box<Client>),
    /// Some of its nodes.
    Cluster(Vec<ConnectionInfo>),
}

impl Target {
    /// The parser's own message would repeat the password, so only its kind is told.
    fn parse(urls: &Secret) -> Result<Self, String> {
        let nodes: Result<Vec<_>, _> = urls
            .expose()
            .split(',')
            .map(|url| {
                let node = url.trim().into_connection_info()?;
                Ok::<_, RedisError>(node.set_tcp_settings(tcp_settings()))
            })
            .collect();
        let nodes = nodes.map_err(|error| {
            format!(
                "is no redis:// or rediss:// URL ({:?}); several, comma-separated, are a Redis Cluster",
                error.kind()
            )
        })?;
        let unusable = |error: RedisError| format!("can't be used ({:?})", error.kind());
        match <[ConnectionInfo; 1]>::try_from(nodes) {
            Ok([node]) => {
                let client = Client::open(node).map_err(unusable)?;
                Ok(Self::One(Box::new(client)))
            }
            Err(nodes) => {
                cluster(&nodes, CONNECT_TIMEOUT).map_err(unusable)?;
                Ok(Self::Cluster(nodes))
            }
        }
    }
}

/// Of every connection; the client turns none of this on by itself.
fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    let settings = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(USER_TIMEOUT);
    settings
}

fn cluster(nodes: &[ConnectionInfo], response_timeout: Duration) -> RedisResult<ClusterClient> {
    let (shortest, longest) = CLUSTER_RETRY_MS;
    ClusterClientBuilder::new(nodes.to_vec())
        .retries(CLUSTER_RETRIES)
        .min_retry_wait(shortest)
        .max_retry_wait(longest)
        .connection_timeout(CONNECT_TIMEOUT.min(response_timeout))
        .response_timeout(response_timeout)
        .overall_response_timeout(Some(response_timeout))
        // Those of the nodes' addresses don't count.
        .tcp_settings(tcp_settings())
        .build()
}

impl Redis {
    /// The Redis of the settings; nothing is connected yet.
    ///
    /// # Errors
    /// What is wrong with `REDIS_URL` or its file, without repeating it.
    pub fn new(args: &RedisArgs) -> Result<Self, String> {
        let unset = args.redis_url.is_none() && args.redis_url_file.is_none();
        let default = "redis://127.0.0.1:6379".parse().ok().filter(|_| unset);
        let url = args.redis_url.as_ref().or(default.as_ref());
        let file = args.redis_url_file.as_deref();
        let target = Rotating::open("REDIS_URL", url, file, Target::parse)?;
        target
            .map(Self)
            .ok_or_else(|| "REDIS_URL is not set".to_owned())
    }

    pub fn follow(&self) -> Arc<dyn WatchedFile> {
        self.0.clone()
    }

    /// Grows when the address or the password changes.
    pub fn version(&self) -> u64 {
        self.0.version()
    }

    /// The address of a single server; `None` for a cluster.
    pub fn single(&self) -> Option<ConnectionInfo> {
        match &**self.0.current() {
            Target::One(client) => Some(client.get_connection_info().clone()),
            Target::Cluster(_) => None,
        }
    }

    /// A shared, pipelined connection that comes back by itself. `response_timeout` must be longer
    /// than anything that is asked over it. It is made by the first command.
    pub fn connection(&self, response_timeout: Duration) -> Connection {
        Connection {
            redis: self.clone(),
            response_timeout,
            link: Arc::default(),
        }
    }

    /// Listens to a channel, over a connection of its own; in a cluster any node will do. It ends when
    /// the connection does.
    ///
    /// # Errors
    /// A Redis command failed.
    pub async fn listen(&self, channel: &str) -> RedisResult<PubSub> {
        let clients = match &**self.0.current() {
            Target::One(client) => vec![Client::clone(client)],
            Target::Cluster(nodes) => {
                let clients = nodes.iter().map(|node| Client::open(node.clone()));
                clients.collect::<RedisResult<_>>()?
            }
        };
        let mut failed = RedisError::from((ErrorKind::Io, "no answer in time"));
        for client in clients {
            let listening = async {
                let mut listener = client.get_async_pubsub().await?;
                listener.subscribe(channel).await?;
                Ok(listener)
            };
            match tokio::time::timeout(CONNECT_TIMEOUT, listening).await {
                Ok(Ok(listener)) => return Ok(listener),
                Ok(Err(error)) => failed = error,
                Err(_) => {}
            }
        }
        Err(failed)
    }

    /// A connection of one's own to the node that has `key`, for blocking reads. The time-out is
    /// longer than any block: a shorter one would give up on a reply that the server still sends.
    /// `asking` finds the node in a cluster.
    ///
    /// # Errors
    /// A Redis command failed.
    pub async fn own_connection(
        &self,
        asking: &Connection,
        key: &str,
        response_timeout: Duration,
    ) -> RedisResult<MultiplexedConnection> {
        let like = match &**self.0.current() {
            Target::One(client) => Ok((**client).clone()),
            Target::Cluster(nodes) => Err(nodes[0].clone()),
        };
        let client = match like {
            Ok(client) => client,
            Err(like) => {
                let (host, port) = asking.node_of(key).await?;
                Client::open(at(&like, host, port))?
            }
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(response_timeout));
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }
}

/// A shared connection to one Redis or to all nodes of a cluster. Clones are cheap and share it.
#[derive(Clone)]
pub struct Connection {
    redis: Redis,
    response_timeout: Duration,
    link: Arc<ArcSwapOption<OpenClient>>,
}

struct OpenClient {
    /// Of the target that it was made for.
    version: u64,
    made: Instant,
    /// One at a time asks whether it is stuck.
    judging: tokio::sync::Mutex<()>,
    to: RedisClient,
}

#[derive(Clone)]
enum RedisClient {
    One(ConnectionManager),
    Cluster(ClusterConnection),
}

impl Connection {
    fn link(&self) -> RedisResult<RedisClient> {
        Ok(self.whole_link()?.to.clone())
    }

    fn whole_link(&self) -> RedisResult<Arc<OpenClient>> {
        let version = self.redis.version();
        if let Some(link) = &*self.link.load()
            && link.version == version
        {
            return Ok(link.clone());
        }
        let target = self.redis.0.current();
        let to = match &**target {
            Target::One(client) => {
                let config = ConnectionManagerConfig::new()
                    .set_connection_timeout(Some(CONNECT_TIMEOUT))
                    .set_response_timeout(Some(self.response_timeout))
                    .set_number_of_retries(1)
                    .set_min_delay(Duration::from_millis(50))
                    .set_max_delay(Duration::from_millis(500))
                    .set_pipeline_buffer_size(1024);
                RedisClient::One(ConnectionManager::new_lazy_with_config(
                    (**client).clone(),
                    config,
                )?)
            }
            Target::Cluster(nodes) => {
                let client = cluster(nodes, self.response_timeout)?;
                // It would have none otherwise, whatever the client's is.
                let config = ClusterConfig::new().set_response_timeout(self.response_timeout);
                RedisClient::Cluster(client.get_pending_async_connection_with_config(config))
            }
        };
        let link = Arc::new(OpenClient {
            version,
            made: Instant::now(),
            judging: tokio::sync::Mutex::default(),
            to,
        });
        self.link.store(Some(link.clone()));
        Ok(link)
    }

    /// Lets go of a link that is of no use any more, unless that was done already. The client itself
    /// only sees connections that break: not one that never answers again, one on which an answer
    /// broke off and whatever comes next is taken for the rest of it, or a login that was refused once.
    async fn judge(&self, link: &Arc<OpenClient>, error: &RedisError) {
        let useless = match error.kind() {
            // Demoted to a replica: its name may lead elsewhere by now.
            ErrorKind::Server(ServerErrorKind::ReadOnly) => true,
            ErrorKind::Io if error.is_timeout() => self.is_stuck(link).await,
            ErrorKind::Parse
            | ErrorKind::UnexpectedReturnType
            | ErrorKind::AuthenticationFailed => true,
            _ => false,
        };
        if useless {
            self.link.compare_and_swap(link, None);
        }
    }

    /// Whether something got no answer because of the link. A cluster's client can be stuck for good
    /// after a node was away; but while a node doesn't answer, it is the node, the link serves the
    /// others, and a new one would have to wait for that node first.
    async fn is_stuck(&self, link: &OpenClient) -> bool {
        if let RedisClient::One(_) = link.to {
            return true;
        }
        match link.judging.try_lock() {
            Ok(_judging) => link.made.elapsed() >= CLUSTER_LINK_PATIENCE && self.all_answer().await,
            Err(_) => false,
        }
    }

    /// Asks every primary of the cluster over a connection of its own.
    async fn all_answer(&self) -> bool {
        let target = self.redis.0.current().clone();
        let Target::Cluster(seeds) = &*target else {
            return false;
        };
        let asked = seeds.iter().map(|seed| Box::pin(shards_by(seed)));
        let Ok((shards, _)) = futures::future::select_ok(asked).await else {
            return false;
        };
        let primaries: BTreeSet<(String, u16)> = shards.into_iter().map(|(_, node)| node).collect();
        let pings = primaries.into_iter().map(|(host, port)| async move {
            let node = at(&seeds[0], host, port);
            let command = redis::cmd("PING");
            ask_once::<String>(node, &command).await.is_ok()
        });
        join_all(pings).await.into_iter().all(|answered| answered)
    }

    /// Asks every primary, or the one server. A primary that is away is left out: the others go on
    /// without it.
    ///
    /// # Errors
    /// None of them answers.
    pub async fn ask_all<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<Vec<T>> {
        let cluster = match self.link()? {
            RedisClient::One(_) => return Ok(vec![command.query_async(&mut self.clone()).await?]),
            RedisClient::Cluster(cluster) => cluster,
        };
        let shards = shards(cluster.clone()).await?;
        let primaries: BTreeSet<(String, u16)> = shards.into_iter().map(|(_, node)| node).collect();
        let asked = primaries.into_iter().map(|(host, port)| {
            let node = RoutingInfo::SingleNode(SingleNodeRoutingInfo::ByAddress { host, port });
            let mut cluster = cluster.clone();
            async move {
                let reply = cluster.route_command(command.clone(), node).await?;
                redis::from_redis_value(reply).map_err(RedisError::from)
            }
        });
        let (mut replies, mut failed) = (Vec::new(), None);
        for reply in join_all(asked).await {
            match reply {
                Ok(reply) => replies.push(reply),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if replies.is_empty() => Err(error),
            _ => Ok(replies),
        }
    }

    /// Whether Redis answers: at least one primary of a cluster.
    ///
    /// # Errors
    /// It doesn't, or not yet (`LOADING`).
    pub async fn ping(&self) -> RedisResult<()> {
        let _answers: Vec<String> = self.ask_all(&redis::cmd("PING")).await?;
        Ok(())
    }

    async fn node_of(&self, key: &str) -> RedisResult<(String, u16)> {
        let found = match self.link()? {
            RedisClient::One(_) => None,
            RedisClient::Cluster(cluster) => {
                let mut command = redis::cmd("CLUSTER");
                command.arg("KEYSLOT").arg(key);
                let slot: u16 = command.query_async(&mut cluster.clone()).await?;
                let shards = shards(cluster).await?;
                shards.into_iter().find(|(slots, _)| slots.contains(&slot))
            }
        };
        found.map(|(_, node)| node).ok_or_else(|| {
            let what = "no node of the cluster has the slot";
            RedisError::from((ErrorKind::ClusterConnectionNotFound, what))
        })
    }
}

/// Another node of the same cluster, with the same login.
fn at(like: &ConnectionInfo, host: String, port: u16) -> ConnectionInfo {
    let address = match like.addr() {
        ConnectionAddr::TcpTls {
            insecure,
            tls_params,
            ..
        } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(host, port),
    };
    like.clone().set_addr(address)
}

/// One command over a connection of its own.
async fn ask_once<T: FromRedisValue>(node: ConnectionInfo, command: &Cmd) -> RedisResult<T> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PROBE_TIMEOUT))
        .set_response_timeout(Some(PROBE_TIMEOUT));
    let mut connection = Client::open(node)?
        .get_multiplexed_async_connection_with_config(&config)
        .await?;
    command.query_async(&mut connection).await
}

/// Ranges of slots, each with the host and port of its primary.
type Shards = Vec<(RangeInclusive<u16>, (String, u16))>;

fn cluster_slots() -> Cmd {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    command
}

/// As a node that answers knows them: the one that is asked may be away.
async fn shards(mut cluster: ClusterConnection) -> RedisResult<Shards> {
    let mut tries = 0;
    loop {
        let any = RoutingInfo::SingleNode(SingleNodeRoutingInfo::Random);
        match cluster.route_command(cluster_slots(), any).await {
            Ok(reply) => return Ok(read_shards(redis::from_redis_value(reply)?)),
            Err(error) if tries == 2 => return Err(error),
            Err(_) => tries += 1,
        }
    }
}

async fn shards_by(node: &ConnectionInfo) -> RedisResult<Shards> {
    ask_once(node.clone(), &cluster_slots())
        .await
        .map(read_shards)
}

fn read_shards(shards: Vec<Vec<Value>>) -> Shards {
    let shard = |parts: Vec<Value>| {
        let mut parts = parts.into_iter();
        let first = redis::from_redis_value(parts.next()?).ok()?;
        let last = redis::from_redis_value(parts.next()?).ok()?;
        let primary: Vec<Value> = redis::from_redis_value(parts.next()?).ok()?;
        let (slots, mut primary) = (first..=last, primary.into_iter());
        let host: String = redis::from_redis_value(primary.next()?).ok()?;
        let port = redis::from_redis_value(primary.next()?).ok()?;
        (!host.is_empty()).then_some((slots, (host, port)))
    };
    shards.into_iter().filter_map(shard).collect()
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let link = self.whole_link()?;
            let reply = match link.to.clone() {
                RedisClient::One(mut one) => one.req_packed_command(command).await,
                RedisClient::Cluster(mut cluster) => cluster.req_packed_command(command).await,
            };
            if let Err(error) = &reply {
                self.judge(&link, error).await;
            }
            reply
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let link = self.whole_link()?;
            let replies = match link.to.clone() {
                RedisClient::One(mut one) => one.req_packed_commands(commands, offset, count).await,
                RedisClient::Cluster(mut cluster) => {
                    cluster.req_packed_commands(commands, offset, count).await
                }
            };
            if let Err(error) = &replies {
                self.judge(&link, error).await;
            }
            replies
        })
    }

    fn get_db(&self) -> i64 {
        0
    }
}

/// How a command failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FailureClass {
    Timeout,
    Connection,
    /// What was answered is no reply, or not one to this.
    Protocol,
    Loading,
    /// In a script that doesn't end.
    Busy,
    /// Electing, or moving a slot.
    Cluster,
    OutOfMemory,
    ReadOnly,
    NoScript,
    Denied,
    Other,
}

impl FailureClass {
    fn of(error: &RedisError) -> Self {
        match error.code() {
            Some("LOADING") => Self::Loading,
            Some("BUSY") => Self::Busy,
            Some("CLUSTERDOWN" | "MASTERDOWN" | "TRYAGAIN" | "MOVED" | "ASK") => Self::Cluster,
            Some("OOM") => Self::OutOfMemory,
            Some("READONLY" | "NOREPLICAS" | "MISCONF") => Self::ReadOnly,
            Some("NOSCRIPT") => Self::NoScript,
            Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED") => Self::Denied,
            Some(_) => Self::Other,
            None => match error.kind() {
                ErrorKind::AuthenticationFailed => Self::Denied,
                ErrorKind::Parse | ErrorKind::UnexpectedReturnType => Self::Protocol,
                _ if error.is_timeout() => Self::Timeout,
                _ => Self::Connection,
            },
        }
    }
}

/// How a command failed, in one word: `class` of log lines and answers.
pub fn class(error: &RedisError) -> &'static str {
    match FailureClass::of(error) {
        FailureClass::Timeout => "timeout",
        FailureClass::Connection => "connection",
        FailureClass::Protocol => "protocol",
        FailureClass::Loading => "loading",
        FailureClass::Busy => "busy",
        FailureClass::Cluster => "cluster",
        FailureClass::OutOfMemory => "oom",
        FailureClass::ReadOnly => "readonly",
        FailureClass::NoScript => "noscript",
        FailureClass::Denied => "denied",
        FailureClass::Other => "other",
    }
}

/// What a failed command says about Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// No answer: down, cut off, or too slow. Whether the command was done is unknown.
    NoAnswer,
    /// It says itself that it will be back: loading its data, electing, moving a slot, in a script.
    Recovering,
    /// Out of memory.
    OutOfMemory,
    /// A replica, or one that lost its replicas or its disk: takes no writes.
    ReadOnly,
    /// Anything else: a wrong type at a key, a refused login. Somebody must mend it.
    NeedsRepair,
}

impl FailureKind {
    pub const ALL: [Self; 5] = [
        Self::NoAnswer,
        Self::Recovering,
        Self::OutOfMemory,
        Self::ReadOnly,
        Self::NeedsRepair,
    ];

    pub fn of(error: &RedisError) -> Self {
        match FailureClass::of(error) {
            FailureClass::Timeout | FailureClass::Connection | FailureClass::Protocol => {
                Self::NoAnswer
            }
            FailureClass::Loading | FailureClass::Busy | FailureClass::Cluster => Self::Recovering,
            FailureClass::OutOfMemory => Self::OutOfMemory,
            FailureClass::ReadOnly => Self::ReadOnly,
            FailureClass::NoScript | FailureClass::Denied | FailureClass::Other => {
                Self::NeedsRepair
            }
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::NoAnswer => "away",
            Self::Recovering => "soon",
            Self::OutOfMemory => "full",
            Self::ReadOnly => "read_only",
            Self::NeedsRepair => "broken",
        }
    }

    /// Whether it may be over within a second.
    pub fn passes(self) -> bool {
        match self {
            Self::NoAnswer | Self::Recovering | Self::ReadOnly => true,
            Self::OutOfMemory | Self::NeedsRepair => false,
        }
    }
}

/// What both programs check before they rely on this Redis.
pub struct StartCheck {
    pub connection: Connection,
    pub keys: Keys,
    /// Refuse a Redis that may lose what it acknowledged.
    pub required: bool,
}

impl StartCheck {
    /// Writes the deployment's partition count if there is none, compares it, reads the durability
    /// settings. The inner result is `Err` where a Redis command failed, else what is unsafe about it.
    ///
    /// # Errors
    /// Why this program must not run: another partition count, a cluster named as a single server, or
    /// unsafe settings while safe ones are required.
    pub async fn run(&mut self) -> anyhow::Result<RedisResult<Vec<String>>> {
        let wanted = self.keys.partitions();
        let stored = match self.partition_count(wanted).await {
            Ok(stored) => stored,
            Err(error) => {
                // A cluster's client says so too, after its own retries, while nodes change places.
                let elsewhere = matches!(error.code(), Some("MOVED" | "ASK"));
                ensure!(
                    !elsewhere || self.connection.redis.single().is_none(),
                    "REDIS_URL (--redis-url) names one node of a Redis Cluster: name several of its \
                     nodes, comma-separated"
                );
                return Ok(Err(error));
            }
        };
        if stored != wanted {
            bail!(
                "STREAM_PARTITIONS (--stream-partitions) is {wanted}, but this deployment was \
                 created with {stored}: set it to {stored}"
            );
        }
        let problems = match durability_problems(&self.connection).await {
            Ok(problems) => problems,
            Err(error) => return Ok(Err(error)),
        };
        if self.required && !problems.is_empty() {
            bail!(
                "REQUIRE_DURABLE_REDIS is set, but this Redis may lose what it acknowledged: {}",
                problems.join("; ")
            );
        }
        for problem in &problems {
            tracing::warn!(problem, "Redis may lose what it acknowledged");
        }
        Ok(Ok(problems))
    }

    async fn partition_count(&mut self, wanted: u16) -> RedisResult<u16> {
        if self.connection.redis.single().is_some() {
            // A node of a cluster has some of the partitions, and maybe the count: it must have all.
            let mut streams = redis::pipe();
            for partition in 0..wanted {
                streams.exists(self.keys.stream(partition)).ignore();
            }
            streams.query_async::<()>(&mut self.connection).await?;
        }
        let key = self.keys.partition_count();
        // Asked first: a full Redis takes no SET, and must drain all the same.
        let stored: Option<u16> = redis::cmd("GET")
            .arg(&key)
            .query_async(&mut self.connection)
            .await?;
        if let Some(stored) = stored {
            return Ok(stored);
        }
        redis::cmd("SET")
            .arg(&key)
            .arg(wanted)
            .arg("NX")
            .query_async::<()>(&mut self.connection)
            .await?;
        redis::cmd("GET")
            .arg(&key)
            .query_async(&mut self.connection)
            .await
    }
}

/// What makes this Redis lose what it acknowledged, one sentence each; empty if nothing.
///
/// # Errors
/// A Redis command failed. A server that forbids CONFIG is no error: it is one of the sentences.
pub async fn durability_problems(connection: &Connection) -> RedisResult<Vec<String>> {
    let wanted = [
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("no-appendfsync-on-rewrite", "no"),
        ("maxmemory-policy", "noeviction"),
        ("maxmemory", ""),
    ];
    let mut problems = Vec::new();
    for (name, wanted) in wanted {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg(name);
        let servers: Vec<HashMap<String, String>> = match connection.ask_all(&command).await {
            Ok(servers) => servers,
            Err(error) if FailureKind::of(&error).passes() => return Err(error),
            Err(_) => {
                problems
                    .push("unknown: CONFIG GET is forbidden, settings can't be read".to_owned());
                return Ok(problems);
            }
        };
        for server in servers {
            let problem = match (name, server.get(name).map(String::as_str)) {
                ("maxmemory", Some("0")) => {
                    "maxmemory is 0, should be a limit such as 4gb".to_owned()
                }
                ("maxmemory", _) => continue,
                (_, Some(value)) if value == wanted => continue,
                (_, Some(value)) => format!("{name} is {value}, should be {wanted}"),
                (_, None) => format!("{name} is unknown, should be {wanted}"),
            };
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }
    Ok(problems)
}

/// How full Redis is, as a share of its `maxmemory`: the fullest primary of a cluster. 0 where there
/// is no limit.
///
/// # Errors
/// A Redis command failed.
pub async fn memory_used(connection: &Connection) -> RedisResult<f64> {
    let mut command = redis::cmd("INFO");
    command.arg("memory");
    let servers: Vec<String> = connection.ask_all(&command).await?;
    let shares = servers.iter().map(|info| {
        let number = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse::<f64>().ok())
        };
        match (number("used_memory:"), number("maxmemory:")) {
            (Some(used), Some(most)) if most > 0.0 => used / most,
            _ => 0.0,
        }
    });
    Ok(shares.fold(0.0, f64::max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cluster_says_while_its_nodes_change_places_passes() {
        use ServerErrorKind::{Ask, ClusterDown, MasterDown, Moved, TryAgain};
        for kind in [Ask, ClusterDown, MasterDown, Moved, TryAgain] {
            let error = RedisError::from((ErrorKind::Server(kind), "as a server says it"));
            assert!(FailureKind::of(&error).passes(), "{error}");
        }
    }

    #[test]
    fn a_failure_has_one_class() {
        use ServerErrorKind::{BusyLoading, NoPerm, NoScript, ReadOnly};
        let io = |kind| RedisError::from(std::io::Error::from(kind));
        let said = |kind| RedisError::from((kind, "as a server says it"));
        for (error, expected) in [
            (io(std::io::ErrorKind::TimedOut), "timeout"),
            (io(std::io::ErrorKind::ConnectionReset), "connection"),
            (said(ErrorKind::Parse), "protocol"),
            (said(ErrorKind::AuthenticationFailed), "denied"),
            (said(ErrorKind::Server(BusyLoading)), "loading"),
            (said(ErrorKind::Server(ReadOnly)), "readonly"),
            (said(ErrorKind::Server(NoScript)), "noscript"),
            (said(ErrorKind::Server(NoPerm)), "denied"),
        ] {
            assert_eq!(class(&error), expected, "{error}");
        }
    }
}
