//! The table as a program for the kernel.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};

use libc::sock_filter;
use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::expand::{Masked, alternatives};
use super::{Action, table};
use crate::{Error, Features, ListenerNumber, calls, sys};

/// The compiled filter. Built once, before the guest is forked.
pub struct Program {
    instructions: Vec<sock_filter>,
}

impl Program {
    /// Compiles the [`table`]. Some 3.5 ms of libseccomp's work for some 900 instructions: let it run
    /// beside other preparations.
    ///
    /// Calls of a foreign architecture (`int 0x80`) and of x32 kill the process: no program that
    /// runs on x86-64 needs them by accident.
    ///
    /// # Errors
    /// [`Error::Build`] or [`Error::Export`] if libseccomp refuses, which only a fault of the
    /// table or of memory can cause.
    pub fn build() -> Result<Program, Error> {
        let mut context = start().map_err(|source| Error::Build { call: "(none)", source })?;
        for (number, call) in calls::known() {
            if table().iter().any(|rule| rule.call == call) {
                continue;
            }
            let syscall = ScmpSyscall::from(number);
            context
                .add_rule_exact(ScmpAction::Allow, syscall)
                .map_err(|source| Error::Build { call, source })?;
        }
        for rule in table() {
            let call = rule.call;
            let syscall = ScmpSyscall::from(calls::number(call).ok_or(Error::NoSuchCall { call })?);
            let action = match rule.action {
                Action::Allow => ScmpAction::Allow,
                Action::Errno(errno) => ScmpAction::Errno(errno),
                // The default.
                Action::Notify => continue,
            };
            for comparisons in alternatives(rule.when) {
                let comparisons: Vec<_> = comparisons.iter().map(compare).collect();
                context
                    .add_rule_conditional_exact(action, syscall, &comparisons)
                    .map_err(|source| Error::Build { call, source })?;
            }
        }
        let instructions = export(&context).map_err(|source| Error::Export { source })?;
        Ok(Program { instructions })
    }

    /// How many instructions it has; the kernel takes up to 4096.
    #[expect(clippy::len_without_is_empty, reason = "a filter is never empty")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.instructions.len()
    }

    /// Puts the calling thread, and all it starts from now on, under the filter.
    ///
    /// Call it in the child, between fork(2) and execve(2): it is async-signal-safe, makes two system
    /// calls (no_new_privs, seccomp(2)) and allocates nothing. The listener it leaves open is
    /// close-on-exec: send its number to the supervisor and wait until that has
    /// [taken](crate::Listener::take) it. Until then mediated calls, connect(2) among them, wait.
    ///
    /// # Errors
    /// The errno of prctl(2) or seccomp(2): `EBUSY` if the thread is under another listener already.
    pub fn install(&self, features: &Features) -> io::Result<ListenerNumber> {
        let flags = if features.wait_killable { libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV } else { 0 };
        sys::install(&self.instructions, flags).map(ListenerNumber)
    }

    #[cfg(test)]
    pub(super) fn instructions(&self) -> &[sock_filter] {
        &self.instructions
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("len", &self.len()).finish_non_exhaustive()
    }
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

/// libseccomp writes the program to a descriptor (2.6 could write to memory).
fn export(context: &ScmpFilterContext) -> io::Result<Vec<sock_filter>> {
    let mut file = File::from(memfd_create(c"netshunt-filter", MFdFlags::MFD_CLOEXEC)?);
    context.export_bpf(&file).map_err(io::Error::other)?;
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    // struct sock_filter: u16 code, u8 jt, u8 jf, u32 k, in the machine's order.
    let instruction = |b: &[u8]| sock_filter {
        code: u16::from_ne_bytes([b[0], b[1]]),
        jt: b[2],
        jf: b[3],
        k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
    };
    Ok(bytes.chunks_exact(size_of::<sock_filter>()).map(instruction).collect())
}
