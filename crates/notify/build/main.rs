//! Compiles the table of the filter into a program for the kernel: it depends on nothing that is known
//! later, and libseccomp takes some milliseconds for it, which every start would pay.
#![allow(dead_code, unreachable_pub, reason = "the build uses a part of what it shares with the crate")]

#[path = "../src/calls.rs"]
mod calls;
#[path = "../src/filter/expand.rs"]
mod expand;
#[path = "../src/filter/mod.rs"]
mod filter;

use std::error::Error;
use std::fs::File;
use std::path::PathBuf;

use expand::{Masked, alternatives};
use filter::{Action, When, table};
use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};

fn main() -> Result<(), Box<dyn Error>> {
    for shared in ["build", "src/calls.rs", "src/filter"] {
        println!("cargo::rerun-if-changed={shared}");
    }
    let program = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?).join("filter.bpf");
    compile()?.export_bpf(File::create(program)?)?;
    Ok(())
}

/// Calls of a foreign architecture (`int 0x80`) and of x32 kill the process: no program that runs on
/// x86-64 needs them by accident.
fn compile() -> Result<ScmpFilterContext, Box<dyn Error>> {
    let mut context = start()?;
    for (number, call) in calls::known() {
        if table().iter().any(|rule| rule.call == call) {
            continue;
        }
        context.add_rule_exact(ScmpAction::Allow, ScmpSyscall::from(number))?;
    }
    for rule in table() {
        let number = calls::number(rule.call).ok_or_else(|| format!("no call of x86-64: {}", rule.call))?;
        let action = match rule.action {
            Action::Allow => ScmpAction::Allow,
            Action::Errno(errno) => ScmpAction::Errno(errno),
            // The default.
            Action::Notify => continue,
        };
        for comparisons in alternatives(rule.when) {
            let comparisons: Vec<_> = comparisons.iter().map(compare).collect();
            context.add_rule_conditional_exact(action, ScmpSyscall::from(number), &comparisons)?;
        }
    }
    Ok(context)
}

fn start() -> Result<ScmpFilterContext, SeccompError> {
    let mut context = ScmpFilterContext::new(ScmpAction::Notify)?;
    context.set_act_badarch(ScmpAction::KillProcess)?;
    // A binary tree over the numbers instead of a list.
    context.set_ctl_optimize(2)?;
    Ok(context)
}

fn compare(test: &Masked) -> ScmpArgCompare {
    let op = ScmpCompareOp::MaskedEqual(test.mask);
    ScmpArgCompare::new(u32::from(test.arg), op, test.value)
}
