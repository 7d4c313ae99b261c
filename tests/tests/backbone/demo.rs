//! The demo, as somebody sees it who runs it for the first time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::process::{self, Process, send_signal};
use tests::programs::built;
use tests::waiting::eventually;

use crate::SOON;

/// Its servers and programs start, and it kills some of them.
const TOUR: std::time::Duration = std::time::Duration::from_secs(120);

fn demo(folder: &Path) -> Command {
    let mut demo = process::command(built("lab").expect("lab"));
    demo.arg("demo").current_dir(folder);
    demo
}

/// Children of a process, by the names of their programs.
fn child(parent: u32, name: &str) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.find(|id| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let Some((named, rest)) = stat.split_once(") ") else {
            return false;
        };
        // Behind its state.
        let is_child = rest.split(' ').nth(1) == Some(&*parent.to_string());
        is_child && named.contains(&format!("({name}"))
    })
}

/// Runs a line in a shell that has sourced what the demo wrote.
fn shell(settings: &Path, line: &str) -> String {
    let script = format!(". {} && {line}", settings.display());
    let output = Command::new("sh").args(["-c", &script]).output();
    let output = output.expect("a shell");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn a_demo_shows_its_tour_and_can_be_tried_until_it_is_told_to_stop() {
    let (folder, standing_in) = (tempfile::tempdir(), tempfile::tempdir());
    let (folder, standing_in) = (folder.expect("a folder"), standing_in.expect("a folder"));
    let mut demo =
        Process::spawn("demo", demo(standing_in.path()), folder.path()).expect("it runs");
    let said = async |demo: &Process, text: &str| {
        let what = format!("the demo says: {text}");
        eventually(TOUR, &what, async || {
            demo.log().contains(text).then_some(())
        })
        .await;
    };
    said(&demo, "until Ctrl-C").await;
    let log = demo.log();
    assert!(log.contains("All of it was as it should be."), "{log}");
    assert_eq!(log.matches('✓').count(), 5, "{log}");
    let settings = log
        .lines()
        .find_map(|line| line.trim().strip_prefix("source "));
    let settings = PathBuf::from(settings.expect("a file to source"));
    let curl = log
        .lines()
        .find(|line| line.trim().starts_with("curl -i"))
        .expect("curl");
    let answer = shell(&settings, curl);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    said(&demo, "message.text.tenant-102290").await;
    let inspected = shell(&settings, "worker inspect");
    assert!(inspected.starts_with("Streams"), "{inspected}");
    let message = r#"echo '{"from":"1","type":"text","text":{"body":"a"}}' | simulator send --body - --account 102299"#;
    let sent = shell(&settings, message);
    assert!(sent.starts_with("200"), "{sent}");
    said(&demo, "message.text.tenant-102299").await;
    // What a node of Erlang leaves when it is told to dump.
    let beam = child(demo.id(), "beam.smp").expect("RabbitMQ");
    send_signal("USR1", &beam.to_string());
    said(&demo, "RabbitMQ has ended").await;
    let redis = child(demo.id(), "redis-server").expect("Redis");
    send_signal("KILL", &redis.to_string());
    said(&demo, "Redis has ended").await;
    demo.signal("TERM");
    assert!(demo.wait(SOON).await.expect("it ends").success());
    assert!(!settings.exists(), "the file to source goes with the demo");
    let left = fs::read_dir(standing_in.path())
        .expect("a folder")
        .flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_demo_without_redis_says_so_in_a_sentence() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut demo = Command::new(built("lab").expect("lab"));
    demo.args(["demo", "--once"]).env("PATH", folder.path());
    let output = demo.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("redis-server is not installed"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}
