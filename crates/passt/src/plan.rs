//! The addresses of a passt network, and the arguments that make passt agree with them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netshunt_backend::{Network, Protocol, Publish, Settings, V4, V6};

use crate::Error;
use crate::probe::Probe;

/// The largest that passt announces: an IP packet's length, less an Ethernet header, in whole words.
pub(crate) const MTU_MAX: u16 = 65520;
/// The fewest frames for the same bytes.
const MTU: u16 = MTU_MAX;
/// The least MTU that every IPv4 host must be able to receive whole (RFC 791, section 3.2).
const MTU_MIN: u16 = 576;
/// The least MTU of an IPv6 link (RFC 8200, section 5).
const MTU_MIN_V6: u16 = 1280;

const PREFIX_V4: u8 = 24;
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
pub(crate) const DNS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// A prefix of our own (RFC 4193), unlikely to be the host's too.
const PREFIX_V6: u8 = 64;
const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfd6e, 0x7368, 0x756e, 0, 0, 0, 0, 0x15);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd6e, 0x7368, 0x756e, 0, 0, 0, 0, 2);
pub(crate) const DNS_V6: Ipv6Addr = Ipv6Addr::new(0xfd6e, 0x7368, 0x756e, 0, 0, 0, 0, 3);

/// The stack's Ethernet address, and passt's. passt's own choice depends on its version and on the host's
/// interfaces; the stack remembers it, and a passt that takes another's place must have the same.
const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x6e, 0x73, 0x15];
const ROUTER_MAC: &str = "52:54:00:6e:73:02";

/// Options that every passt since 2023-03 has, and that ours does not run without.
const NEEDED: [&str; 7] =
    ["--fd", "--foreground", "--no-map-gw", "--dns-forward", "--no-dhcp", "--no-dhcpv6", "--no-ra"];
/// Addresses that newer versions translate to the host unless they are told not to.
const MAPPED: [&str; 2] = ["--map-host-loopback", "--map-guest-addr"];

/// The MTU of a link with these settings.
pub(crate) fn mtu(settings: &Settings) -> Result<u16, Error> {
    let mtu = settings.mtu.unwrap_or(MTU);
    let least = if settings.ipv6 { MTU_MIN_V6 } else { MTU_MIN };
    if (least..=MTU_MAX).contains(&mtu) { Ok(mtu) } else { Err(Error::Mtu { mtu, least }) }
}

/// A network with addresses of its own.
pub(crate) fn own(mtu: u16, ipv6: bool) -> Network {
    let v4 =
        V4 { address: Ipv4Net::new(GUEST, PREFIX_V4).expect("24 bits are at most 32"), gateway: GATEWAY };
    let v6 = V6 {
        address: Ipv6Net::new(GUEST_V6, PREFIX_V6).expect("64 bits are at most 128"),
        gateway: GATEWAY_V6,
    };
    network(mtu, Some(v4), ipv6.then_some(v6))
}

/// A network with these addresses.
pub(crate) fn network(mtu: u16, v4: Option<V4>, v6: Option<V6>) -> Network {
    let dns = [v4.map(|_| IpAddr::V4(DNS)), v6.map(|_| IpAddr::V6(DNS_V6))];
    Network {
        mtu,
        mac: MAC,
        v4,
        v6,
        dns: dns.into_iter().flatten().next(),
        // passt(1), --dns-forward: "limited to UDP traffic".
        dns_over_tcp: false,
        name_servers: Vec::new(),
        // passt connects from the host to wherever a frame goes, so the host's own addresses and
        // loopback lead where they say: they are protected by name. Beside them, by the arguments
        // below, only its DNS leads to the host. `tests/host.rs` tries these and their neighbours.
        host: dns.into_iter().flatten().map(IpNet::from).collect(),
        // passt reads neither TCP's nor UDP's checksum: what it takes out it sends by the host's stack.
        // `tests/host.rs` holds it to that.
        trusted: true,
    }
}

