//! getsockopt(2) and setsockopt(2) of mediated sockets.

use netshunt_notify::{Fault, Notification, setting_linger};
use tracing::debug;

use super::arguments::Arguments;
use super::names::write_sized;
use super::{Calls, Kind, Subject, guarded};
use crate::options::{
    REUSE_PORT, Side, StackOption, is_deferred, is_plain, read_from_stack, read_from_stand_in, side,
};
use crate::pending::answer;
use crate::sockets::{Cookie, State};
use crate::stack::{Command, Question};
use crate::sys;

/// No option that is let through is longer (`struct tcp_md5sig` has 216 bytes, `tcp_info` grows).
const LONGEST: usize = 1024;

impl Calls {
    pub(super) fn get_option(&self, notification: Notification) {
        let (level, name) = (notification.int_arg(1), notification.int_arg(2));
        let subject = match self.subject(&notification) {
            Ok(subject) => subject,
            Err(errno) => return notification.fail(errno),
        };
        // An error is not taken by a call that cannot be told it.
        if (level, name) == (libc::SOL_SOCKET, libc::SO_ERROR)
            && let Err(errno) = read_room(&notification)
        {
            return notification.fail(errno);
        }
        if let Some(end) = subject.end.clone() {
            return self.option_of_end(notification, &subject, end);
        }
        if !matches!(subject.kind, Kind::Tcp { .. }) {
            // Reads carry nothing in: the host may answer.
            return notification.proceed();
        }
        let cookie = subject.cookie;
        match self.kept(cookie, level, name, &subject) {
            Kept::Host => notification.proceed(),
            Kept::Stack => self.read_on_stack(notification, cookie, level, name, &subject),
            Kept::Value(value) => {
                let result = write_value(&notification, &value);
                answer(notification, result);
            }
        }
    }

    fn kept(&self, cookie: Cookie, level: i32, name: i32, subject: &Subject) -> Kept {
        let mut sockets = self.sockets.lock();
        let Some(entry) = sockets.find_mut(cookie) else { return Kept::Host };
        if (level, name) == (libc::SOL_SOCKET, libc::SO_ERROR) {
            let State::Failed { errno } = entry.state else { return Kept::Host };
            // The host's own error goes with it. There is none any more if a send or receive has told it.
            if sys::int_option(subject.fd(), level, name).is_ok_and(|pending| pending == 0) {
                return Kept::Value(0i32.to_ne_bytes().to_vec());
            }
            entry.state = State::Failed { errno: 0 };
            return Kept::Value(errno.to_ne_bytes().to_vec());
        }
        if (level, name) == (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) {
            return entry.v6only.map_or(Kept::Host, |on| Kept::Value(i32::from(on).to_ne_bytes().to_vec()));
        }
        let on_stack = match entry.direct && entry.is_on_stack() {
            true => read_from_stand_in(level, name),
            false => read_from_stack(level, name),
        };
        if !on_stack {
            return Kept::Host;
        }
        if entry.is_on_stack() {
            return Kept::Stack;
        }
        match entry.option((level, name)) {
            Some(option) if (level, name) == REUSE_PORT => {
                let on = i32::from(option.value.iter().any(|&byte| byte != 0));
                Kept::Value(on.to_ne_bytes().to_vec())
            }
            Some(option) => Kept::Value(option.value.clone()),
            None => Kept::Host,
        }
    }

    fn read_on_stack(
        &self,
        notification: Notification,
        cookie: Cookie,
        level: i32,
        name: i32,
        subject: &Subject,
    ) {
        let size = match read_room(&notification) {
            Ok(size) => size,
            Err(errno) => return notification.fail(errno),
        };
        let question = Question { notification, v6: subject.is_v6() };
        self.stack.ask(Command::Read { cookie, level, name, size, question });
    }

