//! The system calls that the stack's thread makes once it runs, its link's and the kernel library's among them.

/// A call that is allowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    /// All of these must hold; several entries of one call are alternatives.
    pub(crate) only: &'static [Only],
}

/// `argument & mask` is `value`: of the low 32 bits, as the kernel takes these arguments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Only {
    pub(crate) arg: u32,
    pub(crate) mask: u32,
    pub(crate) value: u32,
}

const fn call(name: &'static str) -> Call {
    Call { name, only: &[] }
}

const fn only(name: &'static str, only: &'static [Only]) -> Call {
    Call { name, only }
}

const fn is(arg: u32, value: u32) -> Only {
    Only { arg, mask: u32::MAX, value }
}

const fn none_of(arg: u32, bits: u32) -> Only {
    Only { arg, mask: bits, value: 0 }
}

/// `SOCK_NONBLOCK | SOCK_CLOEXEC` share the word with the type of a socket.
const fn is_type(value: i32) -> Only {
    Only { arg: 1, mask: !((libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) as u32), value: value as u32 }
}

const fn family(value: i32) -> Only {
    is(0, value as u32)
}

const WRITES: u32 = (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_APPEND) as u32;
/// A thread of ours, and nothing else.
const THREAD: u32 = (libc::CLONE_THREAD | libc::CLONE_VM) as u32;
const NAMESPACES: u32 = 0x7e02_0080;
/// `SECCOMP_IOCTL_NOTIF_SEND`, `_ID_VALID` and `_ADDFD` (linux/seccomp.h).
const NOTIF_SEND: u32 = 0xc018_2101;
const NOTIF_ID_VALID: u32 = 0x4008_2102;
const NOTIF_ADDFD: u32 = 0x4018_2103;
/// prctl(2): malloc(3) may name its memory.
const PR_SET_VMA: u32 = 0x5356_4d41;

#[rustfmt::skip]
pub(crate) static TABLE: &[Call] = &[
    // Sockets: what the policy decides about has been decided when they are made. None sees other packets.
    only("socket", &[family(libc::AF_INET), is_type(libc::SOCK_STREAM)]),
    only("socket", &[family(libc::AF_INET), is_type(libc::SOCK_DGRAM)]),
    only("socket", &[family(libc::AF_INET6), is_type(libc::SOCK_STREAM)]),
    only("socket", &[family(libc::AF_INET6), is_type(libc::SOCK_DGRAM)]),
    only("socket", &[family(libc::AF_UNIX)]),
    only("socket", &[family(libc::AF_NETLINK), is(2, libc::NETLINK_ROUTE as u32)]),
    only("socket", &[family(libc::AF_NETLINK), is(2, libc::NETLINK_SOCK_DIAG as u32)]),
    only("socketpair", &[family(libc::AF_UNIX)]),
    call("accept"), call("accept4"), call("bind"), call("connect"), call("getpeername"), call("getsockname"),
    call("getsockopt"), call("listen"), call("recvfrom"), call("recvmmsg"), call("recvmsg"), call("sendmmsg"),
    call("sendmsg"), call("sendto"), call("setsockopt"), call("shutdown"),
    // Descriptors that it has.
    call("close"), call("dup"), call("epoll_create1"), call("epoll_ctl"), call("eventfd2"), call("fstat"),
    call("lseek"), call("pipe2"), call("read"), call("readv"), call("write"), call("writev"),
    only("fcntl", &[is(1, libc::F_DUPFD_CLOEXEC as u32)]), only("fcntl", &[is(1, libc::F_GETFD as u32)]),
    only("fcntl", &[is(1, libc::F_GETFL as u32)]), only("fcntl", &[is(1, libc::F_SETFD as u32)]),
    only("fcntl", &[is(1, libc::F_SETFL as u32)]),
    only("ioctl", &[is(1, libc::FIONBIO as u32)]), only("ioctl", &[is(1, libc::FIONREAD as u32)]),
    only("ioctl", &[is(1, libc::TIOCOUTQ as u32)]), only("ioctl", &[is(1, 0x8905 /* SIOCATMARK */)]),
    only("ioctl", &[is(1, NOTIF_SEND)]), only("ioctl", &[is(1, NOTIF_ID_VALID)]),
    only("ioctl", &[is(1, NOTIF_ADDFD)]),
    // Files, to read: libslirp looks at resolv.conf(5) again.
    only("openat", &[none_of(2, WRITES)]), call("newfstatat"), call("statx"),
    // Time, and waiting.
    call("clock_gettime"), call("clock_nanosleep"), call("epoll_pwait"), call("epoll_pwait2"), call("epoll_wait"),
    call("futex"), call("gettimeofday"), call("nanosleep"), call("poll"), call("ppoll"), call("restart_syscall"),
    call("sched_yield"), call("time"),
    // Memory, none of which becomes code.
    call("brk"), call("madvise"), call("mremap"), call("munmap"),
    only("mmap", &[none_of(2, libc::PROT_EXEC as u32)]), only("mprotect", &[none_of(2, libc::PROT_EXEC as u32)]),
    // Threads, with what their beginning and end take.
    only("clone", &[Only { arg: 0, mask: THREAD | NAMESPACES, value: THREAD }]),
    only("prctl", &[is(0, libc::PR_SET_NAME as u32)]), only("prctl", &[is(0, PR_SET_VMA)]),
    only("unshare", &[is(0, libc::CLONE_FILES as u32)]),
    call("exit"), call("rseq"), call("sched_getaffinity"), call("set_robust_list"), call("sigaltstack"),
    // The end, an orderly one or not.
    call("exit_group"), call("rt_sigaction"), call("rt_sigprocmask"), call("rt_sigreturn"),
    only("tgkill", &[is(2, libc::SIGABRT as u32)]),
    call("getpid"), call("getrandom"), call("gettid"), call("getuid"), call("geteuid"), call("uname"),
];
