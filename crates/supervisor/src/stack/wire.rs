//! The stack's network card: its link on one side, its addresses and routes on the other.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use netshunt_backend::{Link, Network, PollFd, Sent, Turned};
use netshunt_lkl::{Kernel, Nic, NicConfig, Transmit};

use super::Shared;
use crate::Error;

/// The link, and the frames it could not be given at once.
pub(super) struct Wire {
    pub(super) link: RefCell<Box<dyn Link>>,
    /// Frames that the stack sent while the link was handing it one: it may answer at once.
    outbox: RefCell<VecDeque<Vec<u8>>>,
}

impl Wire {
    pub(super) fn new(link: Box<dyn Link>) -> Self {
        Wire { link: RefCell::new(link), outbox: RefCell::default() }
    }

    fn send(&self, frame: &[IoSlice<'_>]) -> Sent {
        let mut outbox = self.outbox.borrow_mut();
        match self.link.try_borrow_mut() {
            Ok(mut link) if outbox.is_empty() => link.send(frame),
            _ => {
                outbox.push_back(frame.iter().flat_map(|piece| piece.iter().copied()).collect());
                Sent::Taken
            }
        }
    }

    /// Sends what had to wait, as far as the link has room.
    pub(super) fn flush(&self) {
        let mut outbox = self.outbox.borrow_mut();
        let mut link = self.link.borrow_mut();
        while let Some(frame) = outbox.front() {
            match link.send(&[IoSlice::new(frame)]) {
                Sent::Busy => return,
                Sent::Taken => drop(outbox.pop_front()),
            }
        }
    }
}

/// In the place of a link, where there is none: the stack has its loopback then, and nothing is sent here.
#[derive(Debug)]
pub(super) struct Nowhere(Network);

impl Nowhere {
    pub(super) fn new() -> Self {
        Nowhere(Network {
            mtu: 0,
            mac: [0; 6],
            v4: None,
            v6: None,
            dns: None,
            dns_over_tcp: false,
            name_servers: Vec::new(),
            host: Vec::new(),
            trusted: true,
        })
    }
}

impl Link for Nowhere {
    fn network(&self) -> &Network {
        &self.0
    }

    fn send(&mut self, _: &[IoSlice<'_>]) -> Sent {
        Sent::Taken
    }

    fn receive(&mut self, _: &mut dyn FnMut(&[u8])) -> bool {
        false
    }

    fn interests(&mut self, _: Instant, _: &mut Vec<PollFd>) -> Option<Instant> {
        None
    }

    fn turn(&mut self, _: Instant, _: &[PollFd]) -> Result<Turned, netshunt_backend::Error> {
        Ok(Turned::Alive)
    }
}

pub(super) fn add_nic(
    kernel: &Kernel,
    network: &Network,
    wire: Rc<Wire>,
    shared: Arc<Shared>,
) -> Result<Nic, Error> {
    let config = NicConfig {
        tx_checksum_offload: network.trusted,
        rx_checksum_offload: network.trusted,
        ..NicConfig::new(network.mac, network.mtu)
    };
    let transmit = move |frame: &[IoSlice<'_>]| match wire.send(frame) {
        Sent::Busy => Transmit::Busy,
        Sent::Taken => {
            shared.traffic.sent(frame.iter().map(|piece| piece.len()).sum());
            Transmit::Taken
        }
    };
    Ok(kernel.add_nic(config, Box::new(transmit))?)
}

/// How to take losses on the wire (ip-sysctl.rst, the second since Linux 6.11).
///
/// passt drops what its own socket has no room for, though its window allowed it, offers no SACK, and tells
/// by fewer than three duplicate acknowledgements: an upload waited for 200 ms each time. A link is a queue
/// that never reorders, so one duplicate is a loss; and it is near, so silence is one soon.
const LOSS: [(&str, &str); 2] = [("net/ipv4/tcp_reordering", "1"), ("net/ipv4/tcp_rto_min_us", "10000")];

/// Nobody else is on the wire who could have the interface's link-local address (ip-sysctl.rst): it need not be
/// asked for, which would keep guests from binding to it for their first second or two (RFC 4862, 5.4).
const SOLE: (&str, &str) = ("net/ipv6/conf/eth0/accept_dad", "0");

/// The link says itself what address it gave (ip-sysctl.rst). libslirp advertises its prefix, too: of another address that
/// the stack made of that, answers to a published port would come, and libslirp takes them for somebody else's.
const TOLD: (&str, &str) = ("net/ipv6/conf/eth0/accept_ra", "0");

/// What an ordinary user may: the network is the guest's own (ip-sysctl.rst).
const OPEN: [(&str, &str); 2] =
    [("net/ipv4/ping_group_range", "0 2147483647"), ("net/ipv4/ip_unprivileged_port_start", "0")];

/// Opens to guests what is theirs in a network of their own.
pub(super) fn open(kernel: &Kernel) -> io::Result<()> {
    OPEN.iter().try_for_each(|(name, value)| kernel.sysctl(name, value))
}

/// Gives the stack its addresses and routes, and makes it fit for the link.
pub(super) fn configure(kernel: &Kernel, nic: Nic, network: &Network) -> io::Result<()> {
    LOSS.iter().chain([&SOLE, &TOLD]).try_for_each(|(name, value)| kernel.sysctl(name, value))?;
    let interface = nic.ifindex;
    kernel.interface_up(interface)?;
    if let Some(v4) = network.v4 {
        kernel.add_address(interface, v4.address.into())?;
        kernel.add_route(everything(v4.gateway.into()), Some(v4.gateway.into()), interface)?;
    }
    if let Some(v6) = network.v6 {
        kernel.add_address(interface, v6.address.into())?;
        kernel.add_route(everything(v6.gateway.into()), Some(v6.gateway.into()), interface)?;
    }
    Ok(())
}

/// The default destination of the gateway's family.
fn everything(gateway: IpAddr) -> ipnet::IpNet {
    match gateway {
        IpAddr::V4(_) => ipnet::Ipv4Net::default().into(),
        IpAddr::V6(_) => ipnet::Ipv6Net::default().into(),
    }
}
