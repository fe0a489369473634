//! Texts that are rules, nearly, or not at all.

use netshunt_fuzz::{Input, fuzz};

use super::*;
use crate::Rule;

const WORDS: &[&str] = &[
    "in:",
    "out:",
    "*",
    "host-local",
    "link-local",
    "multicast",
    "private",
    "192.0.2.10",
    "10.0.0.0",
    "0.0.0.0",
    "255.255.255.255",
    "[",
    "]",
    "::1",
    "2001:db8::",
    "::ffff:10.0.0.0",
    "fe80::1",
    "::",
    ":",
    "/",
    ",",
    "-",
    "80",
    "0",
    "65535",
    "65536",
    "8000-8099",
    "tcp",
    "udp",
    "icmp",
    "/tcp",
    "/udp",
    "/8",
    "/32",
    "/33",
    "/104",
    "/128",
    "/0",
    ".",
    "01",
    "+1",
    "[2001:db8::/32]",
    "[::ffff:10.0.0.0/104]",
    ":443",
    "localhost",
];

/// A rule as it is written, most often.
fn written(input: &mut Input<'_>) -> String {
    if input.one_in(3) {
        return input.text(WORDS, 10);
    }
    let mut text = String::from(*input.pick(&["", "", "in:"]));
    match input.up_to(4) {
        0 => text.push_str(input.pick::<&str>(&["*", "host-local", "link-local", "multicast"])),
        1 => text.push_str(&Ipv4Addr::from(input.array()).to_string()),
        2 => {
            let length = input.up_to(33) as u8;
            let net = Ipv4Net::new(Ipv4Addr::from(input.array()), length.min(32)).unwrap();
            text.push_str(&format!("{}/{length}", if input.one_in(8) { net.addr() } else { net.network() }));
        }
        3 => text.push_str(&format!("[{}]", Ipv6Addr::from(input.array()))),
        _ => {
            let net = Ipv6Net::new(Ipv6Addr::from(input.array()), input.up_to(128) as u8).unwrap().trunc();
            text.push_str(&format!("[{net}]"));
        }
    }
    for n in 0..input.up_to(3) {
        text.push(if n == 0 { ':' } else { ',' });
        text.push_str(&input.short().to_string());
        if input.one_in(3) {
            text.push_str(&format!("-{}", input.short()));
        }
    }
    text.push_str(input.pick::<&str>(&["", "", "/tcp", "/udp", "/icmp"]));
    if input.one_in(8) {
        let at = input.up_to(text.len());
        if text.is_char_boundary(at) {
            text.insert_str(at, input.pick::<&str>(WORDS));
        }
    }
    text
}

/// The rule spelt anew from what it means.
fn spelt(meaning: &Meaning) -> String {
    let mut text = String::from(if meaning.direction == Direction::In { "in:" } else { "" });
    match meaning.dest {
        Dest::Any => text.push('*'),
        Dest::Group(group) => text.push_str(group.name()),
        Dest::Net(IpNet::V4(net)) => text.push_str(&net.to_string()),
        Dest::Net(IpNet::V6(net)) => text.push_str(&format!("[{net}]")),
    }
    for (n, range) in meaning.ports.iter().flatten().enumerate() {
        text.push_str(&format!("{}{}-{}", if n == 0 { ":" } else { "," }, range.start(), range.end()));
    }
    if let Some(proto) = meaning.proto {
        text.push_str(&format!("/{proto}"));
    }
    text
}

/// A rule means one thing, however it is spelt; what is none is told at a character, in three lines without tricks.
fn read(input: &mut Input<'_>) {
    let text = written(input);
    match text.parse::<Rule>() {
        Ok(rule) => {
            let Meaning { dest, ports, proto, .. } = &rule.meaning;
            input.reached((std::mem::discriminant(dest), ports.as_ref().map(Vec::len), *proto));
            assert_eq!(rule.to_string(), text);
            assert_eq!(spelt(&rule.meaning).parse::<Rule>().expect("it is a rule"), rule);
            assert!(ports.iter().flatten().all(|range| !range.is_empty() && *range.start() > 0));
            assert!(ports.as_ref().is_none_or(|ports| !ports.is_empty()));
            assert!(!(*proto == Some(Proto::Icmp) && ports.is_some()));
            if let Dest::Net(net) = dest {
                assert_eq!(net.addr(), net.network());
                let mapped = matches!(net, IpNet::V6(net) if net.addr().to_ipv4_mapped().is_some() && net.prefix_len() >= 96);
                assert!(!mapped, "{net}");
            }
        }
        Err(error) => {
            if !text.contains('`') {
                // Without what is quoted.
                let what: String = error.what().split('`').step_by(2).collect();
                input.reached(what.chars().take(20).collect::<String>());
            }
            assert!(text.is_char_boundary(error.offset()), "{error}");
            let told = error.to_string();
            assert_eq!(told.lines().count(), 3, "{told}");
            assert!(!told.chars().any(|c| c != '\n' && c.is_control()), "{told:?}");
        }
    }
}

#[test]
fn texts_of_rules() {
    fuzz("texts_of_rules", read);
}
