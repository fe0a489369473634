//! The table as a program for the kernel.

use std::fmt;
use std::io;

use libc::sock_filter;

use crate::{Features, ListenerNumber, sys};

#[cfg(test)]
mod bpf;

/// Compiled by `build/main.rs`: `struct sock_filter` after another, as libseccomp exports them.
const COMPILED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/filter.bpf"));

/// The compiled [`table`](crate::filter::table): some 900 instructions.
///
/// Calls of a foreign architecture (`int 0x80`) and of x32 kill the process.
pub struct Program {
    instructions: Vec<sock_filter>,
}

impl Program {
    /// Takes it out. In the child, between fork(2) and execve(2), nothing may be allocated: do it before.
    #[must_use]
    pub fn new() -> Program {
        Program::from_compiled(COMPILED)
    }

    /// One that libseccomp has exported (seccomp_export_bpf(3)) when another crate was built.
    #[must_use]
    pub fn from_compiled(compiled: &[u8]) -> Program {
        // u16 code, u8 jt, u8 jf, u32 k, in the machine's order.
        let instruction = |b: &[u8]| sock_filter {
            code: u16::from_ne_bytes([b[0], b[1]]),
            jt: b[2],
            jf: b[3],
            k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        };
        Program { instructions: compiled.chunks_exact(size_of::<sock_filter>()).map(instruction).collect() }
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
        sys::install(&self.instructions, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | flags).map(ListenerNumber)
    }

    /// Puts the calling thread, and all it starts from now on, under a filter that notifies nobody. Calls that
    /// it refuses are logged where the kernel logs them (seccomp(2), `SECCOMP_FILTER_FLAG_LOG`).
    ///
    /// # Errors
    /// The errno of prctl(2) or seccomp(2).
    pub fn confine(&self) -> io::Result<()> {
        sys::install(&self.instructions, libc::SECCOMP_FILTER_FLAG_LOG).map(drop)
    }
}

impl Default for Program {
    fn default() -> Self {
        Program::new()
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("len", &self.len()).finish_non_exhaustive()
    }
}
