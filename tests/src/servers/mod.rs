//! Private servers, each with its own folder and ports, gone when dropped; and [`Shared`], the ones
//! that a whole test run has in common because they take seconds to start.

pub mod alertmanager;
pub mod cluster;
pub mod prometheus;
pub mod rabbitmq;
pub mod redis;
pub mod s3;

use std::env;

pub use alertmanager::{Alertmanager, Notified};
pub use cluster::RedisCluster;
pub use prometheus::{Prometheus, PrometheusOptions};
pub use rabbitmq::{Broker, RabbitMq, Vhost};
pub use redis::{Redis, RedisOptions};
pub use s3::{S3, S3Access};

/// RabbitMQ and S3 of the test run, which `lab run` started and named in the environment.
#[derive(Debug, Clone)]
pub struct Shared {
    pub broker: Broker,
    pub s3: S3Access,
}

impl Shared {
    /// Reads `LAB_AMQP_URL`, `LAB_MANAGEMENT_URL`, `LAB_S3_ENDPOINT`, `LAB_S3_ACCESS_KEY`,
    /// `LAB_S3_SECRET_KEY` and `LAB_S3_REGION`.
    ///
    /// # Panics
    /// If one is missing, saying how to run the tests.
    pub fn from_env() -> Self {
        Self {
            broker: Broker {
                amqp_url: variable("LAB_AMQP_URL"),
                management_url: variable("LAB_MANAGEMENT_URL"),
            },
            s3: S3Access {
                endpoint: variable("LAB_S3_ENDPOINT"),
                access_key: variable("LAB_S3_ACCESS_KEY"),
                secret_key: variable("LAB_S3_SECRET_KEY"),
                region: variable("LAB_S3_REGION"),
            },
        }
    }

    /// The variables that [`Shared::from_env`] reads.
    pub fn to_env(&self) -> [(&'static str, &str); 6] {
        [
            ("LAB_AMQP_URL", &self.broker.amqp_url),
            ("LAB_MANAGEMENT_URL", &self.broker.management_url),
            ("LAB_S3_ENDPOINT", &self.s3.endpoint),
            ("LAB_S3_ACCESS_KEY", &self.s3.access_key),
            ("LAB_S3_SECRET_KEY", &self.s3.secret_key),
            ("LAB_S3_REGION", &self.s3.region),
        ]
    }

    /// A fresh vhost, deleted when dropped.
    ///
    /// # Panics
    /// If RabbitMQ can't be reached.
    pub async fn vhost(&self) -> Vhost {
        self.broker
            .vhost()
            .await
            .expect("a vhost of the test run's RabbitMQ")
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: these tests need the RabbitMQ and S3 of a test run. Run \
             `deploy/local/test.sh`, or `target/debug/lab run -- cargo test …`"
        )
    })
}
