//! recvfrom(2) with an address, recvmsg(2), recvmmsg(2).
//!
//! The datagram is in the queue of the guest's own socket, its sender is known here. On sockets that are
//! not of netshunt's making the kernel performs these calls: they carry no address in.

mod place;

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use netshunt_notify::{Duplicate, Fault, GuestThread, Notification};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use self::place::{Pieces, Place};
use super::arguments::Arguments;
use super::{Calls, Subject, errno};
use crate::ends::{End, Run};
use crate::pending::Pending;
use crate::stack::{Ask, Command, ErrorMessage, LONGEST};
use crate::sys;

/// A receive that waits.
#[derive(Debug)]
pub(crate) struct Receive {
    pending: Pending,
    call: Call,
}

/// What a guest wants.
#[derive(Debug)]
pub(crate) struct Call {
    end: Arc<End>,
    thread: GuestThread,
    socket: Arc<Duplicate>,
    flags: i32,
    /// Where each message is to be written; those of recvmmsg(2) may be many.
    places: Vec<Place>,
    many: bool,
    /// Messages that it has.
    received: usize,
    /// Neither `O_NONBLOCK` nor `MSG_DONTWAIT`.
    waits: bool,
    /// How long it waits for each (SO_RCVTIMEO), and until when for the next.
    timeout: Option<Duration>,
    limit: Option<Instant>,
    /// When a recvmmsg(2) ends with what it has.
    end_at: Option<Instant>,
}

impl Receive {
    pub(crate) fn is_open(&self) -> bool {
        self.pending.is_open()
    }
}

impl Calls {
    pub(super) fn receive(&self, notification: Notification) {
        // Most guests have no such socket, and these calls are frequent.
        if self.ends.is_empty() {
            return notification.proceed();
        }
        let subject = match self.subject(&notification) {
            Ok(subject) => subject,
            Err(errno) => return notification.fail(errno),
        };
        let Some(end) = subject.end.clone() else { return notification.proceed() };
        match Call::read(&notification, &subject, end) {
            Ok(call) if call.flags & libc::MSG_OOB != 0 => notification.fail(libc::EOPNOTSUPP),
            Ok(call) if call.flags & libc::MSG_ERRQUEUE != 0 => self.receive_errors(notification, call),
            Ok(call) => self.first_attempt(notification, call),
            Err(errno) => notification.fail(errno),
        }
    }

    fn first_attempt(&self, notification: Notification, call: Call) {
        let end = call.end.clone();
        // Those that came before are served before.
        let in_line = call.waits && !end.receives().is_empty();
        let (notification, call) = match in_line {
            true => (notification, call),
            false => match self.attempt(notification, call) {
                None => return,
                Some(waits) => waits,
            },
        };
        self.queue(notification, call, VecDeque::push_back);
        // It may have come before anybody could know that somebody waits.
        self.arrived(&end);
    }

    fn queue(&self, notification: Notification, call: Call, put: fn(&mut VecDeque<Receive>, Receive)) {
        let pending = Pending::new(notification);
        let limit = call.limit.map(|at| (at, libc::EAGAIN));
        let end = call.end.clone();
        let received = call.received as i64;
        let begun =
            (received > 0).then_some(move |notification: Notification| notification.succeed(received));
        // Only the call itself holds a duplicate: the guest may close its own as soon as it has its answer.
        let (socket, stack) = (Arc::downgrade(&call.socket), self.stack.asker());
        let look = {
            let end = end.clone();
            move || {
                // Nobody else tells of shutdown(2), which ends what waits.
                if socket.upgrade().is_some_and(|socket| is_shut(&socket)) {
                    stack.arrived(end.clone());
                }
            }
        };
        self.waits.add_looking(pending.clone(), call.thread.clone(), limit, begun, look);
        put(&mut end.receives(), Receive { pending, call });
    }

