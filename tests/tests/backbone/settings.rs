//! Settings that no program can work with are refused before it begins.

use std::process::{Command, Output};

use tests::programs::built;

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
