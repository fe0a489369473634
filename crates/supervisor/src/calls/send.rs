//! sendto(2) with an address, sendmsg(2), sendmmsg(2).
//!
//! As long as no guest has a socket that takes an address with each send, none of these calls can
//! go anywhere new, and the kernel performs them ([`Datagrams`]). From then on every one is copied,
//! judged and performed here, of whatever socket: a continued call looks its descriptor and its
//! message up again, and another thread of the guest may have put others there.
//!
//! A new kind of datagram socket gets an arm in [`Calls::route`].

mod attached;
mod datagrams;
mod ends;
mod message;

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use netshunt_backend::on_a_thread;
use netshunt_notify::{Notification, TargetAddr, Waker};
use netshunt_policy::UnixPolicy;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Signal, pidfd_send_signal};

use self::attached::Attached;
use self::datagrams::{Datagrams, Unsettled};
use self::message::{Limits, Message};
use super::connect::{Slot, send_timeout};
use super::unix::Target;
use super::{Calls, Kind, Subject, errno};
use crate::pending::Pending;
use crate::sys;

/// How late a signal to a guest that waits may be noticed.
const TICK: Duration = Duration::from_millis(15);

/// How much of guests' data may wait to be sent by calls that have no thread.
const MOST_HELD: usize = 256 << 20;

/// What sends need beyond the call itself.
#[derive(Debug)]
pub(crate) struct Sends {
    datagrams: Datagrams,
    /// Whether AF_UNIX has verdicts at all.
    judges_unix: bool,
    /// Answers that have guest memory to write, which only the watch may.
    written: Mutex<VecDeque<Written>>,
    /// Calls for which there is room by now.
    again: Mutex<VecDeque<(Notification, Call)>>,
    /// Bytes of those that wait for it.
    held: AtomicUsize,
    waker: OnceLock<Waker>,
}

/// A call's part of [`Sends::held`].
#[derive(Debug)]
struct Share {
    sends: Arc<Sends>,
    bytes: usize,
}

