//! Holds docs/programs.md against the tests that it names.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::expected::NOT_OVER_EVERY_LINK;
use crate::shell;

/// The links, as `expected.rs` names them and as the page does.
const LINKS: [(&str, &str); 4] =
    [("slirp", "slirp"), ("passt", "passt"), ("old-passt", "old passt"), ("passt-vhost-user", "vhost-user")];

/// Files in which every test is one of a program, and so has a row.
const OF_PROGRAMS: [&str; 4] = ["apt_get", "pairs_apart_from_the_link", "pairs_over_the_link", "programs"];

/// One line of the table.
struct Row {
    program: String,
    links: String,
    /// File and name.
    tests: Vec<(String, String)>,
}

fn read(relative: &str) -> String {
    let path: PathBuf = shell::workspace().join(relative);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn rows() -> Vec<Row> {
    let page = read("docs/programs.md");
    let lines = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| program "));
    lines
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            let [program, _, _, links, _, tests] = cells[..] else { panic!("not six cells: {line}") };
            let tests = tests.split_whitespace().map(|test| {
                let test = test.trim_matches('`').split_once("::");
                let (file, name) = test.unwrap_or_else(|| panic!("not `file::name`: {line}"));
                (file.to_owned(), name.to_owned())
            });
            Row { program: program.to_owned(), links: links.to_owned(), tests: tests.collect() }
        })
        .collect()
}

/// The names of a file's tests: functions, or entries of its list of cases.
fn tests_of(file: &str) -> BTreeSet<String> {
    let source = read(&format!("tests/tests/{file}.rs"));
    let mut names = BTreeSet::new();
    let mut lines = source.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "#[test]"
            && let Some(name) = lines.peek().and_then(|next| next.strip_prefix("fn "))
        {
            names.insert(name.split('(').next().unwrap_or_default().to_owned());
        }
        // `on_every_path! {` and `pairs! {`: `NAME, NAME`, or `NAME: …;`.
        if line.ends_with("! {") && !line.starts_with("macro_rules!") {
            for entry in lines.by_ref().take_while(|&line| line != "}") {
                match entry.trim().split_once(": ") {
                    Some((name, _)) if entry.starts_with("    ") && !entry.starts_with("     ") => {
                        names.insert(name.to_owned());
                    }
                    Some(_) => {}
                    None if entry.ends_with(';') => {}
                    None => names.extend(entry.split(',').map(|name| name.trim().to_owned())),
                }
            }
        }
    }
    names.remove("");
    names
}

/// Over which links a file's tests run, in the page's words and order.
fn links_of(file: &str) -> Vec<&'static str> {
    let left_out = |link: &str| {
        NOT_OVER_EVERY_LINK.iter().any(|(name, links, _)| *name == file && links.contains(&link))
    };
    LINKS.iter().filter(|(link, _)| !left_out(link)).map(|(_, word)| *word).collect()
}

#[test]
fn every_row_names_tests_that_exist_and_the_links_they_run_over() {
    let rows = rows();
    assert!(rows.len() > 20, "the table is read");
    for row in rows {
        assert!(!row.tests.is_empty(), "{}: no test", row.program);
        let mut links = BTreeSet::new();
        for (file, name) in &row.tests {
            assert!(tests_of(file).contains(name), "{}: there is no {file}::{name}", row.program);
            links.extend(links_of(file));
        }
        let words: Vec<&str> =
            LINKS.iter().map(|(_, word)| *word).filter(|word| links.contains(word)).collect();
        assert_eq!(row.links, words.join(", "), "{}", row.program);
    }
}

#[test]
fn every_test_of_a_program_has_a_row() {
    let named: BTreeSet<(String, String)> = rows().into_iter().flat_map(|row| row.tests).collect();
    for file in OF_PROGRAMS {
        let tests = tests_of(file);
        assert!(!tests.is_empty(), "{file} is read");
        for name in tests {
            assert!(named.contains(&(file.to_owned(), name.clone())), "no row has {file}::{name}");
        }
    }
}
