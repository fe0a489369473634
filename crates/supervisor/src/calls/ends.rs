//! Calls on guests' datagram and netlink sockets, but for sends and receives: the stack's thread
//! performs them on its own socket.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use netshunt_backend::{Network, on_a_thread};
use netshunt_notify::Notification;
use netshunt_policy::{Destination, Direction, Proto, Verdict};

use super::connect::{Judged, Slot, read_address};
use super::names::{write_name, write_sized};
use super::options::{read_option, read_room, write_value};
use super::{Calls, Subject, guarded};
use crate::address::{Address, V6_SHORT, canonical, destination, encode, of_family};
use crate::config::Dns;
use crate::ends::End;
use crate::flows::{Asked, Open};
use crate::options::{Datagrams, datagram};
use crate::pending::{Pending, answer};
use crate::routes::Way;
use crate::stack::{Ask, Asking, Command, Make, To};
use crate::sys;

/// DNS (RFC 1035, 4.2).
const DNS_PORT: u16 = 53;

/// `NETLINK_SOCK_DIAG` of include/uapi/linux/netlink.h: what ss(8) asks.
const NETLINK_SOCK_DIAG: i32 = 4;

impl Calls {
    /// Whether socket(2) with these arguments makes a socket that is mediated here.
    pub(super) fn is_end(&self, domain: i32, kind: i32, protocol: i32) -> bool {
        match (domain, kind) {
            (libc::AF_INET, libc::SOCK_DGRAM) => {
                matches!(protocol, 0 | libc::IPPROTO_UDP | libc::IPPROTO_UDPLITE | libc::IPPROTO_ICMP)
            }
            (libc::AF_INET6, libc::SOCK_DGRAM) => {
                matches!(protocol, 0 | libc::IPPROTO_UDP | libc::IPPROTO_UDPLITE | libc::IPPROTO_ICMPV6)
            }
            (libc::AF_NETLINK, libc::SOCK_DGRAM | libc::SOCK_RAW) => {
                matches!(protocol, libc::NETLINK_ROUTE | NETLINK_SOCK_DIAG)
            }
            _ => false,
        }
    }

    /// socket(2): a pair, and a socket of the stack's.
    pub(super) fn make_end(&self, notification: Notification) {
        let (domain, kind, protocol) =
            (notification.int_arg(0), notification.int_arg(1), notification.int_arg(2));
        let make = move |notification| {
            Command::Make(Box::new(Make {
                notification,
                domain,
                kind: kind & 0xf,
                protocol,
                nonblocking: kind & libc::SOCK_NONBLOCK != 0,
                cloexec: kind & libc::SOCK_CLOEXEC != 0,
            }))
        };
        // The guest's end takes an address with each send: from now on sends are looked at.
        if self.sends.announce() {
            return self.stack.ask(make(notification));
        }
        let Some(slot) = Slot::take(&self.waiting) else { return notification.fail(libc::ENOBUFS) };
        let (sends, asker) = (self.sends.clone(), self.stack.asker());
        let pending = Pending::new(notification);
        let settled = pending.clone();
        let begun = on_a_thread(move || {
            let _slot = slot;
            let result = sends.settle();
            let Some(notification) = settled.take() else { return };
            match result {
                Ok(()) => asker.ask(make(notification)),
                Err(_) => notification.fail(libc::ENOBUFS),
            }
        });
        if begun.is_err() {
            pending.answer(Err(libc::ENOBUFS));
        }
    }

    pub(super) fn ask_end(&self, notification: Notification, end: Arc<End>, ask: Ask) {
        self.stack.ask(Command::Datagram(Box::new(Asking { notification, end, ask })));
    }

    pub(super) fn bind_end(&self, notification: Notification, end: Arc<End>) {
        let ask = read_address(&notification, 1, 2).and_then(|name| match Address::parse(&name) {
            Some(Address::Inet(local)) if end.serves(local) => {
                self.judge_place(&notification, &end, canonical(local), name)
            }
            _ => Ok(Ask::Bind(name)),
        });
        match ask {
            Ok(ask) => self.ask_end(notification, end, ask),
            Err(errno) => notification.fail(errno),
        }
    }

    /// Where a socket of UDP is to be bound: nothing says later whether it serves or asks. One that names no
    /// port serves nobody who does not know it already.
    fn judge_place(
        &self,
        notification: &Notification,
        end: &End,
        local: SocketAddr,
        name: Vec<u8>,
    ) -> Result<Ask, i32> {
        let since = Instant::now();
        let (verdict, rule) = self.inbound(local, Proto::Udp);
        let (ask, outcome) = match verdict {
            Verdict::Bypass => (Ok(Ask::BindOnHost(local)), Ok(())),
            Verdict::Deny(errno) if local.port() != 0 => (Err(errno.raw()), Err(errno.raw())),
            Verdict::Deny(_) | Verdict::Stack => return Ok(Ask::Bind(name)),
        };
        let asked = asked(notification, end, local, since);
        Open::new(asked, verdict, rule, self.flows.clone()).inbound(None).close(outcome);
        ask
    }

