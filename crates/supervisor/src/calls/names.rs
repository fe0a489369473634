//! getsockname(2) and getpeername(2): a mediated socket shows the stack's addresses.

use std::net::SocketAddr;
use std::sync::Arc;

use netshunt_notify::{Fault, Notification, TargetAddr};

use super::arguments::Arguments;
use super::{Calls, Kind, Subject, guarded};
use crate::address::encode;
use crate::ends::End;
use crate::sockets::{Cookie, State};
use crate::stack::{Command, Question};
use crate::sys;

impl Calls {
    pub(super) fn local_name(&self, notification: Notification) {
        let (subject, cookie) = match self.mediated(&notification) {
            Ok(Whose::Tcp(subject, cookie)) => (subject, cookie),
            Ok(Whose::End(end)) => return self.name_of_end(notification, end, false),
            Ok(Whose::Host) => return notification.proceed(),
            Err(errno) => return notification.fail(errno),
        };
        let (state, bound) = {
            let sockets = self.sockets.lock();
            let Some(entry) = sockets.find(cookie) else {
                drop(sockets);
                return notification.proceed();
            };
            (entry.state, entry.bound)
        };
        match (state, bound) {
            (State::Connected { local, .. } | State::Ended { local, .. }, _) => {
                write_name(notification, &encode(local, subject.is_v6()));
            }
            (State::Connecting { .. }, _) => {
                let question = Question { notification, v6: subject.is_v6() };
                self.stack.ask(Command::LocalName { cookie, question });
            }
            (State::Idle | State::Failed { .. } | State::Listening, Some(bound)) => {
                write_name(notification, &encode(bound, subject.is_v6()));
            }
            // What the host would say of an unbound socket is what any kernel would: no address.
            (State::Idle | State::Failed { .. } | State::Listening, None) => {
                let unspecified = match subject.is_v6() {
                    true => SocketAddr::from(([0u16; 8], 0)),
                    false => SocketAddr::from(([0u8; 4], 0)),
                };
                write_name(notification, &encode(unspecified, subject.is_v6()));
            }
        }
    }

    pub(super) fn peer_name(&self, notification: Notification) {
        let (subject, cookie) = match self.mediated(&notification) {
            Ok(Whose::Tcp(subject, cookie)) => (subject, cookie),
            Ok(Whose::End(end)) => return self.name_of_end(notification, end, true),
            Ok(Whose::Host) => return notification.proceed(),
            Err(errno) => return notification.fail(errno),
        };
        let Some(state) = self.sockets.lock().find(cookie).map(|entry| entry.state) else {
            return notification.proceed();
        };
        match state {
            // The host knows whether the guest's end is still connected.
            State::Connected { peer, .. } | State::Ended { peer, .. } => {
                match guarded(&notification, || sys::peer_name(subject.fd())) {
                    Ok(_) => write_name(notification, &encode(peer, subject.is_v6())),
                    Err(errno) => notification.fail(errno),
                }
            }
            State::Connecting { .. } | State::Failed { .. } | State::Idle | State::Listening => {
                notification.fail(libc::ENOTCONN);
            }
        }
    }

    fn mediated(&self, notification: &Notification) -> Result<Whose, i32> {
        let subject = self.subject(notification)?;
        match (subject.kind, &subject.end) {
            (Kind::Tcp { .. }, _) => {
                let cookie = subject.cookie;
                Ok(Whose::Tcp(subject, cookie))
            }
            (_, Some(end)) => Ok(Whose::End(end.clone())),
            // These calls carry no address in: letting the host answer gives nothing away.
            (Kind::End | Kind::Foreign | Kind::Other | Kind::Unix, None) => Ok(Whose::Host),
        }
    }
}

/// Who knows a socket's names.
enum Whose {
    End(Arc<End>),
    Host,
    Tcp(Subject, Cookie),
}

impl Subject {
    pub(super) fn is_v6(&self) -> bool {
        self.kind == Kind::Tcp { v6: true }
    }
}

/// Answers a `LocalName` question.
pub(super) fn reply(question: Question, result: Result<SocketAddr, i32>) {
    match result {
        Ok(address) => write_name(question.notification, &encode(address, question.v6)),
        Err(errno) => question.notification.fail(errno),
    }
}

/// Writes a name to the guest's buffer (argument 1) and its length (argument 2), as
/// move_addr_to_user() in net/socket.c does: cut to the buffer, the true length reported.
pub(super) fn write_name(notification: Notification, name: &[u8]) {
    let written = write_sized(&notification, 1, 2, name, name.len());
    crate::pending::answer(notification, written);
}

/// Writes as much of `bytes` as the guest's buffer has room for, and `reported` as its length.
pub(super) fn write_sized(
    notification: &impl Arguments,
    buffer: usize,
    length: usize,
    bytes: &[u8],
    reported: usize,
) -> Result<(), i32> {
    let length: TargetAddr = notification.addr_arg(length);
    let mut room = [0; 4];
    notification.read(length, &mut room).map_err(Fault::errno)?;
    let room = usize::try_from(i32::from_ne_bytes(room)).map_err(|_| libc::EINVAL)?;
    let bytes = &bytes[..bytes.len().min(room)];
    if !bytes.is_empty() {
        notification.write(notification.addr_arg(buffer), bytes).map_err(Fault::errno)?;
    }
    notification.write(length, &(reported as u32).to_ne_bytes()).map_err(Fault::errno)
}

#[cfg(test)]
mod fuzz;
