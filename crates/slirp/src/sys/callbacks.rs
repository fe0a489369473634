//! The way back from C: one table of functions for every kind of [`Host`].
//!
//! A panic in any of them aborts the process, as `extern "C"` functions do since Rust 1.81: none
//! unwinds into libslirp.

use std::cell::RefCell;
use std::ffi::CStr;
use std::os::fd::RawFd;
use std::slice;
use std::time::Duration;

use libc::{c_char, c_int, c_void, size_t, ssize_t};

use super::ffi::{Slirp, SlirpCb, TimerId};
use super::timers::Timers;

/// What libslirp asks of the program around it. Called inside any [`Instance`](super::Instance)
/// method, so by shared reference, and never to call back into the instance.
pub(crate) trait Host {
    /// libslirp emits an Ethernet frame for the guest.
    fn frame(&self, frame: &[u8]);

    /// libslirp complains about a frame it was given.
    fn guest_error(&self, message: &str);

    /// libslirp has opened a socket.
    fn opened(&self, fd: RawFd);

    /// libslirp is about to close a socket.
    fn closed(&self, fd: RawFd);

    /// A clock that does not go back.
    fn now(&self) -> Duration;
}

/// What the opaque pointer of every callback points to.
pub(super) struct Shared<H> {
    pub(super) host: H,
    pub(super) timers: RefCell<Timers>,
}

impl<H: Host> Shared<H> {
    /// libslirp keeps a pointer to the table: a constant's reference lives for ever.
    pub(super) const CALLBACKS: &'static SlirpCb = &SlirpCb {
        send_packet: send_packet::<H>,
        guest_error: guest_error::<H>,
        clock_get_ns: clock_get_ns::<H>,
        timer_new: None,
        timer_free: timer_free::<H>,
        timer_mod: timer_mod::<H>,
        register_poll_fd: register_poll_fd::<H>,
        unregister_poll_fd: unregister_poll_fd::<H>,
        notify: ignore,
        init_completed: ignore_slirp,
        timer_new_opaque: timer_new_opaque::<H>,
    };

    /// The clock in libslirp's unit for timers.
    pub(super) fn now_ms(&self) -> i64 {
        i64::try_from(self.host.now().as_millis()).unwrap_or(i64::MAX)
    }
}

/// The state behind a callback's opaque pointer.
///
/// # Safety
/// `opaque` is the pointer given to `slirp_new` with [`Shared::CALLBACKS`] of the same `H`, and the
/// reference is not used after the callback returns.
unsafe fn shared<'a, H>(opaque: *mut c_void) -> &'a Shared<H> {
    // SAFETY: `Instance::new` made it from a `Box<Shared<H>>`, which `Instance` frees only after
    // `slirp_cleanup`, and of which it makes shared references alone.
    unsafe { &*opaque.cast::<Shared<H>>() }
}

unsafe extern "C" fn send_packet<H: Host>(buf: *const c_void, len: size_t, opaque: *mut c_void) -> ssize_t {
    // SAFETY: called by libslirp with the opaque pointer of this table.
    let shared = unsafe { shared::<H>(opaque) };
    // SAFETY: libslirp passes a frame of `len` initialised bytes, its own until this returns.
    let frame = unsafe { slice::from_raw_parts(buf.cast::<u8>(), len) };
    shared.host.frame(frame);
    // Also for a dropped frame: a negative value is an I/O error, and only makes libslirp print it.
    len.cast_signed()
}

unsafe extern "C" fn guest_error<H: Host>(message: *const c_char, opaque: *mut c_void) {
    // SAFETY: called by libslirp with the opaque pointer of this table.
    let shared = unsafe { shared::<H>(opaque) };
    // SAFETY: libslirp passes a string that ends in NUL and stays until this returns.
    let message = unsafe { CStr::from_ptr(message) };
    shared.host.guest_error(&message.to_string_lossy());
}

unsafe extern "C" fn clock_get_ns<H: Host>(opaque: *mut c_void) -> i64 {
    // SAFETY: called by libslirp with the opaque pointer of this table.
    let shared = unsafe { shared::<H>(opaque) };
    i64::try_from(shared.host.now().as_nanos()).unwrap_or(i64::MAX)
}

unsafe extern "C" fn timer_new_opaque<H: Host>(
    id: TimerId,
    cb_opaque: *mut c_void,
    opaque: *mut c_void,
) -> *mut c_void {
    // SAFETY: called by libslirp with the opaque pointer of this table.
    let shared = unsafe { shared::<H>(opaque) };
    shared.timers.borrow_mut().add(id, cb_opaque)
}

unsafe extern "C" fn timer_free<H: Host>(timer: *mut c_void, opaque: *mut c_void) {
    // SAFETY: called by libslirp with the opaque pointer of this table.
    let shared = unsafe { shared::<H>(opaque) };
    shared.timers.borrow_mut().remove(timer);
}

unsafe extern "C" fn timer_mod<H: Host>(timer: *mut c_void, expire_ms: i64, opaque: *mut c_void) {
    // SAFETY: called by libslirp with the opaque pointer of this table.
    let shared = unsafe { shared::<H>(opaque) };
    shared.timers.borrow_mut().set(timer, expire_ms);
}

unsafe extern "C" fn register_poll_fd<H: Host>(fd: c_int, opaque: *mut c_void) {
    // SAFETY: called by libslirp with the opaque pointer of this table.
    let shared = unsafe { shared::<H>(opaque) };
    shared.host.opened(fd);
}

unsafe extern "C" fn unregister_poll_fd<H: Host>(fd: c_int, opaque: *mut c_void) {
    // SAFETY: called by libslirp with the opaque pointer of this table.
    let shared = unsafe { shared::<H>(opaque) };
    shared.host.closed(fd);
}

/// The caller runs a turn after every frame it sends: there is no other thread to wake.
extern "C" fn ignore(_: *mut c_void) {}

extern "C" fn ignore_slirp(_: *mut Slirp, _: *mut c_void) {}
