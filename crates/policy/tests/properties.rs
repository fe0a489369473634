//! What holds for every list of rules and every destination.
// clippy.toml allows it in `#[test]` functions; the helpers beside them are tests too.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use netshunt_policy::{
    Action, DEPUTIES, Destination, Direction, Policy, Proto, Reason, Rule, Surroundings, UnixName,
    UnixPolicy, UnixVerdict, Verdict,
};
use proptest::prelude::*;

/// Every protected network of [`around`], written out once more, so that this file does not
/// believe the crate.
const PROTECTED: [&str; 13] = [
    "127.0.0.0/8",
    "0.0.0.0/32",
    "255.255.255.255/32",
    "::1/128",
    "::/128",
    "10.0.2.2/32",
    "198.51.100.7/32",
    "fec0::/64",
    "2001:db8:7::7/128",
    "169.254.0.0/16",
    "fe80::/10",
    "224.0.0.0/4",
    "ff00::/8",
];

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn around(link: bool) -> Surroundings {
    let host = ["10.0.2.2/32", "198.51.100.7/32", "fec0::/64", "2001:db8:7::7/128"];
    let mut guest = vec![net("127.0.0.0/8"), net("::1/128")];
    guest.extend(link.then(|| net("10.0.2.15/32")));
    Surroundings { link, shunt: true, host: host.map(net).to_vec(), guest, dns: None }
}

/// Addresses anywhere, but often where it is interesting: in protected networks, and in the
/// forms that carry an IPv4 address inside an IPv6 one.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        2 => any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())),
        2 => any::<u128>().prop_map(|bits| IpAddr::V6(bits.into())),
        4 => protected(),
        1 => (any::<u32>(), embeddings()).prop_map(|(v4, form)| IpAddr::V6(form(v4))),
        1 => (protected(), embeddings()).prop_map(|(address, form)| match address {
            IpAddr::V4(v4) => IpAddr::V6(form(v4.into())),
            v6 @ IpAddr::V6(_) => v6,
        }),
    ]
}

fn embeddings() -> impl Strategy<Value = fn(u32) -> Ipv6Addr> {
    let mapped: fn(u32) -> Ipv6Addr = |v4| Ipv4Addr::from(v4).to_ipv6_mapped();
    let nat64: fn(u32) -> Ipv6Addr = |v4| Ipv6Addr::from(0x0064_ff9b << 96 | u128::from(v4));
    let six_to_four: fn(u32) -> Ipv6Addr = |v4| Ipv6Addr::from(0x2002 << 112 | u128::from(v4) << 80);
    let compatible: fn(u32) -> Ipv6Addr = |v4| Ipv6Addr::from(u128::from(v4));
    prop::sample::select(vec![mapped, nat64, six_to_four, compatible])
}

fn protected() -> impl Strategy<Value = IpAddr> {
    (prop::sample::select(PROTECTED.to_vec()), any::<u128>())
        .prop_map(|(text, noise)| within(net(text), noise))
}

/// The address in `net` with the host bits of `noise`.
fn within(net: IpNet, noise: u128) -> IpAddr {
    match net {
        IpNet::V4(v4) => {
            let noise = u32::try_from(noise & 0xffff_ffff).unwrap();
            IpAddr::V4((u32::from(v4.network()) | (noise & u32::from(v4.hostmask()))).into())
        }
        IpNet::V6(v6) => IpAddr::V6((u128::from(v6.network()) | (noise & u128::from(v6.hostmask()))).into()),
    }
}

/// A network around an interesting address.
fn network() -> impl Strategy<Value = IpNet> {
    (address(), 0..=128u8).prop_map(|(address, len)| {
        let len = if address.is_ipv4() { len % 33 } else { len };
        IpNet::new(address, len).unwrap().trunc()
    })
}

fn dest(net: impl Strategy<Value = IpNet>) -> impl Strategy<Value = String> {
    net.prop_map(|net| match net {
        IpNet::V4(v4) if v4.prefix_len() == 32 => v4.addr().to_string(),
        IpNet::V4(v4) => v4.to_string(),
        IpNet::V6(v6) => format!("[{v6}]"),
    })
}

fn port_list() -> impl Strategy<Value = String> {
    let item = (1..=u16::MAX, 0..1000u16).prop_map(|(first, more)| match more {
        0..500 => first.to_string(),
        _ => format!("{first}-{}", first.saturating_add(more)),
    });
    prop::collection::vec(item, 1..4).prop_map(|items| format!(":{}", items.join(",")))
}

