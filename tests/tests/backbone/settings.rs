//! Settings that no program can work with are refused before it begins.

use std::collections::BTreeSet;
use std::process::ExitStatus;

use tests::Stage;
use tests::meta::payload::{self, Number};
use tests::process::{Process, command};
use tests::programs::{Builder, Program, built};

use crate::SOON;

/// How a program ends that has all it needs, but for one setting; and what it tells.
async fn started(program: &str, variable: &str, value: &str) -> (ExitStatus, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = command(built(program).expect("built"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("META_APP_SECRETS", "secret")
        .env("MINIO_ACCESS_KEY", "key")
        .env("MINIO_SECRET_KEY", "secret")
        .env(variable, value);
    let mut process = Process::spawn(program, command, folder.path()).expect("it starts");
    // With a setting that it takes it would run for ever.
    let ended = process.wait(SOON).await;
    let told = process.log();
    let status = ended.unwrap_or_else(|error| panic!("{variable}={value}: {error:#}: {told}"));
    (status, told)
}

async fn refuses(program: &str, variable: &str, value: &str, why: &str) {
    let (status, told) = started(program, variable, value).await;
    assert!(!status.success(), "{variable}={value}");
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

#[tokio::test]
async fn a_duration_that_no_clock_can_add_is_refused() {
    for (program, variables) in DURATIONS {
        for variable in variables {
            for value in ["300000000000y", "367d"] {
                refuses(program, variable, value, "366d").await;
            }
        }
    }
    refuses("worker", "LEASE_TTL", "2h", "from 500ms to 1h").await;
    refuses("worker", "MEDIA_DEADLINE", "584554049253y", "too large").await;
}

#[tokio::test]
async fn a_count_that_no_machine_can_hold_is_refused() {
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
            refuses(program, variable, value, "must be from 1 to").await;
        }
    }
}

#[tokio::test]
async fn a_duration_of_nothing_is_refused_where_nothing_could_be_done_in_it() {
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
            refuses(program, variable, value, "").await;
        }
    }
}

#[tokio::test]
async fn a_slip_of_the_pen_is_no_level_of_logs() {
    for program in ["worker", "ingress"] {
        for level in ["debgu", "info,worker=debgu", "info;worker=debug"] {
            refuses(program, "LOG_LEVEL", level, "is no level").await;
        }
    }
}

/// A worker's command with no settings but these.
fn worker_command(arguments: &[&str], settings: &[(&str, &str)]) -> std::process::Output {
    let mut worker = command(built("worker").expect("built"));
    worker.env_clear().args(arguments);
    worker.envs(settings.iter().copied());
    worker.output().expect("it runs")
}

