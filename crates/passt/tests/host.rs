//! `Network` is true of real passts: what `host` leaves out does not reach the host, checksums are not
//! looked at, and the families are those that work.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use std::collections::BTreeSet;
use std::error::Error as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use common::*;
use etherparse::{SlicedPacket, TransportSlice};
use netshunt_backend::Link;

/// Sockets of the host on every address of a family, TCP and UDP.
struct Host {
    udp: UdpSocket,
    tcp: TcpListener,
    port: u16,
}

impl Host {
    fn listen(v6: bool) -> Host {
        let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let udp = UdpSocket::bind((any, 0)).unwrap();
        let port = udp.local_addr().unwrap().port();
        let tcp = TcpListener::bind((any, port)).unwrap();
        udp.set_nonblocking(true).unwrap();
        tcp.set_nonblocking(true).unwrap();
        Host { udp, tcp, port }
    }

    /// What the datagrams that have come say, and the connections.
    fn heard(&self) -> (BTreeSet<String>, Vec<SocketAddr>) {
        let (mut said, mut accepted, mut buffer) = (BTreeSet::new(), Vec::new(), [0; 64]);
        while let Ok(count) = self.udp.recv(&mut buffer) {
            said.insert(String::from_utf8_lossy(&buffer[..count]).into_owned());
        }
        while let Ok((stream, _)) = self.tcp.accept() {
            accepted.push(stream.local_addr().unwrap());
        }
        (said, accepted)
    }
}

/// What the policy protects by name, whatever a link says; `own` are the addresses of the host's interfaces.
fn by_name(to: IpAddr, own: &[IpAddr]) -> bool {
    let named = match to {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_unspecified() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local(),
    };
    named || to.is_multicast() || own.contains(&to)
}

fn own() -> Vec<IpAddr> {
    let address = |a: nix::ifaddrs::InterfaceAddress| {
        let address = a.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())))
    };
    nix::ifaddrs::getifaddrs().unwrap().filter_map(address).collect()
}

const TRIED: [&str; 29] = [
    "10.0.2.0",
    "10.0.2.1",
    "10.0.2.2",
    "10.0.2.3",
    "10.0.2.9",
    "10.0.2.15",
    "10.0.2.255",
    "0.0.0.0",
    "127.0.0.1",
    "127.0.0.53",
    "169.254.1.1",
    "169.254.2.1",
    "169.254.2.2",
    "192.0.2.1",
    "192.0.2.77",
    "192.0.2.255",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "fd6e:7368:756e::2",
    "fd6e:7368:756e::3",
    "fd6e:7368:756e::9",
    "fd6e:7368:756e::15",
    "fd01::1",
    "fe80::1",
    "fe80::2",
    "ff02::1",
    "::1",
    "::",
];

#[test]
fn nothing_reaches_the_host_that_is_not_listed() {
    each("nothing_reaches_the_host_that_is_not_listed", &[BARE, V4, V6], |case| {
        let own = own();
        assert!(own.contains(&HOST.into()) && own.contains(&HOST_V6.into()), "{own:?}");
        let tried = TRIED.iter().map(|text| text.parse().unwrap());
        let near =
            own.iter().copied().filter(|own| matches!(own, IpAddr::V6(v6) if v6.is_unicast_link_local()));
        let tried: Vec<IpAddr> = tried.chain(near).collect();
        for v6 in [false, true] {
            let host = Host::listen(v6);
            let fence = if v6 { HOST_V6.into() } else { IpAddr::from(HOST) };
            let mut wire = Wire::open(case);
            wire.arp();
            let mac = wire.mac;
            let mut from = 5000;
            for to in tried.iter().copied().filter(|to| to.is_ipv6() == v6) {
                from += 1;
                wire.send(&udp(mac, to, from, host.port, to.to_string().as_bytes()));
                wire.send(&syn(mac, to, from, host.port));
            }
            // Two that must arrive, one after the other: what was sent before them has been dealt with.
            let (mut said, mut accepted) = (BTreeSet::new(), Vec::new());
            for fence_port in [4000, 4001] {
                wire.send(&udp(mac, fence, fence_port, host.port, b"fence"));
                wire.send(&syn(mac, fence, fence_port, host.port));
                wire.until("fence", |_| {
                    let heard = host.heard();
                    said.extend(heard.0);
                    accepted.extend(heard.1.iter().map(SocketAddr::ip));
                    (said.remove("fence") | accepted.contains(&fence)).then_some(())
                });
            }
            let host_nets = &wire.link.network().host;
            let listed = |to: &IpAddr| host_nets.iter().any(|net| net.contains(to)) || by_name(*to, &own);
            let said: Vec<IpAddr> = said.iter().map(|text| text.parse().unwrap()).collect();
            assert!(said.iter().all(listed), "{case}: datagrams to {said:?}");
            assert!(accepted.iter().all(listed), "{case}: connections to {accepted:?}");
        }
    });
}