impl Share {
    fn take(sends: &Arc<Sends>, bytes: usize) -> Option<Self> {
        let share = Share { sends: sends.clone(), bytes };
        let held = sends.held.fetch_add(bytes, Ordering::Relaxed);
        (held.saturating_add(bytes) <= MOST_HELD).then_some(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.sends.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A sendmmsg(2) that is over.
#[derive(Debug)]
struct Written {
    notification: Notification,
    sent: Vec<(TargetAddr, usize)>,
}

/// What becomes of a message's own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    /// It leads somewhere, which the verdict on AF_UNIX is about.
    Judged,
    /// The kernel ignores or refuses it: the socket sends to its peer only.
    Peer,
    /// The guest's own network namespace: its own affair.
    Unjudged,
}

/// A call under way, copied from the guest.
#[derive(Debug)]
struct Call {
    subject: Subject,
    route: Route,
    flags: i32,
    many: bool,
    /// Neither `O_NONBLOCK` nor `MSG_DONTWAIT`.
    waits: bool,
    messages: VecDeque<Message>,
    sent: Vec<(TargetAddr, usize)>,
    /// Of the message at the front, a stream's.
    begun: usize,
    /// When it has waited long enough (SO_SNDTIMEO), if it waits without a thread.
    deadline: Option<Instant>,
}

/// Where a message for that `sun_path` is to go.
type Judge<'a> = &'a mut dyn FnMut(&Subject, &[u8]) -> Result<Vec<u8>, i32>;

/// How far it came.
enum Progress {
    Done(Result<(), i32>),
    /// It would wait.
    Stalled,
}

impl Sends {
    pub(crate) fn new(policy: &UnixPolicy, inherits: bool) -> Self {
        let datagrams = if inherits { Datagrams::about() } else { Datagrams::none() };
        let judges_unix = *policy != UnixPolicy::Allow;
        Sends {
            datagrams,
            judges_unix,
            written: Mutex::default(),
            again: Mutex::default(),
            held: AtomicUsize::new(0),
            waker: OnceLock::new(),
        }
    }

    /// A socket that takes addresses is to be made: whether at once, or only after [`settle`](Self::settle).
    pub(super) fn announce(&self) -> bool {
        self.datagrams.announce()
    }

    /// Waits for the sends that were continued.
    pub(super) fn settle(&self) -> Result<(), Unsettled> {
        self.datagrams.settle()
    }

    /// Where answers that need the watch are announced.
    pub(crate) fn wake(&self, waker: Waker) {
        let _ = self.waker.set(waker);
    }

    fn answer_on_the_watch(&self, written: Written) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).push_back(written);
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    /// There is room for that call.
    fn serve_on_the_watch(&self, notification: Notification, call: Call) {
        self.again.lock().unwrap_or_else(PoisonError::into_inner).push_back((notification, call));
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }

    /// On the watch: writes what is to be written, and answers.
    pub(super) fn woken(&self) {
        let next = || self.written.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        while let Some(Written { notification, sent }) = next() {
            write_lengths(notification, &sent);
        }
    }
}

impl Calls {
    /// socket(2) and socketpair(2) of AF_UNIX, of a type that takes an address with each send.
    pub(super) fn make_datagram(&self, notification: Notification) {
        // Nothing of these calls stands in memory that a continued call would read again.
        if !self.sends.judges_unix || self.sends.announce() {
            return notification.proceed();
        }
        let Some(slot) = Slot::take(&self.waiting) else { return notification.fail(libc::ENOBUFS) };
        let sends = self.sends.clone();
        let pending = Pending::new(notification);
        let settled = pending.clone();
        let begun = on_a_thread(move || {
            let _slot = slot;
            let result = sends.settle();
            let Some(notification) = settled.take() else { return };
            match result {
                Ok(()) => notification.proceed(),
                Err(_) => notification.fail(libc::ENOBUFS),
            }
        });
        if begun.is_err() {
            pending.answer(Err(libc::ENOBUFS));
        }
    }

    pub(super) fn send(&self, notification: Notification) {
        let Some(notification) = self.sends.datagrams.proceed(notification) else { return };
        let subject = match self.subject(&notification) {
            Ok(subject) => subject,
            Err(errno) => return notification.fail(errno),
        };
        if let Some(end) = subject.end.clone() {
            return self.send_from_end(notification, &subject, end);
        }
        let call = match self.copy(&notification, subject) {
            Ok(call) => call,
            Err(errno) => return notification.fail(errno),
        };
        let looks = call.messages.iter().any(|message| call.route == Route::Judged && message.is_addressed());
        if looks { self.wait_to_send(notification, call, true) } else { self.try_to_send(notification, call) }
    }

    /// On the watch: sends what needs no look at its address.
    fn try_to_send(&self, notification: Notification, mut call: Call) {
        // Guarded, though MSG_DONTWAIT does not wait: locks of the socket are the guest's too.
        match notification.guard(|| call.advance(&mut |_, _| Err(libc::EIO))) {
            Ok(Progress::Done(result)) => finish_on_the_watch(notification, &call, result),
            Ok(Progress::Stalled) => self.wait_to_send(notification, call, false),
            Err(_) => notification.fail(libc::EFAULT),
        }
    }

    /// On the watch: goes on with the calls that have waited without a thread.
    pub(super) fn send_again(&self) {
        let next = || self.sends.again.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        while let Some((notification, call)) = next() {
            self.try_to_send(notification, call);
        }
    }

