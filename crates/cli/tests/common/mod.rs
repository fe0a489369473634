//! Runs the built program and shows what it said.

use std::process::{Command, Output, Stdio};

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Said {
    /// What a shell would call `$?`.
    pub(crate) status: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

/// The program with `args`, undisturbed by the options of whoever runs the tests.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netshunt"));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("NETSHUNT_") && name != "NETSHUNT_LKL") {
            command.env_remove(name);
        }
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs `command` to its end.
pub(crate) fn said(command: &mut Command) -> Said {
    use std::os::unix::process::ExitStatusExt;
    let Output { status, stdout, stderr } = command.output().expect("the program starts");
    assert!(!status.core_dumped(), "a core file of ours");
    Said {
        status: status.code().unwrap_or_else(|| 128 + status.signal().expect("neither code nor signal")),
        out: String::from_utf8(stdout).expect("text"),
        err: String::from_utf8(stderr).expect("text"),
    }
}

/// Runs `netshunt ARGS`.
pub(crate) fn netshunt(args: &[&str]) -> Said {
    said(&mut command(args))
}
