//! `cargo xtask bench`: native, netshunt on each of its paths, and its peers, interleaved in a private network.
//!
//! Two processes: this one builds, starts the other as root in namespaces of its own ([`inside`]), and
//! turns the samples that it leaves into a report. Every ratio is to native in the same round, so that
//! a machine that others use at the same time spoils the spread and not the result.

mod arena;
mod load;
mod machine;
mod processes;
mod report;
mod samples;
mod target;
mod way;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::packages::{self, Purpose};
use crate::passt_sid;
use crate::shell::{self, Privilege, say};
use arena::Arena;
use load::{Load, Pace};
use samples::Samples;
use way::Way;

/// A median of fewer pairs is not worth a verdict.
const ROUNDS: u32 = 15;

/// What the inner process leaves in the folder that both know.
const SAMPLES: &str = "samples.json";

/// The programs of `bench/`, and what gcc is told about each.
const LOADS: [(&str, &[&str]); 2] = [("nb", &["-pthread"]), ("nsrun", &[])];

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Fail unless the paths reach their targets; measure only what these are about
    #[arg(long, conflicts_with = "quick")]
    check: bool,

    /// How often everything is measured [default: 15, with --quick 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,

    /// Measure briefly: to see that everything works
    #[arg(long)]
    quick: bool,

    /// Put the report into docs/performance.md
    #[arg(long, conflicts_with_all = ["check", "quick"])]
    publish: bool,

    /// The part that runs as root in namespaces of its own, with the folder of its files
    #[arg(long, hide = true, value_name = "FOLDER")]
    inside: Option<PathBuf>,
}

impl Options {
    fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 2 } else { ROUNDS })
    }

    fn loads(&self) -> Vec<Load> {
        if self.check { target::loads() } else { load::ALL.to_vec() }
    }

    /// Whether that load is to be run on that way.
    fn wants(&self, load: Load, way: Way) -> bool {
        load.is_for(way) && (!self.check || target::concern(load, way))
    }

    /// The words that ask for the same again.
    fn words(&self) -> Vec<String> {
        let mut words = vec![format!("--rounds={}", self.rounds())];
        let flags = [(self.check, "--check"), (self.quick, "--quick")];
        words.extend(flags.iter().filter(|(set, _)| *set).map(|(_, word)| (*word).to_owned()));
        words
    }
}

/// Builds, measures, reports, and with `--check` judges.
///
/// The kernel library is built too, unless `NETSHUNT_LKL` names one.
///
/// # Errors
/// When something is missing or does not build. A failed measurement is in the report, and in the exit
/// code as a missed target is.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    if let Some(folder) = &options.inside {
        inside(options, folder)?;
        return Ok(ExitCode::SUCCESS);
    }
    ensure!(
        !options.check || options.rounds() >= ROUNDS,
        "--check judges by the median of {ROUNDS} rounds at least"
    );
    let privilege = Privilege::detect();
    ensure!(
        privilege != Privilege::None,
        "the benchmark makes network namespaces and then runs as nobody: start it as root, or let sudo \
         ask for no password"
    );
    packages::ensure_installed(Purpose::Demo)?;
    let results = shell::target().join("bench");
    fs::create_dir_all(&results).with_context(|| format!("cannot make {}", results.display()))?;
    let files = Files::new()?;
    build(&results, &files)?;
    let machine = machine::describe(&files.0);

    let started = Instant::now();
    let mut command = isolated(privilege)?;
    command.arg("--inside").arg(&files.0).args(options.words()).stdin(Stdio::null());
    shell::run(&mut command)?;
    let samples = Samples::load(&files.0.join(SAMPLES))?;

    let verdicts = if options.check { target::judge(&samples) } else { Vec::new() };
    let report = report::Report {
        machine: &machine,
        rounds: options.rounds(),
        took: started.elapsed(),
        load_after: machine::load_average(),
        samples: &samples,
        verdicts: &verdicts,
    };
    let text = report.markdown();
    println!("\n{text}");
    fs::write(results.join("report.json"), report.json()).context("cannot write report.json")?;
    fs::write(results.join("report.md"), &text).context("cannot write report.md")?;
    say(format!("the same in {}", results.join("report.{json,md}").display()));
    if options.publish {
        report::publish(&shell::workspace().join("docs/performance.md"), &text)?;
    }
    let met = samples.failures.is_empty() && verdicts.iter().all(|verdict| verdict.met);
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds what is measured and puts it where everybody may run it.
fn build(results: &Path, files: &Files) -> Result<()> {
    let library = match env::var_os("NETSHUNT_LKL") {
        Some(library) => PathBuf::from(library),
        None => {
            crate::build_kernel(false)?;
            shell::target().join("lkl/liblkl.so")
        }
    };
    say("building netshunt (cargo build --release) and the load (bench/)");
    shell::run(&mut shell::cargo(&["build", "--release", "--package", "netshunt"]))?;
    files.take(&library, "liblkl.so")?;
    files.take(&shell::target().join("release/netshunt"), "netshunt")?;
    for (name, options) in LOADS {
        let made = results.join(name);
        let mut gcc = Command::new("gcc");
        gcc.args(["-O2", "-Wall", "-static"]).args(options).arg("-o").arg(&made);
        shell::run(gcc.arg(shell::workspace().join(format!("bench/{name}.c"))))?;
        files.take(&made, name)?;
    }
    match passt_sid::ensure_unpacked() {
        // Not everybody may look into a target folder.
        Ok(program) => files.take(program.parent().context("it lies in a folder")?, "passt-sid"),
        Err(error) => {
            say(format!("no passt of Debian sid: {error:#}"));
            Ok(())
        }
    }
}

