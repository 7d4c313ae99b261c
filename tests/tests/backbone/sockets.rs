//! The programs' connections to Redis, as the kernel sees them: a server that vanishes without a word
//! is noticed, by those who only listen too.

use std::collections::{BTreeMap, HashSet};
use std::fs;

use tests::programs::Program;
use tests::servers::{Redis, RedisCluster};
use tests::waiting::poll;
use tests::{Stage, StageOptions};

use crate::SOON;

/// `st` of an open connection and `tr` of the keep-alive timer in `/proc/net/tcp`.
const ESTABLISHED: &str = "01";
const KEEPALIVE: &str = "02";
/// The kernel sends the first probe after two hours unless told otherwise; hundredths of a second.
const WITHIN: u64 = 1500;

/// The sockets of a process, by inode.
fn sockets(process: u32) -> HashSet<String> {
    let files = fs::read_dir(format!("/proc/{process}/fd")).expect("its files");
    let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    let inode = |link: std::path::PathBuf| {
        let socket = link.to_str()?.strip_prefix("socket:[")?;
        Some(socket.strip_suffix(']')?.to_owned())
    };
    links.filter_map(inode).collect()
}

/// A process' open connections to a port: how many of them the kernel probes in time, of how many.
fn probed(process: u32, port: u16) -> (usize, usize) {
    let own = sockets(process);
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
    let (mut probed, mut all) = (0, 0);
    for line in table.lines().skip(1) {
        let columns: Vec<_> = line.split_whitespace().collect();
        let [_, _, remote, state, _, timer, _, _, _, inode, ..] = columns[..] else {
            panic!("{line}");
        };
        let is_there = remote.ends_with(&format!(":{port:04X}"));
        if !is_there || state != ESTABLISHED || !own.contains(inode) {
            continue;
        }
        let (kind, when) = timer.split_once(':').expect("a timer and when");
        let when = u64::from_str_radix(when, 16).expect("a number");
        all += 1;
        probed += usize::from(kind == KEEPALIVE && when <= WITHIN);
    }
    (probed, all)
}

/// Waits until `least` connections or more are open to each server, and all are probed.
async fn assert_probed(program: &mut Program, servers: &[Redis], least: usize) {
    let process = program.process().id();
    let look = || -> BTreeMap<u16, (usize, usize)> {
        let ports = servers.iter().map(|server| {
            let address = server.address();
            let (_, port) = address.rsplit_once(':').expect("a port");
            port.parse::<u16>().expect("a port")
        });
        ports.map(|port| (port, probed(process, port))).collect()
    };
    // One that waits for an answer has another timer.
    let all = poll(SOON, async || {
        let good = |(probed, all): &(usize, usize)| probed == all && *all >= least;
        look().values().all(good).then_some(())
    });
    assert!(all.await.is_some(), "(probed, open) by port: {:?}", look());
}

#[tokio::test]
async fn every_connection_to_redis_is_probed_by_the_kernel() {
    let stage = Stage::new().await;
    let mut ingress = stage.spooling_ingress().env("THREADS", 2).start().await;
    let mut worker = stage.worker().start().await;
    let redis = std::slice::from_ref(&stage.redis);
    // The probes' and one of each serving thread.
    assert_probed(&mut ingress, redis, 3).await;
    // Commands, leases, what listens for changed accounts, and what sleeps on streams.
    assert_probed(&mut worker, redis, 4).await;
}

#[tokio::test]
async fn every_connection_to_a_cluster_is_probed_by_the_kernel() {
    let stage = Stage::with(StageOptions {
        cluster: Some(RedisCluster::start().await.expect("a cluster")),
        ..StageOptions::default()
    })
    .await;
    let mut ingress = stage.ingress().env("THREADS", 1).start().await;
    let mut worker = stage.worker().start().await;
    let cluster = stage.cluster.as_ref().expect("a cluster");
    assert_probed(&mut ingress, cluster.nodes(), 1).await;
    assert_probed(&mut worker, cluster.nodes(), 2).await;
}

/// Whoever holds many connections open keeps no probe out, and takes no more than a bounded number.
#[tokio::test]
async fn the_admin_port_holds_a_bounded_number_of_connections() {
    const MOST: usize = 128;
    let stage = Stage::new().await;
    let mut ingress = stage.ingress().start().await;
    let process = ingress.process().id();
    let before = sockets(process).len();
    let mut held = Vec::new();
    for _ in 0..4 * MOST {
        let opened = tokio::net::TcpStream::connect(ingress.admin()).await;
        held.push(opened.expect("a connection"));
        if held.len().is_multiple_of(MOST) {
            let (ready, _) = ingress.get("/ready").await.expect("an answer");
            assert_eq!(ready.as_u16(), 200);
            // That answer came over a connection behind all that were opened before it.
            let open = sockets(process).len();
            assert!(open <= before + MOST + 8, "{open} of {}", held.len());
        }
    }
}