    /// On the watch: serves the calls that wait, as far as there is something for them.
    pub(super) fn arrived(&self, end: &End) {
        while let Some(Receive { pending, call }) = next_in_line(end) {
            // From here on a signal or the time-out comes too late.
            let Some(notification) = pending.take() else { continue };
            let Some((notification, call)) = self.attempt(notification, call) else { continue };
            // Somebody else was faster. The next round looks again: while the line was empty nobody was told
            // of what came.
            self.queue(notification, call, VecDeque::push_front);
        }
    }

    /// Answers a call, or gives it back: there is nothing, and it waits.
    fn attempt(&self, notification: Notification, mut call: Call) -> Option<(Notification, Call)> {
        let mut room = Vec::new();
        loop {
            let Some(place) = call.places.get(call.received).filter(|_| !call.has_enough()) else {
                notification.succeed(call.received as i64);
                return None;
            };
            room.resize(place.room().min(LONGEST), 0);
            let peek = call.flags & libc::MSG_PEEK != 0;
            let take = || sys::recv_datagram(call.socket.as_fd(), &mut room, peek);
            let Some((taken, mut run, wanted)) = call.end.take(|| notification.guard(take)) else {
                notification.fail(libc::EFAULT);
                return None;
            };
            if wanted {
                self.stack.ask(Command::Left { id: call.end.id });
            }
            let taken = match taken {
                Ok(taken) => taken.map_err(|e| errno(&e)),
                Err(_) => Err(libc::EFAULT),
            };
            let length = match taken {
                Ok(length) => length,
                Err(errno) if call.received > 0 => {
                    // Of an error the next call tells.
                    let waits = errno == libc::EAGAIN && call.waits_for_more();
                    if !waits || call.end.state().error.is_some() {
                        notification.succeed(call.received as i64);
                        return None;
                    }
                    if !is_shut(&call.socket) {
                        return Some((notification, call));
                    }
                    run = Run::default();
                    0
                }
                // How the stack's thread tells of an error of the network's.
                Err(libc::EAGAIN | libc::ECONNRESET) => {
                    let error = call.end.state().error.take();
                    match error {
                        Some(errno) => {
                            notification.fail(errno);
                            return None;
                        }
                        None if taken == Err(libc::ECONNRESET) => continue,
                        None if call.waits && is_shut(&call.socket) => {
                            run = Run::default();
                            0
                        }
                        None if call.waits => return Some((notification, call)),
                        None => {
                            notification.fail(libc::EAGAIN);
                            return None;
                        }
                    }
                }
                Err(errno) => {
                    notification.fail(errno);
                    return None;
                }
            };
            let data = &room[..length.min(room.len())];
            let filled = place.fill(&notification, data, length, &run, call.flags, 0);
            match filled.and_then(|(pieces, value)| write(&notification, pieces).map(|()| value)) {
                Ok(_) if call.many => {}
                Ok(value) => {
                    notification.succeed(value);
                    return None;
                }
                Err(errno) => {
                    notification.fail(errno);
                    return None;
                }
            }
            call.received += 1;
            call.limit = call.timeout.map(|after| Instant::now() + after);
        }
    }

    /// recvmsg(2) with MSG_ERRQUEUE: the stack has the queue.
    fn receive_errors(&self, notification: Notification, call: Call) {
        let flags = call.flags & (libc::MSG_ERRQUEUE | libc::MSG_PEEK);
        self.ask_end(notification, call.end.clone(), Ask::Errors { flags, receive: call });
    }
}

impl Call {
    /// Bytes of data that its first message takes.
    pub(crate) fn room(&self) -> usize {
        self.places.first().map_or(0, Place::room).min(LONGEST)
    }

    /// Answers with a message of the error queue.
    pub(super) fn reply(&self, notification: Notification, got: Result<ErrorMessage, i32>) {
        let Some(place) = self.places.first() else { return notification.succeed(0) };
        let written = got.and_then(|ErrorMessage { run, data, flags, last }| {
            if let Some(errors) = last {
                self.end.forget_error(&self.socket, errors);
            }
            let (pieces, value) = place.fill(&notification, &data, data.len(), &run, self.flags, flags)?;
            write(&notification, pieces)?;
            Ok(if self.many { 1 } else { value })
        });
        match written {
            Ok(value) => notification.succeed(value),
            Err(errno) => notification.fail(errno),
        }
    }