    pub(super) fn connect_end(&self, notification: Notification, end: Arc<End>, name: &[u8]) {
        let ask = match Address::parse(name) {
            Some(Address::Unspec) => Ok(Ask::Disconnect),
            _ => self.judge_end(&notification, &end, name, libc::EAFNOSUPPORT).map(Ask::Connect),
        };
        match ask {
            Ok(ask) => self.ask_end(notification, end, ask),
            Err(errno) => notification.fail(errno),
        }
    }

    /// Where a datagram for that `struct sockaddr_*` is to go. Of another family than the socket's it is `alien`.
    pub(super) fn judge_end(
        &self,
        notification: &Notification,
        end: &End,
        name: &[u8],
        alien: i32,
    ) -> Result<To, i32> {
        let since = Instant::now();
        if end.is_netlink() {
            return Ok(To::Name(name.to_vec()));
        }
        let shown = match (end.domain, Address::parse(name)) {
            (libc::AF_INET6, Some(Address::Inet(to))) => to,
            (libc::AF_INET6, Some(_)) if name.len() < V6_SHORT => return Err(libc::EINVAL),
            (libc::AF_INET6, Some(_)) => return Err(alien),
            // Only the length of its own family counts (udp_sendmsg(), __ip4_datagram_connect()).
            (libc::AF_INET, _) if alien == libc::EINVAL && name.starts_with(&[0, 0]) => {
                // A send takes AF_UNSPEC for its own family (udp_sendmsg()).
                let family = (libc::AF_INET as u16).to_ne_bytes();
                of_family(&[&family, &name[2..]].concat(), false)?
            }
            (libc::AF_INET, _) => of_family(name, false)?,
            _ => return Err(libc::EINVAL),
        };
        let shown = destination(shown, end.state().bound);
        let (to, (verdict, rule, way)) = self.destined(shown, end.proto());
        let outcome = match (verdict, way) {
            (Verdict::Bypass, _) => Ok(To::Host(to)),
            // An answer, from where a rule lets the guest be reached.
            (Verdict::Deny(_) | Verdict::Stack, _) if rule.is_none() && end.state().has_heard(shown) => {
                return Ok(To::Host(shown));
            }
            // The same over the link: a published port is asked from the host's own addresses, too.
            (Verdict::Deny(_), _) if rule.is_none() && self.ends.was_called(end, shown) => {
                return Ok(To::Stack { shown, to: shown });
            }
            (Verdict::Deny(errno), _) => Err(errno.raw()),
            (Verdict::Stack, Way::Nowhere(errno)) if !self.is_near(to) => Err(errno),
            // No link carries UDP-Lite (RFC 3828): it is for the guest's own addresses.
            (Verdict::Stack, _) if end.protocol == libc::IPPROTO_UDPLITE && !self.is_near(to) => {
                Err(libc::EHOSTUNREACH)
            }
            (Verdict::Stack, _) => Ok(To::Stack { shown, to }),
        };
        if end.state().is_news(shown) {
            let asked = asked(notification, end, shown, since);
            let flow = Open::new(asked, verdict, rule, self.flows.clone());
            flow.close(outcome.as_ref().map(drop).map_err(|errno| *errno));
        }
        outcome
    }

    /// Where a guest that names `shown` is led, and the verdict on that.
    pub(super) fn destined(&self, shown: SocketAddr, proto: Proto) -> (SocketAddr, Judged) {
        let judge = |address| self.verdict(&Destination { address, proto, direction: Direction::Out });
        let judged = judge(shown);
        let resolver = self.resolver_for(shown, proto).filter(|_| judged.0 == Verdict::Stack);
        match resolver.map(|to| (to, judge(to))) {
            // Whose answers come from there shows the guest whom it asked: only the stack does.
            Some((to, (Verdict::Bypass, _, way))) if self.resolver.as_ref().is_some_and(|r| r.chosen) => {
                (to, (Verdict::Stack, None, way))
            }
            // What a rule sends to the host is what it names, not what stands for it.
            None | Some((_, (Verdict::Bypass, ..))) => (shown, judged),
            Some(led) => led,
        }
    }

