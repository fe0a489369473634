//! Which of the errnos of shortage each system call may have, as its man page or its source says.

use netshunt_tests::TestLink;

/// ENOMEM, EMFILE, EINTR, EAGAIN and ENOBUFS, as far as the call gives them. `None`: a call that is not listed.
///
/// EAGAIN is left out where it says that there is nothing to be had now, and another event will tell (accept, receive and
/// send without waiting): said without that being so it would be a lie, which no kernel tells.
pub(crate) fn of(call: &str) -> Option<&'static [&'static str]> {
    CALLS.iter().find(|(name, _)| *name == call).map(|(_, errnos)| *errnos)
}

/// The thread whose call it must be, where others make it for what never fails so: libslirp and tokio take such a failure
/// of fcntl(2) that reads flags for the end of the world, and of recv(2) and send(2) of a stream for its end, in order.
pub(crate) fn only_by(call: &str, link: TestLink) -> Option<&'static str> {
    let watch = Some("netshunt-watch");
    match (call, link) {
        ("recvfrom", _) | ("fcntl" | "sendto", TestLink::Slirp) => watch,
        _ => None,
    }
}

const CALLS: &[(&str, &[&str])] = &[
    ("accept", &["EMFILE", "ENOBUFS", "ENOMEM", "EINTR"]),
    ("accept4", &["EMFILE", "ENOBUFS", "ENOMEM", "EINTR"]),
    ("bind", &["ENOMEM", "ENOBUFS"]),
    ("clone3", &["EAGAIN", "ENOMEM"]),
    ("connect", &["EINTR", "EAGAIN", "ENOBUFS", "ENOMEM"]),
    ("dup3", &["EMFILE", "EINTR"]),
    ("epoll_create1", &["EMFILE", "ENOMEM"]),
    ("epoll_ctl", &["ENOMEM"]),
    ("epoll_pwait", &["EINTR"]),
    ("epoll_wait", &["EINTR"]),
    ("eventfd2", &["EMFILE", "ENOMEM"]),
    ("fcntl", &["EMFILE", "ENOMEM"]),
    ("fstat", &["ENOMEM"]),
    ("getdents64", &["ENOMEM"]),
    ("getrandom", &["EAGAIN", "EINTR"]),
    // Control groups may judge it by a program (kernel/bpf/cgroup.c).
    ("getsockopt", &["ENOMEM"]),
    // What a guest's call is answered by waits for a lock (kernel/seccomp.c: mutex_lock_interruptible()).
    ("ioctl", &["EINTR"]),
    ("listen", &["ENOMEM"]),
    ("madvise", &["EAGAIN", "ENOMEM"]),
    ("mmap", &["ENOMEM"]),
    ("mprotect", &["ENOMEM"]),
    ("munmap", &["ENOMEM"]),
    ("newfstatat", &["ENOMEM"]),
    ("openat", &["EMFILE", "ENOMEM", "EINTR"]),
    ("openat2", &["EMFILE", "ENOMEM", "EINTR", "EAGAIN"]),
    ("pidfd_getfd", &["EMFILE"]),
    ("pidfd_open", &["EMFILE", "ENOMEM"]),
    ("pipe2", &["EMFILE", "ENOMEM"]),
    ("poll", &["EINTR", "ENOMEM"]),
    ("ppoll", &["EINTR", "ENOMEM"]),
    ("pread64", &["EINTR", "ENOMEM"]),
    ("process_vm_readv", &["ENOMEM"]),
    ("pwrite64", &["EINTR", "ENOMEM"]),
    ("read", &["EINTR", "ENOMEM"]),
    ("readlink", &["ENOMEM"]),
    ("recvfrom", &["EINTR", "ENOMEM", "ENOBUFS"]),
    ("recvmmsg", &["EINTR", "ENOMEM", "ENOBUFS"]),
    ("recvmsg", &["EINTR", "ENOMEM", "ENOBUFS"]),
    ("sendmmsg", &["EINTR", "ENOMEM", "ENOBUFS"]),
    ("sendmsg", &["EINTR", "ENOMEM", "ENOBUFS"]),
    ("sendto", &["EINTR", "ENOMEM", "ENOBUFS"]),
    ("setsockopt", &["ENOMEM", "ENOBUFS"]),
    ("socket", &["EMFILE", "ENOBUFS", "ENOMEM"]),
    ("socketpair", &["EMFILE", "ENOMEM"]),
    ("statx", &["ENOMEM"]),
    ("unshare", &["ENOMEM", "EMFILE"]),
    ("wait4", &["EINTR"]),
    // To eventfds, which the kernel never refuses, and to the flow log: disk_full in faults.rs.
    ("write", &[]),
    ("writev", &["EINTR", "ENOMEM", "ENOBUFS"]),
    // Those of these that cannot fail so.
    ("alarm", &[]),
    // A descriptor is gone whatever close(2) says: one that stayed would be the injector's doing.
    ("brk", &[]),
    ("clock_gettime", &[]),
    ("clock_nanosleep", &["EINTR"]),
    ("close", &[]),
    ("exit", &[]),
    // The libraries' locks, which no fault of the kernel's reaches.
    ("futex", &[]),
    ("getpeername", &["ENOBUFS"]),
    ("getegid", &[]),
    ("geteuid", &[]),
    ("getgid", &[]),
    ("getpid", &[]),
    ("getsockname", &["ENOBUFS"]),
    ("gettid", &[]),
    ("getuid", &[]),
    ("lseek", &[]),
    ("prctl", &[]),
    ("prlimit64", &[]),
    ("restart_syscall", &[]),
    ("rseq", &[]),
    ("rt_sigaction", &[]),
    ("rt_sigprocmask", &[]),
    ("rt_sigreturn", &[]),
    ("sched_getaffinity", &[]),
    ("sched_yield", &[]),
    ("set_robust_list", &[]),
    ("shutdown", &[]),
    ("sigaltstack", &[]),
    ("tgkill", &[]),
    ("waitid", &["EINTR"]),
];
