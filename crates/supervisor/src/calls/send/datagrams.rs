//! Whether any guest can have a socket that takes an address with each send.
//!
//! Such sockets begin with a socket(2) or socketpair(2) that is notified. Until the first one,
//! whatever descriptor and message a continued send finds, it goes to the peer of a stream. The
//! first one waits until every send that was continued before has found its descriptor: else it
//! could be put in the place of the one that send is about to look up.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use netshunt_notify::{Notification, Tid};

/// Threads that are remembered at most.
const MOST: usize = 4096;
/// How long the first datagram socket waits. Nearly always it is one look.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(1);
/// Of processor time, in ticks of 10 ms. From the answer to the descriptor it takes microseconds.
const TICKS: u64 = 2;

#[derive(Debug)]
pub(super) struct Datagrams(Mutex<Stage>);

#[derive(Debug)]
enum Stage {
    About,
    /// Wanted, while these may not have come past their descriptors.
    Coming(HashSet<Tid>),
    /// None yet. These have had a send continued.
    None(HashSet<Tid>),
}

/// A send that was continued may still look its descriptor up.
#[derive(Debug)]
pub(in crate::calls) struct Unsettled;

impl Stage {
    /// Notes a thread before its send is continued, if it can be looked after.
    fn remember(&mut self, tid: Tid) -> bool {
        let Stage::None(continued) = self else { return false };
        // 0: in a pid namespace that we cannot see.
        if tid.0 == 0 {
            return false;
        }
        if continued.len() >= MOST && !continued.contains(&tid) {
            continued.retain(|tid| !matches!(Look::at(*tid), Ok(None)));
            if continued.len() > MOST / 2 {
                *self = Stage::Coming(std::mem::take(continued));
                return false;
            }
        }
        continued.insert(tid);
        true
    }
}

impl Datagrams {
    pub(super) fn about() -> Self {
        Datagrams(Mutex::new(Stage::About))
    }

    pub(super) fn none() -> Self {
        Datagrams(Mutex::new(Stage::None(HashSet::new())))
    }

    /// Has the kernel perform a send, unless it must be looked at. A sendto(2) with an address is, as
    /// on other sockets it is rare.
    pub(super) fn proceed(&self, notification: Notification) -> Option<Notification> {
        let tid = notification.tid();
        match &mut *self.lock() {
            Stage::None(_) if notification.call() == libc::SYS_sendto => return Some(notification),
            stage @ Stage::None(_) => {
                if !stage.remember(tid) {
                    return Some(notification);
                }
            }
            Stage::About | Stage::Coming(_) => return Some(notification),
        }
        notification.proceed();
        None
    }

    /// From now on sends are looked at. Whether a datagram socket may be made at once; otherwise it
    /// must [`settle`](Self::settle).
    pub(super) fn announce(&self) -> bool {
        let mut stage = self.lock();
        if let Stage::None(continued) = &mut *stage {
            *stage = match std::mem::take(continued) {
                continued if continued.is_empty() => Stage::About,
                continued => Stage::Coming(continued),
            };
        }
        !matches!(*stage, Stage::Coming(_))
    }

