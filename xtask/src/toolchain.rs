//! The parts of the Rust toolchain that a minimal installation lacks.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::shell::{self, find_program, say};

/// Each cargo subcommand with the rustup component that brings it.
const COMPONENTS: [(&str, &str); 2] = [("clippy", "clippy"), ("fmt", "rustfmt")];

/// Makes sure of `cargo fmt` and `cargo clippy`, adding them through rustup where they are missing.
///
/// # Errors
/// When one is missing and there is no rustup, or rustup fails.
pub(crate) fn ensure_components() -> Result<()> {
    let missing: Vec<&str> = COMPONENTS
        .iter()
        .filter(|(subcommand, _)| !has(subcommand))
        .map(|(_, component)| *component)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if find_program("rustup").is_none() {
        bail!(
            "the Rust toolchain lacks {}, and there is no rustup to add it: install it",
            missing.join(" and ")
        );
    }
    say(format!("adding to the Rust toolchain with rustup: {}", missing.join(" ")));
    shell::run(Command::new("rustup").args(["component", "add"]).args(&missing))
        .with_context(|| format!("install {} by hand", missing.join(" and ")))
}

fn has(subcommand: &str) -> bool {
    let mut version = shell::cargo(&[subcommand, "--version"]);
    version.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
