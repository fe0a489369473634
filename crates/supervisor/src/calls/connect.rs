//! connect(2): the verdict, and what follows from it.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use netshunt_backend::on_a_thread;
use netshunt_notify::{Fault, GuestThread, Notification};
use netshunt_policy::{Destination, Errno, Proto, Verdict};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tracing::{Level, debug, enabled, trace};

use super::arguments::Arguments;
use super::{Calls, Kind, Subject, errno, guarded};
use crate::address::{Address, STORAGE, canonical, destination, for_family, of_family};
use crate::errand::Errand;
use crate::flows::{Asked, Open};
use crate::holders::Caller;
use crate::inet_diag::Diag;
use crate::inline::Inline;
use crate::options::{REUSE_PORT, StackOption, is_deferred};
use crate::park::{self, Lot, PLACES, Space, is_private};
use crate::pending::{Pending, answer};
use crate::places;
use crate::points::{BYPASS_CONNECTING, BYPASSED, PARKED, VERDICT};
use crate::routes::Way;
use crate::sockets::{Cookie, Entry, State};
use crate::stack::{Command, Connect};
use crate::sys;

/// The policy's verdict, the rule that decided, and where the host says that the destination is.
pub(super) type Judged = (Verdict, Option<String>, Way);

/// One connect(2) of a TCP socket, with everything that was copied from the guest.
struct Attempt {
    notification: Notification,
    subject: Subject,
    cookie: Cookie,
    v6: bool,
    nonblocking: bool,
    destination: SocketAddr,
}

impl Calls {
    pub(super) fn connect(&self, notification: Notification) {
        let since = Instant::now();
        let subject = match self.subject(&notification) {
            Ok(subject) => subject,
            Err(errno) => return notification.fail(errno),
        };
        let address = match read_address(&notification, 1, 2) {
            Ok(address) => address,
            Err(errno) => return notification.fail(errno),
        };
        match subject.kind {
            Kind::End => match subject.end {
                Some(end) => self.connect_end(notification, end, &address),
                None => notification.fail(libc::EIO),
            },
            Kind::Foreign => self.natively(notification, subject, address),
            Kind::Other => {
                self.report("connect on a socket that is not mediated", &notification);
                notification.fail(libc::EACCES);
            }
            Kind::Tcp { v6 } => self.connect_tcp(notification, subject, &address, v6, since),
            Kind::Unix => self.connect_unix(notification, subject, address),
        }
    }