    /// Goes on with a call without a thread: its socket is looked at now and then, which is later than by a thread.
    fn wait_for_room(&self, notification: Notification, mut call: Call) {
        let bytes = call.messages.iter().map(|message| message.data.len()).sum();
        let Some(share) = Share::take(&self.sends, bytes) else {
            call.keep_begun();
            return finish_on_the_watch(notification, &call, Err(libc::EAGAIN));
        };
        let deadline =
            call.deadline.or_else(|| send_timeout(&call.subject).map(|after| Instant::now() + after));
        call.deadline = deadline;
        let (pending, thread) = (Pending::new(notification), call.subject.thread.clone());
        let begun = (!call.is_fresh()).then(|| {
            let (sends, many, mut sent) = (self.sends.clone(), call.many, call.sent.clone());
            sent.extend(call.messages.front().filter(|_| call.begun > 0).map(|m| (m.length, call.begun)));
            move |notification: Notification| match many {
                true => sends.answer_on_the_watch(Written { notification, sent: sent.clone() }),
                false => notification.succeed(sent.first().map_or(0, |&(_, length)| length as i64)),
            }
        });
        let (sends, waiting, held) = (self.sends.clone(), pending.clone(), Mutex::new(Some(call)));
        let look = move || {
            // Held as long as it waits.
            let _ = &share;
            let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
            let has_room = |call: &Call| sys::poll_now(call.subject.fd(), libc::POLLOUT) != 0;
            if held.as_ref().is_some_and(has_room)
                && let Some(notification) = waiting.take()
                && let Some(call) = held.take()
            {
                sends.serve_on_the_watch(notification, call);
            }
        };
        self.waits.add_looking(pending, thread, deadline.map(|at| (at, libc::EAGAIN)), begun, look);
    }

    /// Goes on with a call on a thread that may wait, as far as there are threads.
    fn wait_to_send(&self, notification: Notification, mut call: Call, looks: bool) {
        let Some(slot) = Slot::take(&self.waiting) else {
            // Whose address is to be looked at may wait for a file system.
            return match looks {
                true => notification.fail(libc::EAGAIN),
                false => self.wait_for_room(notification, call),
            };
        };
        let (gate, sends) = (self.unix.clone(), self.sends.clone());
        let pending = Pending::new(notification);
        let taken = pending.clone();
        let begun = on_a_thread(move || {
            let _slot = slot;
            let Some(notification) = taken.take() else { return };
            let tid = notification.tid().0;
            let mut last: Option<(Vec<u8>, Target)> = None;
            let mut judge = |subject: &Subject, name: &[u8]| {
                if last.as_ref().is_none_or(|(known, _)| known != name) {
                    last = Some((name.to_vec(), gate.destination(tid, subject, name)?));
                }
                last.as_ref().map_or(Err(libc::EIO), |(_, target)| target.address())
            };
            match call.wait(&notification, &mut judge) {
                Some(result) => finish(&sends, notification, &call, result),
                None => notification.restart(),
            }
        });
        if begun.is_err() {
            pending.answer(Err(libc::ENOBUFS));
        }
    }

