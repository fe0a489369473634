//! getsockname(2) and getpeername(2): a mediated socket shows the stack's addresses.

use std::net::SocketAddr;

use netshunt_notify::{Notification, TargetAddr};

use super::{Calls, Kind, Subject};
use crate::address::encode;
use crate::sockets::State;
use crate::stack::{Command, Question};
use crate::sys;

impl Calls {
    pub(super) fn local_name(&self, notification: Notification) {
        let (subject, cookie) = match self.mediated(&notification) {
            Ok(Some(found)) => found,
            Ok(None) => return notification.proceed(),
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
                write_name(notification, local, subject.is_v6());
            }
            (State::Connecting { .. }, _) => match &self.stack {
                Some(stack) => {
                    let question = Question { notification, v6: subject.is_v6() };
                    stack.ask(Command::LocalName { cookie, question });
                }
                None => notification.fail(libc::EIO),
            },
            (State::Idle | State::Failed { .. }, Some(bound)) => {
                write_name(notification, bound, subject.is_v6());
            }
            // What the host would say of an unbound socket is what any kernel would: no address.
            (State::Idle | State::Failed { .. }, None) => {
                let unspecified = match subject.is_v6() {
                    true => SocketAddr::from(([0u16; 8], 0)),
                    false => SocketAddr::from(([0u8; 4], 0)),
                };
                write_name(notification, unspecified, subject.is_v6());
            }
        }
    }

    pub(super) fn peer_name(&self, notification: Notification) {
        let (subject, cookie) = match self.mediated(&notification) {
            Ok(Some(found)) => found,
            Ok(None) => return notification.proceed(),
            Err(errno) => return notification.fail(errno),
        };
        let Some(state) = self.sockets.lock().find(cookie).map(|entry| entry.state) else {
            return notification.proceed();
        };
        match state {
            // The host knows whether the guest's end is still connected.
            State::Connected { peer, .. } | State::Ended { peer, .. } => match sys::peer_name(subject.fd()) {
                Ok(_) => write_name(notification, peer, subject.is_v6()),
                Err(error) => notification.fail(super::errno(&error)),
            },
            State::Connecting { .. } | State::Failed { .. } | State::Idle => {
                notification.fail(libc::ENOTCONN);
            }
        }
    }

    /// The socket and its cookie if it is one of ours; `None` if the host may answer.
    fn mediated(
        &self,
        notification: &Notification,
    ) -> Result<Option<(Subject, crate::sockets::Cookie)>, i32> {
        let subject = self.subject(notification)?;
        match subject.kind {
            Kind::Tcp { .. } => {
                let cookie = subject.cookie()?;
                Ok(Some((subject, cookie)))
            }
            // These calls carry no address in: letting the host answer gives nothing away.
            Kind::Foreign | Kind::Other | Kind::Unix => Ok(None),
        }
    }
}

impl Subject {
    pub(super) fn is_v6(&self) -> bool {
        self.kind == Kind::Tcp { v6: true }
    }
}

/// Answers a `LocalName` question.
pub(super) fn reply(question: Question, result: Result<SocketAddr, i32>) {
    match result {
        Ok(address) => write_name(question.notification, address, question.v6),
        Err(errno) => question.notification.fail(errno),
    }
}

/// Writes `address` to the guest's buffer (argument 1) and its length (argument 2), as
/// move_addr_to_user() in net/socket.c does: cut to the buffer, the true length reported.
fn write_name(notification: Notification, address: SocketAddr, v6: bool) {
    let bytes = encode(address, v6);
    let written = write_sized(&notification, 1, 2, &bytes, bytes.len());
    crate::pending::answer(notification, written);
}

/// Writes as much of `bytes` as the guest's buffer has room for, and `reported` as its length.
pub(super) fn write_sized(
    notification: &Notification,
    buffer: usize,
    length: usize,
    bytes: &[u8],
    reported: usize,
) -> Result<(), i32> {
    let length: TargetAddr = notification.addr_arg(length);
    let mut room = [0; 4];
    notification.read(length, &mut room).map_err(|_| libc::EFAULT)?;
    let room = usize::try_from(i32::from_ne_bytes(room)).map_err(|_| libc::EINVAL)?;
    let bytes = &bytes[..bytes.len().min(room)];
    if !bytes.is_empty() {
        notification.write(notification.addr_arg(buffer), bytes).map_err(|_| libc::EFAULT)?;
    }
    notification.write(length, &(reported as u32).to_ne_bytes()).map_err(|_| libc::EFAULT)
}
