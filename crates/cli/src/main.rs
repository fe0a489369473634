//! The `netshunt` program: reads the command line and the configuration, builds the tokio
//! runtime, hands over to `netshunt-supervisor`, and says how it ended.
//!
//! One file per question: what was asked ([`args`], [`config`]), what is there ([`backends`],
//! [`doctor`], [`here`]), what would be decided ([`check`]), what happens ([`run`]), what a shell
//! sees of it ([`front`]), what is written down ([`flowlog`], [`logging`]), and what our own exit
//! status is ([`status`]).
#![deny(unsafe_code)]

mod args;
mod backends;
mod check;
mod config;
mod doctor;
mod flowlog;
mod front;
mod here;
mod logging;
mod run;
mod say;
mod status;
mod sys;

use std::process::ExitCode;

use args::{Command, PolicyCommand};

fn main() -> ExitCode {
    // A panic is a failure of ours like any other; its message has been printed.
    std::panic::catch_unwind(netshunt).unwrap_or(ExitCode::from(status::FAILED))
}

fn netshunt() -> ExitCode {
    let command = match args::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(exit) => return exit,
    };
    let done = match &command {
        Command::Backends => backends::print(),
        Command::Doctor(options) => doctor::examine(options),
        Command::Policy(PolicyCommand::Check(options)) => check::check(options),
        Command::Run(options) => run::run(options),
    };
    match done {
        Ok(end) => end.leave(),
        Err(error) => status::fail(&error),
    }
}