/// This program again, as root, in namespaces whose processes all die with it.
fn isolated(privilege: Privilege) -> Result<Command> {
    let us = env::current_exe().context("cannot find this program")?;
    let mut words = privilege.prefix().to_vec();
    // Not even a killed benchmark leaves it running.
    words.extend(["setpriv", "--pdeathsig=KILL", "--"]);
    words.extend(["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(us).arg("bench");
    Ok(command)
}

/// Measures. An attempt that fails costs its sample and is told; the others go on.
fn inside(options: &Options, folder: &Path) -> Result<()> {
    let arena = Arena::build(folder)?;
    let mut samples = Samples::default();
    // A path that does not work at all is told once.
    let mut ways = Vec::new();
    for way in Way::ALL {
        if !options.loads().iter().any(|&load| options.wants(load, way)) {
            continue;
        }
        if let Some(advice) = arena.programs.lacks(way) {
            samples.lack(format!("{}: {advice}", way.name()));
            continue;
        }
        match arena.probe(way) {
            Ok(()) => ways.push(way),
            Err(error) => samples.fail(format!("{}: {error:#}; {}", way.name(), arena.last_words())),
        }
    }
    if !ways.contains(&Way::NATIVE) {
        bail!("nothing to compare with: {}", samples.failures.join("; "));
    }
    let pace = if options.quick { Pace::QUICK } else { Pace::FULL };
    for round in 0..options.rounds() {
        let started = Instant::now();
        // Whoever comes later finds warmer caches and fuller tables: take turns.
        if round > 0 {
            ways.reverse();
        }
        samples.open_round();
        for load in options.loads() {
            for &way in ways.iter().filter(|&&way| options.wants(load, way)) {
                match load.run(&arena, way, &pace) {
                    Ok(values) => values.into_iter().for_each(|(name, value)| samples.put(name, way, value)),
                    Err(error) => {
                        let said = arena.last_words();
                        samples.fail(format!("{}, {load:?}: {error:#}; {said}", way.name()));
                    }
                }
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        say(format!("round {} of {} took {seconds:.0} s", round + 1, options.rounds()));
    }
    samples.save(&folder.join(SAMPLES))
}

/// A folder that everybody may read, and that goes with us.
#[derive(Debug)]
struct Files(PathBuf);

impl Files {
    fn new() -> Result<Self> {
        let made = shell::output(Command::new("mktemp").args(["-d", "-t", "netshunt-bench-XXXXXX"]))?;
        let files = Self(PathBuf::from(made.trim()));
        shell::run(Command::new("chmod").arg("755").arg(&files.0))?;
        Ok(files)
    }

    /// Copies a file or a folder, for everybody, whatever the umask was when it was made.
    fn take(&self, from: &Path, name: &str) -> Result<()> {
        let to = self.0.join(name);
        shell::run(Command::new("cp").args(["-r", "--"]).arg(from).arg(&to))?;
        shell::run(Command::new("chmod").args(["-R", "a+rX,u+w", "--"]).arg(&to))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Asks until the answer is yes, for things that take milliseconds.
fn eventually(what: &str, mut met: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !met() {
        ensure!(Instant::now() < deadline, "{what}: not within 10 s");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
