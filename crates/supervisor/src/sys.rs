//! Thin calls on sockets that nix has no safe form for: options given by number, connect(2) on
//! addresses of any family, and what runs in the child between fork and exec. Unsafe because they
//! pass pointers to the kernel.
#![allow(unsafe_code)]

#[cfg(test)]
pub(crate) mod arena;

use std::ffi::CStr;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use tokio::io::unix::AsyncFd;
use tracing::warn;

use crate::address;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// getsockopt(2) into `value`; returns how much the kernel wrote.
pub(crate) fn option(fd: BorrowedFd<'_>, level: i32, name: i32, value: &mut [u8]) -> io::Result<usize> {
    let mut len = value.len() as libc::socklen_t;
    // SAFETY: `value` has `len` writable bytes, and `len` is writable.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut len) })?;
    Ok(len as usize)
}

/// getsockopt(2) of an `int`.
pub(crate) fn int_option(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<i32> {
    let mut value = [0; 4];
    option(fd, level, name, &mut value)?;
    Ok(i32::from_ne_bytes(value))
}

/// getsockopt(2) of a 64-bit cookie (`SO_COOKIE`, `SO_NETNS_COOKIE`).
pub(crate) fn cookie(fd: BorrowedFd<'_>, name: i32) -> io::Result<u64> {
    let mut value = [0; 8];
    option(fd, libc::SOL_SOCKET, name, &mut value)?;
    Ok(u64::from_ne_bytes(value))
}

/// The inode number of an open file (fstat(2)).
pub(crate) fn inode(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(nix::sys::stat::fstat(fd)?.st_ino)
}

/// setsockopt(2) with the option's bytes.
pub(crate) fn set_option(fd: BorrowedFd<'_>, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let len = value.len() as libc::socklen_t;
    // SAFETY: `value` has `len` readable bytes.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), len) })?;
    Ok(())
}

/// Closing a connected socket sends a reset from now on (SO_LINGER with time 0, socket(7)).
pub(crate) fn reset_when_closed(socket: BorrowedFd<'_>) {
    let linger = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
    let set = set_option(socket, libc::SOL_SOCKET, libc::SO_LINGER, &linger);
    if let Err(error) = set {
        warn!(%error, "a connection that is broken may look as if it had ended in order");
    }
}

/// Undoes [`reset_when_closed`].
pub(crate) fn end_when_closed(socket: BorrowedFd<'_>) {
    let set = set_option(socket, libc::SOL_SOCKET, libc::SO_LINGER, &[0; 8]);
    if let Err(error) = set {
        warn!(%error, "a connection that has ended in order may be reset");
    }
}

fn connect_bytes(fd: BorrowedFd<'_>, address: &[u8]) -> io::Result<()> {
    let len = address.len() as libc::socklen_t;
    // SAFETY: `address` has `len` readable bytes.
    check(unsafe { libc::connect(fd.as_raw_fd(), address.as_ptr().cast(), len) })?;
    Ok(())
}

/// connect(2) with the bytes of a `struct sockaddr`.
pub(crate) fn connect_raw(fd: BorrowedFd<'_>, address: &[u8]) -> io::Result<()> {
    connect_bytes(fd, address)
}

/// connect(2). May wait when the socket is blocking.
pub(crate) fn connect(fd: BorrowedFd<'_>, to: SocketAddr) -> io::Result<()> {
    connect_bytes(fd, &address::encode(to, to.is_ipv6()))
}

/// connect(2) with AF_UNSPEC: dissolves a TCP connection or attempt.
pub(crate) fn disconnect(fd: BorrowedFd<'_>) -> io::Result<()> {
    connect_bytes(fd, &[0; 16])
}

/// Starts a connection without waiting, whatever the socket's `O_NONBLOCK` says.
///
/// `sendto` with MSG_FASTOPEN connects (net/ipv4/tcp.c, tcp_sendmsg_fastopen) and takes
/// MSG_DONTWAIT for this one call; the shared status flags stay as the guest set them. Needs the
/// client bit of net.ipv4.tcp_fastopen, on by default; without it `EOPNOTSUPP`. For loopback
/// only: the SYN asks for a fast-open cookie.
pub(crate) fn start_connect(fd: BorrowedFd<'_>, to: SocketAddr) -> io::Result<()> {
    let to = address::encode(to, to.is_ipv6());
    let flags = libc::MSG_FASTOPEN | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let len = to.len() as libc::socklen_t;
    again(|| {
        // SAFETY: nothing is sent (null with length 0), and `to` has `len` readable bytes.
        let sent =
            unsafe { libc::sendto(fd.as_raw_fd(), std::ptr::null(), 0, flags, to.as_ptr().cast(), len) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    })
}

fn name_of(
    fd: BorrowedFd<'_>,
    call: unsafe extern "C" fn(RawFd, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int,
) -> io::Result<Option<SocketAddr>> {
    let mut bytes = [0u8; address::STORAGE];
    let mut len = bytes.len() as libc::socklen_t;
    // SAFETY: getsockname(2) and getpeername(2) write at most `len` bytes.
    check(unsafe { call(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), &raw mut len) })?;
    Ok(match address::Address::parse(&bytes[..(len as usize).min(bytes.len())]) {
        Some(address::Address::Inet(address)) => Some(address),
        _ => None,
    })
}

/// getsockname(2) of an internet socket; `None` for other families.
pub(crate) fn local_name(fd: BorrowedFd<'_>) -> io::Result<Option<SocketAddr>> {
    name_of(fd, libc::getsockname)
}

/// getpeername(2) of an internet socket; `None` for other families.
pub(crate) fn peer_name(fd: BorrowedFd<'_>) -> io::Result<Option<SocketAddr>> {
    name_of(fd, libc::getpeername)
}

/// bind(2) with the bytes of a `struct sockaddr`.
pub(crate) fn bind_raw(fd: BorrowedFd<'_>, address: &[u8]) -> io::Result<()> {
    let len = address.len() as libc::socklen_t;
    // SAFETY: `address` has `len` readable bytes.
    check(unsafe { libc::bind(fd.as_raw_fd(), address.as_ptr().cast(), len) })?;
    Ok(())
}

/// bind(2).
pub(crate) fn bind(fd: BorrowedFd<'_>, to: SocketAddr) -> io::Result<()> {
    bind_raw(fd, &address::encode(to, to.is_ipv6()))
}

/// A non-blocking, close-on-exec TCP socket of IPv4.
pub(crate) fn tcp_socket() -> io::Result<OwnedFd> {
    tcp_socket_of(false)
}

/// The same of either family.
pub(crate) fn tcp_socket_of(v6: bool) -> io::Result<OwnedFd> {
    let domain = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::socket(domain, kind, 0) })?;
    // SAFETY: socket(2) gave us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Repeats a call that does not wait and that a signal of ours has interrupted all the same: whoever called has had the
/// event that it is about, and there may be no other.
fn again<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// recv(2) without waiting.
pub(crate) fn recv(fd: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    let (fd, flags) = (fd.as_raw_fd(), libc::MSG_DONTWAIT);
    again(|| {
        // SAFETY: `into` has that many writable bytes.
        let n = unsafe { libc::recv(fd, into.as_mut_ptr().cast(), into.len(), flags) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    })
}

/// send(2) without waiting or SIGPIPE.
pub(crate) fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    send_with(fd, bytes, 0)
}

/// The same with more flags.
pub(crate) fn send_with(fd: BorrowedFd<'_>, bytes: &[u8], flags: i32) -> io::Result<usize> {
    let flags = flags | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    again(|| {
        // SAFETY: `bytes` has that many readable bytes.
        let n = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    })
}

/// sendmsg(2) of bytes as they are: an address and control messages, each if it is not empty.
pub(crate) fn send_message(
    fd: BorrowedFd<'_>,
    address: &[u8],
    data: &[u8],
    control: &[u8],
    flags: i32,
) -> io::Result<usize> {
    let mut buffer = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let message = libc::msghdr {
        msg_name: if address.is_empty() { std::ptr::null_mut() } else { address.as_ptr().cast_mut().cast() },
        msg_namelen: address.len() as libc::socklen_t,
        msg_iov: &raw mut buffer,
        msg_iovlen: 1,
        msg_control: control.as_ptr().cast_mut().cast(),
        msg_controllen: control.len(),
        msg_flags: 0,
    };
    let send = || {
        // SAFETY: each pointer is to as many readable bytes as its length says, and they outlive the
        // call; sendmsg(2) writes to none of them, so const memory may be cast.
        let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, flags) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    };
    if flags & libc::MSG_DONTWAIT != 0 { again(send) } else { send() }
}