    /// Copies the call and all that it names.
    fn copy(&self, notification: &Notification, subject: Subject) -> Result<Call, i32> {
        let kind = sys::int_option(subject.fd(), libc::SOL_SOCKET, libc::SO_TYPE).map_err(|e| errno(&e))?;
        let route = self.route(notification, &subject, kind)?;
        let limits = Limits::of(&subject, kind)?;
        let attached = Attached::of(&subject);
        let (mut messages, flags) = match notification.call() {
            libc::SYS_sendto => (message::beside(notification, &limits, &attached)?, notification.int_arg(3)),
            libc::SYS_sendmsg => (message::one(notification, &limits, &attached)?, notification.int_arg(2)),
            _ => (message::many(notification, &limits, &attached)?, notification.int_arg(3)),
        };
        if subject.kind == Kind::Other && messages.iter().any(Message::is_addressed) {
            self.report("sends to addresses on a socket that is not mediated", notification);
            return Err(libc::EACCES);
        }
        let domain =
            sys::int_option(subject.fd(), libc::SOL_SOCKET, libc::SO_DOMAIN).map_err(|e| errno(&e))?;
        match subject.kind {
            Kind::Tcp { .. } => messages.iter_mut().for_each(Message::forget_address),
            Kind::Foreign if domain == libc::AF_NETLINK => {
                messages.iter_mut().try_for_each(Message::forget_kernel)?;
            }
            Kind::End | Kind::Foreign | Kind::Other | Kind::Unix => {}
        }
        // Without the guest's own pages there is nothing to report when they are free again;
        // ENOBUFS is what the kernel says when it cannot.
        let zero_copy = sys::int_option(subject.fd(), libc::SOL_SOCKET, libc::SO_ZEROCOPY);
        if flags & libc::MSG_ZEROCOPY != 0 && zero_copy.is_ok_and(|on| on != 0) {
            return Err(libc::ENOBUFS);
        }
        let status = fcntl(subject.fd(), FcntlArg::F_GETFL).map_err(|e| e as i32)?;
        let waits = status & OFlag::O_NONBLOCK.bits() == 0 && flags & libc::MSG_DONTWAIT == 0;
        let many = notification.call() == libc::SYS_sendmmsg;
        let flags = flags & !libc::MSG_ZEROCOPY;
        Ok(Call { subject, route, flags, many, waits, messages, sent: Vec::new(), begun: 0, deadline: None })
    }

    fn route(&self, notification: &Notification, subject: &Subject, kind: i32) -> Result<Route, i32> {
        match subject.kind {
            Kind::Unix if kind == libc::SOCK_DGRAM => Ok(Route::Judged),
            Kind::Unix | Kind::Tcp { .. } => Ok(Route::Peer),
            // Has been served elsewhere.
            Kind::End => Err(libc::EACCES),
            Kind::Foreign => Ok(Route::Unjudged),
            // Without an address: it was connected before it came here.
            Kind::Other if notification.call() == libc::SYS_sendto => Err(libc::EACCES),
            Kind::Other => Ok(Route::Peer),
        }
    }
}

impl Call {
    /// Sends what can be sent without waiting.
    fn advance(&mut self, judge: Judge<'_>) -> Progress {
        while let Some(message) = self.messages.front_mut() {
            let address = match self.route {
                // Before any address is looked at (unix_dgram_sendmsg() of net/unix/af_unix.c).
                Route::Judged if self.flags & libc::MSG_OOB != 0 => Err(libc::EOPNOTSUPP),
                Route::Judged if message.is_addressed() => {
                    message.unix_name().and_then(|name| judge(&self.subject, name))
                }
                _ => Ok(message.address.clone()),
            };
            let flags = self.flags | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            let fd = self.subject.fd.as_fd();
            match address.and_then(|address| message.send(fd, &address, self.begun, flags)) {
                Ok(n) => self.begun += n,
                Err(libc::EAGAIN) if self.waits => return Progress::Stalled,
                Err(errno) => {
                    self.keep_begun();
                    return Progress::Done(Err(errno));
                }
            }
            let (whole, cut) = (self.begun == message.data.len(), message.cut);
            if !whole && self.waits {
                continue;
            }
            self.sent.push((message.length, std::mem::take(&mut self.begun)));
            self.messages.pop_front();
            // What follows a part of a stream would stand in the wrong place.
            if !whole || cut {
                break;
            }
        }
        Progress::Done(Ok(()))
    }