    pub(super) fn set_option(&self, notification: Notification) {
        let subject = match self.subject(&notification) {
            Ok(subject) => subject,
            Err(errno) => return notification.fail(errno),
        };
        if let Some(end) = subject.end.clone() {
            return self.set_option_of_end(notification, &subject, end);
        }
        let option = match read_option(&notification) {
            Ok(option) => option,
            Err(errno) => return notification.fail(errno),
        };
        match subject.kind {
            Kind::Foreign | Kind::Unix if is_plain(option.level, option.name) => {
                let sensible = if option.level == libc::SOL_SOCKET { is_sensible(&option) } else { Ok(()) };
                let set = sensible.and_then(|()| set_on_host(&notification, &subject, &option));
                answer(notification, set);
            }
            Kind::Foreign | Kind::Unix => {
                self.report_option(&option);
                let errno = match option.level {
                    libc::SOL_SOCKET if option.value.len() < 4 => libc::EINVAL,
                    // It has no other level (sock_no_setsockopt()).
                    level if level != libc::SOL_SOCKET && subject.kind == Kind::Unix => libc::EOPNOTSUPP,
                    _ => libc::ENOPROTOOPT,
                };
                notification.fail(errno);
            }
            Kind::End | Kind::Other => notification.fail(libc::ENOPROTOOPT),
            Kind::Tcp { .. } => self.set_tcp_option(notification, &subject, option),
        }
    }

    fn set_tcp_option(&self, notification: Notification, subject: &Subject, option: StackOption) {
        let cookie = subject.cookie;
        let result = match side(option.level, option.name) {
            Side::Both => set_on_host(&notification, subject, &option).map(|()| self.keep(cookie, option)),
            Side::Guest => set_on_host(&notification, subject, &option),
            Side::Ignored => is_sensible(&option),
            // do_sock_setsockopt() and do_tcp_setsockopt() look at the length first.
            Side::Refused(_)
                if matches!(option.level, libc::SOL_SOCKET | libc::IPPROTO_TCP) && option.value.len() < 4 =>
            {
                Err(libc::EINVAL)
            }
            Side::Refused(errno) => {
                debug!(level = option.level, name = option.name, errno, "option refused");
                self.report_option(&option);
                Err(errno)
            }
            Side::Stack => match is_sensible(&option) {
                Ok(()) => return self.set_on_stack(notification, subject, cookie, option),
                Err(errno) => Err(errno),
            },
            Side::V6Only => self.set_v6only(&notification, cookie, subject, &option),
        };
        answer(notification, result);
    }

    /// For the stack's socket: now if there is one, otherwise when it is made.
    fn keep(&self, cookie: Cookie, option: StackOption) {
        let mut sockets = self.sockets.lock();
        let entry = sockets.entry(cookie);
        if entry.is_on_stack() {
            let set = Command::Set { cookie, option: option.clone(), asked: None };
            // It counts from the next byte on; one that waits for an acknowledgement is not kept long.
            let can_wait = (option.level, option.name) == (libc::IPPROTO_TCP, libc::TCP_NODELAY);
            if can_wait { self.stack.leave(set) } else { self.stack.ask(set) }
        }
        entry.remember(option);
    }

    fn set_on_stack(
        &self,
        notification: Notification,
        subject: &Subject,
        cookie: Cookie,
        option: StackOption,
    ) {
        let live = self.sockets.lock().find_mut(cookie).is_some_and(|entry| {
            let live = entry.is_on_stack();
            if live {
                entry.remember(option.clone());
            }
            live
        });
        // The stack's socket may be of IPv4 and have no such level: the guest's own is what is asked then.
        if live && option.level != libc::IPPROTO_IPV6 {
            return self.stack.ask(Command::Set { cookie, option, asked: Some(notification) });
        }
        // The host checks the value.
        let checked = match is_deferred(option.level, option.name) {
            true => Ok(()),
            false => set_on_host(&notification, subject, &option),
        };
        answer(notification, checked.map(|()| self.keep(cookie, option)));
    }

    fn set_v6only(
        &self,
        notification: &Notification,
        cookie: Cookie,
        subject: &Subject,
        option: &StackOption,
    ) -> Result<(), i32> {
        let value: [u8; 4] = option.value.get(..4).and_then(|v| v.try_into().ok()).ok_or(libc::EINVAL)?;
        // A socket that has a port says EINVAL, as does one of IPv4 its ENOPROTOOPT.
        let name = guarded(notification, || sys::local_name(subject.fd()))?;
        let has_port = name.is_some_and(|a| a.port() != 0);
        if !subject.is_v6() || has_port {
            return set_on_host(notification, subject, option);
        }
        let mut sockets = self.sockets.lock();
        let entry = sockets.entry(cookie);
        if entry.bound.is_some() || entry.state != State::Idle {
            return Err(libc::EINVAL);
        }
        entry.v6only = Some(i32::from_ne_bytes(value) != 0);
        Ok(())
    }
}