/// A pair of AF_UNIX datagram sockets: the guest's end, and ours, which never waits.
///
/// Both get abstract names when they are paired already: nobody else can send to either, and we can find
/// out whether the guest's is still there. Names that the kernel chooses (autobind) come again soon, and
/// could be a stranger's by then; ours are random.
pub(crate) fn datagram_pair(nonblocking: bool) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    // SAFETY: `fds` has room for two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })?;
    // SAFETY: socketpair(2) gave us these descriptors and nobody else knows them.
    let [guest, ours] = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    for socket in [&guest, &ours] {
        bind_raw(socket.as_fd(), &unix_address(&random_name()))?;
    }
    if nonblocking {
        // SAFETY: no pointers.
        check(unsafe { libc::fcntl(guest.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) })?;
    }
    Ok((guest, ours))
}

/// An abstract name that nobody guesses and that does not come again.
fn random_name() -> Vec<u8> {
    static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("\0netshunt-{:016x}-{count:x}", SECRET.hash_one(count)).into_bytes()
}

fn unix_address(name: &[u8]) -> Vec<u8> {
    [&(libc::AF_UNIX as libc::sa_family_t).to_ne_bytes(), name].concat()
}

/// connect(2) of an AF_UNIX socket to a `sun_path`.
pub(crate) fn connect_unix(fd: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    connect_bytes(fd, &unix_address(name))
}

