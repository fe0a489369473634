//! The machine's own package sources, read in both formats of sources.list(5), and the ones for the
//! kernel's source and for sid derived from them: the same archive, the same keys, no host name of ours.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Aliases under which a machine may follow its own release.
const RELEASE_ALIASES: [&str; 3] = ["stable", "oldstable", "oldoldstable"];

/// One binary source: a stanza of a `*.sources` file, or a line of a `*.list` file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Source {
    pub(crate) uris: Vec<String>,
    pub(crate) suites: Vec<String>,
    pub(crate) components: Vec<String>,
    /// Whatever else the entry says (`Signed-By`, `Trusted`, …), in deb822 names, kept as it is.
    pub(crate) options: Vec<(String, String)>,
}

impl fmt::Display for Source {
    /// As a deb822 stanza.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Types: deb\nURIs: {}\nSuites: {}", self.uris.join(" "), self.suites.join(" "))?;
        writeln!(f, "Components: {}", self.components.join(" "))?;
        self.options.iter().try_for_each(|(name, value)| writeln!(f, "{name}: {value}"))
    }
}

/// Reads every source that apt would, from `/etc/apt` or its like.
///
/// # Errors
/// When a file that exists cannot be read.
pub(crate) fn read(folder: &Path) -> Result<Vec<Source>> {
    let mut files = vec![folder.join("sources.list")];
    if let Ok(entries) = fs::read_dir(folder.join("sources.list.d")) {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let mut sources = Vec::new();
    for file in files.iter().filter(|file| file.is_file()) {
        let parse = match file.extension().and_then(|e| e.to_str()) {
            Some("list") => parse_lines,
            Some("sources") => parse_stanzas,
            _ => continue,
        };
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        sources.extend(parse(&text));
    }
    Ok(sources)
}

/// The sources to look for `linux-source-6.12` in, on a machine that runs the release `codename`:
/// its backports on Debian 12, on others the release itself, and its security suite where the machine
/// has one.
///
/// Empty if no source follows that release.
pub(crate) fn for_kernel(sources: &[Source], codename: &str) -> Vec<Source> {
    let Some(release) = release(sources, codename) else { return Vec::new() };
    // Only lists that can hold it are fetched: bookworm itself has Linux 6.1, trixie 6.12.
    let suite = if codename == "bookworm" { "bookworm-backports" } else { codename };
    let archive = Source { suites: vec![suite.to_owned()], ..only_main(release) };
    let security = sources.iter().filter(|source| has_main(source)).filter_map(|source| {
        let suites: Vec<String> = source.suites.iter().filter(|s| s.contains("-security")).cloned().collect();
        (!suites.is_empty()).then(|| Source { suites, ..only_main(source) })
    });
    std::iter::once(archive).chain(security).collect()
}

/// The source of Debian's newest packages: sid, in the archive of the release `codename`.
///
/// Empty if no source follows that release.
pub(crate) fn for_sid(sources: &[Source], codename: &str) -> Vec<Source> {
    let archive = |release| Source { suites: vec!["sid".to_owned()], ..only_main(release) };
    release(sources, codename).map(archive).into_iter().collect()
}

/// The first source that follows the release.
fn release<'s>(sources: &'s [Source], codename: &str) -> Option<&'s Source> {
    let follows = |source: &&Source, name: &str| source.suites.iter().any(|s| s == name);
    std::iter::once(codename).chain(RELEASE_ALIASES).find_map(|name| {
        sources.iter().filter(|source| has_main(source)).find(|source| follows(source, name))
    })
}

fn has_main(source: &Source) -> bool {
    source.components.iter().any(|c| c == "main")
}

fn only_main(source: &Source) -> Source {
    Source { components: vec!["main".to_owned()], ..source.clone() }
}

/// A `*.sources` file: paragraphs of `Name: value`, a value continued on indented lines.
fn parse_stanzas(text: &str) -> Vec<Source> {
    let mut stanzas: Vec<Vec<(String, String)>> = vec![Vec::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields = stanzas.last_mut().expect("never empty");
        if line.trim().is_empty() {
            stanzas.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            // A key given inline in Signed-By spans lines; their indentation is part of the format.
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_owned(), value.trim().to_owned()));
        }
    }
    stanzas.into_iter().filter_map(from_fields).collect()
}

fn from_fields(fields: Vec<(String, String)>) -> Option<Source> {
    let mut source =
        Source { uris: Vec::new(), suites: Vec::new(), components: Vec::new(), options: Vec::new() };
    for (name, value) in fields {
        let words = || value.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        match name.to_ascii_lowercase().as_str() {
            "components" => source.components = words(),
            "enabled" if value.eq_ignore_ascii_case("no") => return None,
            "enabled" => {}
            "suites" => source.suites = words(),
            "types" if !words().iter().any(|kind| kind == "deb") => return None,
            "types" => {}
            "uris" => source.uris = words(),
            _ => source.options.push((name, value)),
        }
    }
    (!source.uris.is_empty() && !source.suites.is_empty()).then_some(source)
}

