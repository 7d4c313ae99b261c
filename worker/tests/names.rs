//! One word, one thing: a type's name stands once in the three crates that ship.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Each program has its own.
const ONE_PER_PROGRAM: [&str; 3] = ["Config", "Metrics", "Secrets"];

/// The names of the types in a file's text, but those of its unit tests.
fn types(text: &str) -> Vec<String> {
    let mut lines = text.lines();
    let mut names = Vec::new();
    while let Some(line) = lines.next() {
        let code = line.trim_start();
        if code == "#[cfg(test)]" {
            let end = format!("{:1$}}}", "", line.len() - code.len());
            let item = lines.find(|line| !line.trim_start().starts_with("#["));
            if item.is_some_and(|item| !item.ends_with(';')) {
                lines.find(|line| *line == end);
            }
            continue;
        }
        let item = match code.split_once(' ') {
            Some((visibility, item)) if visibility.starts_with("pub") => item,
            Some(_) | None => code,
        };
        let Some((kind, rest)) = item.split_once(' ') else {
            continue;
        };
        // An indented `type` is a trait's.
        let declares = match kind {
            "struct" | "enum" | "trait" | "union" => true,
            "type" => code.len() == line.len(),
            _ => false,
        };
        if declares {
            let name = rest.split(|letter: char| !letter.is_alphanumeric());
            names.extend(name.take(1).map(str::to_owned));
        }
    }
    names
}

/// Whether a file is a module of unit tests, as the file beside its folder says.
fn is_tests(path: &Path) -> bool {
    let name = path.file_stem().expect("a name").to_string_lossy();
    let parent = path.parent().expect("a folder").with_extension("rs");
    let parent = fs::read_to_string(parent).unwrap_or_default();
    parent.contains(&format!("#[cfg(test)]\nmod {name};"))
}

/// Adds the types of a folder's files, each with the files that declare it.
fn gather(folder: &Path, all: &mut BTreeMap<String, Vec<String>>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            gather(&path, all);
        } else if path.extension().is_some_and(|it| it == "rs") && !is_tests(&path) {
            for name in types(&fs::read_to_string(&path).expect("text")) {
                let files = all.entry(name).or_default();
                files.push(path.display().to_string());
            }
        }
    }
}

#[test]
fn a_type_name_stands_for_one_thing() {
    let mut all = BTreeMap::new();
    for program in ["worker", "ingress", "shared"] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        gather(&root.join(program).join("src"), &mut all);
    }
    assert!(all.len() > 400, "the sources were read");
    all.retain(|_, files| files.len() > 1);
    for allowed in ONE_PER_PROGRAM {
        all.remove(allowed);
    }
    assert!(all.is_empty(), "{all:#?}");
}

#[test]
fn types_are_found_but_those_of_tests() {
    let text = "pub(super) struct A<'a>(&'a str);\nenum B {\n    type C = u8;\n}\ntype D = u8;\n\
                #[cfg(test)]\nmod tests {\n    use a;\n    struct E;\n}\npub trait F: Send {}\n";
    assert_eq!(types(text), ["A", "B", "D", "F"]);
}