/// Sends an empty datagram to a `sun_path`, from nowhere.
pub(crate) fn send_nothing(name: &[u8]) -> io::Result<()> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })?;
    // SAFETY: socket(2) gave us this descriptor and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    send_message(socket.as_fd(), &unix_address(name), &[], &[], libc::MSG_DONTWAIT).map(drop)
}

/// Bytes that were sent and not received yet, with what the kernel adds to them (SIOCOUTQ, unix(7)).
pub(crate) fn unread(fd: BorrowedFd<'_>) -> io::Result<i32> {
    let mut value: libc::c_int = 0;
    // SAFETY: SIOCOUTQ writes one int.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut value) })?;
    Ok(value)
}

/// Bytes that have arrived and were not read yet (SIOCINQ, tcp(7)).
pub(crate) fn unread_by_us(fd: BorrowedFd<'_>) -> io::Result<i32> {
    let mut value: libc::c_int = 0;
    // SAFETY: SIOCINQ writes one int.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut value) })?;
    Ok(value)
}

/// `SIOCATMARK` of include/uapi/asm-generic/sockios.h.
pub(crate) const SIOCATMARK: u32 = 0x8905;

/// Whether an urgent byte is next (sockatmark(3)).
pub(crate) fn at_mark(fd: BorrowedFd<'_>) -> bool {
    let mut value: libc::c_int = 0;
    // SAFETY: SIOCATMARK writes one int.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), SIOCATMARK.into(), &raw mut value) };
    done == 0 && value != 0
}

/// A non-blocking, close-on-exec datagram socket: UDP's, or one for echo requests (icmp(7)).
pub(crate) fn datagram_socket(v6: bool, protocol: i32) -> io::Result<OwnedFd> {
    let domain = if v6 { libc::AF_INET6 } else { libc::AF_INET };
    let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::socket(domain, kind, protocol) })?;
    // SAFETY: socket(2) gave us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What recvmsg(2) tells.
