//! A private S3: Ceph's gateway, or, with `LAB_S3=s3s`, one within this program. Faults of the store are
//! played by a proxy in front, or by killing it.

mod ceph;
mod embedded;
mod objects;

use anyhow::bail;

use self::ceph::Ceph;
use self::embedded::Embedded;
use crate::ports;

/// What a client of an S3 needs.
#[derive(Debug, Clone)]
pub struct S3Access {
    /// `http://host:port`
    pub endpoint: String,
    pub access_key: String,
    pub secret_key: String,
    pub region: String,
}

/// One S3 endpoint.
#[derive(Debug)]
pub struct S3 {
    port: u16,
    access: S3Access,
    server: S3Server,
}

#[derive(Debug)]
enum S3Server {
    Ceph(Box<Ceph>),
    Embedded(Embedded),
}

impl S3 {
    /// Starts an empty store of the kind that `LAB_S3` names: `radosgw`, the default, or `s3s`. Buckets
    /// and objects can be written at full speed when this returns.
    ///
    /// # Errors
    /// There is no such kind, a part of Ceph is not installed, or it does not become ready.
    pub async fn start() -> anyhow::Result<Self> {
        match std::env::var("LAB_S3").as_deref() {
            Err(_) | Ok("" | "radosgw") => {
                let (port, access) = place();
                let server = S3Server::Ceph(Box::new(Ceph::start(&access, port).await?));
                Ok(Self {
                    port,
                    access,
                    server,
                })
            }
            Ok("s3s") => Self::embedded(),
            Ok(other) => bail!("LAB_S3 is radosgw or s3s, not {other}"),
        }
    }

    /// Starts the one within this program, which needs nothing installed. What it holds is gone when
    /// it is dropped.
    ///
    /// # Errors
    /// Its port is taken.
    pub fn embedded() -> anyhow::Result<Self> {
        let (port, access) = place();
        let server = S3Server::Embedded(Embedded::start(&access, port)?);
        Ok(Self {
            port,
            access,
            server,
        })
    }

    pub fn access(&self) -> &S3Access {
        &self.access
    }

    /// `http://127.0.0.1:<port>`
    pub fn endpoint(&self) -> &str {
        &self.access.endpoint
    }

    /// `127.0.0.1:<port>`, for a proxy in front.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Sends `TERM`, `STOP` (frozen: connections stay, nothing answers) or `CONT` to the gateway.
    pub fn signal(&mut self, signal: &str) {
        match &mut self.server {
            S3Server::Ceph(ceph) => ceph.signal(signal),
            S3Server::Embedded(embedded) => embedded.signal(signal),
        }
    }

    /// `kill -9` of the gateway; what it had acknowledged stays.
    pub fn kill(&mut self) {
        match &mut self.server {
            S3Server::Ceph(ceph) => ceph.kill(),
            S3Server::Embedded(embedded) => embedded.kill(),
        }
    }

    /// Starts the gateway again on the same port and data; kills it first if it runs.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        match &mut self.server {
            S3Server::Ceph(ceph) => ceph.restart().await,
            S3Server::Embedded(embedded) => embedded.restart(),
        }
    }
}

fn place() -> (u16, S3Access) {
    let port = ports::free();
    let access = S3Access {
        endpoint: format!("http://127.0.0.1:{port}"),
        access_key: "lab-access-key".to_owned(),
        secret_key: uuid::Uuid::new_v4().simple().to_string(),
        region: "us-east-1".to_owned(),
    };
    (port, access)
}
