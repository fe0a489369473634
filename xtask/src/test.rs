//! `cargo xtask test`: what CI runs. Every group runs, whatever failed before it; then a table.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::expected;
use crate::libtest::Tally;
use crate::packages::Purpose;
use crate::passt_sid;
use crate::shell::{self, Privilege, say};

/// A test as root and a test as nobody are the same program; this variable tells it which.
const TEST_USER: &str = "NETSHUNT_TEST_USER";
/// And this one over which link: `slirp`, `passt` (its stream mode) or `passt-vhost-user`.
const TEST_LINK: &str = "NETSHUNT_TEST_LINK";
/// And this one, set to 1, whether there is time for the large sizes.
const TEST_NIGHTLY: &str = "NETSHUNT_NIGHTLY";
/// The installations of passt to test with, separated by colons.
const TEST_PASST: &str = "NETSHUNT_TEST_PASST";

/// Not a link of its own: the stream mode again, with Debian's own passt instead of the newest.
const OLD_PASST: &str = "old-passt";

/// Tests that are begun. How many go on at once is decided by what each does (tests/src/turns.rs).
const TEST_THREADS: &str = "--test-threads=32";

/// The user without any privilege.
const NOBODY: Option<&str> = Some("nobody");

/// In the order they run: what fails soonest and tells most comes first.
const GROUPS: &[(&str, Run)] = &[
    ("setup", Run::Check(|| crate::setup(Purpose::Test))),
    ("fmt", Run::Check(|| fmt(false))),
    ("clippy", Run::Check(clippy)),
    ("doc", Run::Check(doc)),
    ("kernel", Run::Check(|| crate::build_kernel(false))),
    ("unit", Run::Tests(unit)),
    // Every link as nobody; as root the one that needs no helper, and the one whose helper differs most
    // then, since it gives up root by itself.
    ("e2e-slirp-root", Run::Tests(|nightly| end_to_end("slirp", None, nightly))),
    ("e2e-slirp-user", Run::Tests(|nightly| end_to_end("slirp", NOBODY, nightly))),
    ("e2e-passt-user", Run::Tests(|nightly| end_to_end("passt", NOBODY, nightly))),
    ("e2e-oldpasst-user", Run::Tests(|nightly| end_to_end(OLD_PASST, NOBODY, nightly))),
    ("e2e-vhost-root", Run::Tests(|nightly| end_to_end("passt-vhost-user", None, nightly))),
    ("e2e-vhost-user", Run::Tests(|nightly| end_to_end("passt-vhost-user", NOBODY, nightly))),
];

#[derive(Clone, Copy, Debug)]
enum Run {
    /// Passes or not.
    Check(fn() -> Result<()>),
    /// Counts. It is told whether this is a nightly run.
    Tests(fn(bool) -> Result<Outcome>),
}

/// What came of a group of tests.
#[derive(Debug)]
enum Outcome {
    /// They ran; `success` is what their runner said, `left_out` why it was told to leave some out.
    Ran { tally: Tally, success: bool, left_out: Option<String> },
    /// They could not, and that is allowed here.
    Skipped { why: String },
}

/// One line of the table.
#[derive(Debug, Default)]
struct Row {
    name: &'static str,
    passed: usize,
    failed: usize,
    skipped: usize,
    took: Duration,
    /// What a reader must know: every reason that the group failed or left something out.
    notes: Vec<String>,
    /// What its failed tests said, once more below the table: a log of many thousand lines is read from its end.
    last_words: Vec<String>,
}