    /// Sends all of it; `None` if a signal ended that before anything was sent.
    fn wait(&mut self, notification: &Notification, judge: Judge<'_>) -> Option<Result<(), i32>> {
        let limit = send_timeout(&self.subject);
        let deadline = limit.map(|after| Instant::now() + after);
        let mut pause = Pause::default();
        loop {
            let before = (self.sent.len(), self.begun);
            if let Progress::Done(result) = self.advance(judge) {
                return Some(result);
            }
            if before != (self.sent.len(), self.begun) {
                pause = Pause::default();
            }
            let over = if !notification.is_valid() || deadline.is_some_and(|at| Instant::now() >= at) {
                Some(Err(libc::EAGAIN))
            } else if self.subject.thread.will_take_signal().unwrap_or(false) {
                // sock_intr_errno() of include/net/sock.h: with a time-out it is not restarted.
                limit.map(|_| Err(libc::EINTR)).or_else(|| (!self.is_fresh()).then_some(Ok(())))
            } else {
                pause.take(self.subject.fd(), deadline);
                continue;
            };
            self.keep_begun();
            return over;
        }
    }

    fn is_fresh(&self) -> bool {
        self.sent.is_empty() && self.begun == 0
    }

    /// What was sent of a stream counts, whatever ended it.
    fn keep_begun(&mut self) {
        if self.begun > 0
            && let Some(message) = self.messages.pop_front()
        {
            self.sent.push((message.length, std::mem::take(&mut self.begun)));
        }
    }

    /// Messages that were sent count, whatever came then.
    fn result(&self, result: Result<(), i32>) -> Result<(), i32> {
        if self.sent.is_empty() { result } else { Ok(()) }
    }

    /// A stream that ends with EPIPE signals its writer (net/unix/af_unix.c, net/core/stream.c).
    fn breaks_pipe(&self, errno: i32) -> bool {
        let stream = || {
            sys::int_option(self.subject.fd(), libc::SOL_SOCKET, libc::SO_TYPE)
                .is_ok_and(|kind| kind == libc::SOCK_STREAM)
        };
        errno == libc::EPIPE && self.flags & libc::MSG_NOSIGNAL == 0 && stream()
    }
}

/// Waits for room.
#[derive(Debug, Default)]
struct Pause {
    /// poll(2) said that there was some, and there was none: it knows of the peer's queue only, not of
    /// others'.
    deceived: bool,
    nap: Duration,
}

impl Pause {
    fn take(&mut self, socket: BorrowedFd<'_>, deadline: Option<Instant>) {
        let left = deadline.map_or(TICK, |at| at.saturating_duration_since(Instant::now())).min(TICK);
        if self.deceived {
            self.nap = (self.nap * 2).clamp(Duration::from_micros(250), TICK);
            std::thread::sleep(self.nap.min(left));
            return;
        }
        let mut fds = [PollFd::new(socket, PollFlags::POLLOUT)];
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        self.deceived = matches!(poll(&mut fds, timeout), Ok(1..));
    }
}

/// Answers from a thread that must not touch guest memory.
fn finish(sends: &Sends, notification: Notification, call: &Call, result: Result<(), i32>) {
    match call.result(result) {
        Ok(()) if call.many => {
            sends.answer_on_the_watch(Written { notification, sent: call.sent.clone() });
        }
        _ => finish_on_the_watch(notification, call, result),
    }
}

fn finish_on_the_watch(notification: Notification, call: &Call, result: Result<(), i32>) {
    match call.result(result) {
        Ok(()) if call.many => write_lengths(notification, &call.sent),
        Ok(()) => notification.succeed(call.sent.first().map_or(0, |&(_, len)| len as i64)),
        Err(errno) => {
            if call.breaks_pipe(errno) {
                let _ = pidfd_send_signal(&call.subject.thread, Signal::PIPE);
            }
            notification.fail(errno);
        }
    }
}

/// Writes each `msg_len`, and answers with their number (__sys_sendmmsg() in net/socket.c).
fn write_lengths(notification: Notification, sent: &[(TargetAddr, usize)]) {
    let write =
        |&(at, len): &(TargetAddr, usize)| notification.write(at, &(len as u32).to_ne_bytes()).is_ok();
    let written = sent.iter().take_while(|entry| write(entry)).count();
    match written {
        0 if !sent.is_empty() => notification.fail(libc::EFAULT),
        _ => notification.succeed(written as i64),
    }
}
