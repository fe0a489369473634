//! Addresses in other clothes.
//!
//! - `::ffff:a.b.c.d` (IPv4-mapped) is *normalised*: on a dual-stack socket Linux sends IPv4 to
//!   a.b.c.d, so it is that address and every rule must see it as such.
//! - `::a.b.c.d` (IPv4-compatible, deprecated by RFC 4291 2.5.5.1), `64:ff9b::a.b.c.d` (NAT64,
//!   RFC 6052) and `2002:aabb:ccdd::/48` (6to4, RFC 3056) are *not* normalised. They leave as
//!   IPv6, and only a translator or tunnel on the way, if there is one, turns them into IPv4. To
//!   call them a.b.c.d would let a rule that opens a.b.c.d open a different destination, so what
//!   opens looks at the address as it is. What closes (deny rules, protected groups) looks at
//!   both: behind a NAT64, `64:ff9b::a9fe:a9fe` is the metadata server.
//! - NAT64 prefixes of an operator's own (RFC 6052 2.2, RFC 8215) cannot be known here: name them
//!   in a deny rule.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// `::ffff:0:0/96`.
const MAPPED: u128 = 0xffff << 32;
/// `64:ff9b::/96`.
const NAT64: u128 = 0x0064_ff9b << 96;
/// `2002::/16`.
const SIX_TO_FOUR: u128 = 0x2002 << 112;

/// The network with an IPv4-mapped one turned into IPv4, and with its host bits cleared.
pub(crate) fn normal(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net.trunc() };
    inner(v6, MAPPED, 96).map_or_else(|| net.trunc(), IpNet::V4)
}

/// The address as a network of one, normalised.
pub(crate) fn host(address: IpAddr) -> IpNet {
    IpNet::from(address.to_canonical())
}

/// The IPv4 network that an IPv6 one stands for if somebody on the way translates it.
pub(crate) fn embedded(net: IpNet) -> Option<IpNet> {
    let IpNet::V6(v6) = net else { return None };
    let compatible = || {
        // `::` and `::1` lie in ::/96 too and are no IPv4; nothing in 0.0.0.0/8 can be reached.
        inner(v6, 0, 96).filter(|v4| v4.network().octets()[0] != 0)
    };
    inner(v6, NAT64, 96).or_else(|| inner(v6, SIX_TO_FOUR, 16)).or_else(compatible).map(IpNet::V4)
}

/// The 32 bits of `net` behind the `len` bits of `prefix`, if `net` lies wholly behind it.
fn inner(net: Ipv6Net, prefix: u128, len: u8) -> Option<Ipv4Net> {
    let bits = net.network().to_bits();
    let beyond = 128 - u32::from(len);
    if net.prefix_len() < len || bits >> beyond != prefix >> beyond {
        return None;
    }
    let v4 = u32::try_from((bits >> (beyond - 32)) & 0xffff_ffff).expect("masked to 32 bits");
    let v4_len = (net.prefix_len() - len).min(32);
    Some(Ipv4Net::new_assert(v4.into(), v4_len).trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn mapped_is_ipv4() {
        assert_eq!(normal(net("::ffff:10.0.0.1/128")), net("10.0.0.1/32"));
        assert_eq!(normal(net("::ffff:10.0.0.0/104")), net("10.0.0.0/8"));
        assert_eq!(normal(net("::ffff:0:0/96")), net("0.0.0.0/0"));
        assert_eq!(normal(net("::/0")), net("::/0"));
        assert_eq!(host("::ffff:1.2.3.4".parse().unwrap()), net("1.2.3.4/32"));
        assert_eq!(host("::1".parse().unwrap()), net("::1/128"));
    }

    #[test]
    fn translated_forms_are_seen_through() {
        let through = |text| embedded(net(text)).map(|net| net.to_string());
        assert_eq!(through("64:ff9b::a9fe:a9fe/128").as_deref(), Some("169.254.169.254/32"));
        assert_eq!(through("64:ff9b::a9fe:0/112").as_deref(), Some("169.254.0.0/16"));
        assert_eq!(through("64:ff9b::/96").as_deref(), Some("0.0.0.0/0"));
        assert_eq!(through("64:ff9b::/95"), None);
        assert_eq!(through("2002:7f00:1::5/128").as_deref(), Some("127.0.0.1/32"));
        assert_eq!(through("2002:7f00::/24").as_deref(), Some("127.0.0.0/8"));
        assert_eq!(through("::127.0.0.1/128").as_deref(), Some("127.0.0.1/32"));
        assert_eq!(through("::1/128"), None);
        assert_eq!(through("::/128"), None);
        assert_eq!(through("2001:db8::1/128"), None);
        assert_eq!(through("127.0.0.1/32"), None);
    }
}