/// The text of a rule with one of `dest`.
fn rule_text(dest: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (prop::bool::weighted(0.2), dest, prop::option::of(port_list()), prop::option::of(0..3usize)).prop_map(
        |(inward, dest, ports, proto)| {
            let inward = if inward { "in:" } else { "" };
            let ports = ports.unwrap_or_default();
            let proto = match proto {
                Some(0) if ports.is_empty() => "/icmp",
                Some(1) => "/tcp",
                Some(2) => "/udp",
                _ => "",
            };
            format!("{inward}{dest}{ports}{proto}")
        },
    )
}

fn any_dest() -> impl Strategy<Value = String> {
    let words = ["*", "host-local", "link-local", "multicast"].map(str::to_owned).to_vec();
    prop_oneof![1 => prop::sample::select(words), 3 => dest(network())]
}

/// Destinations that open no protected group: everything, and networks inside none of them.
fn wide_dest() -> impl Strategy<Value = String> {
    let outside = network().prop_filter("inside a protected group", |net| !inside(*net));
    prop_oneof![1 => Just("*".to_owned()), 3 => dest(outside)]
}

/// By the ends of the network, however it spells IPv4.
fn inside(net: IpNet) -> bool {
    let (first, last) = (net.network(), net.broadcast());
    let both = |outer: &str| is_in(first, outer) && is_in(last, outer);
    // `::` and `::1` are neighbours, so this network holds nothing but the host either.
    PROTECTED.iter().any(|outer| both(outer)) || both("::/127")
}

fn is_in(address: IpAddr, outer: &str) -> bool {
    let outer = net(outer);
    spellings(address).into_iter().any(|address| outer.contains(&address))
}