    /// The name server that must answer a query in another's place.
    fn resolver_for(&self, asked: SocketAddr, proto: Proto) -> Option<SocketAddr> {
        let resolver = self.resolver.as_ref().filter(|resolver| resolver.answers_for(asked, proto))?;
        let taken = asked.ip().is_loopback()
            && match proto {
                Proto::Udp => self.ends.has_port(libc::IPPROTO_UDP, DNS_PORT),
                Proto::Tcp | Proto::Icmp => self.sockets.lock().listens(DNS_PORT),
            };
        (!taken).then(|| SocketAddr::new(resolver.address, DNS_PORT))
    }

    pub(super) fn name_of_end(&self, notification: Notification, end: Arc<End>, peer: bool) {
        if peer && !end.is_netlink() {
            // A peer without a port is none (inet_getname()).
            let Some(peer) = end.state().peer.filter(|peer| peer.port() != 0) else {
                return notification.fail(libc::ENOTCONN);
            };
            return write_name(notification, &encode(peer, end.domain == libc::AF_INET6));
        }
        self.ask_end(notification, end, if peer { Ask::PeerName } else { Ask::LocalName });
    }

    pub(super) fn option_of_end(&self, notification: Notification, subject: &Subject, end: Arc<End>) {
        let (level, name) = (notification.int_arg(1), notification.int_arg(2));
        if (level, name) == (libc::SOL_SOCKET, libc::SO_ERROR) {
            // What the guest's end itself says goes with it. There is none any more if write(2) has told it.
            let pending = sys::int_option(subject.fd(), level, name).unwrap_or(0);
            let errno = end.state().error.take().filter(|_| pending != 0).unwrap_or(0);
            let written = write_value(&notification, &errno.to_ne_bytes());
            return answer(notification, written);
        }
        match read_room(&notification) {
            Ok(size) => self.ask_end(notification, end, Ask::Option { level, name, size }),
            Err(errno) => notification.fail(errno),
        }
    }

    pub(super) fn set_option_of_end(&self, notification: Notification, subject: &Subject, end: Arc<End>) {
        let option = match read_option(&notification) {
            Ok(option) => option,
            Err(errno) => return notification.fail(errno),
        };
        match datagram(option.level, option.name) {
            Datagrams::Both => {
                let set = || sys::set_option(subject.fd(), option.level, option.name, &option.value);
                match guarded(&notification, set) {
                    Ok(()) => self.ask_end(notification, end, Ask::SetOption(option)),
                    Err(errno) => notification.fail(errno),
                }
            }
            Datagrams::Refused(errno) => {
                self.report_option(&option);
                notification.fail(errno);
            }
            Datagrams::Stack => self.ask_end(notification, end, Ask::SetOption(option)),
        }
    }
}

/// Who asks, for the flow log.
fn asked(notification: &Notification, end: &End, destination: SocketAddr, since: Instant) -> Asked {
    let thread = notification.thread();
    let pid = thread.as_ref().ok().and_then(|thread| thread.process().ok()).unwrap_or(notification.tid().0);
    let comm = thread.map(|thread| thread.comm()).unwrap_or_default();
    Asked { pid, comm, proto: end.proto().name(), destination, since }
}

/// Who is asked in the place of others: the link's name server, or one that was chosen.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    address: IpAddr,
    chosen: bool,
    over_tcp: bool,
    others: Vec<IpAddr>,
}

impl Resolver {
    pub(crate) fn of(network: &Network, dns: Dns) -> Option<Self> {
        match dns {
            Dns::Address(address) => {
                Some(Resolver { address, chosen: true, over_tcp: true, others: Vec::new() })
            }
            Dns::Link => Some(Resolver {
                address: network.dns?,
                chosen: false,
                over_tcp: network.dns_over_tcp,
                others: network.name_servers.clone(),
            }),
            Dns::Off => None,
        }
    }

    /// Whether it is to be asked in the place of the one that a guest names: on the guest's own loopback,
    /// since the host's resolv.conf may name one there (systemd-resolved's 127.0.0.53); or one that the
    /// link confuses with its own.
    fn answers_for(&self, asked: SocketAddr, proto: Proto) -> bool {
        // A socket of UDP is of one family.
        asked.port() == DNS_PORT
            && match proto {
                Proto::Udp if self.chosen && asked.is_ipv4() != self.address.is_ipv4() => false,
                Proto::Icmp => false,
                Proto::Tcp => self.over_tcp && asked.ip().is_loopback(),
                Proto::Udp => asked.ip().is_loopback() || self.others.contains(&asked.ip()),
            }
    }
}

/// Answers a question about a name.
pub(super) fn reply_name(notification: Notification, name: Result<Vec<u8>, i32>) {
    let written = name.and_then(|name| write_sized(&notification, 1, 2, &name, name.len()));
    answer(notification, written);
}
