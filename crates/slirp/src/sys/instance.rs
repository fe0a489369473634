//! One `Slirp`, owned.

use std::cell::RefCell;
use std::ffi::CStr;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use libc::{c_int, c_void, in_addr, in6_addr};
use nix::sys::socket::{SockaddrLike, SockaddrStorage};

use super::callbacks::{Host, Shared};
use super::ffi;
use super::timers::Timers;
use crate::{Error, plan};

/// One libslirp instance and the host it calls back. Dropping it closes every socket it opened.
pub(crate) struct Instance<H: Host> {
    /// From `slirp_new`; `slirp_cleanup` is called once, in `drop`.
    slirp: NonNull<ffi::Slirp>,
    /// From a `Box`; libslirp holds it as its opaque pointer, so it is only ever borrowed shared.
    shared: NonNull<Shared<H>>,
    _only: Only,
}

// SAFETY: libslirp has no thread-local state and no thread of its own. What it keeps outside the
// instance are process-wide globals, and `Only` admits one instance at a time. Every method that
// enters C takes `&mut self`, so entries from different threads are ordered by the move between them.
unsafe impl<H: Host + Send> Send for Instance<H> {}

impl<H: Host> Instance<H> {
    /// A new instance with the addresses of `plan`.
    pub(crate) fn new(mtu: u16, ipv6: bool, host: H) -> Result<Self, Error> {
        let only = Only::take().ok_or(Error::Second)?;
        let config = config(mtu, ipv6);
        let shared = Box::new(Shared { host, timers: RefCell::new(Timers::default()) });
        let shared = NonNull::from(Box::leak(shared));
        // SAFETY: `config` is a whole version 4 configuration, read during the call only; the table is
        // static and of this `H`; `shared` stays valid until after `slirp_cleanup`.
        let slirp = unsafe { ffi::slirp_new(&config, Shared::<H>::CALLBACKS, shared.as_ptr().cast()) };
        let Some(slirp) = NonNull::new(slirp) else {
            // SAFETY: leaked above, and libslirp, having refused, keeps no pointer to it.
            drop(unsafe { Box::from_raw(shared.as_ptr()) });
            return Err(Error::Refused { version: version() });
        };
        Ok(Instance { slirp, shared, _only: only })
    }

    pub(crate) fn host(&self) -> &H {
        &self.shared().host
    }

    /// Gives libslirp one Ethernet frame, which it copies. Calls [`Host::frame`].
    ///
    /// Frames that no `int` can measure are dropped.
    pub(crate) fn input(&mut self, frame: &[u8]) {
        let Ok(length) = c_int::try_from(frame.len()) else { return };
        // SAFETY: the instance is alive, and the frame's bytes are readable for `length`.
        unsafe { ffi::slirp_input(self.slirp.as_ptr(), frame.as_ptr(), length) };
    }

    /// Tells `add` every descriptor to poll, with `POLL_*` bits; `add` returns the index by which
    /// [`poll`](Self::poll) will ask for it. Returns how long libslirp's own timers can wait.
    pub(crate) fn fill<F>(&mut self, add: &mut F) -> Option<Duration>
    where
        F: FnMut(RawFd, c_int) -> c_int,
    {
        unsafe extern "C" fn add_poll<F>(fd: c_int, events: c_int, opaque: *mut c_void) -> c_int
        where
            F: FnMut(RawFd, c_int) -> c_int,
        {
            // SAFETY: `fill` passed its exclusive `&mut F`, and waits for this call.
            let add = unsafe { &mut *opaque.cast::<F>() };
            add(fd, events)
        }
        let mut timeout = u32::MAX;
        let add = ptr::from_mut(add).cast();
        // SAFETY: the instance is alive; `timeout` and `add` outlive the call, which keeps neither.
        unsafe { ffi::slirp_pollfds_fill(self.slirp.as_ptr(), &mut timeout, add_poll::<F>, add) };
        (timeout != u32::MAX).then(|| Duration::from_millis(timeout.into()))
    }

    /// Does what the polled descriptors allow; `revents` gives the `POLL_*` bits of an index, which
    /// may be any number. Calls [`Host::frame`].
    pub(crate) fn poll<F>(&mut self, revents: &mut F)
    where
        F: FnMut(c_int) -> c_int,
    {
        unsafe extern "C" fn get_revents<F>(index: c_int, opaque: *mut c_void) -> c_int
        where
            F: FnMut(c_int) -> c_int,
        {
            // SAFETY: `poll` passed its exclusive `&mut F`, and waits for this call.
            let revents = unsafe { &mut *opaque.cast::<F>() };
            revents(index)
        }
        let revents = ptr::from_mut(revents).cast();
        // SAFETY: the instance is alive; `revents` outlives the call, which does not keep it.
        unsafe { ffi::slirp_pollfds_poll(self.slirp.as_ptr(), 0, get_revents::<F>, revents) };
    }

