//! What is written down is what the programs say.

use std::path::Path;
use std::process::Command;

use tests::env_example;
use tests::programs::built;

/// `UPDATE_DOCUMENTS=1` writes what differs.
pub(crate) fn assert_written(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        std::fs::write(&path, text).expect("a file that can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == text,
        "{file} is not what the programs say: UPDATE_DOCUMENTS=1 deploy/local/test.sh writes it"
    );
}

fn help(program: &str) -> String {
    let mut command = Command::new(built(program).expect("a built program"));
    let said = command
        .env_clear()
        .arg("--help")
        .output()
        .expect("its help");
    String::from_utf8(said.stdout).expect("text")
}

#[test]
fn the_example_of_the_environment_has_every_setting() {
    let text = env_example::text(&help("ingress"), &help("worker"));
    assert_written(".env.example", &text);
}
