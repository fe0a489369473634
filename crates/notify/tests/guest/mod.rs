//! Guests for tests: forked children under the filter, and a handler that passes notifications on.
//!
//! A child of a process with threads may only do what is async-signal-safe, so bodies make system
//! calls and tell what they saw on a [`Board`], a shared page.
#![allow(dead_code, reason = "every test uses some of it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]
#![allow(
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    reason = "shared by test programs and the crate's own tests"
)]

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use netshunt_notify::{Features, Handler, Listener, ListenerNumber, Notification, Program, Watch};

/// Generous: a loaded machine may take long, and only failing tests wait this long.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// A page that guest and test share: what the guest tells.
pub struct Board(&'static [AtomicI64; 64]);

/// What a cell holds until the guest writes it.
pub const UNSET: i64 = i64::MIN;

impl Board {
    fn new() -> Board {
        // SAFETY: a new anonymous mapping, at an address of the kernel's choice.
        let page = unsafe {
            libc::mmap(
                ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(page, libc::MAP_FAILED);
        // SAFETY: 4096 zeroed bytes, aligned to a page, hold 64 atomics; they are never unmapped.
        let cells = unsafe { &*page.cast::<[AtomicI64; 64]>() };
        cells.iter().for_each(|cell| cell.store(UNSET, Ordering::SeqCst));
        Board(cells)
    }

    pub fn set(&self, cell: usize, value: i64) {
        self.0[cell].store(value, Ordering::SeqCst);
    }

    pub fn get(&self, cell: usize) -> i64 {
        self.0[cell].load(Ordering::SeqCst)
    }

    /// In the guest: notes what a system call returned, as the kernel tells it (-errno).
    pub fn note(&self, cell: usize, answer: i64) {
        self.set(cell, if answer < 0 { -i64::from(errno()) } else { answer });
    }

    /// In the test: waits for a cell to be written.
    #[track_caller]
    pub fn wait(&self, cell: usize) -> i64 {
        eventually("the guest to report", || self.get(cell) != UNSET);
        self.get(cell)
    }

    /// In the guest: waits for the test.
    pub fn wait_in_guest(&self, cell: usize) {
        for _ in 0..60_000 {
            if self.get(cell) != UNSET {
                return;
            }
            // SAFETY: an integer only.
            unsafe { libc::usleep(500) };
        }
        // Nobody is there any more: do not outlive the test by much.
        // SAFETY: ends the process.
        unsafe { libc::_exit(98) };
    }
}

pub fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// A child under the filter. Killed and reaped when dropped.
pub struct Guest {
    pub pid: i32,
    pub board: &'static Board,
    pub pidfd: OwnedFd,
    reaped: bool,
}

impl Guest {
    /// Forks a guest, runs `before` in it, installs the filter, hands the listener over and runs `body`.
    pub fn fork_with(before: impl FnOnce(&Board), body: impl FnOnce(&Board)) -> (Guest, Listener, Features) {
        let features = Features::detect().unwrap();
        let program = Program::new();
        let board: &'static Board = Box::leak(Box::new(Board::new()));
        let (mut number_in, mut number_out) = std::io::pipe().unwrap();
        let (mut go_in, mut go_out) = std::io::pipe().unwrap();
        // SAFETY: the child makes system calls only (and leaves by _exit), as its bodies promise.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            // SAFETY: integers only. The guest dies with the test that made it.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            // SAFETY: integers only. Its descendants are found by the group.
            unsafe { libc::setpgid(0, 0) };
            keep_only([number_out.as_raw_fd(), go_in.as_raw_fd()]);
            before(board);
            let code = match program.install(&features) {
                Ok(ListenerNumber(number)) => {
                    let _ = number_out.write(&number.to_ne_bytes());
                    let _ = go_in.read(&mut [0]);
                    // SAFETY: the number is the listener's, which nothing here owns.
                    unsafe { libc::close(number) };
                    body(board);
                    0
                }
                Err(_) => 99,
            };
            // SAFETY: ends the process without running anything of the test's.
            unsafe { libc::_exit(code) };
        }
        let mut number = [0; 4];
        number_in.read_exact(&mut number).unwrap();
        let pidfd = rustix::process::pidfd_open(
            rustix::process::Pid::from_raw(pid).unwrap(),
            rustix::process::PidfdFlags::empty(),
        )
        .unwrap();
        let number = ListenerNumber(i32::from_ne_bytes(number));
        let listener = Listener::take(pidfd.as_fd(), number, &features).unwrap();
        go_out.write_all(&[1]).unwrap();
        (Guest { pid, board, pidfd, reaped: false }, listener, features)
    }

    /// A guest whose notifications come out of the returned desk.
    pub fn watched(body: impl FnOnce(&Board)) -> (Guest, Desk) {
        Guest::watched_with(|_| (), body)
    }

    pub fn watched_with(before: impl FnOnce(&Board), body: impl FnOnce(&Board)) -> (Guest, Desk) {
        let (guest, listener, features) = Guest::fork_with(before, body);
        (guest, Desk::new(listener, &features))
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: integers only; the child is not reaped yet, so the id is its own.
        assert_eq!(unsafe { libc::kill(self.pid, signal) }, 0);
    }

    pub fn signal_thread(&self, tid: i32, signal: i32) {
        // SAFETY: integers only.
        assert_eq!(unsafe { libc::syscall(libc::SYS_tgkill, self.pid, tid, signal) }, 0);
    }

    /// Waits for the guest's end: its wait status.
    pub fn end(&mut self) -> i32 {
        self.reap()
    }

    fn reap(&mut self) -> i32 {
        let mut status = 0;
        // SAFETY: writes one int.
        let pid = unsafe { libc::waitpid(self.pid, &raw mut status, 0) };
        assert_eq!(pid, self.pid);
        self.reaped = true;
        status
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // Its own group was made before the filter.
        // SAFETY: integers only.
        unsafe { libc::kill(-self.pid, libc::SIGKILL) };
        if !self.reaped {
            self.reap();
        }
    }
}

/// Closes what other tests of this process have open: a copy of their listener would keep it alive.
fn keep_only(mut keep: [i32; 2]) {
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep.into_iter().chain([i32::MAX]) {
        if from < fd {
            // SAFETY: closes numbers that nothing in this child uses.
            unsafe { libc::close_range(from as u32, fd as u32 - 1, 0) };
        }
        from = fd.saturating_add(1);
    }
}

/// Passes notifications to the test, and runs the test's jobs on the watch's thread.
pub struct Desk {
    pub watch: Watch,
    notifications: Receiver<Notification>,
    jobs: Sender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

struct Pass {
    notifications: Mutex<Sender<Notification>>,
    jobs: Mutex<Receiver<Job>>,
}

impl Handler for Pass {
    fn handle(&self, notification: Notification) {
        let _ = self.notifications.lock().unwrap().send(notification);
    }

    fn woken(&self) {
        loop {
            // The lock ends before the job starts.
            let job = self.jobs.lock().unwrap().try_recv();
            let Ok(job) = job else { return };
            job();
        }
    }
}

impl Desk {
    pub fn new(listener: Listener, features: &Features) -> Desk {
        let (to_test, notifications) = mpsc::channel();
        let (jobs, to_watch) = mpsc::channel();
        let pass = Pass { notifications: Mutex::new(to_test), jobs: Mutex::new(to_watch) };
        let watch = Watch::start(listener, Arc::new(pass), features).unwrap();
        Desk { watch, notifications, jobs }
    }

    /// The next notification.
    #[track_caller]
    pub fn next(&self) -> Notification {
        self.notifications.recv_timeout(DEADLINE).expect("a notification")
    }

    /// Whether none is waiting.
    pub fn is_empty(&self) -> bool {
        self.notifications.try_recv().is_err()
    }

    /// Runs a job on the watch's thread.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        self.jobs.send(Box::new(job)).unwrap();
        self.watch.wake();
    }
}

/// In the guest: a mediated call with three recognisable arguments.
pub fn connect(fd: i64, address: u64, len: u64) -> i64 {
    // SAFETY: the kernel checks the address; the call does not write.
    unsafe { libc::syscall(libc::SYS_connect, fd, address, len) }
}

/// In the guest: a handler that does nothing. Not by signal(3), which adds `SA_RESTART`.
pub fn catch(signal: i32, flags: i32) {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: zero is a value of every field.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as *const () as usize;
    action.sa_flags = flags;
    // SAFETY: reads one sigaction, whose handler is a function of the right type.
    unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
}
