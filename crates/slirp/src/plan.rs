//! The addresses of a slirp network, and which of them are the host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netshunt_backend::{Network, Settings, V4, V6};

use crate::Error;

/// libslirp's `IF_MTU_MAX`: larger values make `slirp_new` fail.
pub(crate) const MTU_MAX: u16 = 65521;
/// Three full segments fit into libslirp's receive window, which is never above 65,535 bytes. With
/// larger ones it announces the room it has regained so late that a single upload stalls for 200 ms at
/// a time: measured at 65520, 2.2 Gbit/s, against 6.7 at a third of that.
///
/// And 16,384 bytes of data, over IPv4, divide its buffers of 128 KiB. Others make it enlarge each buffer when a
/// connection opens, to a multiple (`tcp_mss()` of its tcp_subr.c), which may copy it: 130 KB of memory for every
/// connection that has nothing to say.
const MTU: u16 = 16384 + 40;
/// The least MTU that every IPv4 host must be able to receive whole (RFC 791, section 3.2).
const MTU_MIN: u16 = 576;
/// The least MTU of an IPv6 link (RFC 8200, section 5).
const MTU_MIN_V6: u16 = 1280;

const PREFIX_V4: u8 = 24;
pub(crate) const MASK_V4: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
pub(crate) const NETWORK: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 0);
pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
pub(crate) const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

pub(crate) const PREFIX_V6: u8 = 64;
pub(crate) const NETWORK_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0);
pub(crate) const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x15);
pub(crate) const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
pub(crate) const DNS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3);
/// All nodes of the link (RFC 4291, section 2.7.1): libslirp sends it to `::1`.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The guest's Ethernet address: QEMU's prefix, whose other half libslirp (52:55, 52:56) never uses.
const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x6e, 0x73, 0x15];

/// The network of a link with these settings.
pub(crate) fn network(settings: &Settings) -> Result<Network, Error> {
    let Settings { mtu, ipv6, .. } = *settings;
    let mtu = mtu.unwrap_or(MTU);
    let least = if ipv6 { MTU_MIN_V6 } else { MTU_MIN };
    if !(least..=MTU_MAX).contains(&mtu) {
        return Err(Error::Mtu { mtu, least });
    }
    let v6 = ipv6.then(|| V6 {
        address: Ipv6Net::new(GUEST_V6, PREFIX_V6).expect("64 bits are at most 128"),
        gateway: GATEWAY_V6,
    });
    Ok(Network {
        mtu,
        mac: MAC,
        v4: Some(V4 {
            address: Ipv4Net::new(GUEST, PREFIX_V4).expect("24 bits are at most 32"),
            gateway: GATEWAY,
        }),
        v6,
        dns: Some(IpAddr::V4(DNS)),
        dns_over_tcp: true,
        name_servers: Vec::new(),
        host: host(v6.as_ref()),
        // libslirp verifies the TCP and UDP checksums of guest frames and drops what does not add up.
        trusted: false,
    })
}

/// Where libslirp rewrites a destination to the host's loopback or its name server.
/// `tests/host.rs` tries these and their neighbours.
fn host(v6: Option<&V6>) -> Vec<IpNet> {
    let v4 = [GATEWAY, DNS, Ipv4Addr::BROADCAST].map(|address| IpNet::from(IpAddr::V4(address)));
    let mut host = v4.to_vec();
    if let Some(v6) = v6 {
        host.push(IpNet::V6(v6.address.trunc()));
        host.push(IpNet::from(IpAddr::V6(ALL_NODES)));
    }
    host
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(mtu: u16, ipv6: bool) -> Settings {
        let mut settings = Settings::default();
        (settings.mtu, settings.ipv6) = (Some(mtu), ipv6);
        settings
    }

    #[test]
    fn the_host_is_named_in_full() {
        let host = |ipv6| network(&settings(1500, ipv6)).unwrap().host;
        let text: Vec<_> = host(true).iter().map(ToString::to_string).collect();
        assert_eq!(text, ["10.0.2.2/32", "10.0.2.3/32", "255.255.255.255/32", "fd00::/64", "ff02::1/128"]);
        assert_eq!(host(false).len(), 3);
    }

    #[test]
    fn the_mtu_fits_the_protocols() {
        assert!(network(&settings(1280, true)).is_ok());
        assert!(network(&settings(1279, false)).is_ok());
        assert!(network(&settings(MTU_MAX, true)).is_ok());
        let error = network(&settings(1279, true)).unwrap_err();
        assert_eq!(error.to_string(), "an MTU of 1279 bytes is not within 1280 to 65521");
        assert!(network(&settings(MTU_MAX + 1, false)).is_err());
        assert!(network(&settings(575, false)).is_err());
    }
}