#[test]
fn its_dns_reaches_the_loopback_and_is_listed() {
    // A low port is root's, or anybody's here.
    let anybody = "echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start";
    each("its_dns_reaches_the_loopback_and_is_listed", &[BARE, V4, V6, anybody], |case| {
        let resolver = UdpSocket::bind("127.0.0.53:53").unwrap();
        resolver.set_nonblocking(true).unwrap();
        let mut wire = Wire::open(case);
        wire.arp();
        let dns = wire.link.network().dns.unwrap();
        assert!(wire.link.network().host.iter().any(|net| net.contains(&dns)), "{dns}");
        wire.send(&udp(wire.mac, dns, 5000, 53, b"question"));
        let mut buffer = [0; 64];
        let (count, from) = wire.until("question", |_| resolver.recv_from(&mut buffer).ok());
        assert_eq!(&buffer[..count], b"question");
        resolver.send_to(b"answer", from).unwrap();
        wire.expect("answer", |frame| {
            let packet = SlicedPacket::from_ethernet(frame).ok()?;
            let Some(TransportSlice::Udp(udp)) = packet.transport else { return None };
            (udp.source_port() == 53 && udp.payload() == b"answer").then_some(())
        });
    });
}

#[test]
fn checksums_are_not_looked_at() {
    each("checksums_are_not_looked_at", &[BARE, V4, V6], |case| {
        for (v6, to) in [(false, HOST.into()), (true, IpAddr::from(HOST_V6))] {
            let host = Host::listen(v6);
            let mut wire = Wire::open(case);
            assert!(wire.link.network().trusted);
            wire.arp();
            // Behind Ethernet and IP: UDP's checksum is at 6, TCP's at 16.
            let transport = if v6 { 54 } else { 34 };
            let mut datagram = udp(wire.mac, to, 5000, host.port, b"wrong");
            datagram[transport + 6] ^= 0x55;
            wire.send(&datagram);
            wire.until("datagram: say in `trusted` that passt verifies checksums now", |_| {
                host.heard().0.contains("wrong").then_some(())
            });
            let mut request = syn(wire.mac, to, 6000, host.port);
            request[transport + 16] ^= 0x55;
            wire.send(&request);
            wire.expect("SYN-ACK", |frame| {
                let packet = SlicedPacket::from_ethernet(frame).ok()?;
                let Some(TransportSlice::Tcp(tcp)) = packet.transport else { return None };
                (tcp.destination_port() == 6000 && tcp.syn() && tcp.ack()).then_some(())
            });
        }
    });
}

/// Whether the program serves a family without a default route on the host.
fn needs_no_route(case: &Case) -> bool {
    netshunt_passt::probe(Some(&case.program)).unwrap().offers("--map-guest-addr")
}

#[test]
fn on_a_host_with_ipv4_alone_that_works() {
    each("on_a_host_with_ipv4_alone_that_works", &[BARE, V4], |case| {
        let wire = Wire::open(case);
        let network = wire.link.network();
        assert!(network.v4.is_some(), "{network:?}");
        assert_eq!(network.v6.is_some(), needs_no_route(case), "{network:?}");
        assert_eq!(network.dns.unwrap().to_string(), "10.0.2.3");
    });
}

#[test]
fn on_a_host_with_ipv6_alone_that_works() {
    each("on_a_host_with_ipv6_alone_that_works", &[BARE, V6], |case| {
        let wire = Wire::open(case);
        let network = wire.link.network();
        assert!(network.v6.is_some(), "{network:?}");
        assert_eq!(network.v4.is_some(), needs_no_route(case), "{network:?}");
    });
}

#[test]
fn on_a_host_without_routes_it_works_or_says_why_not() {
    each("on_a_host_without_routes_it_works_or_says_why_not", &[BARE], |case| {
        match runtime().block_on(backend(case, None, "").link()) {
            Ok(link) => assert!(needs_no_route(case) && link.network().v4.is_some(), "{link:?}"),
            Err(error) => {
                assert!(!needs_no_route(case));
                let why = error.source().unwrap().to_string();
                assert!(why.contains("exit status 1") && why.contains("No external routable"), "{why}");
                assert!(error.to_string().contains("--net=slirp"), "{error}");
            }
        }
    });
}

#[test]
fn the_stack_can_have_the_hosts_addresses() {
    each("the_stack_can_have_the_hosts_addresses", &[BARE, V4, V6], |case| {
        let link = runtime().block_on(backend(case, None, "addresses = 'host'").link()).unwrap();
        let (v4, v6) = (link.network().v4.unwrap(), link.network().v6.unwrap());
        assert_eq!(v4.address.to_string(), "192.0.2.2/24");
        assert_eq!(v4.gateway.to_string(), "192.0.2.1");
        assert_eq!(v6.address.to_string(), "fd01::2/64");
        assert_eq!(v6.gateway.to_string(), "fd01::1");
    });
}

#[test]
fn without_a_route_there_are_no_addresses_to_copy() {
    each("without_a_route_there_are_no_addresses_to_copy", &[BARE], |case| {
        let opened = runtime().block_on(backend(case, None, "addresses = 'host'").link());
        let error = opened.unwrap_err();
        assert!(error.to_string().contains("addresses = \"own\""), "{error}");
    });
}
