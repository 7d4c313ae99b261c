//! The folders are the path of a message: a file imports from its own folder and from those before it,
//! and no more than five files import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// In the order of the path. A module that isn't here is an error, so that each gets its place.
const PATH: [&str; 16] = [
    "retry",
    "metrics",
    "read",
    "item",
    "ask",
    "out",
    "config",
    "clients",
    "context",
    "owed",
    "partition",
    "watch",
    "operator",
    "console",
    "cli",
    "run",
];
const MOST_IN_A_CIRCLE: usize = 5;
/// Lines of a function of the core: of what every message passes.
const LONGEST_FUNCTION: usize = 60;
const CORE: [&str; 8] = [
    "read",
    "item",
    "ask",
    "out",
    "owed",
    "partition",
    "config",
    "run",
];
/// These wait to be split.
const STILL_LONG: [(&str, &str); 2] = [
    ("item::event", "part"),
    ("item::event::contract", "asyncapi"),
];

/// A file as a module path below the crate: `["read", "stream"]`.
type Module = Vec<String>;

/// Each file's source, without its unit tests.
fn sources(folder: &Path, module: &[String], all: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy();
        let child = || [module, &[name.to_string()]].concat();
        if path.is_dir() {
            sources(&path, &child(), all);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let source = fs::read_to_string(&path).expect("text");
            let code = source
                .split("#[cfg(test)]\nmod tests {")
                .next()
                .expect("a first part");
            let code = code
                .lines()
                .map(|line| line.split("//").next().expect("a first part"));
            let module = if name == "mod" {
                module.to_vec()
            } else {
                child()
            };
            all.insert(module, code.collect::<Vec<_>>().join("\n"));
        }
    }
}

/// The paths that a use tree names: `a::{b, c::d}` are `a::b` and `a::c::d`.
fn paths(tree: &str) -> Vec<String> {
    let Some((before, inside)) = tree.split_once('{') else {
        return vec![tree.trim().to_owned()];
    };
    let inside = inside.trim_end().strip_suffix('}').expect("a closed brace");
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for letter in inside.chars() {
        match letter {
            ',' if depth == 0 => parts.push(String::new()),
            _ => {
                depth += i32::from(letter == '{') - i32::from(letter == '}');
                parts.last_mut().expect("one at least").push(letter);
            }
        }
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    let whole = parts.flat_map(|part| paths(part));
    whole
        .map(|path| format!("{}{path}", before.trim()))
        .collect()
}

/// The files that a file's code names, by `use` or by a path in it.
fn imports(module: &Module, code: &str, all: &BTreeMap<Module, String>) -> BTreeSet<Module> {
    let mut named = Vec::new();
    let mut rest = String::new();
    for statement in code.split_inclusive(';') {
        match statement.split_once("use ") {
            Some((before, tree))
                if before.trim_end().is_empty() || before.ends_with(['\n', ')', ' ']) =>
            {
                named.extend(paths(tree.trim_end_matches(';')));
            }
            Some(_) | None => rest.push_str(statement),
        }
    }
    // Who may see it is no import.
    let rest = rest.replace("pub(in crate::", "pub(in ");
    let words = rest.split(|letter: char| !letter.is_alphanumeric() && !"_:".contains(letter));
    named.extend(words.filter(|word| word.contains("::")).map(str::to_owned));
    let whole = named.iter().filter_map(|path| {
        let steps: Vec<&str> = path.split("::").map(str::trim).collect();
        let ups = steps.iter().take_while(|step| **step == "super").count();
        let from = match *steps.first()? {
            "crate" => vec![],
            "self" => module.clone(),
            "super" => module[..module.len().checked_sub(ups)?].to_vec(),
            _ => return None,
        };
        let below = steps.iter().skip(ups.max(1)).map(|step| (*step).to_owned());
        Some(from.into_iter().chain(below).collect::<Vec<_>>())
    });
    let file = |path: Vec<String>| {
        let prefixes = (1..=path.len()).rev().map(|n| path[..n].to_vec());
        prefixes.into_iter().find(|prefix| all.contains_key(prefix))
    };
    let mut files: BTreeSet<Module> = whole.filter_map(file).collect();
    files.remove(module);
    files
}

fn graph() -> BTreeMap<Module, BTreeSet<Module>> {
    let mut all = BTreeMap::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &[],
        &mut all,
    );
    all.retain(|module, _| !matches!(module.join("::").as_str(), "lib" | "main"));
    let files = all.iter();
    files
        .map(|(module, code)| (module.clone(), imports(module, code, &all)))
        .collect()
}

