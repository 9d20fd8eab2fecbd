//! The shape of the house: who imports whom, and what every file keeps to.
//!
//! Reads `src/` as text. The invariant: a module of ours imports only what its row of the table
//! names, so the layers hold without anyone having to remember them.

#![allow(clippy::disallowed_methods, reason = "tests read the real time for their deadlines")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A longer file is split by noun.
const MAX_LINES: usize = 500;

/// `main` parses and hands over.
const MAX_MAIN_LINES: usize = 40;

/// Layers, for the rows below: a module, or a path within one.
const LAYER_0: &[&str] = &[
    "domain",
    "config",
    "clock",
    "wake",
    "heartbeats",
    "printable",
    "telemetry",
    "private_files",
    "key_file",
];
const LAYER_1: &[&str] = &["api", "outbound", "blobs", "store"];
const LAYER_1_WITHOUT_API: &[&str] = &["outbound", "blobs", "store"];
const LAYER_2: &[&str] = &["engine", "public_url", "doctor", "erasure"];

/// Who may import whom. A module that is not here yet stands here already where the plan has it.
const TABLE: &[(&str, &[&[&str]])] = &[
    ("domain", &[]),
    ("printable", &[]),
    ("config", &[&["printable"]]),
    ("clock", &[]),
    ("wake", &[]),
    ("heartbeats", &[]),
    ("telemetry", &[&["config", "printable"]]),
    ("private_files", &[]),
    ("key_file", &[&["private_files"]]),
    ("api", &[LAYER_0]),
    ("outbound", &[LAYER_0]),
    ("blobs", &[LAYER_0]),
    ("store", &[LAYER_0]),
    ("engine", &[LAYER_0, &["outbound"]]),
    ("public_url", &[LAYER_0, &["outbound"]]),
    ("doctor", &[LAYER_0, &["outbound", "public_url"]]),
    ("erasure", &[LAYER_0, &["store", "blobs"]]),
    ("http", &[LAYER_0, LAYER_1, LAYER_2]),
    ("workers", &[LAYER_0, LAYER_1_WITHOUT_API, LAYER_2]),
    ("client", &[&["api", "domain"]]),
    ("app", &[LAYER_0, LAYER_1, LAYER_2, &["http", "workers"]]),
    // Of `http`, the command line may print the OpenAPI document and no more; `check` asks the
    // rooms of layer 2 as the service does.
    ("cli", &[LAYER_0, LAYER_1, LAYER_2, &["app", "client", "simulator", "http::docs"]]),
    ("main", &[&["cli"]]),
    // Sharing our reading of the Engine's JSON would let a wrong guess agree with itself.
    ("simulator", &[]),
];

/// Technologies, and the only modules that may name them.
const TECHNOLOGIES: &[(&str, &[&str])] = &[
    ("sqlx", &["store"]),
    ("axum", &["http", "app", "simulator"]),
    ("object_store", &["blobs"]),
    ("metrics_exporter_prometheus", &["telemetry", "http"]),
    ("clap", &["cli", "simulator"]),
    // The settings check the log level with the reader that will take it.
    ("tracing_subscriber", &["telemetry", "config"]),
];

/// What `domain` is free of: plain values know no I/O.
const NOT_IN_DOMAIN: &[&str] = &["tokio", "reqwest", "futures_util", "async", "await"];

/// Macros that stand for work not done.
const UNFINISHED: &[&str] = &["todo", "unimplemented", "dbg"];

// ---------------------------------------------------------------------------------- the promises