/// Runs the groups (all of them if `only` is empty) and prints the table. `nightly`: in the large sizes.
///
/// # Errors
/// When `only` names no group. A failed group is an exit code, not an error.
pub(crate) fn run(only: &[String], nightly: bool) -> Result<ExitCode> {
    let names: Vec<&str> = GROUPS.iter().map(|(name, _)| *name).collect();
    for wanted in only {
        ensure!(names.contains(&wanted.as_str()), "no group `{wanted}`; there are: {}", names.join(", "));
    }
    describe_machine();
    let chosen =
        GROUPS.iter().filter(|(name, _)| only.is_empty() || only.iter().any(|wanted| wanted == name));
    let rows: Vec<Row> = chosen.map(|(name, run)| run_group(name, *run, nightly)).collect();
    print_table(&rows);
    let sum = |of: fn(&Row) -> usize| rows.iter().map(of).sum::<usize>();
    let failed = sum(|row| row.failed);
    println!("{} passed, {failed} failed, {} skipped", sum(|row| row.passed), sum(|row| row.skipped));
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_group(name: &'static str, run: Run, nightly: bool) -> Row {
    println!("\n===== {name}");
    let start = Instant::now();
    let mut row = Row { name, ..Row::default() };
    match run {
        Run::Check(check) => match check() {
            Ok(()) => row.passed = 1,
            Err(error) => row.fail(format!("{error:#}")),
        },
        Run::Tests(tests) => match tests(nightly) {
            Ok(Outcome::Ran { tally, success, left_out }) => row.judge(&tally, success, left_out),
            Ok(Outcome::Skipped { why }) => {
                row.skipped = 1;
                row.notes.push(format!("the whole group: {why}"));
            }
            Err(error) => row.fail(format!("{error:#}")),
        },
    }
    for note in &row.notes {
        say(format!("{name}: {note}"));
    }
    row.took = start.elapsed();
    row
}

impl Row {
    fn fail(&mut self, why: String) {
        self.failed += 1;
        self.notes.push(why);
    }

    /// Holds what ran against what should have.
    fn judge(&mut self, tally: &Tally, success: bool, left_out: Option<String>) {
        (self.passed, self.failed, self.skipped) = (tally.passed, tally.failed, tally.ignored);
        self.last_words.extend_from_slice(&tally.last_words);
        for name in &tally.failed_names {
            self.notes.push(format!("failed: {name}"));
        }
        let allowed: Vec<_> = expected::skips(self.name).collect();
        for name in &tally.ignored_names {
            match allowed.iter().find(|(test, _)| test == name) {
                Some((_, why)) => self.notes.push(format!("skipped: {name}: {why}")),
                None => self.fail(format!("ignored without a reason in xtask/src/expected.rs: {name}")),
            }
        }
        if tally.ignored != tally.ignored_names.len() {
            self.fail(format!("{} tests ignored, {} seen by name", tally.ignored, tally.ignored_names.len()));
        }
        for (name, _) in
            allowed.iter().filter(|(test, _)| !tally.ignored_names.iter().any(|name| name == test))
        {
            self.fail(format!("xtask/src/expected.rs lists a skip that did not happen: {name}"));
        }
        match left_out {
            Some(why) => self.notes.push(format!("skipped: {} tests: {why}", tally.filtered)),
            None if tally.filtered > 0 => self.fail(format!("{} tests were filtered out", tally.filtered)),
            None => {}
        }
        let least = expected::minimum(self.name);
        if tally.passed < least {
            self.fail(format!("only {} passed; xtask/src/expected.rs asks for {least}", tally.passed));
        }
        if !success && self.failed == 0 {
            self.fail("the run did not succeed, and no test says why: see its output".to_owned());
        }
    }
}

/// The formatting of every crate, checked or repaired.
pub(crate) fn fmt(write: bool) -> Result<()> {
    shell::run(&mut shell::cargo(if write { &["fmt", "--all"] } else { &["fmt", "--all", "--check"] }))
}

/// The lints of every crate and target.
pub(crate) fn clippy() -> Result<()> {
    shell::run(&mut shell::cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// The documentation of every crate's public items.
pub(crate) fn doc() -> Result<()> {
    let mut doc = shell::cargo(&["doc", "--workspace", "--no-deps"]);
    shell::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
}

/// Sees to the newest passt. A developer may do without.
///
/// # Errors
/// When it is not to be had, in CI.
pub(crate) fn newest_passt() -> Result<()> {
    match passt_sid::ensure_unpacked() {
        Err(error) if !is_ci() => say(format!("{error:#}\n       No test can use {SID_PASST}.")),
        other => drop(other?),
    }
    Ok(())
}

/// The installations of passt that this machine has: sid's, and Debian's own.
fn passts() -> Vec<PathBuf> {
    let newest = Some(passt_sid::program()).filter(|program| program.is_file());
    newest.into_iter().chain(shell::find_program("passt")).collect()
}

/// A test that runs over one passt takes the first that can do what it wants.
fn passt_setting(link: &str) -> String {
    let mut paths: Vec<String> = passts().iter().map(|path| path.display().to_string()).collect();
    if link == OLD_PASST {
        paths.reverse();
    }
    format!("{TEST_PASST}={}", paths.join(":"))
}

/// Every test but the end-to-end ones. Fuzz bodies are tried for longer at night (crates/fuzz).
fn unit(nightly: bool) -> Result<Outcome> {
    let mut command = shell::cargo(&["test", "--workspace", "--exclude", "netshunt-tests", "--no-fail-fast"]);
    let setting = passt_setting("");
    let (name, value) = setting.split_once('=').expect("made so");
    tests(command.env(name, value).env(TEST_NIGHTLY, i32::from(nightly).to_string()))
}

/// Real programs against real servers over one of the links: the harness as root (it makes network
/// namespaces), netshunt as root too or as `user`.
fn end_to_end(link: &str, user: Option<&str>, nightly: bool) -> Result<Outcome> {
    let privilege = Privilege::detect();
    if privilege == Privilege::None {
        let why = "not root, and sudo needs a password; run it as root to have these tests";
        ensure!(!is_ci(), "{why}");
        return Ok(Outcome::Skipped { why: why.to_owned() });
    }
    if link == "passt-vhost-user" && !passt_sid::program().is_file() {
        // In CI `setup` has failed for it.
        return Ok(Outcome::Skipped { why: format!("this machine has no {SID_PASST}: see setup") });
    }
    say(format!("over {link}, as {}; {}", user.unwrap_or("root"), passt_setting(link)));
    // What users run; a debug build would need minutes for the gigabyte.
    shell::run(&mut shell::cargo(&["build", "--release", "--package", "netshunt"]))?;
    let mut settings = vec![
        format!("NETSHUNT_BIN={}", shell::target().join("release/netshunt").display()),
        format!("NETSHUNT_LKL={}", shell::target().join("lkl/liblkl.so").display()),
    ];
    let tested = if link == OLD_PASST { "passt" } else { link };
    settings.extend([passt_setting(link), format!("{TEST_LINK}={tested}")]);
    settings.extend(user.map(|user| format!("{TEST_USER}={user}")));
    settings.push(format!("{TEST_NIGHTLY}={}", i32::from(nightly)));
    // Cargo builds as us and starts the test programs through this; `env`, since sudo clears ours.
    let runner = [privilege.prefix(), &["env"]].concat().join(" ") + " " + &settings.join(" ");
    let mut command = shell::cargo(&["test", "--package", "netshunt-tests", "--no-fail-fast"]);
    if link != "slirp" {
        for (file, _, why) in left_out_over(link) {
            say(format!("tests/tests/{file}.rs does not run over {link}: {why}"));
        }
        command.args(files_over(link)?.iter().map(|file| format!("--test={file}")));
    }
    // How often a race was tried and how often it overlapped is for the reader of the log to see.
    command.args(["--", TEST_THREADS, "--show-output"]);
    let lacks_newest = !passt_sid::program().is_file();
    if lacks_newest {
        command.arg("--skip=vhost_user");
    }
    let mut outcome =
        tests(command.env(runner_variable()?, runner).env_remove(TEST_USER).env_remove(TEST_LINK))?;
    if let Outcome::Ran { left_out, .. } = &mut outcome {
        *left_out = lacks_newest.then(|| format!("this machine has no {SID_PASST}: see setup"));
    }
    Ok(outcome)
}

/// The files of end-to-end tests that run over slirp and not over this link.
fn left_out_over(
    link: &str,
) -> impl Iterator<Item = &'static (&'static str, &'static [&'static str], &'static str)> {
    expected::NOT_OVER_EVERY_LINK.iter().filter(move |(_, links, _)| links.contains(&link))
}

/// Those that do.
fn files_over(link: &str) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(shell::workspace().join("tests/tests"))? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let elsewhere = left_out_over(link).any(|(file, ..)| *file == name);
        if path.extension().is_some_and(|extension| extension == "rs") && !elsewhere {
            files.push(name);
        }
    }
    files.sort();
    Ok(files)
}

