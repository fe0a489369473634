//! Paths of sockets in all their spellings, and patterns over them.

use netshunt_fuzz::{Input, fuzz};

use super::*;

const WORDS: &[&str] = &[
    "/run",
    "/var",
    "/var/run",
    "/user/1000",
    "/bus",
    "/dbus",
    "/docker.sock",
    "/system_bus_socket",
    "/nscd/socket",
    "/a",
    "/.",
    "//",
    "/tmp",
    "/dbus-x",
    "x",
    "/home/u",
    "/.docker",
    "/runner",
    "/",
    "/snap",
];

/// As glob(7) with `**`, without any care for time.
fn plainly(pattern: &[&[u8]], path: &[&[u8]]) -> bool {
    match pattern.split_first() {
        None => path.is_empty(),
        Some((&b"**", [])) => !path.is_empty(),
        Some((&b"**", rest)) => (0..=path.len()).any(|skip| plainly(rest, &path[skip..])),
        Some((head, rest)) => {
            path.split_first().is_some_and(|(name, more)| within(head, name) && plainly(rest, more))
        }
    }
}

fn within(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|skip| within(rest, &name[skip..])),
        Some((byte, rest)) => {
            name.split_first().is_some_and(|(first, more)| first == byte && within(rest, more))
        }
    }
}

fn components(path: &[u8]) -> Vec<&[u8]> {
    path[1..].split(|byte| *byte == b'/').collect()
}

/// A pattern matches what it says.
fn matched(input: &mut Input<'_>) {
    const PARTS: &[&str] = &["a", "b", "ab", "*", "*a", "a*", "*b*", "a*b*", "**", "*a*a*b"];
    const NAMES: &[&str] = &["a", "b", "ab", "ba", "aab", "abab", "aaab", "\u{ff}"];
    let some = |input: &mut Input<'_>, of: &[&str]| -> String {
        (0..=input.up_to(4)).map(|_| format!("/{}", input.pick(of))).collect()
    };
    let (pattern, path) = (some(input, PARTS), some(input, NAMES));
    let matches = glob::matches(&pattern, path.as_bytes());
    input.reached((matches, components(pattern.as_bytes()).len(), pattern.contains("**")));
    assert_eq!(
        matches,
        plainly(&components(pattern.as_bytes()), &components(path.as_bytes())),
        "{pattern} {path}"
    );
}

/// A path has one verdict, however it is spelt, and one among those that are named is open.
fn judged(input: &mut Input<'_>) {
    let path = input.text(WORDS, 6);
    let verdict = |policy: &UnixPolicy, path: &str| policy.judge(UnixName::Path(Path::new(path)), false);
    let policy = match input.one_in(2) {
        true => UnixPolicy::Default,
        false => match input.text(WORDS, 4).parse() {
            Ok(policy) => policy,
            Err(error) => return input.reached(std::mem::discriminant(&error)),
        },
    };
    let judged = verdict(&policy, &path);
    let absolute =
        path.starts_with('/') && !Path::new(&path).components().any(|part| part == Component::ParentDir);
    input.reached((judged == UnixVerdict::Allow, matches!(policy, UnixPolicy::Default), absolute));
    if !absolute {
        return assert!(matches!(judged, UnixVerdict::Deny(_)));
    }
    for other in [path.replace('/', "//"), path.replace('/', "/./"), format!("{path}/"), format!("/.{path}")]
    {
        assert_eq!(verdict(&policy, &other), judged, "{path} as {other}");
    }
    // /var/run is a link to /run, and no other name that begins so.
    let rest = path.strip_prefix("/run/");
    if let Some(rest) = rest {
        assert_eq!(verdict(&policy, &format!("/var/run/{rest}")), judged, "{path}");
    }
    if let UnixPolicy::Paths(open) = &policy {
        for open in open {
            assert_eq!(verdict(&policy, &open.display().to_string()), UnixVerdict::Allow);
            assert_eq!(verdict(&policy, &format!("{}/x", open.display())), UnixVerdict::Allow);
        }
        let clean: PathBuf = Path::new(&path).components().collect();
        // What a link is the name of is elsewhere.
        let is_link = |path: &Path| ["/var/run", "/run/host"].iter().any(|link| path.starts_with(link));
        if !is_link(&clean) && !open.iter().any(|open| is_link(open)) {
            let below = open.iter().any(|open| clean.starts_with(open));
            assert_eq!(judged == UnixVerdict::Allow, below, "{path}");
        }
    }
}

#[test]
fn patterns_of_paths() {
    fuzz("patterns_of_paths", matched);
}

#[test]
fn paths_judged() {
    fuzz("paths_judged", judged);
}
