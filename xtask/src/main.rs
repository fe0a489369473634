//! `cargo xtask …`: everything a developer or CI runs, one task each.
//!
//! It starts on a bare Debian 12 with a Rust toolchain, so it links no C library and depends on
//! little. Every task first makes sure of what it needs, says what it is about to do before doing
//! it, and is silent about what is already there.
#![forbid(unsafe_code)]

mod apt;
mod bench;
mod demo;
mod expected;
mod kernel;
mod kernel_source;
mod libtest;
mod packages;
mod passt_sid;
#[cfg(test)]
mod programs_page;
mod shell;
mod sources;
mod test;
mod toolchain;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use packages::Purpose;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Developer and CI tasks of netshunt")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Clone, Debug, Subcommand)]
enum Task {
    /// Measure netshunt against the host's own network
    Bench(bench::Options),
    /// Lint every crate; a warning is an error
    Clippy,
    /// Build everything, then run one command over both paths and show what happened
    Demo,
    /// Build the documentation; a warning is an error
    Doc,
    /// Check the formatting
    Fmt {
        /// Format the files instead
        #[arg(long)]
        write: bool,
    },
    /// Build the kernel library, or take it from the cache
    Kernel {
        /// Build it twice, in different folders, and compare the bytes
        #[arg(long)]
        verify: bool,
    },
    /// Install what the build and the tests need, and fetch the kernel's source and sid's passt
    Setup,
    /// Everything CI runs: fmt, clippy, doc, kernel, unit tests, end-to-end tests as root and not
    Test {
        /// The large sizes: 1,000 random kills, 10 million swapped addresses and 200,000 connects
        #[arg(long)]
        nightly: bool,
        /// Only the groups named, separated by commas
        #[arg(long, value_delimiter = ',', value_name = "GROUP")]
        only: Vec<String>,
    },
}

fn main() -> ExitCode {
    // Much of what is built and unpacked here is then run as `nobody`, whatever our user keeps private.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    match run(Arguments::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Bench(options) => return bench::run(&options),
        Task::Clippy => test::clippy()?,
        Task::Demo => demo::run()?,
        Task::Doc => test::doc()?,
        Task::Fmt { write } => test::fmt(write)?,
        Task::Kernel { verify } => build_kernel(verify)?,
        Task::Setup => setup(Purpose::Test)?,
        Task::Test { nightly, only } => return test::run(&only, nightly),
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes sure of everything that `purpose` needs.
fn setup(purpose: Purpose) -> Result<()> {
    packages::ensure_installed(purpose)?;
    if purpose == Purpose::Test {
        toolchain::ensure_components()?;
        test::newest_passt()?;
    }
    kernel_source::ensure_downloaded().map(drop)
}

/// Builds the kernel library and says what it is; with `verify` also that it is reproducible.
fn build_kernel(verify: bool) -> Result<()> {
    setup(Purpose::Build)?;
    let source = kernel_source::ensure_downloaded()?;
    let folder = shell::target().join("lkl");
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let built = kernel::ensure(&source, &folder, jobs)?;
    let time = built.seconds.map_or_else(|| "from cache".to_owned(), |s| format!("built in {s} s"));
    shell::say(format!("kernel library: Linux {}, sha256 {}, {time}", built.version, built.sha256));
    println!("         {}", built.library.display());
    if verify {
        kernel::verify(&source, &folder, jobs)?;
    }
    Ok(())
}
