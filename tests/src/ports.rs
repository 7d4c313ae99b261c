//! Ports that stay ours while a server is down.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use rand::Rng;

/// Below the range from which Linux takes the local ports of outgoing connections (32768 and up).
/// In that range a client that retries while its server restarts can be given the server's own
/// port, connect to itself, and keep the server from coming back.
const RANGE: std::ops::Range<u16> = 10_000..32_000;

/// A free port on the loopback interface that this program has not been given before.
pub fn free() -> u16 {
    static TAKEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let taken = taken.get_or_insert_default();
    loop {
        let port = rand::rng().random_range(RANGE);
        if !taken.contains(&port) && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            taken.insert(port);
            return port;
        }
    }
}
