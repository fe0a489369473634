//! Connections between two guests, which need no relay.
//!
//! The stack connects over its own loopback, so it chooses the listener, the ports and the errors. Then the guest that
//! connects, G, is joined with P, as always (`park.rs`); but P itself is what the other guest accepts. From then on their bytes
//! pass on the host's loopback, without us. The stack's two sockets stay as they are: they hold the ports, and
//! answer for options.
//!
//! Nobody tells us when such a connection ends, so the host's kernel is asked (`inet_diag.rs`): once a second for some of
//! them, for some whenever there is another, and when a port is in use.

use std::collections::VecDeque;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};

use netshunt_lkl::Socket;
use tracing::debug;

use super::connections::Connection;
use super::thread::{Id, Machine};
use crate::address::{canonical, for_family};
use crate::inet_diag::{Diag, Found};
use crate::park::Space;
use crate::points::RELAY_ENDED;
use crate::sockets::Cookie;
use crate::sys;

/// How many ends are looked at in a second.
pub(super) const SOME: usize = 64;
/// And for each new one: of those that are remembered at most half are closed, whatever the rate.
const FOR_ANOTHER: usize = 2;

/// All ends, in the order in which they are looked at.
#[derive(Debug, Default)]
pub(super) struct Directs {
    line: VecDeque<Id>,
}

/// One end of such a connection, and its stand-in in the stack.
#[derive(Debug)]
pub(super) struct Direct {
    pub(super) cookie: Cookie,
    pub(super) stack: Socket,
    pub(super) names: (SocketAddr, SocketAddr),
    /// Where it is on the host, and where the other end is.
    pub(super) places: (SocketAddrV4, SocketAddrV4),
}

/// What the stack has accepted of a connection that a guest opens.
#[derive(Debug)]
pub(super) struct Met {
    pub(super) listener: Id,
    pub(super) id: Id,
    pub(super) stack: Socket,
    pub(super) peer: SocketAddr,
}

/// What has become of an end.
enum Fate {
    /// A guest has it.
    Held,
    /// It is closed, and its far side may not know that yet.
    Closed,
    /// There is nothing left of it.
    Gone,
}

impl Directs {
    pub(super) fn is_empty(&self) -> bool {
        self.line.is_empty()
    }
}

impl Direct {
    fn fate(&self, diag: &Diag, stack_has_ended: bool) -> Fate {
        let (own, other) = self.places;
        match diag.connection(own, other) {
            Ok(Some(Found { cookie, inode: 0, .. })) if cookie == self.cookie => Fate::Closed,
            Ok(Some(Found { cookie, .. })) if cookie == self.cookie => Fate::Held,
            Ok(_) if stack_has_ended => Fate::Gone,
            // The last to close is gone at once; the first is still there, and comes first here too.
            Ok(_) => match diag.connection(other, own) {
                Ok(None) => Fate::Gone,
                _ => Fate::Held,
            },
            // In doubt somebody has it.
            Err(_) => Fate::Held,
        }
    }
}

impl Machine {
    /// Whether a guest listens where that socket of the stack has connected to: what it would accept.
    pub(super) fn meet(&mut self, stack: Socket, destination: SocketAddr) -> Option<Met> {
        self.listeners.diag()?;
        let listeners = self.listeners.at_port(destination.port());
        if listeners.is_empty() {
            return None;
        }
        // Two that are bound to one port may connect to one port of several addresses, and their listeners' queues hold both.
        let ends = (self.kernel.local_address(stack).ok()?, self.kernel.peer_address(stack).ok()?);
        let ends = (canonical(ends.0), canonical(ends.1));
        listeners.into_iter().find_map(|listener| self.take_until(listener, Some(ends)))
    }

    /// Brings P to the listener that it is to be accepted from.
    pub(super) fn introduce(&mut self, p: OwnedFd, met: &Met, space: Space) {
        // Who is not accepted is reset.
        sys::reset_when_closed(p.as_fd());
        let (guest, own) = space.ends();
        // A connect(2) that did not wait says 0 once more, if all is well: to us, not to who has it then.
        let is_up =
            sys::connect(p.as_fd(), for_family(guest.into(), self.listeners.is_v6(met.listener))).is_ok();
        // Else it was reset meanwhile, and would be no connection at all to who accepts it: what the stack has accepted tells
        // that as a relay does.
        let direct = is_up.then_some((p, (own, guest)));
        let &Met { listener, id, stack, peer } = met;
        self.arrive(listener, id, stack, peer, direct);
    }

    pub(super) fn begin_direct(&mut self, id: Id, direct: Direct) {
        self.sweep_next_directs(FOR_ANOTHER);
        self.connections.insert(id, Connection::Direct(direct));
        self.directs.line.push_back(id);
        self.sweep_soon();
    }

    /// Looks at those whose turn it is.
    pub(super) fn sweep_next_directs(&mut self, count: usize) {
        let count = count.min(self.directs.line.len());
        let next: Vec<Id> = self.directs.line.drain(..count).collect();
        self.sweep_these(&next);
        let held = next.into_iter().filter(|id| self.connections.contains_key(id));
        self.directs.line.extend(held);
    }

    /// Ends those whose guests have closed them; returns whether there were any.
    pub(super) fn sweep_directs(&mut self, of: impl Fn(&Direct) -> bool) -> bool {
        let chosen =
            |id: &&Id| matches!(self.connections.get(id), Some(Connection::Direct(direct)) if of(direct));
        let ids: Vec<Id> = self.directs.line.iter().filter(chosen).copied().collect();
        let ended = self.sweep_these(&ids);
        self.directs.line.retain(|id| self.connections.contains_key(id));
        ended
    }

    fn sweep_these(&mut self, ids: &[Id]) -> bool {
        let Some(diag) = self.listeners.diag() else { return false };
        let (mut closed, mut gone) = (Vec::new(), Vec::new());
        for &id in ids {
            let Some(Connection::Direct(direct)) = self.connections.get(&id) else { continue };
            match direct.fate(diag, self.has_ended(direct.stack)) {
                Fate::Held => {}
                Fate::Closed => closed.push(id),
                Fate::Gone => gone.push(id),
            }
        }
        // In the order in which the guests did it: who closes first keeps the port for a while (TIME-WAIT).
        for &id in &closed {
            self.end_direct(id, false);
        }
        for &id in &gone {
            self.end_direct(id, true);
        }
        !(closed.is_empty() && gone.is_empty())
    }

    /// Whether its other end is closed.
    fn has_ended(&self, stack: Socket) -> bool {
        self.kernel.readiness(stack) & libc::EPOLLRDHUP as u32 != 0
    }

    fn end_direct(&mut self, id: Id, is_gone: bool) {
        let Some(Connection::Direct(direct)) = self.connections.remove(&id) else { return };
        let Direct { cookie, stack, names: (local, peer), .. } = direct;
        if is_gone && !self.has_ended(stack) {
            // It was reset.
            self.kernel.abort(stack);
        } else {
            self.kernel.close(stack);
        }
        if self.current.get(&cookie) == Some(&id) {
            self.current.remove(&cookie);
            self.sockets.lock().end(cookie, local, peer);
        }
        debug!(dst = %peer, "{RELAY_ENDED}");
    }
}