#[test]
fn no_module_imports_what_its_row_does_not_name() {
    let found: Vec<String> = sources().iter().flat_map(forbidden_imports).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_module_has_a_row_and_the_rows_lead_in_no_circle() {
    for source in sources() {
        assert!(
            source.room == "lib" || row(&source.room).is_some(),
            "{} belongs to no row of the table",
            source.path
        );
    }
    // Rows that name only settled rows settle in turn; what a circle holds never does.
    let mut settled = BTreeSet::new();
    loop {
        let before = settled.len();
        for (room, rows) in TABLE {
            let names = rows.iter().copied().flatten();
            if names.copied().all(|name| settled.contains(first_segment(name))) {
                settled.insert(*room);
            }
        }
        if settled.len() == before {
            break;
        }
    }
    let circling: Vec<_> = TABLE.iter().filter(|(room, _)| !settled.contains(room)).collect();
    assert!(circling.is_empty(), "{circling:?}");
}

#[test]
fn every_technology_stays_in_its_rooms() {
    let found: Vec<String> = sources().iter().flat_map(strayed_technologies).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_figure_has_labels_from_a_closed_list() {
    let found: Vec<String> = sources().iter().flat_map(stray_figures).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn every_file_says_what_it_is_and_fits_a_reader() {
    let mut found = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        let limit = if source.room == "main" { MAX_MAIN_LINES } else { MAX_LINES };
        if !source.text.starts_with("//!") {
            found.push(format!("{} does not begin with //!", source.path));
        }
        if lines > limit {
            found.push(format!("{} has {lines} lines, more than {limit}", source.path));
        }
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_commands_write_through_one_file() {
    let ways = ["io::stdout", "io::stderr", "print!", "println!"];
    let strayed = sources().into_iter().filter(|source| {
        let is_command = source.room == "cli" && !source.path.ends_with("cli/screen.rs");
        is_command && ways.iter().any(|way| source.text.contains(way))
    });
    let strayed: Vec<String> = strayed.map(|source| source.path).collect();
    assert!(strayed.is_empty(), "{strayed:?}");
}

#[test]
fn nothing_is_left_unfinished_or_unwrapped() {
    let found: Vec<String> = sources().iter().flat_map(loose_ends).collect();
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

// ---------------------------------------------------------------------- the reader, put to the test

#[test]
fn a_forbidden_import_is_found_however_it_is_spelled() {
    for (room, text) in [
        ("domain", "use crate::config::Config;"),
        ("domain", "use crate::{\n    config::{\n        self,\n        Config,\n    },\n};"),
        ("domain", "fn f() -> crate::config::Config { todo() }"),
        ("clock", "use super::config;"),
        ("clock", "#[cfg(test)]\nmod tests { use super::super::config::Config; }"),
        ("outbound", "use crate::{clock::Clock, store::{Lookup as Found, Store}};"),
        ("store", "use crate::outbound::*;"),
        ("http", "use crate::{api, workers::turn};"),
        ("workers", "use crate::api;"),
        ("simulator", "macro_rules! m { () => { $crate::domain::json::parse() } }"),
        ("cli", "use crate::http::{self, docs::Document};"),
        ("cli", "use crate::workers::Worker;"),
        ("main", "use finishline::app::App;"),
        ("client", "fn f() { crate::http::docs::Document::openapi::<()>() }"),
    ] {
        let found = forbidden_imports(&source_of(room, text));
        assert_eq!(found.len(), 1, "{room}: {text}: {found:?}");
    }
}

#[test]
fn what_a_row_names_and_what_only_looks_like_an_import_pass() {
    for (room, text) in [
        ("http", "use crate::{api, domain::ids::{DeliveryId, JobId}, store::Lookup};"),
        ("cli", "use crate::http::docs::Document;"),
        ("main", "finishline::cli::run().await"),
        ("store", "mod tests { use super::*; use super::sqlite::X; } use self::sqlite::Y;"),
        ("domain", "//! [`crate::config`]\n/* crate::store /* crate::api */ */ // crate::http\n"),
        ("domain", r###"const A: &str = "crate::config"; const B: &str = r#""crate::app"#;"###),
        ("domain", "fn f<'a>(c: &'a char) { let _ = ('\"', '\\'', b'\"'); /* crate::api */ }"),
        ("store", "use crate::store::Lookup;"),
    ] {
        let found = forbidden_imports(&source_of(room, text));
        assert!(found.is_empty(), "{room}: {text}: {found:?}");
    }
}

#[test]
fn loose_ends_are_found_outside_tests_only() {
    let loose = "fn f() { x.unwrap(); dbg!(x); todo!() }";
    assert_eq!(loose_ends(&source_of("store", loose)).len(), 3);
    let fine = "fn f() { x.unwrap_or(1); y.expect(\"a reason: todo!()\"); }
        #[cfg(test)] mod tests { fn g() { x.unwrap(); } }";
    assert!(loose_ends(&source_of("store", fine)).is_empty());
    let after = "#[cfg(test)] use a::b; fn f() { x.unwrap(); }";
    assert_eq!(loose_ends(&source_of("store", after)).len(), 1);
}

#[test]
fn a_strayed_technology_is_found() {
    assert_eq!(strayed_technologies(&source_of("http", "use sqlx::Row;")).len(), 1);
    assert_eq!(strayed_technologies(&source_of("domain", "async fn f() {}")).len(), 1);
    assert!(strayed_technologies(&source_of("store", "use sqlx::Row; // axum")).is_empty());
}

#[test]
fn a_figure_with_a_label_of_its_own_is_found() {
    for text in [
        "use metrics::counter;",
        "fn f() { metrics::gauge!(NAME, \"method\" => method).increment(1); }",
        "fn f(method: String) { counter!(NAME, \"method\" => method); }",
        "fn f(text: String) -> Label { Label::from(text.leak() as &'static str) }",
    ] {
        assert!(!stray_figures(&source_of("http", text)).is_empty(), "{text}");
    }
    let fine =
        "fn f() { CALLBACKS.of([outcome.into()]); health::metrics; context.metrics.render() }";
    assert!(stray_figures(&source_of("http", fine)).is_empty());
}

// -------------------------------------------------------------------------------------- the checks

/// One line for each module that a file names and its row does not.
fn forbidden_imports(source: &Source) -> Vec<String> {
    let allowed = row(&source.room).unwrap_or_default();
    let is_allowed = |import: &[String]| {
        allowed.iter().copied().flatten().any(|name| {
            let named: Vec<&str> = name.split("::").collect();
            import.len() >= named.len() && import.iter().zip(&named).all(|(a, b)| a == b)
        })
    };
    let imports = imports(source).into_iter();
    let forbidden = imports.filter(|import| import[0] != source.room && !is_allowed(import));
    let modules: BTreeSet<String> = forbidden.map(|import| import[0].clone()).collect();
    let line = |module| format!("{}: {} may not import {module}", source.path, source.room);
    modules.into_iter().map(line).collect()
}

fn strayed_technologies(source: &Source) -> Vec<String> {
    let tokens = tokens(&source.text);
    let names = |name: &str| tokens.iter().any(|token| token == name);
    let mut found = Vec::new();
    for (technology, rooms) in TECHNOLOGIES {
        if names(technology) && !rooms.contains(&source.room.as_str()) {
            found.push(format!("{} names {technology}, which is for {rooms:?}", source.path));
        }
    }
    for name in NOT_IN_DOMAIN {
        if source.room == "domain" && names(name) {
            found.push(format!("{} names {name}, but domain is plain values", source.path));
        }
    }
    found
}

/// Where labels could be made of text that comes from outside: the macros of `metrics` take any
/// text, and a text that is leaked counts as the program's own.
fn stray_figures(source: &Source) -> Vec<String> {
    let tokens = tokens(&source.text);
    let mut found = Vec::new();
    for window in tokens.windows(2) {
        let [name, next] = window else { continue };
        let is_figure = match (name.as_str(), next.as_str()) {
            ("metrics", "::") | ("counter" | "gauge" | "histogram", "!") => {
                source.room != "telemetry"
            }
            ("leak", _) => true,
            _ => false,
        };
        if is_figure {
            found.push(format!("{}: {name}: figures are of `telemetry` alone", source.path));
        }
    }
    found
}

fn loose_ends(source: &Source) -> Vec<String> {
    let tokens = without_tests(&tokens(&source.text));
    let mut found = Vec::new();
    for window in tokens.windows(4) {
        let [a, b, c, d] = window else { continue };
        if UNFINISHED.contains(&a.as_str()) && b == "!" {
            found.push(format!("{}: {a}!", source.path));
        }
        if (a.as_str(), b.as_str(), c.as_str(), d.as_str()) == (".", "unwrap", "(", ")") {
            found.push(format!("{}: unwrap() outside tests; expect() says why", source.path));
        }
    }
    found
}

fn row(room: &str) -> Option<&'static [&'static [&'static str]]> {
    TABLE.iter().find(|(name, _)| *name == room).map(|(_, rows)| *rows)
}

fn first_segment(path: &str) -> &str {
    path.split("::").next().unwrap_or(path)
}

// --------------------------------------------------------------------------------------- the files

struct Source {
    /// Below the crate's folder, for messages.
    path: String,
    /// Top-level module, `main` or `lib`.
    room: String,
    /// How deep its module lies: 1 for `clock.rs`, 0 for the crate's root.
    depth: usize,
    text: String,
}

/// Every file below `src/`.
fn sources() -> Vec<Source> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&folder, &mut files);
    assert!(files.len() > 20, "src/ was not read");
    files.sort();
    let source = |file: PathBuf| {
        let path = file.strip_prefix(&folder).expect("it lies in src/").to_owned();
        let names: Vec<String> = path
            .with_extension("")
            .iter()
            .map(|name| name.to_string_lossy().into_owned())
            .filter(|name| name != "mod")
            .collect();
        let is_root = matches!(names[0].as_str(), "main" | "lib");
        Source {
            path: format!("src/{}", path.display()),
            room: names[0].clone(),
            depth: if is_root { 0 } else { names.len() },
            text: fs::read_to_string(&file).expect("a source file is UTF-8"),
        }
    };
    files.into_iter().map(source).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src/ can be read") {
        let path = entry.expect("src/ can be read").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn source_of(room: &str, text: &str) -> Source {
    let depth = usize::from(room != "main");
    Source { path: "sample".into(), room: room.into(), depth, text: text.into() }
}

// -------------------------------------------------------------------------------------- the reader

/// Paths of ours that a file names, from the crate's root.
fn imports(source: &Source) -> Vec<Vec<String>> {
    let tokens = tokens(&source.text);
    let mut found = Vec::new();
    // Braces that are open, and whether each is an inline module's.
    let mut braces = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let token = tokens[at].as_str();
        match token {
            "{" => braces.push(at >= 2 && tokens[at - 2] == "mod"),
            "}" => _ = braces.pop(),
            _ => {}
        }
        let is_continued = at > 0 && tokens[at - 1] == "::";
        let is_root = token == "crate" || (source.room == "main" && token == "finishline");
        if !is_continued && (is_root || token == "super") {
            let depth = source.depth + braces.iter().filter(|is_module| **is_module).count();
            let (paths, end) = tree(&tokens, at);
            found.extend(paths.into_iter().filter_map(|path| from_root(path, depth)));
            at = end.max(at + 1);
        } else {
            at += 1;
        }
    }
    found
}

/// The path without `crate` or the `super`s that lead to the root; `None` for one that stays
/// within its room, or names the root itself.
fn from_root(path: Vec<String>, depth: usize) -> Option<Vec<String>> {
    let climbed = path.iter().take_while(|segment| *segment == "super").count();
    let rest = match path[0].as_str() {
        "super" if climbed < depth => return None,
        "super" => path[climbed..].to_vec(),
        _ => path[1..].to_vec(),
    };
    (!rest.is_empty() && rest[0] != "*").then_some(rest)
}

/// The paths of a use tree (or of a path in an expression) from `at`, and where it ends.
fn tree(tokens: &[String], mut at: usize) -> (Vec<Vec<String>>, usize) {
    let mut path = Vec::new();
    while let Some(token) = tokens.get(at) {
        match token.as_str() {
            "{" => {
                let mut paths = Vec::new();
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    let (inner, end) = tree(tokens, at);
                    let with_prefix = |tail: Vec<String>| [path.clone(), tail].concat();
                    paths.extend(inner.into_iter().map(with_prefix));
                    // Over `as name` and the comma.
                    at = end.max(at + 1);
                    while tokens.get(at).is_some_and(|token| token != "," && token != "}") {
                        at += 1;
                    }
                    if tokens.get(at).is_some_and(|token| token == ",") {
                        at += 1;
                    }
                }
                return (paths, at + 1);
            }
            // `a::{self}` names `a`.
            "self" => at += 1,
            name if is_name(name) || name == "*" => {
                path.push(name.to_owned());
                at += 1;
            }
            _ => break,
        }
        if tokens.get(at).is_some_and(|token| token == "::") {
            at += 1;
        } else {
            break;
        }
    }
    (vec![path], at)
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// The tokens without items under `#[cfg(test)]`.
fn without_tests(tokens: &[String]) -> Vec<String> {
    const ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].iter().take(ATTRIBUTE.len()).eq(ATTRIBUTE.iter()) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let mut depth = 0;
        at += ATTRIBUTE.len();
        while at < tokens.len() {
            match tokens[at].as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            let is_end = depth == 0 && matches!(tokens[at].as_str(), "}" | ";");
            at += 1;
            if is_end {
                break;
            }
        }
    }
    kept
}

/// Names, `::` and single characters; no comments, no text in quotes.
fn tokens(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&character) = characters.get(at) {
        let next = characters.get(at + 1).copied();
        match character {
            _ if character.is_whitespace() => at += 1,
            '/' if next == Some('/') => {
                while characters.get(at).is_some_and(|character| *character != '\n') {
                    at += 1;
                }
            }
            '/' if next == Some('*') => at = after_comment(&characters, at),
            '"' => at = after_quotes(&characters, at, 0, true),
            '\'' => at = after_character_or_lifetime(&characters, at),
            ':' if next == Some(':') => {
                tokens.push("::".into());
                at += 2;
            }
            _ if character.is_alphabetic() || character == '_' => {
                let start = at;
                while characters.get(at).is_some_and(|one| one.is_alphanumeric() || *one == '_') {
                    at += 1;
                }
                let name: String = characters[start..at].iter().collect();
                let hashes = characters[at..].iter().take_while(|one| **one == '#').count();
                let is_quoted = characters.get(at + hashes) == Some(&'"');
                match name.as_str() {
                    "r" | "br" | "cr" if is_quoted => {
                        at = after_quotes(&characters, at + hashes, hashes, false);
                    }
                    "b" | "c" if characters.get(at) == Some(&'"') => {
                        at = after_quotes(&characters, at, 0, true);
                    }
                    // A raw name: `r#crate` cannot be, `r#type` is `type`.
                    "r" if hashes == 1 => at += 1,
                    _ => tokens.push(name),
                }
            }
            _ => {
                tokens.push(character.to_string());
                at += 1;
            }
        }
    }
    tokens
}

fn after_comment(characters: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < characters.len() {
        match (characters[at], characters.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Behind the text that opens at `at` and ends with a quote and so many hashes.
fn after_quotes(characters: &[char], mut at: usize, hashes: usize, has_escapes: bool) -> usize {
    at += 1;
    while let Some(&character) = characters.get(at) {
        at += 1;
        if character == '\\' && has_escapes {
            at += 1;
        } else if character == '"'
            && characters[at..].iter().take_while(|one| **one == '#').count() >= hashes
        {
            return at + hashes;
        }
    }
    at
}

fn after_character_or_lifetime(characters: &[char], at: usize) -> usize {
    match (characters.get(at + 1), characters.get(at + 2)) {
        (Some('\\'), _) => {
            let closing = characters[at + 3..].iter().position(|character| *character == '\'');
            closing.map_or(characters.len(), |closing| at + 3 + closing + 1)
        }
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
}
