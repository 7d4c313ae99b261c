//! The command `health` of both programs, which a container's health check runs: their images have
//! no other program that could ask.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, ensure};

/// `/health` answers within 100 ms.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks the program whose admin routes are at `listen`.
///
/// # Errors
/// It can't be reached, or doesn't answer 200 within 2 s.
pub fn ask(listen: SocketAddr) -> anyhow::Result<()> {
    let address = SocketAddr::new(reachable(listen.ip()), listen.port());
    let answer = answer(address).with_context(|| format!("http://{address}/health"))?;
    let status = answer.lines().next().unwrap_or_default();
    ensure!(
        status.starts_with("HTTP/1.1 200"),
        "http://{address}/health answers `{status}`"
    );
    Ok(())
}

fn answer(address: SocketAddr) -> std::io::Result<String> {
    let mut connection = TcpStream::connect_timeout(&address, PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes())?;
    let mut answer = String::new();
    connection.take(4096).read_to_string(&mut answer)?;
    Ok(answer)
}

/// Who listens everywhere is asked on the loopback interface.
fn reachable(listen: IpAddr) -> IpAddr {
    match listen {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V4(_) | IpAddr::V6(_) => listen,
    }
}