/// A `*.list` file: `deb [name=value …] uri suite component…`.
fn parse_lines(text: &str) -> Vec<Source> {
    text.lines().filter_map(|line| from_line(line.split('#').next().unwrap_or_default())).collect()
}

fn from_line(line: &str) -> Option<Source> {
    let mut rest = line.trim().strip_prefix("deb")?;
    if !rest.starts_with([' ', '\t', '[']) {
        return None; // deb-src
    }
    let mut options = Vec::new();
    rest = rest.trim_start();
    if let Some(inner) = rest.strip_prefix('[') {
        let (inside, after) = inner.split_once(']')?;
        options.extend(inside.split_whitespace().filter_map(option));
        rest = after;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    let (uri, suite) = (words.next()?, words.next()?);
    Some(Source { uris: vec![uri], suites: vec![suite], components: words.collect(), options })
}

/// An option of the one-line format under its deb822 name; both are listed in sources.list(5).
fn option(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    let name = match name {
        "allow-insecure" => "Allow-Insecure",
        "arch" => "Architectures",
        "check-date" => "Check-Date",
        "check-valid-until" => "Check-Valid-Until",
        "signed-by" => "Signed-By",
        "trusted" => "Trusted",
        _ => return None,
    };
    Some((name.to_owned(), value.replace(',', " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZAS: &str = "\
# Modernized
Types: deb deb-src
URIs: http://archive.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://archive.example/debian-security
Suites: bookworm-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEYCQjIxYJ

Types: deb
Enabled: no
URIs: http://other.example/debian
Suites: bookworm
Components: main

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
Components: main
";

    const LINES: &str = "\
# deb http://off.example/debian bookworm main
deb http://archive.example/debian bookworm main non-free-firmware # the archive
deb [arch=amd64,arm64 signed-by=/k.gpg] http://archive.example/debian-security bookworm-security main
deb-src http://archive.example/debian bookworm main
";

    #[test]
    fn stanzas_are_read_without_the_disabled_and_the_sources() {
        let sources = parse_stanzas(STANZAS);
        assert_eq!(sources.len(), 2);
        assert_eq!(sources[0].suites, ["bookworm", "bookworm-updates"]);
        assert!(sources[1].options[0].1.ends_with(" mDMEYCQjIxYJ"), "{:?}", sources[1].options);
    }

    #[test]
    fn lines_are_read_with_their_options() {
        let sources = parse_lines(LINES);
        assert_eq!(sources.len(), 2);
        assert_eq!(sources[0].components, ["main", "non-free-firmware"]);
        assert_eq!(
            sources[1].options,
            [("Architectures".into(), "amd64 arm64".into()), ("Signed-By".into(), "/k.gpg".to_owned())]
        );
    }

    #[test]
    fn backports_come_from_the_archive_and_security_from_its_own() {
        for sources in [parse_stanzas(STANZAS), parse_lines(LINES)] {
            let derived = for_kernel(&sources, "bookworm");
            assert_eq!(derived.len(), 2);
            assert_eq!(derived[0].uris, ["http://archive.example/debian"]);
            assert_eq!(derived[0].suites, ["bookworm-backports"]);
            assert_eq!(derived[0].options, sources[0].options);
            assert_eq!(derived[1].suites, ["bookworm-security"]);
            assert!(derived.iter().all(|source| source.components == ["main"]));
        }
    }

    #[test]
    fn an_alias_of_the_release_will_do() {
        let sources = parse_lines("deb http://archive.example/debian oldstable main\n");
        assert_eq!(for_kernel(&sources, "bookworm")[0].suites, ["bookworm-backports"]);
        assert!(for_kernel(&sources[..0], "bookworm").is_empty());
    }

    #[test]
    fn sid_comes_from_the_archive_of_the_release_with_its_keys() {
        for sources in [parse_stanzas(STANZAS), parse_lines(LINES)] {
            let derived = for_sid(&sources, "bookworm");
            assert_eq!(derived.len(), 1);
            assert_eq!(derived[0].uris, ["http://archive.example/debian"]);
            assert_eq!((derived[0].suites[0].as_str(), derived[0].components.len()), ("sid", 1));
            assert_eq!(derived[0].options, sources[0].options);
            assert!(for_sid(&sources, "trixie").is_empty());
        }
    }

    #[test]
    fn a_stanza_written_is_the_stanza_read() {
        let sources = parse_stanzas(STANZAS);
        let text = sources.iter().map(|s| format!("{s}\n")).collect::<String>();
        assert_eq!(parse_stanzas(&text), sources);
    }
}