    /// Opens a socket of the host at `host`, whose connections or datagrams go to `guest`.
    pub(crate) fn forward(&mut self, host: SocketAddr, guest: SocketAddr, udp: bool) -> io::Result<()> {
        let flags =
            if udp { ffi::HOSTFWD_UDP } else { 0 } | if host.is_ipv6() { ffi::HOSTFWD_V6ONLY } else { 0 };
        let (host, guest) = (SockaddrStorage::from(host), SockaddrStorage::from(guest));
        // SAFETY: the instance is alive; both addresses are whole, and read during the call only.
        let done = unsafe {
            ffi::slirp_add_hostxfwd(
                self.slirp.as_ptr(),
                host.as_ptr(),
                host.len(),
                guest.as_ptr(),
                guest.len(),
                flags,
            )
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// How long until the first timer is due by the host's clock.
    pub(crate) fn next_timer(&self) -> Option<Duration> {
        let shared = self.shared();
        let due = shared.timers.borrow().next()?;
        Some(Duration::from_millis(due.saturating_sub(shared.now_ms()).max(0).unsigned_abs()))
    }

    /// Runs every timer that is due, once: one that starts itself again waits for the next call.
    pub(crate) fn run_timers(&mut self) {
        let now = self.shared().now_ms();
        // The handler sets timers: no borrow is held while it runs.
        let slots = self.shared().timers.borrow().len();
        for slot in 0..slots {
            let due = self.shared().timers.borrow_mut().take_due(slot, now);
            let Some((id, opaque)) = due else { continue };
            // SAFETY: the instance is alive, and made this timer with this identity (`timer_new_opaque`)
            // and has not freed it, or the slot would be empty.
            unsafe { ffi::slirp_handle_timer(self.slirp.as_ptr(), id, opaque) };
        }
    }

    fn shared(&self) -> &Shared<H> {
        // SAFETY: valid until `drop`, and never borrowed exclusively.
        unsafe { self.shared.as_ref() }
    }
}

impl<H: Host> Drop for Instance<H> {
    fn drop(&mut self) {
        // SAFETY: from `slirp_new`, not yet cleaned up, and not used again. It may call back.
        unsafe { ffi::slirp_cleanup(self.slirp.as_ptr()) };
        // SAFETY: leaked in `new`; libslirp, which had the other pointer to it, is gone.
        drop(unsafe { Box::from_raw(self.shared.as_ptr()) });
    }
}

/// The version of the library at run time.
pub(crate) fn version() -> String {
    // SAFETY: the returned string is a constant of the library and ends in NUL.
    unsafe { CStr::from_ptr(ffi::slirp_version_string()) }.to_string_lossy().into_owned()
}

/// Held by the one instance of the process: libslirp 4.7's clock (`curtime`) and its cache of the
/// host's name servers are globals without a lock.
struct Only;

static TAKEN: AtomicBool = AtomicBool::new(false);

impl Only {
    fn take() -> Option<Self> {
        // Acquire: what the last holder's thread did to the globals is seen here.
        (!TAKEN.swap(true, Ordering::Acquire)).then_some(Only)
    }
}

impl Drop for Only {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Release);
    }
}

fn config(mtu: u16, ipv6: bool) -> ffi::SlirpConfig {
    ffi::SlirpConfig {
        version: ffi::CONFIG_VERSION,
        restricted: 0,
        in_enabled: true,
        vnetwork: v4(plan::NETWORK),
        vnetmask: v4(plan::MASK_V4),
        vhost: v4(plan::GATEWAY),
        in6_enabled: ipv6,
        vprefix_addr6: v6(plan::NETWORK_V6),
        vprefix_len: plan::PREFIX_V6,
        vhost6: v6(plan::GATEWAY_V6),
        vhostname: ptr::null(),
        tftp_server_name: ptr::null(),
        // Without a folder the TFTP server answers every request with an error.
        tftp_path: ptr::null(),
        bootfile: ptr::null(),
        // No DHCP, but forwarded ports without a guest address go here.
        vdhcp_start: v4(plan::GUEST),
        vnameserver: v4(plan::DNS),
        vnameserver6: v6(plan::DNS_V6),
        vdnssearch: ptr::null(),
        vdomainname: ptr::null(),
        if_mtu: mtu.into(),
        if_mru: mtu.into(),
        // One switch for all ports: which of them may be reached is the policy's to say.
        disable_host_loopback: false,
        // Emulation of FTP, IRC and the like, which the header itself calls unsafe.
        enable_emu: false,
        outbound_addr: ptr::null_mut(),
        outbound_addr6: ptr::null_mut(),
        disable_dns: false,
        disable_dhcp: true,
    }
}

fn v4(address: Ipv4Addr) -> in_addr {
    in_addr { s_addr: u32::from_ne_bytes(address.octets()) }
}

fn v6(address: Ipv6Addr) -> in6_addr {
    in6_addr { s6_addr: address.octets() }
}
