//! How a call into the kernel is made, and what its answer says.

use std::ffi::c_int;
use std::io;

/// Enters the kernel for one call.
macro_rules! call {
    ($self:ident . $function:ident ( $($argument:expr),* )) => {{
        let _inside = $crate::sys::host::Inside::enter(&$self.clock);
        // SAFETY: the kernel is started, this is its thread, and every pointer comes from a
        // reference that outlives the call, with its length beside it.
        unsafe { ($self.api.$function)($($argument),*) }
    }};
}
pub(super) use call;

/// The number in an answer, or the errno.
pub(super) fn answer(code: i64) -> io::Result<u64> {
    u64::try_from(code).map_err(|_| {
        let errno = i32::try_from(-code).unwrap_or(libc::EPROTO);
        io::Error::from_raw_os_error(errno)
    })
}

pub(super) fn done(code: c_int) -> io::Result<()> {
    answer(code.into()).map(drop)
}

pub(super) fn count(code: i64) -> io::Result<usize> {
    answer(code).map(|n| usize::try_from(n).unwrap_or(usize::MAX))
}

/// A length as C has it. Longer buffers than 2 GiB are used in part.
pub(super) fn length(bytes: usize) -> c_int {
    c_int::try_from(bytes).unwrap_or(c_int::MAX)
}