    fn read(notification: &Notification, subject: &Subject, end: Arc<End>) -> Result<Self, i32> {
        let (places, flags) = match notification.call() {
            libc::SYS_recvfrom => (vec![Place::beside(notification)], notification.int_arg(3)),
            libc::SYS_recvmsg => {
                (vec![Place::message(notification, notification.addr_arg(1))?], notification.int_arg(2))
            }
            _ => (Place::messages(notification)?, notification.int_arg(3)),
        };
        let status = fcntl(subject.fd(), FcntlArg::F_GETFL).map_err(|e| e as i32)?;
        let socket = subject.fd.try_clone().map_err(|e| errno(&e))?;
        let many = notification.call() == libc::SYS_recvmmsg;
        let timeout = super::connect::timeout(subject.fd(), libc::SO_RCVTIMEO);
        let patience = if many { read_patience(notification)? } else { None };
        Ok(Call {
            end,
            thread: subject.thread.clone(),
            socket: Arc::new(socket),
            flags,
            places,
            many,
            received: 0,
            waits: status & OFlag::O_NONBLOCK.bits() == 0 && flags & libc::MSG_DONTWAIT == 0,
            timeout,
            limit: timeout.map(|after| Instant::now() + after),
            end_at: patience.and_then(|after| Instant::now().checked_add(after)),
        })
    }

    /// Whether a recvmmsg(2) waits on when it has something.
    fn waits_for_more(&self) -> bool {
        self.waits && self.flags & libc::MSG_WAITFORONE == 0
    }

    /// Whether its time is over, which is looked at after each message (do_recvmmsg() of net/socket.c).
    fn has_enough(&self) -> bool {
        self.received > 0 && self.end_at.is_some_and(|at| Instant::now() >= at)
    }
}

fn write(notification: &Notification, pieces: Pieces) -> Result<(), i32> {
    pieces.into_iter().try_for_each(|(at, bytes)| notification.write(at, &bytes).map_err(Fault::errno))
}

/// Takes the first call out of the line, if there is something for it. The line is left as it is
/// otherwise, so that whoever brings something sees that somebody waits.
fn next_in_line(end: &End) -> Option<Receive> {
    let mut line = end.receives();
    while line.front().is_some_and(|first| !first.is_open()) {
        line.pop_front();
    }
    let first = line.front()?;
    let ready = is_readable(&first.call.socket) || end.state().error.is_some();
    ready.then(|| line.pop_front()).flatten()
}

/// Whether shutdown(2) has ended what it receives: a call that would wait gets nothing, at once
/// (__skb_wait_for_more_packets() of net/core/datagram.c).
fn is_shut(socket: &Duplicate) -> bool {
    sys::poll_now(socket.as_fd(), libc::POLLRDHUP) & libc::POLLRDHUP != 0
}

fn is_readable(socket: &Duplicate) -> bool {
    sys::poll_now(socket.as_fd(), libc::POLLIN) != 0
}

/// The `struct timespec` of a recvmmsg(2); `None` means for ever.
fn read_patience(notification: &impl Arguments) -> Result<Option<Duration>, i32> {
    let at = notification.addr_arg(4);
    if at.is_null() {
        return Ok(None);
    }
    let mut words = [[0; 8]; 2];
    notification.read(at, words.as_flattened_mut()).map_err(Fault::errno)?;
    let [seconds, nanos] = words.map(i64::from_ne_bytes);
    match (u64::try_from(seconds), u32::try_from(nanos)) {
        (Ok(seconds), Ok(nanos @ ..1_000_000_000)) => Ok(Some(Duration::new(seconds, nanos))),
        _ => Err(libc::EINVAL),
    }
}
