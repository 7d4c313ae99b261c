//! Payloads beside the checkout, where there are any: `WHATSAPP_CORPUS` names their folder.

use std::io::Write;
use std::path::PathBuf;

/// Name and bytes of each payload. Without the folder there is nothing to test, and a line says so:
/// straight to standard error, which the test framework hides nowhere.
///
/// # Panics
/// If a file can't be read.
pub fn payloads(test: &str) -> Option<Vec<(String, Vec<u8>)>> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/whatsapp/corpus");
    let folder = std::env::var_os("WHATSAPP_CORPUS").map_or(beside, PathBuf::from);
    let Ok(files) = std::fs::read_dir(&folder) else {
        let folder = folder.display();
        let told = writeln!(
            std::io::stderr(),
            "skipped: {test}: no corpus at {folder} (WHATSAPP_CORPUS)"
        );
        told.expect("standard error");
        return None;
    };
    let paths = files.map(|file| file.expect("a folder").path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|it| it == "json"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has no payloads", folder.display());
    let read = |path: PathBuf| {
        let bytes = std::fs::read(&path).expect("a readable file");
        (path.display().to_string(), bytes)
    };
    Some(paths.into_iter().map(read).collect())
}