#[derive(Debug)]
pub(crate) struct Received {
    /// With MSG_TRUNC that of the whole datagram.
    pub(crate) length: usize,
    /// `None` for one of another family than the internet's.
    pub(crate) from: Option<SocketAddr>,
    /// Bytes of control messages.
    pub(crate) control: usize,
    /// `msg_flags`.
    pub(crate) flags: i32,
}

/// recvmsg(2) without waiting.
pub(crate) fn receive(
    fd: BorrowedFd<'_>,
    into: &mut [u8],
    control: &mut [u8],
    flags: i32,
) -> io::Result<Received> {
    let mut name = [0u8; address::STORAGE];
    let mut buffer = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let mut message = libc::msghdr {
        msg_name: name.as_mut_ptr().cast(),
        msg_namelen: name.len() as libc::socklen_t,
        msg_iov: &raw mut buffer,
        msg_iovlen: 1,
        msg_control: control.as_mut_ptr().cast(),
        msg_controllen: control.len(),
        msg_flags: 0,
    };
    let n = again(|| {
        // SAFETY: each pointer is to as many writable bytes as its length says, and they outlive the call.
        let n = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut message, flags | libc::MSG_DONTWAIT) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    })?;
    let named = (message.msg_namelen as usize).min(name.len());
    let from = match address::Address::parse(&name[..named]) {
        Some(address::Address::Inet(from)) => Some(from),
        _ => None,
    };
    Ok(Received { length: n, from, control: message.msg_controllen, flags: message.msg_flags })
}

/// The next datagram without waiting: the length of all of it, cut to `into`. `peek` leaves it where it is.
pub(crate) fn recv_datagram(fd: BorrowedFd<'_>, into: &mut [u8], peek: bool) -> io::Result<usize> {
    let flags = if peek { libc::MSG_TRUNC | libc::MSG_PEEK } else { libc::MSG_TRUNC };
    receive(fd, into, &mut [], flags).map(|received| received.length)
}

/// shutdown(2) of the writing side.
pub(crate) fn end(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) })?;
    Ok(())
}

/// How long [`poll`] waits where there was no memory to look at the descriptors.
const SHORTAGE: u64 = 1_000_000;

/// poll(2) until one is ready or `timeout_ns` has passed (`None`: for ever), or sooner: after a signal, and when there was
/// no memory, which may be there the next time.
pub(crate) fn poll(fds: &mut [libc::pollfd], timeout_ns: Option<u64>) -> io::Result<()> {
    match poll_once(fds, timeout_ns) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
            // Without descriptors it needs none.
            let _ = poll_once(&mut [], Some(timeout_ns.map_or(SHORTAGE, |ns| ns.min(SHORTAGE))));
            Ok(())
        }
        other => other,
    }
}

fn poll_once(fds: &mut [libc::pollfd], timeout_ns: Option<u64>) -> io::Result<()> {
    let timeout = timeout_ns.map(|ns| libc::timespec {
        tv_sec: (ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (ns % 1_000_000_000) as libc::c_long,
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let count = fds.len() as libc::nfds_t;
    // SAFETY: `fds` has `count` entries; `timeout` is null or points to a timespec that outlives
    // the call; no signal mask.
    check(unsafe { libc::ppoll(fds.as_mut_ptr(), count, timeout, std::ptr::null()) }).map(drop)
}

/// Makes every descriptor from 3 up close at exec, but for `keep`. Async-signal-safe.
pub(crate) fn close_at_exec_but(keep: &[RawFd]) -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC as libc::c_int;
    // SAFETY: no pointers.
    check(unsafe { libc::close_range(3, libc::c_uint::MAX, flags) })?;
    for fd in keep {
        // SAFETY: no pointers.
        check(unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) })?;
    }
    Ok(())
}

/// close(2) in a child that is about to execute something else. Async-signal-safe.
pub(crate) fn close(fd: RawFd) -> io::Result<()> {
    // SAFETY: no pointers; the child's copy of our descriptors is never used as an owned value.
    check(unsafe { libc::close(fd) })?;
    Ok(())
}