    /// Waits until all sends that were continued have found their descriptors.
    ///
    /// # Errors
    /// They have not in [`PATIENCE`]: some thread is kept from running.
    pub(super) fn settle(&self) -> Result<(), Unsettled> {
        let deadline = Instant::now() + PATIENCE;
        let mut first: HashMap<Tid, Look> = HashMap::new();
        loop {
            {
                let mut stage = self.lock();
                let Stage::Coming(continued) = &mut *stage else { return Ok(()) };
                continued.retain(|tid| match Look::at(*tid) {
                    Ok(Some(now)) => !now.is_past(*first.entry(*tid).or_insert(now)),
                    Ok(None) => false,
                    Err(_) => true,
                });
                if continued.is_empty() {
                    *stage = Stage::About;
                    return Ok(());
                }
            }
            if Instant::now() >= deadline {
                return Err(Unsettled);
            }
            sleep(LOOK);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        // Every stage is valid by itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What proc_pid_stat(5) says of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    state: char,
    /// Processor time: user and system.
    ticks: u64,
}

impl Look {
    /// `None` if the thread is gone.
    fn at(tid: Tid) -> io::Result<Option<Look>> {
        // Below `task`: the process's own file adds up all of its threads.
        match std::fs::read(format!("/proc/{tid}/task/{tid}/stat")) {
            // The name in it may be any bytes.
            Ok(stat) => Look::parse(&String::from_utf8_lossy(&stat))
                .map(Some)
                .ok_or_else(|| io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn parse(stat: &str) -> Option<Look> {
        // The name before may hold anything.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?.chars().next()?;
        let user: u64 = fields.nth(10)?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        Some(Look { state, ticks: user + system })
    }

    /// Whether a thread whose call was continued before `first` is past looking up its descriptor.
    ///
    /// An answered thread is woken before the answer returns, and on that way sleeps at most for a
    /// lock, which is `D`. So one that is stopped or sleeps otherwise has come by, and so has one
    /// that has run for long since.
    fn is_past(self, first: Look) -> bool {
        !matches!(self.state, 'D' | 'R') || self.ticks >= first.ticks + TICKS
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Receiver, channel};
    use std::thread::JoinHandle;

    use super::*;

    /// A thread of ours that was "continued".
    fn thread(body: impl FnOnce() + Send + 'static) -> (Tid, JoinHandle<()>) {
        let (say, hear) = channel();
        let thread = std::thread::spawn(move || {
            say.send(Tid(nix::unistd::gettid().as_raw())).unwrap();
            body();
        });
        (hear.recv().unwrap(), thread)
    }

    fn continued(tids: &[Tid]) -> Datagrams {
        Datagrams(Mutex::new(Stage::None(tids.iter().copied().collect())))
    }

    fn sleeper() -> (Tid, impl FnOnce()) {
        let (end, ended): (_, Receiver<()>) = channel();
        let (tid, thread) = thread(move || assert!(ended.recv().is_err()));
        (tid, move || {
            drop(end);
            thread.join().unwrap();
        })
    }

    #[test]
    fn the_first_one_is_free_if_nothing_was_continued() {
        let none = Datagrams::none();
        assert!(none.announce() && none.announce());
        assert!(matches!(*none.lock(), Stage::About));
    }

    #[test]
    fn threads_that_sleep_or_are_gone_are_past() {
        let (tid, end) = sleeper();
        let (gone, thread) = thread(|| {});
        thread.join().unwrap();
        let datagrams = continued(&[tid, gone]);
        assert!(!datagrams.announce());
        datagrams.settle().unwrap();
        assert!(datagrams.announce());
        end();
    }

    #[test]
    fn a_busy_thread_is_past_when_it_has_run() {
        let stop = Arc::new(AtomicBool::new(false));
        let ours = stop.clone();
        let (tid, thread) = thread(move || {
            while !ours.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let before = Look::at(tid).unwrap().unwrap();
        let datagrams = continued(&[tid]);
        assert!(!datagrams.announce());
        datagrams.settle().unwrap();
        assert!(Look::at(tid).unwrap().unwrap().ticks >= before.ticks + TICKS);
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    }

    #[test]
    fn a_thread_that_does_not_get_to_run_is_waited_for_and_then_given_up() {
        let look = |state, ticks| Look { state, ticks };
        for state in ['R', 'D'] {
            assert!(!look(state, 7).is_past(look('R', 7)));
            assert!(!look(state, 8).is_past(look('R', 7)));
            assert!(look(state, 9).is_past(look('R', 7)));
        }
        for state in ['S', 'T', 't', 'Z', 'X', 'I'] {
            assert!(look(state, 7).is_past(look('R', 7)));
        }
    }

    #[test]
    fn threads_that_are_gone_are_forgotten() {
        let gone = |n| Tid(i32::MAX - n);
        let mut stage = Stage::None((0..MOST as i32).map(gone).collect());
        let (tid, end) = sleeper();
        assert!(stage.remember(tid));
        assert!(matches!(&stage, Stage::None(continued) if continued.len() == 1));
        assert!(!stage.remember(Tid(0)));
        end();
    }

    #[test]
    fn a_thread_may_have_any_name() {
        nix::sys::prctl::set_name(c"\xff) Z 1").unwrap();
        let look = Look::at(Tid(nix::unistd::gettid().as_raw())).unwrap().unwrap();
        assert_eq!(look.state, 'R');
    }

    #[test]
    fn a_stat_file_is_read() {
        let stat = "12 (a) R (b) S 1 12 12 0 -1 4194560 100 0 0 0 3 4 0 0 20 0 2 0 5 6 7";
        assert_eq!(Look::parse(stat), Some(Look { state: 'S', ticks: 7 }));
        assert_eq!(Look::parse("12 (a) S 1"), None);
        assert!(Look::at(Tid(i32::MAX)).unwrap().is_none());
    }
}
