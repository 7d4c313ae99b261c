//! Settings that no program can work with are refused before it begins.

use std::process::{Command, Output};

use tests::Stage;
use tests::meta::payload::{self, Number};
use tests::programs::{Builder, Program, built};

use crate::SOON;

/// Starts a program that has all it needs, but for one setting.
fn started(program: &str, variable: &str, value: &str) -> Output {
    let mut command = Command::new(built(program).expect("built"));
    command
        .env_clear()
        .env("META_APP_SECRETS", "secret")
        .env("MINIO_ACCESS_KEY", "key")
        .env("MINIO_SECRET_KEY", "secret")
        .env(variable, value);
    command.output().expect("it runs")
}

fn refuses(program: &str, variable: &str, value: &str, why: &str) {
    let output = started(program, variable, value);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{variable}={value}");
    assert!(!told.contains("panicked"), "{variable}={value}: {told}");
    assert!(
        told.contains(variable) && told.contains(why),
        "{variable}={value}: {told}"
    );
}

const DURATIONS: [(&str, &[&str]); 2] = [
    (
        "worker",
        &[
            "LEASE_TTL",
            "SHUTDOWN_GRACE",
            "CONFIRM_TIMEOUT",
            "PRESIGN_EXPIRY",
            "MEDIA_DEADLINE",
            "TENANT_CACHE_TTL",
            "TENANT_STALE_TTL",
            "TOKEN_CACHE_TTL",
            "STATE_DEADLINE",
        ],
    ),
    (
        "ingress",
        &[
            "HEADER_TIMEOUT",
            "BODY_TIMEOUT",
            "REQUEST_DEADLINE",
            "DEDUP_TTL",
            "REDIS_PATIENCE",
            "SHUTDOWN_GRACE",
        ],
    ),
];

#[test]
fn a_duration_that_no_clock_can_add_is_refused() {
    for (program, variables) in DURATIONS {
        for variable in variables {
            for value in ["300000000000y", "367d"] {
                refuses(program, variable, value, "366d");
            }
        }
    }
    refuses("worker", "LEASE_TTL", "2h", "from 500ms to 1h");
    refuses("worker", "MEDIA_DEADLINE", "584554049253y", "too large");
}

#[test]
fn a_count_that_no_machine_can_hold_is_refused() {
    for (program, variable) in [
        ("worker", "WORKER_CONCURRENCY"),
        ("worker", "MEDIA_CONCURRENCY"),
        ("worker", "MAX_DELIVERIES"),
        ("worker", "THREADS"),
        ("ingress", "MAX_CONNECTIONS"),
        ("ingress", "MAX_IN_FLIGHT"),
        ("ingress", "MAX_BODY_BYTES"),
        ("ingress", "THREADS"),
    ] {
        for value in ["18446744073709551615", "0"] {
            refuses(program, variable, value, "must be from 1 to");
        }
    }
}

#[test]
fn a_duration_of_nothing_is_refused_where_nothing_could_be_done_in_it() {
    for (program, variable) in [
        ("worker", "LEASE_TTL"),
        ("worker", "CONFIRM_TIMEOUT"),
        ("worker", "PRESIGN_EXPIRY"),
        ("worker", "TENANT_CACHE_TTL"),
        ("worker", "TENANT_STALE_TTL"),
        ("worker", "TOKEN_CACHE_TTL"),
        ("worker", "STATE_DEADLINE"),
        ("ingress", "HEADER_TIMEOUT"),
        ("ingress", "BODY_TIMEOUT"),
        ("ingress", "REQUEST_DEADLINE"),
        ("ingress", "DEDUP_TTL"),
        ("ingress", "REDIS_PATIENCE"),
    ] {
        for value in ["0s", "-1s"] {
            refuses(program, variable, value, "");
        }
    }
}

/// What one program takes at most. Each of the first can be as long as any duration.
const LARGEST_OF_INGRESS: (&[&str], &[(&str, &str)]) = (
    &[
        "HEADER_TIMEOUT",
        "BODY_TIMEOUT",
        "REQUEST_DEADLINE",
        "DEDUP_TTL",
    ],
    &[
        ("REDIS_PATIENCE", "365d"),
        ("MAX_CONNECTIONS", "1000000"),
        ("MAX_IN_FLIGHT", "1000000"),
        ("MAX_IN_FLIGHT_BYTES", "4294967295"),
        ("MAX_BODY_BYTES", "536870912"),
        ("RATE_LIMIT_PER_MINUTE", "4294967295"),
    ],
);
const LARGEST_OF_WORKER: (&[&str], &[(&str, &str)]) = (
    &[
        "CONFIRM_TIMEOUT",
        "MEDIA_DEADLINE",
        "TENANT_CACHE_TTL",
        "TENANT_STALE_TTL",
        "TOKEN_CACHE_TTL",
        "STATE_DEADLINE",
    ],
    &[
        ("LEASE_TTL", "1h"),
        ("PRESIGN_EXPIRY", "7d"),
        ("WORKER_CONCURRENCY", "1000000"),
        ("MEDIA_CONCURRENCY", "1000000"),
        ("MAX_DELIVERIES", "1000000"),
        ("READ_BYTES", "18446744073709551615"),
        ("MEDIA_MAX_BYTES", "18446744073709551615"),
        ("GRAPH_REQUESTS_PER_SECOND", "10000"),
        ("PUBLISH_BATCH", "65535"),
    ],
);

fn with_largest<P: From<Program>>(
    program: Builder<P>,
    largest: (&[&str], &[(&str, &str)]),
) -> Builder<P> {
    let (durations, others) = largest;
    let durations = durations.iter().map(|variable| (*variable, "366d"));
    let settings = durations.chain(others.iter().copied());
    settings.fold(program, |program, (variable, value)| {
        program.env(variable, value)
    })
}

/// What is taken is worked with: no sum of it overflows.
#[tokio::test]
async fn the_largest_settings_that_are_taken_work() {
    let stage = Stage::new().await;
    let state_manager = stage.neighbours.url();
    let worker = stage.worker().env("STATE_MANAGER_URL", state_manager);
    let ingress = with_largest(stage.spooling_ingress(), LARGEST_OF_INGRESS);
    let ingress = ingress.start().await;
    let worker = with_largest(worker, LARGEST_OF_WORKER).start().await;
    let events = stage.events();
    let image = payload::image("16505551234", "1111111111111");
    let sender = stage.sender(&ingress);
    sender.send(Number::fresh().message(image)).await;
    let seen = events.wait_for(1, SOON).await;
    assert_eq!(seen[0].text("/message/media/status"), "stored");
    assert_eq!(seen[0].payload["degraded"], serde_json::json!([]));
    for log in [ingress.log(), worker.log()] {
        assert!(!log.contains("panicked"), "{log}");
    }
}