fn place(module: &Module) -> usize {
    let place = PATH.iter().position(|place| *place == module[0]);
    place.unwrap_or_else(|| panic!("{} has no place in PATH", module[0]))
}

/// Everything that can be reached from a file.
fn reached(from: &Module, graph: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<Module> {
    let (mut found, mut next) = (BTreeSet::new(), vec![from.clone()]);
    while let Some(module) = next.pop() {
        for file in &graph[&module] {
            if found.insert(file.clone()) {
                next.push(file.clone());
            }
        }
    }
    found
}

#[test]
fn a_file_imports_from_its_folder_and_those_before_it() {
    let graph = graph();
    assert!(graph.len() > 80, "the sources were read");
    let edges = graph
        .iter()
        .flat_map(|(from, to)| to.iter().map(move |to| (from, to)));
    let against: Vec<String> = edges
        .filter(|(from, to)| place(from) < place(to))
        .map(|(from, to)| format!("{} imports {}", from.join("::"), to.join("::")))
        .collect();
    assert!(against.is_empty(), "{against:#?}");
}

#[test]
fn no_circle_has_more_than_five_files() {
    let graph = graph();
    let reached: BTreeMap<&Module, BTreeSet<Module>> = graph
        .keys()
        .map(|module| (module, reached(module, &graph)))
        .collect();
    for (module, from_here) in &reached {
        let circle = from_here
            .iter()
            .filter(|other| reached[other].contains(*module));
        let circle: Vec<String> = circle.map(|module| module.join("::")).collect();
        assert!(circle.len() <= MOST_IN_A_CIRCLE, "{circle:#?}");
    }
}

/// A source's functions and how many lines each has, told by the indentation of its closing brace.
fn functions(source: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = source.lines().collect();
    let mut found = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some((before, rest)) = code.split_once("fn ") else {
            continue;
        };
        let is_word = |word: &str| {
            ["pub", "async", "const", "unsafe"].contains(&word) || word.starts_with("pub(")
        };
        if !before.split_whitespace().all(is_word) {
            continue;
        }
        let end = format!("{:1$}}}", "", line.len() - code.len());
        let is_short = line.ends_with(['}', ';']);
        let end = lines[n..].iter().position(|line| *line == end);
        let length = end.filter(|_| !is_short);
        let name = rest.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        let name = name.take(1).map(str::to_owned).collect();
        found.push((name, length.map_or(1, |length| length + 1)));
    }
    found
}

#[test]
fn no_function_of_the_core_has_more_than_60_lines() {
    let mut all = BTreeMap::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    sources(&root, &[], &mut all);
    all.retain(|module, _| module.first().is_some_and(|it| CORE.contains(&it.as_str())));
    // A file of tests.
    all.retain(|module, _| !module.ends_with(&["properties".to_owned()]));
    let mut functions: Vec<_> = all
        .iter()
        .flat_map(|(module, code)| {
            let module = module.join("::");
            let all = functions(code).into_iter();
            all.map(move |(name, lines)| (module.clone(), name, lines))
        })
        .collect();
    assert!(functions.len() > 500, "{} were read", functions.len());
    functions.retain(|(module, name, lines)| {
        *lines > LONGEST_FUNCTION && !STILL_LONG.contains(&(module.as_str(), name.as_str()))
    });
    assert!(functions.is_empty(), "{functions:#?}");
}

#[test]
fn a_function_ends_at_the_brace_below_it() {
    let source = "pub(super) async fn a<T>(\n    b: T,\n) {\n    if c {\n    }\n}\nimpl D {\n    fn e() {}\n    fn f() {\n        g();\n    }\n}\n";
    let found = functions(source).into_iter();
    let found: Vec<_> = found
        .map(|(name, lines)| format!("{name} {lines}"))
        .collect();
    assert_eq!(found, ["a 6", "e 1", "f 3"]);
}

#[test]
fn a_use_tree_names_its_paths() {
    assert_eq!(
        paths("crate::a::{self, b::{c, D}, E}"),
        [
            "crate::a::self",
            "crate::a::b::c",
            "crate::a::b::D",
            "crate::a::E"
        ]
    );
}