    fn connect_tcp(
        &self,
        notification: Notification,
        subject: Subject,
        bytes: &[u8],
        v6: bool,
        since: Instant,
    ) {
        let to = match Address::parse(bytes) {
            Some(Address::Unspec) => return self.dissolve(notification, &subject),
            _ if bytes.len() < size_of::<libc::sa_family_t>() => return notification.fail(libc::EINVAL),
            _ => of_family(bytes, v6),
        };
        let nonblocking = match fcntl(subject.fd(), FcntlArg::F_GETFL) {
            Ok(flags) => flags & OFlag::O_NONBLOCK.bits() != 0,
            Err(error) => return notification.fail(error as i32),
        };
        let cookie = subject.cookie;
        let bound = self.sockets.lock().find(cookie).and_then(|entry| entry.bound);
        // One that was connected before does not look at its address.
        let destination = destination(to.unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into()), bound);
        let attempt = Attempt { notification, subject, cookie, v6, nonblocking, destination };
        match (self.again(attempt, to.is_ok()), to) {
            (Some(attempt), Ok(_)) => self.judge(attempt, since),
            (Some(attempt), Err(errno)) => attempt.notification.fail(errno),
            (None, _) => {}
        }
    }

    /// A connect(2) on a socket that has been connected before; gives back a fresh attempt.
    fn again(&self, attempt: Attempt, has_destination: bool) -> Option<Attempt> {
        let Attempt { cookie, v6, nonblocking, .. } = attempt;
        let mut sockets = self.sockets.lock();
        let (state, v6only, told) = sockets
            .find(cookie)
            .map_or((State::Idle, None, false), |entry| (entry.state, entry.v6only, entry.told));
        let result = match state {
            State::Connected { .. } if told => Err(libc_error(libc::EISCONN)),
            State::Connected { .. } => {
                drop(sockets);
                return self.once_more(attempt);
            }
            State::Connecting { space, .. } if nonblocking => {
                let again = || sys::start_connect(attempt.subject.fd(), space.again(v6));
                if self.is_waiting(cookie, space) {
                    // Locked: the stack's thread must not join or refuse it meanwhile.
                    again()
                } else {
                    drop(sockets);
                    match guarded(&attempt.notification, again) {
                        // shutdown(2) had dissolved it: this is another attempt, at another port.
                        Err(libc::EINPROGRESS) => {
                            let _ = guarded(&attempt.notification, || sys::disconnect(attempt.subject.fd()));
                            self.connection_is_over(cookie);
                            return Some(attempt);
                        }
                        result => answer(attempt.notification, result),
                    }
                    return None;
                }
            }
            State::Connecting { .. } => {
                drop(sockets);
                self.wait_too(attempt);
                return None;
            }
            State::Ended { .. } | State::Listening => Err(libc_error(libc::EISCONN)),
            State::Failed { errno } => {
                sockets.set(cookie, State::Idle);
                drop(sockets);
                let pending = guarded(&attempt.notification, || {
                    let error = || sys::int_option(attempt.subject.fd(), libc::SOL_SOCKET, libc::SO_ERROR);
                    let pending = error();
                    sys::disconnect(attempt.subject.fd())?;
                    // The errno is told once: the host's own goes with it.
                    error()?;
                    pending
                });
                // SO_ERROR, or a receive, has told it already (__inet_stream_connect() in net/ipv4/af_inet.c).
                let told = errno == 0 || pending == Ok(0);
                attempt.notification.fail(if told { libc::ECONNABORTED } else { errno });
                return None;
            }
            State::Idle if has_destination && v6only == Some(true) && v6 && attempt.destination.is_ipv4() => {
                Err(libc_error(libc::ENETUNREACH))
            }
            State::Idle => return Some(attempt),
        };
        drop(sockets);
        answer(attempt.notification, result.map_err(|e| errno(&e)));
        None
    }

    /// connect(2) after a non-blocking one that has succeeded: 0 once, then EISCONN, as the host's socket knows, which
    /// does not look at the address. Should it after all, as it has been dissolved meanwhile, that is one of ours.
    fn once_more(&self, attempt: Attempt) -> Option<Attempt> {
        let Attempt { notification, subject, cookie, v6, .. } = &attempt;
        let park = self.lot().listener(attempt.destination, 0);
        let again = || sys::start_connect(subject.fd(), for_family(park?.into(), *v6));
        match guarded(notification, again) {
            result @ (Ok(()) | Err(libc::EFAULT | libc::EINVAL | libc::EISCONN)) => {
                answer(attempt.notification, result);
                None
            }
            // Its connection was over, and it has begun another.
            Err(libc::EINPROGRESS) => {
                let undone = guarded(notification, || sys::disconnect(subject.fd()));
                self.connection_is_over(*cookie);
                match undone {
                    Ok(()) => Some(attempt),
                    Err(errno) => {
                        attempt.notification.fail(errno);
                        None
                    }
                }
            }
            // Its connection was over, which is told once.
            Err(errno) => {
                self.connection_is_over(*cookie);
                attempt.notification.fail(errno);
                None
            }
        }
    }

    pub(super) fn lot(&self) -> MutexGuard<'_, Lot> {
        // Nothing panics half-way through a change.
        self.lot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody else has made anything of a parked socket, and holds its lock.
    fn is_waiting(&self, cookie: Cookie, space: Space) -> bool {
        let diag = self.diag.get_or_init(|| Diag::new().ok().map(Mutex::new)).as_ref();
        diag.is_none_or(|diag| {
            diag.lock().unwrap_or_else(PoisonError::into_inner).is_opening(cookie, space.ends())
        })
    }

    fn connection_is_over(&self, cookie: Cookie) {
        self.sockets.lock().set(cookie, State::Idle);
        self.stack.ask(Command::Drop { cookie });
    }

    fn wait_too(&self, attempt: Attempt) {
        let Attempt { notification, subject, cookie, .. } = attempt;
        let limit = send_timeout(&subject);
        let pending = self.wait(notification, subject.thread, cookie, limit, libc::EALREADY);
        self.stack.ask(Command::Wait { cookie, pending });
    }

    /// Watches over a blocking call: signals, its SO_SNDTIMEO, which ends in `late`, and shutdown(2).
    fn wait(
        &self,
        notification: Notification,
        thread: GuestThread,
        cookie: Cookie,
        limit: Option<Duration>,
        late: i32,
    ) -> Pending {
        let limit = limit.map(|after| (Instant::now() + after, late));
        let pending = Pending::new(notification);
        let (sockets, asker, waiting) = (self.sockets.clone(), self.stack.asker(), pending.clone());
        let look = move || {
            // Locked: what ends the attempt says so first.
            let mut sockets = sockets.lock();
            let Some(entry) = sockets.find_mut(cookie) else { return };
            let Some(guest) = entry.guest.upgrade() else { return };
            let is_connecting = matches!(entry.state, State::Connecting { .. });
            // As long as it is parked nobody else dissolves it (inet_shutdown() in net/ipv4/af_inet.c).
            if !is_connecting || sys::poll_now(guest.as_fd(), 0) & libc::POLLHUP == 0 {
                return;
            }
            sockets.set(cookie, State::Idle);
            // Told once: ECONNRESET, or that the park has timed out.
            let error = sys::int_option(guest.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR);
            drop(sockets);
            waiting.answer(Err(error.ok().filter(|&errno| errno != 0).unwrap_or(libc::ECONNABORTED)));
            asker.ask(Command::Drop { cookie });
        };
        self.waits.add_looking(pending.clone(), thread, limit, None::<fn(Notification)>, look);
        pending
    }

    fn judge(&self, attempt: Attempt, since: Instant) {
        let (to, (verdict, rule, way)) = self.destined(attempt.destination, Proto::Tcp);
        trace!(dst = %attempt.destination, ?verdict, "{VERDICT}");
        let tid = attempt.notification.tid().0;
        // Reading /proc costs more than the rest of the call: only for somebody who is told.
        let told = self.flows.is_some() || matches!(verdict, Verdict::Deny(_)) || enabled!(Level::DEBUG);
        let thread = &attempt.subject.thread;
        let (pid, comm) = match told {
            true => (thread.process().unwrap_or(tid), thread.comm()),
            false => (tid, String::new()),
        };
        let asked = Asked { pid, comm, proto: "tcp", destination: attempt.destination, since };
        let flow = Open::new(asked, verdict, rule, self.flows.clone());
        let fail = |attempt: Attempt, flow: Open, errno| {
            flow.close(Err(errno));
            attempt.notification.fail(errno);
        };
        match (verdict, way) {
            (Verdict::Bypass, _) => self.bypass(attempt, flow),
            (Verdict::Deny(errno), _) => fail(attempt, flow, errno.raw()),
            // The link connects from the host: it would find out, and could only keep silent.
            (Verdict::Stack, Way::Nowhere(errno)) if !self.is_near(to) => {
                fail(attempt, flow, errno);
            }
            (Verdict::Stack, _) => self.park(attempt, to, flow),
        }
    }

    /// Whether the stack or the link itself answers for that address.
    pub(super) fn is_near(&self, destination: SocketAddr) -> bool {
        self.near.iter().any(|net| net.contains(&destination.ip()))
    }

    /// The policy's verdict, the rule that decided, and where the host says that the destination is.
    pub(super) fn verdict(&self, destination: &Destination) -> Judged {
        let judge = || {
            let policy = self.policy.read().unwrap_or_else(PoisonError::into_inner);
            let decision = policy.judge(destination);
            (decision.verdict, decision.rule.map(ToString::to_string))
        };
        let (verdict, rule) = judge();
        if matches!(verdict, Verdict::Deny(_)) {
            return (verdict, rule, Way::Away);
        }
        let Some(way) = self.routes.way(destination.address.ip()) else {
            // Nothing is learned from that: the next time there may be an answer.
            return (Verdict::Deny(Errno::new(libc::ENOBUFS)), None, Way::Away);
        };
        if way != Way::Local {
            return (verdict, rule, way);
        }
        // It is the host's: did the policy know that?
        let news =
            self.policy.write().unwrap_or_else(PoisonError::into_inner).learn_host(destination.address.ip());
        let (verdict, rule) = if news { judge() } else { (verdict, rule) };
        (verdict, rule, way)
    }

    /// Connects the guest's own socket on the host.
    fn bypass(&self, attempt: Attempt, flow: Open) {
        let Attempt { notification, subject, cookie, v6, nonblocking, destination } = attempt;
        let Some(shunt) = self.shunt.clone() else {
            flow.close(Err(libc::EACCES));
            return notification.fail(libc::EACCES);
        };
        match guarded(&notification, || park::is_at_one(subject.fd())) {
            Ok(false) => {}
            other => {
                let errno = other.err().unwrap_or(libc::EINVAL);
                flow.close(Err(errno));
                return notification.fail(errno);
            }
        }
        // From here on the socket is the host's alone: it gets what it does not have yet. The rest again
        // would undo what one option does to another (IP_TOS to SO_PRIORITY).
        let known = self.sockets.lock().forget(cookie);
        if let Some(entry) = known {
            let moved = guarded(&notification, || self.move_to_host(&subject, cookie, &entry, v6));
            if let Err(errno) = moved {
                flow.close(Err(errno));
                return notification.fail(errno);
            }
        }
        let to = for_family(destination, v6);
        debug!(dst = %destination, "{BYPASS_CONNECTING}");
        if nonblocking {
            // Guarded: another thread of the guest may make the socket blocking at this moment.
            let connecting = || now(&self.runtime, shunt.connect(subject.fd(), to, false));
            let Ok(result) = notification.guard(connecting) else {
                flow.close(Err(libc::EFAULT));
                return notification.fail(libc::EFAULT);
            };
            let result = result.unwrap_or_else(|| {
                debug!(backend = shunt.name(), "a shunt made a non-blocking connect wait");
                Err(libc_error(libc::EINPROGRESS))
            });
            let result = result.map_err(|e| errno(&e));
            debug!(?result, "{BYPASSED}");
            flow.close(result.or_else(|e| if e == libc::EINPROGRESS { Ok(()) } else { Err(e) }));
            return answer(notification, result);
        }
        let timed = send_timeout(&subject).is_some();
        let Subject { fd, thread, .. } = subject;
        let pending = Pending::new(notification);
        let waiting = pending.clone();
        let call = Inline::new(self.runtime.clone(), async move {
            let result = shunt.connect(fd.as_fd(), to, true).await.map_err(|e| errno(&e));
            debug!(?result, "{BYPASSED}");
            flow.close(result);
            pending.answer(result);
        });
        self.waits.add_call(waiting, thread, call.clone(), timed);
        call.start();
    }

    /// Gives the guest's socket what so far was only remembered.
    fn move_to_host(&self, subject: &Subject, cookie: Cookie, entry: &Entry, v6: bool) -> io::Result<()> {
        if let Some(on) = entry.v6only {
            let on = i32::from(on).to_ne_bytes();
            let _ = sys::set_option(subject.fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &on);
        }
        set_deferred(subject, &entry.options, entry.bound)?;
        let bound = entry.bound.map_or(Ok(()), |local| {
            self.may_bind(local).map_err(libc_error)?;
            if entry.held {
                self.let_go(cookie, subject.fd())?;
            }
            match sys::bind(subject.fd(), for_family(local, v6)) {
                // Free in the stack, where it was chosen, and not here.
                Err(error) if entry.any_port && error.raw_os_error() == Some(libc::EADDRINUSE) => {
                    sys::bind(subject.fd(), for_family(SocketAddr::new(local.ip(), 0), v6))
                }
                other => other,
            }
        });
        // One that was dissolved has left its place, but not its address.
        places::forget(subject.fd(), v6);
        bound
    }

    /// Parks the guest's socket and asks the stack to connect.
    fn park(&self, attempt: Attempt, to: SocketAddr, flow: Open) {
        let Attempt { notification, subject, cookie, v6, nonblocking, destination: shown } = attempt;
        let parking = || {
            let own = sys::local_name(subject.fd())?.map(canonical).filter(|own| own.port() != 0);
            if v6 {
                // Parks are IPv4 (there is only one ::1). The guest's own wish is in its entry.
                let off = 0i32.to_ne_bytes();
                let _ = sys::set_option(subject.fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &off);
            }
            // A P that was accepted and is dissolved (stack/direct.rs) has the address of a park: in that it would be connected
            // to itself. And others may have the same, of which one can be in each.
            for nth in 0..PLACES {
                let listener = self.lot().listener(to, nth)?;
                if own == Some(listener.into()) {
                    continue;
                }
                match Space::park(listener, subject.fd(), v6) {
                    Err(error) if own.is_some() && error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {}
                    parked => return parked,
                }
            }
            Err(libc_error(libc::EADDRNOTAVAIL))
        };
        let space = match guarded(&notification, parking) {
            Ok(space) => space,
            Err(errno) => {
                flow.close(Err(errno));
                return notification.fail(errno);
            }
        };
        let Subject { fd, thread, .. } = subject;
        let guest = Arc::new(fd);
        let (bound, options) = {
            let mut sockets = self.sockets.lock();
            let entry = sockets.entry(cookie);
            let kept = (entry.bound, entry.options.clone());
            sockets.set(cookie, State::Connecting { space, peer: shown });
            let entry = sockets.entry(cookie);
            (entry.told, entry.guest) = (false, Arc::downgrade(&guest));
            kept
        };
        let caller = Caller { tid: thread.tid(), number: notification.fd_arg(0) };
        let (waiting, owed) = match nonblocking {
            true => (Vec::new(), Some(notification)),
            false => {
                let limit = timeout(guest.as_fd(), libc::SO_SNDTIMEO);
                (vec![self.wait(notification, thread, cookie, limit, libc::EINPROGRESS)], None)
            }
        };
        debug!(dst = %to, "{PARKED}");
        let request = Connect {
            cookie,
            guest,
            caller,
            v6,
            space,
            destination: to,
            shown,
            bound,
            options,
            waiting,
            flow,
        };
        self.stack.ask(Command::Connect(Box::new(request)));
        if let Some(notification) = owed {
            notification.fail(libc::EINPROGRESS);
        }
    }

    /// connect(2) with AF_UNSPEC.
    fn dissolve(&self, notification: Notification, subject: &Subject) {
        let cookie = subject.cookie;
        let known = {
            let mut sockets = self.sockets.lock();
            // Its options stay with a socket; its address does not.
            let known =
                sockets.find_mut(cookie).map(|entry| (entry.bound, entry.held) = (None, false)).is_some();
            if known {
                sockets.set(cookie, State::Idle);
            }
            known
        };
        if known {
            self.stack.ask(Command::Drop { cookie });
        }
        let dissolved = guarded(&notification, || sys::disconnect(subject.fd()));
        answer(notification, dissolved);
    }

    /// Performs the call on the duplicate, unjudged: the socket belongs to a network namespace of
    /// the guest's own.
    pub(super) fn natively(&self, notification: Notification, subject: Subject, address: Vec<u8>) {
        let (thread, timed) = (subject.thread.clone(), send_timeout(&subject).is_some());
        let call = move || sys::connect_raw(subject.fd(), &address).map_err(|e| errno(&e));
        self.off_the_loop(notification, thread, timed, call);
    }

    /// Runs a call that may wait on a thread of its own; `timed` if it does so for some time only. `EINTR` is how it
    /// says that it was interrupted for the guest's sake.
    pub(super) fn off_the_loop(
        &self,
        notification: Notification,
        thread: GuestThread,
        timed: bool,
        call: impl FnMut() -> Result<(), i32> + Send + 'static,
    ) {
        let slot = match Slot::take(&self.waiting) {
            Some(slot) => slot,
            None => return notification.fail(libc::EAGAIN),
        };
        let (pending, errand) = (Pending::new(notification), Arc::new(Errand::new(timed)));
        self.waits.add_errand(pending.clone(), thread, errand.clone());
        let performed = pending.clone();
        let begun = on_a_thread(move || {
            let _slot = slot;
            errand.run(&performed, call);
        });
        if let Err(error) = begun {
            pending.answer(Err(errno(&error)));
        }
    }
}