/// The value of an option that is not applied, or not yet, or by somebody who may do more than the guest.
fn is_sensible(option: &StackOption) -> Result<(), i32> {
    let value = option.value.get(..4).and_then(|value| value.try_into().ok()).map(i32::from_ne_bytes);
    match (option.level, option.name, value) {
        (libc::IPPROTO_TCP, name, None) if name != libc::TCP_CONGESTION => Err(libc::EINVAL),
        (libc::IPPROTO_TCP, libc::TCP_FASTOPEN | libc::TCP_USER_TIMEOUT, Some(..0)) => Err(libc::EINVAL),
        (libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, Some(..0 | 2..)) => Err(libc::EINVAL),
        (libc::SOL_SOCKET, libc::SO_REUSEPORT, None) => Err(libc::EINVAL),
        // MAX_TCP_SYNCNT of include/net/tcp.h.
        (libc::IPPROTO_TCP, libc::TCP_SYNCNT, Some(..1 | 128..)) => Err(libc::EINVAL),
        // Others than these take a capability (sk_setsockopt()).
        (libc::SOL_SOCKET, libc::SO_PRIORITY, Some(..0 | 7..)) => Err(libc::EPERM),
        _ => Ok(()),
    }
}

/// Who answers getsockopt(2).
enum Kept {
    Host,
    Stack,
    Value(Vec<u8>),
}

fn set_on_host(notification: &Notification, subject: &Subject, option: &StackOption) -> Result<(), i32> {
    let set =
        || guarded(notification, || sys::set_option(subject.fd(), option.level, option.name, &option.value));
    match (option.level, option.name) {
        (libc::SOL_SOCKET, libc::SO_LINGER) => setting_linger(set),
        _ => set(),
    }
}

pub(super) fn read_option(notification: &impl Arguments) -> Result<StackOption, i32> {
    let length = usize::try_from(notification.int_arg(4)).map_err(|_| libc::EINVAL)?;
    if length > LONGEST {
        return Err(libc::EINVAL);
    }
    let mut value = vec![0; length];
    if length > 0 {
        // What is too short is not read at all (do_sock_setsockopt(), do_tcp_setsockopt()).
        let short = length < 4 && matches!(notification.int_arg(1), libc::SOL_SOCKET | libc::IPPROTO_TCP);
        let read = notification.read(notification.addr_arg(3), &mut value);
        read.map_err(|fault| if short && fault == Fault::Access { libc::EINVAL } else { fault.errno() })?;
    }
    Ok(StackOption { level: notification.int_arg(1), name: notification.int_arg(2), value })
}

/// How much of an option's value is wanted (argument 4).
pub(super) fn read_room(notification: &impl Arguments) -> Result<usize, i32> {
    let mut room = [0; 4];
    notification.read(notification.addr_arg(4), &mut room).map_err(Fault::errno)?;
    let room = usize::try_from(i32::from_ne_bytes(room)).map_err(|_| libc::EINVAL)?;
    Ok(room.min(LONGEST))
}

/// Writes an option's value: cut to the guest's buffer, as is the length.
pub(super) fn write_value(notification: &impl Arguments, value: &[u8]) -> Result<(), i32> {
    let mut room = [0; 4];
    notification.read(notification.addr_arg(4), &mut room).map_err(Fault::errno)?;
    let room = usize::try_from(i32::from_ne_bytes(room)).map_err(|_| libc::EINVAL)?;
    write_sized(notification, 3, 4, value, value.len().min(room))
}

/// Answers a `Read` question.
pub(super) fn reply(question: Question, result: Result<Vec<u8>, i32>) {
    // An IPv6 socket that is connected to an IPv4 address: the stack's is of IPv4 and has no such level, the guest's
    // own has.
    if question.v6 && result == Err(libc::EOPNOTSUPP) {
        return question.notification.proceed();
    }
    let written = result.and_then(|value| write_value(&question.notification, &value));
    answer(question.notification, written);
}

#[cfg(test)]
mod fuzz;
