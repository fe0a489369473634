//! What the policy must know of the host: its addresses, and ours in the stack.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use ipnet::IpNet;
use netshunt_backend::Network;
use netshunt_policy::Surroundings;

use crate::sys;

/// Gathers the addresses that the rules are held against: `network` is the open link's, if any.
///
/// # Errors
/// Those of getifaddrs(3).
pub fn surroundings(network: Option<&Network>, shunt: bool, dns: bool) -> io::Result<Surroundings> {
    let mut host = own_addresses()?;
    host.extend(network.iter().flat_map(|n| n.host.iter().copied()));
    Ok(Surroundings {
        link: network.is_some(),
        shunt,
        host,
        guest: guest_addresses(network),
        dns: network.filter(|_| dns).and_then(|n| n.dns),
    })
}

/// The stack's own addresses, its loopback included.
fn guest_addresses(network: Option<&Network>) -> Vec<IpNet> {
    let mut own = vec![
        IpNet::V4(ipnet::Ipv4Net::new_assert([127, 0, 0, 0].into(), 8)),
        IpNet::from(IpAddr::from(Ipv6Addr::LOCALHOST)),
    ];
    own.extend(network.and_then(|n| n.v4).map(|v4| IpNet::from(IpAddr::from(v4.address.addr()))));
    if let Some((network, v6)) = network.and_then(|network| Some((network, network.v6?))) {
        own.push(IpAddr::from(v6.address.addr()).into());
        own.push(IpAddr::from(link_local(network.mac)).into());
    }
    own
}

/// The address that a Linux interface gives itself (RFC 4291, appendix A): the stack has it too.
fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    let identifier = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(u64::from_be_bytes(identifier)))
}

/// The networks that the link answers for by itself.
pub(crate) fn near(network: &Network) -> Vec<IpNet> {
    let mut near = network.host.clone();
    near.extend(network.dns.map(IpNet::from));
    near.extend(network.v4.map(|v4| IpNet::V4(v4.address.trunc())));
    near.extend(network.v6.map(|v6| IpNet::V6(v6.address.trunc())));
    near
}

/// Every address of the host's interfaces, in this network namespace.
fn own_addresses() -> io::Result<Vec<IpNet>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    Ok(interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())))
        })
        .map(IpNet::from)
        .collect())
}

/// Whether a blocking socket can be parked: see [`sys::start_connect`].
pub(crate) fn can_start_connects() -> bool {
    let setting = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_fastopen").unwrap_or_default();
    // Unreadable means unknown: the first connect(2) will tell.
    setting.trim().parse().map_or(true, |bits: u32| bits & 1 != 0)
}

/// The first port that needs no capability (ip(7)). To be asked before a guest runs: root's may change it.
pub(crate) fn first_unprivileged_port() -> u16 {
    let setting =
        std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    setting.trim().parse().unwrap_or(1024)
}

/// Our network namespace: its cookie (SO_NETNS_COOKIE, Linux 5.14) and its inode.
pub(crate) fn namespace() -> io::Result<(u64, u64)> {
    let socket = sys::tcp_socket()?;
    let cookie = sys::cookie(socket.as_fd(), libc::SO_NETNS_COOKIE)?;
    Ok((cookie, std::fs::metadata("/proc/thread-self/ns/net")?.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_names_itself_after_its_hardware_address() {
        let own = link_local([0x52, 0x54, 0, 0x6e, 0x73, 0x15]);
        assert_eq!(own, "fe80::5054:ff:fe6e:7315".parse::<Ipv6Addr>().unwrap());
    }
}
