//! Compiles the table of what the stack's thread may do into a program for the kernel, as `netshunt-notify` does with
//! the guests'.

mod table;

use std::error::Error;
use std::fs::File;
use std::path::PathBuf;

use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use table::{Only, TABLE};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build");
    let program = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?).join("stack.bpf");
    let mut context = ScmpFilterContext::new(ScmpAction::Errno(libc::EPERM))?;
    context.set_act_badarch(ScmpAction::KillProcess)?;
    context.set_ctl_optimize(2)?;
    for call in TABLE {
        let tests: Vec<_> = call.only.iter().map(compare).collect();
        let number = ScmpSyscall::from_name(call.name)?;
        context.add_rule_conditional_exact(ScmpAction::Allow, number, &tests)?;
    }
    // Its flags are in memory, where nobody can judge them: the C library takes clone(2) then.
    context.add_rule_exact(ScmpAction::Errno(libc::ENOSYS), ScmpSyscall::from_name("clone3")?)?;
    Ok(context.export_bpf(File::create(program)?)?)
}

fn compare(test: &Only) -> ScmpArgCompare {
    ScmpArgCompare::new(test.arg, ScmpCompareOp::MaskedEqual(test.mask.into()), test.value.into())
}