/// The descriptor of that number, if it is open. For a look before anything else is done: whoever
/// owns it must not close it meanwhile.
pub(crate) fn inherited(number: RawFd) -> Option<BorrowedFd<'static>> {
    // SAFETY: no pointers.
    let open = unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0;
    // SAFETY: it is open, and the standard descriptors and those that the caller asked to keep
    // stay so (the caller's promise).
    open.then(|| unsafe { BorrowedFd::borrow_raw(number) })
}

/// prctl(2) with integer arguments. Async-signal-safe.
pub(crate) fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<()> {
    // SAFETY: the options used here (NO_NEW_PRIVS, DUMPABLE, CAPBSET_DROP, CHILD_SUBREAPER,
    // CAP_AMBIENT) take integers only.
    check(unsafe { libc::prctl(option, argument, 0, 0, 0) })?;
    Ok(())
}

/// landlock_restrict_self(2). Async-signal-safe.
pub(crate) fn landlock_restrict_self(ruleset: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no pointers.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The two words of a version 3 capability set, as capget(2) has them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CapabilityWord {
    pub(crate) effective: u32,
    pub(crate) permitted: u32,
    pub(crate) inheritable: u32,
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}

/// `_LINUX_CAPABILITY_VERSION_3` (linux/capability.h).
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
const _: () = assert!(size_of::<CapabilityWord>() == 12, "linux/capability.h");
const _: () = assert!(size_of::<CapabilityHeader>() == 8, "linux/capability.h");

/// capget(2) of this thread. Async-signal-safe.
pub(crate) fn capabilities() -> io::Result<[CapabilityWord; 2]> {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut words = [CapabilityWord::default(); 2];
    // SAFETY: version 3 reads a header of 8 bytes and writes two words of 12 (asserted above).
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(words) }
}

/// capset(2) of this thread. Async-signal-safe.
pub(crate) fn set_capabilities(words: &[CapabilityWord; 2]) -> io::Result<()> {
    let mut header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    // SAFETY: version 3 reads a header of 8 bytes and two words of 12 (asserted above).
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// openat(2) with O_PATH, relative to `dir`. Does not wait, whatever the file is.
pub(crate) fn open_path(dir: BorrowedFd<'_>, path: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: `path` is a C string.
    let fd = check(unsafe { libc::openat(dir.as_raw_fd(), path.as_ptr(), flags) })?;
    // SAFETY: openat(2) gave us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The same by openat2(2), `dir` being the root of absolute paths and links: nothing leads out of it.
pub(crate) fn open_path_in(dir: BorrowedFd<'_>, path: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: open_how is plain integers, for which zero means "nothing special".
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_PATH | libc::O_CLOEXEC) as u64;
    // It forbids magic links too: EXDEV.
    how.resolve = libc::RESOLVE_IN_ROOT;
    let size = size_of::<libc::open_how>();
    // SAFETY: `path` is a C string and `how` has `size` bytes; both outlive the call.
    let fd =
        unsafe { libc::syscall(libc::SYS_openat2, dir.as_raw_fd(), path.as_ptr(), &raw const how, size) };
    let fd = check(fd as libc::c_int)?;
    // SAFETY: openat2(2) gave us this descriptor and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The `sun_path` that an AF_UNIX socket is bound to; empty if it is not.
pub(crate) fn unix_name(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut bytes = [0u8; address::STORAGE];
    let mut len = bytes.len() as libc::socklen_t;
    // SAFETY: getsockname(2) writes at most `len` bytes.
    check(unsafe { libc::getsockname(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), &raw mut len) })?;
    Ok(bytes[..(len as usize).min(bytes.len())].get(2..).unwrap_or_default().to_vec())
}

/// The `sun_path` of the socket that an AF_UNIX socket was connected to; empty if it had none.
pub(crate) fn unix_peer(fd: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut bytes = [0u8; address::STORAGE];
    let mut len = bytes.len() as libc::socklen_t;
    // SAFETY: getpeername(2) writes at most `len` bytes.
    check(unsafe { libc::getpeername(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), &raw mut len) })?;
    Ok(bytes[..(len as usize).min(bytes.len())].get(2..).unwrap_or_default().to_vec())
}

/// listen(2).
pub(crate) fn listen(fd: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::listen(fd.as_raw_fd(), backlog) })?;
    Ok(())
}