/// The name of cargo's setting for the program that starts test programs, for this machine.
fn runner_variable() -> Result<String> {
    let version = shell::output(Command::new("rustc").arg("-vV"))?;
    let host =
        version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    Ok(format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_")))
}

/// Runs a `cargo test`, showing and counting as it goes.
fn tests(command: &mut Command) -> Result<Outcome> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let output = BufReader::new(child.stdout.take().expect("asked for a pipe above"));
    let mut tally = Tally::default();
    for line in output.split(b'\n') {
        let line = line.context("cannot read what the tests print")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally.line(&line);
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    Ok(Outcome::Ran { tally, success: status.success(), left_out: None })
}

/// For messages.
const SID_PASST: &str = "passt that speaks vhost-user (Debian sid's)";

fn is_ci() -> bool {
    env::var("CI").is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
}

/// What a reader of a log asks first.
fn describe_machine() {
    let version = |program: &str, arguments: &[&str]| {
        shell::output(Command::new(program).args(arguments))
            .map_or("unknown".to_owned(), |s| s.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    say(format!(
        "Linux {}, {cores} cores, {}, {}",
        version("uname", &["-r"]),
        version("rustc", &["--version"]),
        if shell::is_root() { "as root" } else { "not root" }
    ));
}

fn print_table(rows: &[Row]) {
    println!("\n{:<14} {:>7} {:>7} {:>8} {:>8}", "group", "passed", "failed", "skipped", "seconds");
    for row in rows {
        let seconds = row.took.as_secs_f64();
        println!("{:<14} {:>7} {:>7} {:>8} {seconds:>8.1}", row.name, row.passed, row.failed, row.skipped);
    }
    for row in rows {
        for words in &row.last_words {
            println!("{}: {words}\n", row.name);
        }
    }
    for row in rows {
        for note in &row.notes {
            println!("{}: {note}", row.name);
        }
    }
    println!();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a group counts when all is as expected, with so many tests passed.
    fn expected_tally(passed: usize) -> Tally {
        let ignored_names: Vec<String> = expected::skips("unit").map(|(name, _)| name.to_owned()).collect();
        Tally { passed, ignored: ignored_names.len(), ignored_names, ..Tally::default() }
    }

    fn judged(name: &'static str, tally: &Tally, success: bool) -> Row {
        let mut row = Row { name, ..Row::default() };
        row.judge(tally, success, None);
        row
    }

    #[test]
    fn too_few_tests_fail_a_run() {
        let tally = expected_tally(expected::minimum("unit") - 1);
        assert_eq!(judged("unit", &tally, true).failed, 1);
    }

    #[test]
    fn an_ignored_test_without_a_reason_fails_a_run() {
        let mut tally = expected_tally(1000);
        tally.ignored += 1;
        tally.ignored_names.push("nobody::knows".into());
        assert_eq!(judged("unit", &tally, true).failed, 1);
    }

    #[test]
    fn a_test_left_out_without_a_reason_fails_a_run() {
        let tally = Tally { filtered: 1, ..expected_tally(1000) };
        assert_eq!(judged("unit", &tally, true).failed, 1);
    }

    #[test]
    fn a_run_that_does_not_build_fails() {
        assert_eq!(judged("no-such-group", &Tally::default(), false).failed, 1);
    }

    #[test]
    fn a_full_run_passes() {
        let tally = expected_tally(1000);
        assert_eq!(judged("unit", &tally, true).failed, 0);
    }

    #[test]
    fn every_expectation_names_a_group() {
        let known = |name: &str| GROUPS.iter().any(|(group, _)| *group == name);
        assert!(expected::MINIMUM.iter().all(|(name, _)| known(name)));
        assert!(expected::SKIPS.iter().all(|(name, _, why)| known(name) && !why.is_empty()));
    }

    #[test]
    fn what_runs_over_one_link_only_is_a_file_with_a_reason() {
        for (file, links, why) in expected::NOT_OVER_EVERY_LINK {
            assert!(
                links.iter().all(|link| ["passt", "passt-vhost-user", OLD_PASST].contains(link)),
                "{file}"
            );
            let path = shell::workspace().join(format!("tests/tests/{file}.rs"));
            assert!(path.is_file() && why.len() > 10, "{file}: {why}");
        }
        assert!(files_over("passt").unwrap().contains(&"programs".to_owned()));
    }

    #[test]
    fn the_runner_is_named_as_cargo_names_it() {
        let name = runner_variable().unwrap();
        assert!(name.starts_with("CARGO_TARGET_") && name.ends_with("_LINUX_GNU_RUNNER"), "{name}");
    }
}