#[test]
fn a_worker_tells_what_it_is_set_to_and_where_from_but_no_secret() {
    let keys = [("MINIO_ACCESS_KEY", "key"), ("MINIO_SECRET_KEY", "hush")];
    let more = [("LEASE_TTL", "7s"), ("AMQP_URL", "amqp://u:hush@h/")];
    let settings = [keys, more].concat();
    let arguments = ["--concurrency", "9", "config", "print", "--json"];
    let output = worker_command(&arguments, &settings);
    let told = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(!told.contains("hush"), "{told}");
    let report: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let of = |variable: &str| {
        let mut all = report["settings"].as_array().expect("a list").iter();
        let found = all.find(|it| it["variable"] == variable).expect(variable);
        (
            found["source"].as_str().expect("a source").to_owned(),
            found["value"].clone(),
        )
    };
    assert_eq!(of("WORKER_CONCURRENCY"), ("flag".to_owned(), "9".into()));
    assert_eq!(of("LEASE_TTL"), ("variable".to_owned(), "7s".into()));
    assert_eq!(of("AMQP_CHANNELS"), ("default".to_owned(), "4".into()));
    assert_eq!(of("AMQP_URL"), ("variable".to_owned(), "***".into()));
    assert_eq!(of("TENANTS_FILE").1, serde_json::Value::Null);

    let output = worker_command(&["config", "check"], &keys);
    assert_eq!(output.status.code(), Some(0));
    let wrong = [("LEASE_TTL", "1ms"), ("LOG_LEVEL", "debgu")];
    let output = worker_command(&["config", "check"], &wrong);
    let told = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(1), "{told}");
    for named in ["LEASE_TTL", "LOG_LEVEL", "MINIO_ACCESS_KEY"] {
        assert!(told.contains(named), "{named} in {told}");
    }
    // A command that needs them could not look.
    let output = worker_command(&["inspect"], &wrong);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_worker_tells_its_version_its_sections_its_completions_and_its_manual() {
    let told = |arguments: &[&str]| {
        let output = worker_command(arguments, &[]);
        let told = String::from_utf8(output.stdout).expect("text");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {told}");
        told
    };
    let version = told(&["--version"]);
    assert!(version.contains("(commit "), "{version}");
    let help = told(&["--help"]);
    for section in ["Redis:", "RabbitMQ:", "Object store:", "Media:", "Logs:"] {
        assert!(
            help.lines().any(|line| line == section),
            "{section} in {help}"
        );
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(told(&["completions", shell]).contains("inspect"), "{shell}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("a path");
    told(&["man", path]);
    let page = folder.path().join("worker-failed-list.1");
    let page = std::fs::read_to_string(page).expect("a page");
    assert!(page.contains("set aside"), "{page}");
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

/// Names that `.env.example` has; those of secrets apart.
fn variables() -> (BTreeSet<String>, BTreeSet<String>) {
    let example = include_str!("../../../.env.example");
    let names = example.lines().filter_map(|line| {
        let name = line.trim_start_matches('#').split_once('=')?.0;
        let is_name = |c: char| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit();
        name.chars().all(is_name).then(|| name.to_owned())
    });
    let is_secret = |name: &String| {
        let kinds = ["SECRET", "TOKEN", "KEY", "AMQP_URL", "REDIS_URL"];
        let plain = ["_FILE", "_TTL", "_PREFIX"];
        kinds.iter().any(|kind| name.contains(kind)) && !plain.iter().any(|end| name.ends_with(end))
    };
    names.partition(is_secret)
}

#[tokio::test]
async fn an_optional_setting_that_is_empty_is_as_if_it_were_not_set() {
    let stage = Stage::new().await;
    let (secrets, others) = variables();
    assert!(
        secrets.len() > 5 && others.len() > 40,
        "{secrets:?} {others:?}"
    );
    let needed = |program: &Program, name: &str| !program.setting(name).is_empty();
    let (ingress, worker) = (
        stage.spooling_ingress().start().await,
        stage.worker().start().await,
    );
    let empty = |program: &Program| -> Vec<String> {
        let names = others.iter().filter(|name| !needed(program, name));
        names.cloned().collect()
    };
    let (of_ingress, of_worker) = (empty(&ingress), empty(&worker));
    drop((ingress, worker));
    // Both start, and are ready.
    let mut builder = stage.spooling_ingress();
    for name in &of_ingress {
        builder = builder.env(name, "");
    }
    builder.start().await;
    let mut builder = stage.worker();
    for name in &of_worker {
        builder = builder.env(name, " ");
    }
    builder.start().await;
}

#[tokio::test]
async fn an_empty_secret_and_a_broken_amqp_url_are_refused_without_being_repeated() {
    refuses("ingress", "META_VERIFY_TOKEN", "", "must not be empty").await;
    refuses("worker", "AMQP_URL", " ", "must not be empty").await;
    for (password, encoded) in [
        ("pine#apple", "%23"),
        ("pine@apple", "%40"),
        ("pine/apple", "%2F"),
        ("pine?apple", "%3F"),
    ] {
        let url = format!("amqp://user:{password}@127.0.0.1:5672/");
        refuses("worker", "AMQP_URL", &url, encoded).await;
        let (_, told) = started("worker", "AMQP_URL", &url).await;
        assert!(!told.contains("pine") && !told.contains("apple"), "{told}");
    }
}
