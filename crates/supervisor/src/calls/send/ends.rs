//! Sends of guests' datagram and netlink sockets: judged here, performed by the stack's thread.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use netshunt_notify::{Notification, TargetAddr};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::Written;
use super::attached::Attached;
use super::message::{self, Limits, Message};
use crate::calls::connect::send_timeout;
use crate::calls::{Calls, Subject};
use crate::ends::End;
use crate::pending::Pending;
use crate::stack::{Ask, Outgoing, To};
use crate::sys;

impl Calls {
    pub(super) fn send_from_end(&self, notification: Notification, subject: &Subject, end: Arc<End>) {
        match self.outgoing(&notification, subject, &end) {
            Ok(ask) => {
                // An error of an earlier one is told first, and goes (sock_alloc_send_pskb() in net/core/sock.c),
                // unless a call that is the host's has told it.
                let told =
                    || sys::int_option(subject.fd(), libc::SOL_SOCKET, libc::SO_ERROR).is_ok_and(|e| e == 0);
                if end.state().error.is_some()
                    && !told()
                    && let Some(errno) = end.state().error.take()
                {
                    return notification.fail(errno);
                }
                self.ask_end(notification, end, ask);
            }
            Err(errno) => notification.fail(errno),
        }
    }

    /// On the watch: a send waits for room, as long as no signal and no time-out ends that.
    pub(in crate::calls) fn send_stalled(
        &self,
        pending: Pending,
        until: Option<Instant>,
        sent: Vec<(TargetAddr, usize)>,
    ) {
        let Some(thread) = pending.thread() else { return };
        let limit = until.map(|at| (at, libc::EAGAIN));
        if sent.is_empty() {
            return self.waits.add(pending, thread, limit);
        }
        let sends = self.sends.clone();
        let begun =
            move |notification| sends.answer_on_the_watch(Written { notification, sent: sent.clone() });
        self.waits.add_begun(pending, thread, limit, begun);
    }

    fn outgoing(&self, notification: &Notification, subject: &Subject, end: &Arc<End>) -> Result<Ask, i32> {
        let limits = Limits::of_end(subject, end)?;
        let attached = Attached::of(subject);
        let (messages, flags) = match notification.call() {
            libc::SYS_sendto => (message::beside(notification, &limits, &attached)?, notification.int_arg(3)),
            libc::SYS_sendmsg => (message::one(notification, &limits, &attached)?, notification.int_arg(2)),
            _ => (message::many(notification, &limits, &attached)?, notification.int_arg(3)),
        };
        let status = fcntl(subject.fd(), FcntlArg::F_GETFL).map_err(|e| e as i32)?;
        let mut judged = VecDeque::with_capacity(messages.len());
        let mut last: Option<(Vec<u8>, To)> = None;
        for message in messages {
            let Message { address, data, length, .. } = &message;
            let to = match &last {
                _ if address.is_empty() => Ok(To::Peer),
                Some((name, to)) if name == address => Ok(to.clone()),
                // Of IPv6's it is as if there were none (udpv6_sendmsg()).
                _ if end.domain == libc::AF_INET6 && address.starts_with(&[0, 0]) => Ok(To::Peer),
                _ => self.judge_end(notification, end, address, libc::EINVAL),
            };
            match to {
                Ok(to) => {
                    if !address.is_empty() {
                        last = Some((address.clone(), to.clone()));
                    }
                    let (data, length) = (data.clone(), *length);
                    judged.push_back(Outgoing { to, data, control: message.control().to_vec(), length });
                }
                // The next call tells.
                Err(_) if !judged.is_empty() => break,
                Err(errno) => return Err(errno),
            }
        }
        let waits = status & OFlag::O_NONBLOCK.bits() == 0 && flags & libc::MSG_DONTWAIT == 0;
        Ok(Ask::Send {
            messages: judged,
            flags: flags & !libc::MSG_ZEROCOPY,
            many: notification.call() == libc::SYS_sendmmsg,
            waits,
            limit: if waits { send_timeout(subject) } else { None },
        })
    }
}