/// The arguments that make passt agree, without those that say how frames get to it.
///
/// # Errors
/// [`Error::TooOld`]: an option is unknown that keeps the host's loopback closed, or the stack's
/// configuration ours.
pub(crate) fn arguments(network: &Network, publish: &[Publish], probe: &Probe) -> Result<Vec<String>, Error> {
    if let Some(option) = NEEDED.into_iter().find(|option| !probe.offers(option)) {
        return Err(Error::TooOld { program: probe.program.clone(), option });
    }
    let mut all: Vec<String> = ["--foreground", "--quiet", "--no-map-gw"].map(str::to_owned).to_vec();
    let mut say = |words: &[&str]| all.extend(words.iter().map(|&word| word.to_owned()));
    if probe.offers("--one-off") {
        say(&["--one-off"]);
    }
    for (option, protocol) in [("--tcp-ports", Protocol::Tcp), ("--udp-ports", Protocol::Udp)] {
        let of_protocol = publish.iter().filter(|publish| publish.protocol == protocol);
        let mut all: Vec<String> = of_protocol.map(ports).collect();
        if all.is_empty() {
            all.push("none".to_owned());
        }
        all.iter().for_each(|ports| say(&[option, ports]));
    }
    // The stack is configured by us, and asks nobody.
    say(&["--no-dhcp", "--no-dhcpv6", "--no-ra"]);
    for option in MAPPED.into_iter().filter(|option| probe.offers(option)) {
        say(&[option, "none"]);
    }
    say(&["--mac-addr", ROUTER_MAC, "--mtu", &network.mtu.to_string()]);
    if let Some(V4 { address, gateway }) = network.v4 {
        say(&["--address", &address.addr().to_string(), "--netmask", &address.prefix_len().to_string()]);
        say(&["--gateway", &gateway.to_string(), "--dns-forward", &DNS.to_string()]);
    } else {
        say(&["--ipv6-only"]);
    }
    if let Some(V6 { address, gateway }) = network.v6 {
        say(&["--address", &address.addr().to_string(), "--gateway", &gateway.to_string()]);
        say(&["--dns-forward", &DNS_V6.to_string()]);
    } else {
        say(&["--ipv4-only"]);
    }
    Ok(all)
}

/// As passt(1) wants it: `ADDR/FIRST-LAST:FIRST-LAST`.
fn ports(publish: &Publish) -> String {
    let address = publish.address.map(|address| format!("{address}/")).unwrap_or_default();
    format!("{address}{}:{}", publish.host_range(), publish.guest_range())
}

/// The network that is left of a plan when only some families work. The forwarder asks the host's name
/// server of its own family (`resolver` is resolv.conf(5)), so it is that of the first one there.
pub(crate) fn working(plan: &Network, v4: bool, v6: bool, resolver: &str) -> Network {
    let mut network = network(plan.mtu, plan.v4.filter(|_| v4), plan.v6.filter(|_| v6));
    let servers = resolver.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let word = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        word.split('%').next()?.parse::<IpAddr>().ok()
    });
    let reachable = |server: &IpAddr| match server {
        IpAddr::V4(_) => network.v4.is_some(),
        IpAddr::V6(_) => network.v6.is_some(),
    };
    let servers: Vec<IpAddr> = servers.filter(reachable).collect();
    if let Some(server) = servers.first() {
        network.dns = Some(if server.is_ipv4() { DNS.into() } else { DNS_V6.into() });
    }
    // What the first of a family says is shown as the forwarder's, also to whoever asked it by its name.
    network.name_servers.extend(servers.iter().find(|server| server.is_ipv4()));
    network.name_servers.extend(servers.iter().find(|server| server.is_ipv6()));
    network
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;

    fn settings(mtu: u16, ipv6: bool) -> Settings {
        let mut settings = Settings::default();
        (settings.mtu, settings.ipv6) = (Some(mtu), ipv6);
        settings
    }

    #[test]
    fn the_mtu_fits_the_protocols() {
        assert_eq!(mtu(&Settings::default()).unwrap(), MTU);
        assert!(mtu(&settings(1280, true)).is_ok());
        assert!(mtu(&settings(576, false)).is_ok());
        let error = mtu(&settings(1279, true)).unwrap_err();
        assert_eq!(error.to_string(), "an MTU of 1279 bytes is not within 1280 to 65520");
        assert!(mtu(&settings(MTU_MAX + 1, false)).is_err());
    }

    #[test]
    fn ports_are_written_as_passt_reads_them() {
        let written = |text: &str| ports(&text.parse().unwrap());
        assert_eq!(written("8080:80"), "8080:80");
        assert_eq!(written("127.0.0.1:8080-8089:80-89"), "127.0.0.1/8080-8089:80-89");
        assert_eq!(written("[::1]:8080:80/udp"), "::1/8080:80");
    }

    #[test]
    fn the_host_is_named_in_full() {
        let host = |network: &Network| network.host.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(host(&own(1500, true)), ["10.0.2.3/32", "fd6e:7368:756e::3/128"]);
        assert_eq!(host(&own(1500, false)), ["10.0.2.3/32"]);
    }

    #[test]
    fn a_family_that_does_not_work_is_left_out() {
        let plan = own(1500, true);
        let v6 = working(&plan, false, true, "nameserver 192.0.2.1\n");
        assert_eq!((v6.v4, v6.v6, v6.dns), (None, plan.v6, Some(DNS_V6.into())));
        let v4 = working(&plan, true, false, "nameserver fe80::1%eth0");
        assert_eq!((v4.v6, v4.dns, v4.host.len()), (None, Some(DNS.into()), 1));
    }

    #[test]
    fn dns_is_asked_in_the_family_of_the_hosts_name_server() {
        let plan = own(1500, true);
        let dns = |resolver| working(&plan, true, true, resolver).dns.unwrap();
        assert_eq!(dns("search example\nnameserver fe80::1%eth0\nnameserver 192.0.2.1\n"), DNS_V6);
        assert_eq!(dns("nameserver 127.0.0.53\nnameserver 2001:db8::1\n"), DNS);
        assert_eq!(dns(""), DNS);
    }
}