/// The address, and the IPv4 address it may stand for.
fn spellings(address: IpAddr) -> Vec<IpAddr> {
    let mut all = vec![address];
    if let IpAddr::V6(v6) = address {
        let s = v6.segments();
        let low = || IpAddr::V4(Ipv4Addr::from(u32::from(s[6]) << 16 | u32::from(s[7])));
        match s {
            [0, 0, 0, 0, 0, 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => all.push(low()),
            [0, 0, 0, 0, 0, 0, high, _] if high > 0xff => all.push(low()),
            [0x2002, a, b, ..] => all.push(IpAddr::V4(Ipv4Addr::from(u32::from(a) << 16 | u32::from(b)))),
            _ => {}
        }
    }
    all
}

fn rules(dest: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<(Action, Rule)>> {
    let actions = vec![Action::Allow, Action::Bypass, Action::Deny];
    let rule = (prop::sample::select(actions), rule_text(dest))
        .prop_map(|(action, text)| (action, text.parse::<Rule>().unwrap_or_else(|e| panic!("{e}"))));
    prop::collection::vec(rule, 0..8)
}

/// Without a link no allow rules are possible.
fn policy(mut rules: Vec<(Action, Rule)>, link: bool) -> Policy {
    if !link {
        rules.retain(|(action, _)| *action != Action::Allow);
    }
    Policy::new(rules, around(link)).unwrap()
}

fn destination(address: impl Strategy<Value = IpAddr>) -> impl Strategy<Value = Destination> {
    let protos = prop::sample::select(vec![Proto::Icmp, Proto::Tcp, Proto::Udp]);
    (address, any::<u16>(), protos, prop::bool::weighted(0.2)).prop_map(|(ip, port, proto, inward)| {
        Destination {
            address: SocketAddr::new(ip, port),
            proto,
            direction: if inward { Direction::In } else { Direction::Out },
        }
    })
}

proptest! {
    // The filters above turn down a good part of what is drawn; long runs must not end on that.
    #![proptest_config(ProptestConfig { max_local_rejects: u32::MAX, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn a_rule_survives_being_printed(text in rule_text(any_dest())) {
        let rule: Rule = text.parse().map_err(|e| TestCaseError::fail(format!("{e}")))?;
        prop_assert_eq!(rule.to_string(), text);
        prop_assert_eq!(rule.to_string().parse::<Rule>().unwrap(), rule);
    }

    #[test]
    fn no_wide_rule_opens_a_protected_address(
        rules in rules(wide_dest()),
        to in destination(protected()),
        link: bool,
    ) {
        let ip = to.address.ip().to_canonical();
        let hosts = ip.is_unspecified() || ip.to_string() == "255.255.255.255"
            || around(link).host.iter().any(|net| net.contains(&ip));
        // To listen on those is what `in:` rules are for, wide ones too.
        prop_assume!(to.direction == Direction::Out || !hosts || ip.is_loopback());
        let policy = policy(rules, link);
        let verdict = policy.judge(&to).verdict;
        let own = around(link).guest.iter().any(|net| net.contains(&to.address.ip()));
        // The guest's own may be reached in the stack, and never by the host.
        let closed = matches!(verdict, Verdict::Deny(_)) || own && verdict == Verdict::Stack;
        prop_assert!(closed, "{}: {}", to, policy.judge(&to));
    }

    #[test]
    fn adding_a_deny_never_opens(
        rules in rules(any_dest()),
        deny in rule_text(any_dest()),
        place: prop::sample::Index,
        to in destination(address()),
        link: bool,
    ) {
        let before = policy(rules.clone(), link).judge(&to).verdict;
        let mut more = rules;
        more.insert(place.index(more.len() + 1), (Action::Deny, deny.parse().unwrap()));
        let after = policy(more, link).judge(&to).verdict;
        prop_assert!(after == before || matches!(after, Verdict::Deny(_)), "{}: {} to {}", to, before, after);
    }

    #[test]
    fn a_mapped_address_is_judged_as_the_ipv4_one(
        rules in rules(any_dest()),
        to in destination(any::<u32>().prop_map(|bits| IpAddr::V4(bits.into())).boxed()
            .prop_union(protected().prop_filter("IPv4", IpAddr::is_ipv4).boxed())),
        link: bool,
    ) {
        let policy = policy(rules, link);
        let IpAddr::V4(v4) = to.address.ip() else { unreachable!("filtered") };
        let mut mapped = to;
        mapped.address.set_ip(IpAddr::V6(v4.to_ipv6_mapped()));
        prop_assert_eq!(policy.judge(&to), policy.judge(&mapped));
    }

    #[test]
    fn every_decision_agrees_with_itself(
        rules in rules(any_dest()),
        to in destination(address()),
        link: bool,
    ) {
        let policy = policy(rules, link);
        let decision = policy.judge(&to);
        let action = match decision.verdict {
            Verdict::Bypass => Action::Bypass,
            Verdict::Deny(_) => Action::Deny,
            Verdict::Stack => Action::Allow,
        };
        prop_assert_eq!(decision.action, action);
        let stays = to.direction == Direction::In || decision.why == Reason::GuestOwn;
        prop_assert!(link || stays || decision.verdict != Verdict::Stack, "no way out");
        prop_assert!(!decision.to_string().is_empty());
    }

    #[test]
    fn parsing_never_panics_and_the_caret_stands_on_a_character(text in any::<String>()) {
        points_at_a_character(&text)?;
    }

    #[test]
    fn parsing_near_rules_never_panics(text in r"(in:)?[\[\]*:/,.0-9a-fé% -]{0,24}(/(tcp|udp|icmp|ü))?") {
        points_at_a_character(&text)?;
    }

    #[test]
    fn a_rule_with_one_character_changed_never_panics(
        text in rule_text(any_dest()),
        place: prop::sample::Index,
        c: char,
    ) {
        let mut chars: Vec<_> = text.chars().collect();
        let place = place.index(chars.len());
        chars[place] = c;
        points_at_a_character(&chars.iter().collect::<String>())?;
    }

    #[test]
    fn unix_verdicts_are_total_and_never_wider_than_allow(path in any::<Vec<u8>>(), inside: bool) {
        use std::os::unix::ffi::OsStrExt;
        let name = UnixName::Path(std::path::Path::new(std::ffi::OsStr::from_bytes(&path)));
        for policy in [UnixPolicy::Default, UnixPolicy::Deny, UnixPolicy::Inside, UnixPolicy::Paths(vec!["/".into()])] {
            prop_assert!(!inside || policy.judge(name, inside) == UnixVerdict::Allow);
            prop_assert!(path.first() == Some(&b'/') || inside || policy.judge(name, false) != UnixVerdict::Allow);
        }
        prop_assert_eq!(UnixPolicy::Allow.judge(name, inside), UnixVerdict::Allow);
    }

    #[test]
    fn every_deputy_is_refused_under_both_names_of_run(
        deputy in prop::sample::select(DEPUTIES.to_vec()),
        word in "[a-z0-9]{1,8}",
    ) {
        let path = deputy.pattern.replace("**", &format!("{word}/{word}")).replace('*', &word);
        let refused = |path: &str| UnixPolicy::Default.judge(UnixName::Path(path.as_ref()), false) != UnixVerdict::Allow;
        prop_assert!(refused(&path), "{}", path);
        if path.starts_with("/run/") {
            prop_assert!(refused(&format!("/var{path}")), "/var{}", path);
        }
    }
}

fn points_at_a_character(text: &str) -> Result<(), TestCaseError> {
    match text.parse::<Rule>() {
        Ok(rule) => prop_assert_eq!(rule.to_string(), text),
        Err(error) => {
            prop_assert_eq!(error.text(), text);
            prop_assert!(text.is_char_boundary(error.offset()));
            let shown = error.to_string();
            let lines: Vec<_> = shown.split('\n').collect();
            prop_assert_eq!(lines.len(), 3, "{}", shown);
            prop_assert!(lines[2].ends_with('^') && lines[2].chars().count() <= lines[1].chars().count() + 1);
        }
    }
    Ok(())
}
