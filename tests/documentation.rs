//! The documents name tests as their proof; a proof that is not there proves nothing.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Below the repository's root.
const DOCUMENTS: [&str; 2] = ["docs/SECURITY.md", "docs/RELIABILITY.md"];
const CODE: [&str; 3] = ["tests", "src", "benches"];

/// A word of this many characters, with this many underscores, is a test's name.
const SHORTEST_NAME: usize = 12;
const FEWEST_UNDERSCORES: usize = 2;

#[test]
fn every_test_that_a_document_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_else(|_| panic!("{path:?}"));
    let files = CODE.iter().flat_map(|folder| rust_files(&root.join(folder)));
    let code: Vec<_> = files.map(|file| read(&file)).collect();
    for document in DOCUMENTS {
        let text = read(&root.join(document));
        let names: Vec<_> = quoted(&text).filter_map(test_name).collect();
        let is_missing = |name: &&&str| {
            let function = format!("fn {name}(");
            !code.iter().any(|file| file.contains(&function))
        };
        let missing: Vec<_> = names.iter().filter(is_missing).collect();
        assert!(missing.is_empty(), "{document} names tests that do not exist: {missing:#?}");
        assert!(document != DOCUMENTS[0] || names.len() > 50, "{document}: {}", names.len());
    }
}

/// What stands between backticks, line by line.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// The function that a word names, perhaps behind its module.
fn test_name(word: &str) -> Option<&str> {
    let name = word.rsplit("::").next()?;
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let is_name = name.len() >= SHORTEST_NAME
        && name.matches('_').count() >= FEWEST_UNDERSCORES
        && name.bytes().all(is_plain);
    is_name.then_some(name)
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("one").path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let files = files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs"));
    files.chain(folders.iter().flat_map(|folder| rust_files(folder))).collect()
}
