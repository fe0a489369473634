//! What the kernel calls. None of these may unwind: they are `extern "C"`, where Rust turns a
//! panic into an abort with a message.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_long, c_void};
use std::io::IoSlice;
use std::process::abort;
use std::ptr;
use std::slice;

use super::api::{HostOps, Iov};
use crate::nic::{Transmit, TransmitFn};
use crate::{Clock, kmsg};

thread_local! {
    /// The clock of the kernel that this thread is inside of: the host operations carry no
    /// context. A stack of one: [`Inside`] restores what was there, so that one kernel's wire may
    /// call another kernel.
    static CLOCK: Cell<*const Clock> = const { Cell::new(ptr::null()) };
}

/// While it lives, the thread is inside the kernel that has this clock.
#[derive(Debug)]
pub(super) struct Inside<'a> {
    before: *const Clock,
    _clock: &'a Clock,
}

impl<'a> Inside<'a> {
    pub(super) fn enter(clock: &'a Clock) -> Self {
        Self { before: CLOCK.replace(clock), _clock: clock }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        CLOCK.set(self.before);
    }
}

fn with_clock<T>(use_it: impl FnOnce(&Clock) -> T) -> T {
    let clock = CLOCK.get();
    // SAFETY: null, or what an `Inside` up the stack has borrowed; it resets this when it goes.
    let clock = unsafe { clock.as_ref() };
    use_it(clock.expect("the kernel runs inside of a call only"))
}

pub(super) static OPERATIONS: HostOps = HostOps {
    print,
    panic,
    time_ns,
    realtime_ns,
    random,
    block,
    memcpy: libc::memcpy,
    memmove: libc::memmove,
    memset: libc::memset,
    memcmp: libc::memcmp,
    protect,
    discard,
};

/// Text that the kernel passes to an operation.
///
/// # Safety
/// `text` is readable for `len` bytes, for as long as the answer is used.
unsafe fn borrowed<'a>(text: *const c_char, len: u32) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(text.cast(), len as usize) }
}

extern "C" fn print(text: *const c_char, len: u32) {
    // SAFETY: the console passes its own buffer, for the time of the call.
    let text = unsafe { borrowed(text, len) };
    kmsg::emit(&String::from_utf8_lossy(text));
}

/// The kernel cannot go on, and neither can the program: its state is lost.
extern "C" fn panic(text: *const c_char, len: u32) {
    // SAFETY: the kernel passes its own buffer, for the time of the call.
    let text = unsafe { borrowed(text, len) };
    let reason = String::from_utf8_lossy(text);
    tracing::error!(target: kmsg::TARGET, %reason, "kernel panic");
    eprintln!("netshunt: the kernel library panicked: {reason}");
    abort();
}

extern "C" fn time_ns() -> u64 {
    with_clock(Clock::now)
}

extern "C" fn realtime_ns() -> u64 {
    with_clock(Clock::realtime)
}

extern "C" fn random(into: *mut c_void, len: usize) -> c_long {
    // SAFETY: the kernel passes its own buffer of `len` bytes. Short answers and errors are its to
    // judge: the generator asks again when it reseeds.
    unsafe { libc::getrandom(into, len, 0) as c_long }
}

extern "C" fn block(until: u64) {
    // Nothing but time can wake a kernel that sleeps inside a call: frames arrive between calls.
    assert_ne!(until, u64::MAX, "the kernel waits inside a call for something that cannot happen");
    with_clock(|clock| clock.wait_until(until));
}

extern "C" fn protect(page: *mut c_void, len: usize, on: c_int) {
    let access = if on == 0 { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
    // SAFETY: the kernel names whole pages of its memory bank or of the library's data, which only
    // it uses. Failure (too many mappings) costs the protection, not correctness.
    unsafe { libc::mprotect(page, len, access) };
}

extern "C" fn discard(page: *mut c_void, len: usize) {
    // SAFETY: the kernel names whole pages of its memory bank that are all zero, and zero they are
    // after this too: the bank is private anonymous memory.
    unsafe { libc::madvise(page, len, libc::MADV_DONTNEED) };
}

/// The wire of a network device, as the kernel holds it: a thin pointer to the callback.
pub(super) struct Wire(pub(super) TransmitFn);

pub(super) extern "C" fn transmit(wire: *mut c_void, pieces: *const Iov, count: c_int, _len: u32) -> c_int {
    // SAFETY: `Instance::add_nic` registered a `Wire` that lives until the kernel is down. Only
    // this function uses it, and it is not entered twice: a call from inside is refused.
    let wire = unsafe { &mut *wire.cast::<Wire>() };
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: the kernel passes `count` pieces that stay readable during the call; `Iov` and
    // `IoSlice` both are a `struct iovec`.
    let frame = unsafe { slice::from_raw_parts(pieces.cast::<IoSlice<'_>>(), count) };
    match (wire.0)(frame) {
        Transmit::Busy => -libc::EBUSY,
        Transmit::Taken => 0,
    }
}
