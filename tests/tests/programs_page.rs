//! The versions that docs/programs.md says its programs were tested in.

use std::fs;
use std::path::Path;
use std::process::Command;

/// How a program tells its version; by the first word or words of its row.
const TELL: &[(&str, &[&str])] = &[
    ("Go", &["go", "version"]),
    ("Java", &["java", "--version"]),
    ("OpenSSL", &["openssl", "version"]),
    ("PostgreSQL", &["pgbench", "--version"]),
    ("Python", &["python3", "--version"]),
    ("Rust: quinn", &["grep", "-A1", "^name = \"quinn\"", "Cargo.lock"]),
    ("Rust: tokio", &["grep", "-A1", "^name = \"tokio\"", "Cargo.lock"]),
    ("apt-get", &["apt-get", "--version"]),
    ("curl", &["curl", "--version"]),
    ("dig", &["dig", "-v"]),
    ("dnsmasq", &["dnsmasq", "--version"]),
    ("git", &["git", "--version"]),
    ("ip", &["ip", "-V"]),
    ("iperf3", &["iperf3", "--version"]),
    // The loader, which says it to whoever calls it as a program.
    ("musl", &["/lib/ld-musl-x86_64.so.1"]),
    ("nginx", &["nginx", "-v"]),
    ("node", &["node", "--version"]),
    ("ping", &["ping", "-V"]),
    ("redis", &["redis-cli", "--version"]),
    ("ssh", &["ssh", "-V"]),
    ("unbound", &["unbound", "-V"]),
    ("wget", &["wget", "--version"]),
];

/// The first number that stands alone or before a dot.
fn major(text: &str) -> Option<&str> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.')
        .find(|part| part.contains('.') && part.starts_with(|c: char| c.is_ascii_digit()) || part.len() > 7)
        .and_then(|version| version.split('.').next())
}

#[test]
fn installed_programs_are_of_a_version_that_the_page_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let page = fs::read_to_string(root.join("docs/programs.md")).expect("it is there");
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| program "));
    let mut seen = 0;
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let (program, versions) = (cells[0], cells[1]);
        // The longest: `ip` is the start of `iperf3`.
        let named = TELL.iter().filter(|(name, _)| program.starts_with(name));
        let (_, words) = named
            .max_by_key(|(name, _)| name.len())
            .unwrap_or_else(|| panic!("{program}: how does it tell its version?"));
        let told = Command::new(words[0]).args(&words[1..]).current_dir(root).output();
        let told = told.unwrap_or_else(|e| panic!("{program}: {}: {e}", words[0]));
        let text = String::from_utf8_lossy(&[told.stdout, told.stderr].concat()).into_owned();
        let installed = major(&text).unwrap_or_else(|| panic!("{program}: no version in {text}"));
        let tested = versions.split(", ").map(|version| version.split('.').next().unwrap_or_default());
        assert!(
            tested.clone().any(|version| version == installed),
            "docs/programs.md has {program} {versions}; this machine's says: {text}"
        );
        seen += 1;
    }
    assert!(seen > 20, "the table is read");
}
