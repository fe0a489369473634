//! The protected groups.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::net::{embedded, normal};

/// Addresses closed on both paths until a rule names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// The host itself: its loopback, its own addresses, the unspecified address (connect(2)
    /// takes it for the loopback), and every address by which the link reaches the host.
    HostLocal,
    /// 169.254.0.0/16 (RFC 3927), with the metadata services of clouds, and fe80::/10 (RFC 4291).
    LinkLocal,
    /// 224.0.0.0/4 (RFC 5771) and ff00::/8 (RFC 4291).
    Multicast,
}

impl Group {
    pub(crate) const ALL: [Group; 3] = [Group::HostLocal, Group::LinkLocal, Group::Multicast];

    /// The word in a rule.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Group::HostLocal => "host-local",
            Group::LinkLocal => "link-local",
            Group::Multicast => "multicast",
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which networks make up each group on this host.
#[derive(Clone, Debug)]
pub(crate) struct Groups {
    host_local: Vec<IpNet>,
    link_local: [IpNet; 2],
    multicast: [IpNet; 2],
}

impl Groups {
    pub(crate) fn new(host: &[IpNet]) -> Self {
        let mut host_local = vec![
            v4(Ipv4Addr::LOCALHOST, 8),
            v4(Ipv4Addr::UNSPECIFIED, 32),
            // libslirp delivers a connection to the broadcast address to the host's loopback.
            v4(Ipv4Addr::BROADCAST, 32),
            v6(Ipv6Addr::LOCALHOST, 128),
            v6(Ipv6Addr::UNSPECIFIED, 128),
        ];
        host_local.extend(host.iter().copied().map(normal));
        Groups {
            // Two neighbouring halves are one network: a destination inside the whole is inside.
            host_local: IpNet::aggregate(&host_local),
            link_local: [
                v4(Ipv4Addr::new(169, 254, 0, 0), 16),
                v6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
            ],
            multicast: [
                v4(Ipv4Addr::new(224, 0, 0, 0), 4),
                v6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
            ],
        }
    }

    /// Adds an address of the host's; `false` if it was known.
    pub(crate) fn learn_host(&mut self, address: IpNet) -> bool {
        if self.covers(Group::HostLocal, address) {
            return false;
        }
        self.host_local.push(address);
        self.host_local = IpNet::aggregate(&self.host_local);
        true
    }

    /// The group a single address belongs to. Groups may overlap (the host has link-local
    /// addresses of its own): the host comes first, so opening `link-local` does not open it.
    pub(crate) fn of(&self, address: IpNet) -> Option<Group> {
        Group::ALL.into_iter().find(|group| self.covers(*group, address))
    }

    /// Whether `net` lies wholly inside `group`, as it stands or after translation to IPv4.
    pub(crate) fn covers(&self, group: Group, net: IpNet) -> bool {
        let nets: &[IpNet] = match group {
            Group::HostLocal => &self.host_local,
            Group::LinkLocal => &self.link_local,
            Group::Multicast => &self.multicast,
        };
        let within = |net: IpNet| nets.iter().any(|outer| outer.contains(&net));
        within(net) || embedded(net).is_some_and(within)
    }
}

fn v4(address: Ipv4Addr, len: u8) -> IpNet {
    IpNet::new_assert(IpAddr::V4(address), len).trunc()
}

fn v6(address: Ipv6Addr, len: u8) -> IpNet {
    IpNet::new_assert(IpAddr::V6(address), len).trunc()
}
