//! What is deployed is what the tests run.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::programs::Program;
use tests::stage::Stage;

const DOCKERFILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/docker/Dockerfile");

/// The words of an instruction's JSON array, in the stage of the Dockerfile that is called `target`.
fn instruction(target: &str, instruction: &str) -> Vec<String> {
    let file = std::fs::read_to_string(Path::new(DOCKERFILE)).expect("the Dockerfile");
    let stage = file
        .split("\nFROM ")
        .find(|stage| {
            stage
                .lines()
                .next()
                .is_some_and(|line| line.ends_with(target))
        })
        .expect("a stage of that name");
    let line = stage.lines().find(|line| line.starts_with(instruction));
    let line = line.expect("the instruction");
    let array = line.split_once('[').map(|(_, words)| format!("[{words}"));
    let words: Value = serde_json::from_str(&array.expect("an array")).expect("JSON");
    serde_json::from_value(words).expect("words")
}

/// Runs the health check of the program's image beside it.
fn health_check(program: &Program, target: &str) -> bool {
    let words = instruction(target, "HEALTHCHECK");
    assert_eq!(words[0], format!("/{target}"));
    let mut check: Command = program.command();
    let ran = check.args(&words[1..]).status();
    ran.expect("the health check").success()
}

#[tokio::test]
async fn images_start_the_programs_and_tell_whether_they_live() {
    let stage = Stage::new().await;
    let (mut ingress, mut worker) = tokio::join!(stage.ingress().start(), stage.worker().start());
    for (target, program) in [("ingress", &mut *ingress), ("worker", &mut *worker)] {
        assert_eq!(instruction(target, "ENTRYPOINT"), [format!("/{target}")]);
        assert!(health_check(program, target), "{target} lives");
        program.kill();
        assert!(!health_check(program, target), "{target} is dead");
    }
}
