//! The host's own addresses, for a stack that is to have the same: those of the interfaces with the
//! default routes.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use netshunt_backend::{Network, V4, V6};
use nix::ifaddrs::{InterfaceAddress, getifaddrs};

use crate::{Error, plan};

/// A network that copies the host's addresses and routers.
///
/// # Errors
/// [`Error::Host`]: no family has a default route over a router, and an address beside it.
pub(crate) fn network(mtu: u16, ipv6: bool) -> Result<Network, Error> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let addresses: Vec<_> = getifaddrs().into_iter().flatten().collect();
    let v4 = default_v4(&read("/proc/net/route")).and_then(|route| v4(&addresses, &route));
    let v6 = default_v6(&read("/proc/net/ipv6_route")).filter(|_| ipv6);
    let v6 = v6.and_then(|route| v6_of(&addresses, &route));
    if v4.is_none() && v6.is_none() {
        let why = "there is no default route over a router, in the network of an address of the host";
        return Err(Error::Host { why: why.to_owned() });
    }
    Ok(plan::network(mtu, v4, v6))
}

/// A default route: the interface, and the router.
type Route<A> = (String, A);

/// The first default route of `/proc/net/route` (proc_pid_net(5)): fields of hexadecimal numbers in the
/// machine's byte order.
fn default_v4(table: &str) -> Option<Route<Ipv4Addr>> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let (interface, destination, gateway) = (fields.next()?, fields.next()?, fields.next()?);
        let mask = fields.nth(4)?;
        let gateway = u32::from_str_radix(gateway, 16).ok().filter(|gateway| *gateway != 0)?;
        let default = destination == "00000000" && mask == "00000000";
        default.then(|| (interface.to_owned(), Ipv4Addr::from(gateway.to_ne_bytes())))
    })
}

/// The first default route of `/proc/net/ipv6_route`: destination, its length, source, its length, next
/// hop, and the interface last.
fn default_v6(table: &str) -> Option<Route<Ipv6Addr>> {
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, "00", _, _, gateway, .., interface] = fields[..] else { return None };
        let gateway = u128::from_str_radix(gateway, 16).ok().filter(|gateway| *gateway != 0)?;
        Some((interface.to_owned(), Ipv6Addr::from(gateway)))
    })
}

fn v4(addresses: &[InterfaceAddress], (interface, gateway): &Route<Ipv4Addr>) -> Option<V4> {
    let own = addresses.iter().filter(|address| address.interface_name == *interface);
    let mut nets = own.filter_map(|address| {
        let mask = address.netmask?.as_sockaddr_in()?.ip();
        Ipv4Net::with_netmask(address.address?.as_sockaddr_in()?.ip(), mask).ok()
    });
    let address = nets.find(|net| net.contains(gateway))?;
    Some(V4 { address, gateway: *gateway })
}

fn v6_of(addresses: &[InterfaceAddress], (interface, gateway): &Route<Ipv6Addr>) -> Option<V6> {
    let own = addresses.iter().filter(|address| address.interface_name == *interface);
    let mut nets = own.filter_map(|address| {
        let mask = address.netmask?.as_sockaddr_in6()?.ip();
        let ip = address.address?.as_sockaddr_in6()?.ip();
        Ipv6Net::with_netmask(ip, mask).ok().filter(|_| !ip.is_unicast_link_local())
    });
    let near = gateway.is_unicast_link_local();
    let address = nets.find(|net| near || net.contains(gateway))?;
    Some(V6 { address, gateway: *gateway })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_found() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
";
        if cfg!(target_endian = "little") {
            assert_eq!(default_v4(table), Some(("eth0".to_owned(), Ipv4Addr::new(192, 0, 2, 1))));
        }
        assert_eq!(default_v4(""), None);
        let zero = "0".repeat(32);
        let rest = "00000400 00000001 00000000 00000003     eth0";
        let table = format!(
            "fd010000000000000000000000000000 40 {zero} 00 {zero} {rest}
{zero} 00 {zero} 00 fd010000000000000000000000000001 {rest}
{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo
"
        );
        assert_eq!(default_v6(&table), Some(("eth0".to_owned(), "fd01::1".parse().unwrap())));
        assert_eq!(default_v6(""), None);
    }
}