/// The options that so far were only remembered, for a socket that is to be bound on the host. It is of the same user as we are, and
/// so could share the address of a park (`SO_REUSEPORT`): where those are it does not.
pub(super) fn set_deferred(
    subject: &Subject,
    options: &[StackOption],
    bound: Option<SocketAddr>,
) -> io::Result<()> {
    for option in options.iter().filter(|o| is_deferred(o.level, o.name)) {
        let _ = sys::set_option(subject.fd(), option.level, option.name, &option.value);
    }
    if bound.is_some_and(|local| is_private(local.ip())) {
        // It may have it of an attempt before.
        let (level, name) = REUSE_PORT;
        sys::set_option(subject.fd(), level, name, &0i32.to_ne_bytes())?;
    }
    Ok(())
}

/// How many calls may wait on threads of their own, bypassed connects aside, which are not counted here.
const WAITING: usize = 256;

/// One of them.
pub(super) struct Slot(Arc<AtomicUsize>);

impl Slot {
    pub(super) fn take(waiting: &Arc<AtomicUsize>) -> Option<Self> {
        if waiting.fetch_add(1, Ordering::Relaxed) >= WAITING {
            waiting.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Slot(waiting.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Copies a `struct sockaddr` from the guest (move_addr_to_kernel() in net/socket.c).
pub(super) fn read_address(
    notification: &impl Arguments,
    buffer: usize,
    length: usize,
) -> Result<Vec<u8>, i32> {
    let length = usize::try_from(notification.int_arg(length)).map_err(|_| libc::EINVAL)?;
    if length > STORAGE {
        return Err(libc::EINVAL);
    }
    let mut bytes = vec![0; length];
    if length > 0 {
        notification.read(notification.addr_arg(buffer), &mut bytes).map_err(Fault::errno)?;
    }
    Ok(bytes)
}

fn libc_error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// SO_SNDTIMEO, which bounds connect(2) too; zero means for ever.
pub(super) fn send_timeout(subject: &Subject) -> Option<Duration> {
    timeout(subject.fd(), libc::SO_SNDTIMEO)
}

/// SO_SNDTIMEO or SO_RCVTIMEO; `None` means for ever.
pub(super) fn timeout(socket: BorrowedFd<'_>, name: i32) -> Option<Duration> {
    let mut value = [0; 16];
    sys::option(socket, libc::SOL_SOCKET, name, &mut value).ok()?;
    let (seconds, micros) = value.split_at(8);
    let seconds = i64::from_ne_bytes(seconds.try_into().ok()?);
    let micros = i64::from_ne_bytes(micros.try_into().ok()?);
    let timeout = Duration::new(seconds.try_into().ok()?, u32::try_from(micros * 1000).ok()?);
    (!timeout.is_zero()).then_some(timeout)
}

/// The result of a future that completes at once.
fn now<T>(runtime: &tokio::runtime::Handle, future: impl Future<Output = T>) -> Option<T> {
    let _inside = runtime.enter();
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => None,
        Poll::Ready(result) => Some(result),
    }
}