/// accept4(2), and where the peer is (`None` for families other than internet ones). Waits if the socket is a
/// blocking one and nobody is there: look with [`poll_now`] before.
pub(crate) fn accept(fd: BorrowedFd<'_>, flags: i32) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let mut bytes = [0u8; address::STORAGE];
    let mut len = bytes.len() as libc::socklen_t;
    let flags = flags | libc::SOCK_CLOEXEC;
    // SAFETY: accept4(2) writes at most `len` bytes to `bytes`.
    let accepted =
        check(unsafe { libc::accept4(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), &raw mut len, flags) })?;
    // SAFETY: accept4(2) gave us this descriptor and nobody else knows it.
    let accepted = unsafe { OwnedFd::from_raw_fd(accepted) };
    let peer = match address::Address::parse(&bytes[..(len as usize).min(bytes.len())]) {
        Some(address::Address::Inet(peer)) => Some(peer),
        _ => None,
    };
    Ok((accepted, peer))
}

/// What poll(2) says of one descriptor now: `POLL*` bits of those in `events`, and of those always told.
pub(crate) fn poll_now(fd: BorrowedFd<'_>, events: i16) -> i16 {
    poll_for(fd, events, Duration::ZERO)
}

/// The same as soon as there is something to say, or after `time`.
pub(crate) fn poll_for(fd: BorrowedFd<'_>, events: i16, time: Duration) -> i16 {
    let mut fds = [libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 }];
    let deadline = Instant::now() + time;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match poll_once(&mut fds, Some(left.as_nanos() as u64)) {
            Ok(()) => return fds[0].revents,
            // For one descriptor the kernel needs no more memory than it has (fs/select.c).
            Err(error) if [Some(libc::EINTR), Some(libc::ENOMEM)].contains(&error.raw_os_error()) => {}
            Err(_) => return libc::POLLERR,
        }
    }
}

/// Runs `prepare` in the child between fork and exec.
pub(crate) fn before_exec(
    command: &mut std::process::Command,
    prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    use std::os::unix::process::CommandExt;
    // SAFETY: every caller passes a closure of async-signal-safe calls that does not allocate;
    // `guest::prepare` is the only one and says so.
    unsafe { command.pre_exec(prepare) };
}

/// A thread of ours, as pthread_kill(3) names it. Only valid while that thread runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread(libc::pthread_t);

impl Thread {
    pub(crate) fn current() -> Self {
        // SAFETY: no arguments, cannot fail.
        Thread(unsafe { libc::pthread_self() })
    }

    /// Interrupts the system call that the thread waits in, if any, with `EINTR`.
    ///
    /// The caller guarantees that the thread still runs.
    pub(crate) fn interrupt(self) {
        static HANDLER: OnceLock<()> = OnceLock::new();
        HANDLER.get_or_init(|| {
            let handler = SigHandler::Handler(nothing);
            let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
            // SAFETY: the handler does nothing, which is async-signal-safe; SIGURG is ignored by default
            // (signal(7)), so nobody relies on its default action.
            unsafe { sigaction(Signal::SIGURG, &action) }.expect("SIGURG may be caught");
        });
        // SAFETY: the thread runs (the caller's promise), so its id is valid.
        unsafe { libc::pthread_kill(self.0, libc::SIGURG) };
    }
}

extern "C" fn nothing(_: libc::c_int) {}

/// recv(2) that waits.
#[cfg(test)]
pub(crate) fn recv_waiting(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut byte = [0u8; 1];
    // SAFETY: recv(2) writes at most one byte to `byte`.
    let length = unsafe { libc::recv(fd.as_raw_fd(), byte.as_mut_ptr().cast(), 1, 0) };
    if length < 0 { Err(io::Error::last_os_error()) } else { Ok(length.unsigned_abs()) }
}

/// Registers a descriptor with the tokio runtime.
pub(crate) fn async_fd(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names one open descriptor until it is dropped, and AsyncFd owns it.
    unsafe { AsyncFd::register(fd) }.map_err(Into::into)
}
