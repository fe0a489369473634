//! What a list of rules means, one sentence of the specification per test.
// clippy.toml allows it in `#[test]` functions; the helpers beside them are tests too.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use ipnet::IpNet;
use netshunt_policy::{
    Action, Destination, Direction, Errno, Group, Policy, PolicyError, Proto, Reason, Rule, Surroundings,
    Verdict,
};

const REFUSED: Verdict = Verdict::Deny(Errno::EACCES);

/// A host at 198.51.100.7 with slirp's usual addresses.
fn slirp() -> Surroundings {
    Surroundings {
        link: true,
        shunt: true,
        host: nets("198.51.100.7/32 fe80::7/128 10.0.2.2/32 10.0.2.3/32 fec0::/64"),
        guest: nets("127.0.0.0/8 ::1/128 10.0.2.15/24 fec0::15/64"),
        dns: Some("10.0.2.3".parse().unwrap()),
    }
}

/// The same host without a link.
fn shunt() -> Surroundings {
    Surroundings {
        shunt: true,
        host: nets("198.51.100.7/32 fe80::7/128"),
        guest: nets("127.0.0.0/8 ::1/128"),
        ..Surroundings::default()
    }
}

fn nets(text: &str) -> Vec<IpNet> {
    text.split(' ').map(|net| net.parse().unwrap()).collect()
}

/// Rules as on a command line: `--bypass X --deny Y`.
fn rules(line: &str) -> Vec<(Action, Rule)> {
    let words: Vec<_> = line.split_whitespace().collect();
    words
        .chunks(2)
        .map(|pair| {
            let action = match pair[0] {
                "--allow" => Action::Allow,
                "--bypass" => Action::Bypass,
                "--deny" => Action::Deny,
                other => panic!("{other}"),
            };
            (action, pair[1].parse().unwrap())
        })
        .collect()
}

fn policy(line: &str, around: Surroundings) -> Policy {
    Policy::new(rules(line), around).unwrap()
}

fn tcp(to: &str) -> Destination {
    Destination::tcp(to.parse().unwrap())
}

fn verdict(policy: &Policy, to: &str) -> Verdict {
    policy.judge(&tcp(to)).verdict
}

fn why(policy: &Policy, to: &str) -> Reason {
    policy.judge(&tcp(to)).why
}

#[test]
fn the_first_matching_rule_wins() {
    let policy = policy("--deny 192.0.2.1 --bypass 192.0.2.0/24 --allow 192.0.2.2", slirp());
    assert_eq!(verdict(&policy, "192.0.2.1:80"), REFUSED);
    let decision = policy.judge(&tcp("192.0.2.2:80"));
    assert_eq!(
        (decision.verdict, decision.why, decision.action),
        (Verdict::Bypass, Reason::Rule(1), Action::Bypass)
    );
    assert_eq!(decision.rule.unwrap().to_string(), "192.0.2.0/24");
}

#[test]
fn the_default_is_the_stack_with_a_link_and_a_refusal_without() {
    assert_eq!(verdict(&policy("", slirp()), "192.0.2.1:80"), Verdict::Stack);
    assert_eq!(verdict(&policy("", shunt()), "192.0.2.1:80"), REFUSED);
    assert_eq!(why(&policy("", shunt()), "192.0.2.1:80"), Reason::Default);
}

#[test]
fn no_wider_rule_opens_a_protected_group() {
    let wide = "--bypass * --allow 0.0.0.0/0 --allow [::/0] --allow 10.0.0.0/8 --bypass 168.0.0.0/6 \
                --bypass 198.51.100.0/24 --allow 224.0.0.0/3 --bypass [fe00::/7]";
    let policy = policy(wide, slirp());
    for to in [
        "10.0.2.2:8080",
        "10.0.2.3:80",
        "198.51.100.7:22",
        "[fe80::7]:22",
        "[fec0::2]:80",
        "255.255.255.255:80",
        "0.0.0.0:80",
        "[::]:80",
        "169.254.169.254:80",
        "[fe80::1234]:80",
        "224.0.0.251:5353",
        "[ff02::fb]:5353",
    ] {
        let decision = policy.judge(&tcp(to));
        assert_eq!(decision.verdict, REFUSED, "{to}: {decision}");
        assert!(matches!(decision.why, Reason::Protected(_)), "{to}: {decision}");
    }
    assert_eq!(verdict(&policy, "203.0.113.1:80"), Verdict::Bypass);
}

#[test]
fn a_rule_passed_over_leaves_the_address_to_later_ones() {
    let policy = policy("--bypass * --allow 10.0.2.2:8080", slirp());
    assert_eq!(why(&policy, "10.0.2.2:8080"), Reason::Rule(1));
    assert_eq!(why(&policy, "10.0.2.2:8081"), Reason::Protected(Group::HostLocal));
}

#[test]
fn a_destination_wholly_inside_opens_a_protected_address() {
    let policy = policy(
        "--allow 10.0.2.2:8080 --bypass 169.254.169.254:80 --allow 224.0.0.0/24 --bypass [fe80::/64]:22",
        slirp(),
    );
    assert_eq!(verdict(&policy, "10.0.2.2:8080"), Verdict::Stack);
    assert_eq!(verdict(&policy, "10.0.2.2:8081"), REFUSED);
    assert_eq!(verdict(&policy, "169.254.169.254:80"), Verdict::Bypass);
    assert_eq!(verdict(&policy, "224.0.0.251:53"), Verdict::Stack);
    assert_eq!(verdict(&policy, "224.0.1.1:53"), REFUSED);
    assert_eq!(verdict(&policy, "[fe80::1]:22"), Verdict::Bypass);
    // The host's own link-local address is the host's first.
    assert_eq!(why(&policy, "[fe80::7]:22"), Reason::Protected(Group::HostLocal));
}

#[test]
fn a_destination_may_span_neighbours_of_one_group() {
    let mut around = shunt();
    around.host.extend(nets("203.0.113.4/32 203.0.113.5/32"));
    let policy = policy("--bypass 203.0.113.4/31 --bypass 203.0.113.4/30", around);
    assert_eq!(verdict(&policy, "203.0.113.5:80"), Verdict::Bypass);
    assert_eq!(why(&policy, "203.0.113.4:80"), Reason::Rule(0));
    assert_eq!(why(&policy, "203.0.113.6:80"), Reason::Rule(1));
}

#[test]
fn a_group_opens_by_its_own_name_only() {
    let policy = policy("--bypass link-local --allow host-local:631", slirp());
    assert_eq!(verdict(&policy, "169.254.1.1:80"), Verdict::Bypass);
    assert_eq!(verdict(&policy, "[fe80::1]:80"), Verdict::Bypass);
    assert_eq!(verdict(&policy, "198.51.100.7:631"), Verdict::Stack);
    assert_eq!(verdict(&policy, "[fe80::7]:631"), Verdict::Stack);
    assert_eq!(verdict(&policy, "[fe80::7]:80"), REFUSED);
    assert_eq!(verdict(&policy, "224.0.0.1:80"), REFUSED);
}

#[test]
fn deny_rules_always_apply_also_wide_ones() {
    let policy = policy("--deny * --allow 10.0.2.2:8080 --bypass 127.0.0.1:80", slirp());
    for to in ["10.0.2.2:8080", "127.0.0.1:80", "10.0.2.15:80", "192.0.2.1:80", "10.0.2.3:53"] {
        assert_eq!(why(&policy, to), Reason::Rule(0), "{to}");
        assert_eq!(verdict(&policy, to), REFUSED, "{to}");
    }
}

#[test]
fn an_allow_rule_before_a_wide_deny_keeps_the_guests_loopback() {
    let policy = policy("--allow 127.0.0.0/8 --deny *", slirp());
    let decision = policy.judge(&tcp("127.0.0.1:80"));
    assert_eq!((decision.verdict, decision.why), (Verdict::Stack, Reason::GuestOwn));
    assert_eq!(decision.rule.unwrap().to_string(), "127.0.0.0/8");
}

#[test]
fn the_unspecified_address_is_host_local() {
    for around in [slirp(), shunt()] {
        let policy = policy("--bypass *", around);
        assert_eq!(why(&policy, "0.0.0.0:80"), Reason::Protected(Group::HostLocal));
        assert_eq!(why(&policy, "[::]:80"), Reason::Protected(Group::HostLocal));
        assert_eq!(why(&policy, "[::ffff:0.0.0.0]:80"), Reason::Protected(Group::HostLocal));
    }
}

#[test]
fn with_a_link_the_loopback_is_the_guests() {
    let policy = policy("--bypass * --bypass host-local --bypass 0.0.0.0/0:80", slirp());
    for to in ["127.0.0.1:80", "127.9.9.9:1", "[::1]:80", "10.0.2.15:80", "[fec0::15]:80"] {
        let decision = policy.judge(&tcp(to));
        assert_eq!((decision.verdict, decision.why), (Verdict::Stack, Reason::GuestOwn), "{to}");
        assert_eq!(decision.rule, None);
    }
}

#[test]
fn a_bypass_rule_that_names_the_very_port_leads_out_of_the_guests_loopback() {
    let policy = policy("--bypass 127.0.0.1:5432 --bypass 127.0.0.2 --bypass [::1]:80-90/tcp", slirp());
    assert_eq!(verdict(&policy, "127.0.0.1:5432"), Verdict::Bypass);
    assert_eq!(verdict(&policy, "[::ffff:127.0.0.1]:5432"), Verdict::Bypass);
    assert_eq!(verdict(&policy, "[::1]:85"), Verdict::Bypass);
    assert_eq!(why(&policy, "127.0.0.1:5433"), Reason::GuestOwn);
    assert_eq!(why(&policy, "127.0.0.2:80"), Reason::GuestOwn, "no port is named");
}

#[test]
fn an_entry_of_the_guest_with_host_bits_is_one_address() {
    // 10.0.2.15/24 must not make the gateway 10.0.2.2 the guest's.
    let mut around = slirp();
    around.host.clear();
    let policy = policy("", around);
    assert_eq!(why(&policy, "10.0.2.15:80"), Reason::GuestOwn);
    assert_eq!(why(&policy, "10.0.2.2:80"), Reason::Default);
}

#[test]
fn without_a_link_the_loopback_is_the_guests_too() {
    let policy = policy("--bypass * --bypass 127.0.0.1:5432 --bypass 127.0.0.2", shunt());
    assert_eq!(why(&policy, "127.0.0.1:80"), Reason::GuestOwn);
    assert_eq!(verdict(&policy, "127.0.0.1:5432"), Verdict::Bypass);
    assert_eq!(why(&policy, "127.0.0.2:80"), Reason::GuestOwn, "no port is named");
    assert_eq!(why(&policy, "[::1]:80"), Reason::GuestOwn);
}

#[test]
fn the_forwarder_is_open_on_port_53_over_udp_and_tcp() {
    let policy = policy("--bypass * --allow 10.0.0.0/8", slirp());
    let mut to = tcp("10.0.2.3:53");
    assert_eq!(policy.judge(&to).verdict, Verdict::Stack);
    assert_eq!(policy.judge(&to).why, Reason::Dns);
    to.proto = Proto::Udp;
    assert_eq!(policy.judge(&to).why, Reason::Dns);
    to.proto = Proto::Icmp;
    assert_eq!(policy.judge(&to).why, Reason::Protected(Group::HostLocal));
    assert_eq!(verdict(&policy, "10.0.2.3:80"), REFUSED);

    let closed = Surroundings { dns: None, ..slirp() };
    assert_eq!(verdict(&self::policy("", closed), "10.0.2.3:53"), REFUSED);
}

#[test]
fn in_rules_match_incoming_flows_only() {
    let policy = policy("--deny in:192.0.2.0/24 --bypass 192.0.2.0/24", slirp());
    let mut to = tcp("192.0.2.1:80");
    assert_eq!(policy.judge(&to).verdict, Verdict::Bypass);
    to.direction = Direction::In;
    assert_eq!(policy.judge(&to).verdict, REFUSED);
    to.address = "203.0.113.1:80".parse().unwrap();
    assert_eq!(policy.judge(&to).why, Reason::Default);
}

#[test]
fn an_in_rule_is_about_the_local_address() {
    let at = |policy: &Policy, address: &str| {
        let address: SocketAddr = address.parse().unwrap();
        policy.judge(&Destination { address, proto: Proto::Tcp, direction: Direction::In }).verdict
    };
    for around in [slirp(), shunt()] {
        let policy = policy("--bypass in:0.0.0.0/0:8080/tcp", around.clone());
        assert_eq!(at(&policy, "0.0.0.0:8080"), Verdict::Bypass);
        assert_eq!(at(&policy, "198.51.100.7:8080"), Verdict::Bypass, "an address of the host's");
        assert_eq!(at(&policy, "0.0.0.0:8081"), Verdict::Stack);
        assert_eq!(at(&policy, "0.0.0.0:0"), Verdict::Stack, "a port of the kernel's choice");
        assert_eq!(at(&policy, "[::]:8080"), Verdict::Stack, "IPv6 has a rule of its own");
        // The host's loopback must be named: without its port it is the guest's.
        assert_eq!(at(&policy, "127.0.0.1:8080"), Verdict::Stack);
        assert_eq!(at(&policy, "169.254.1.1:8080"), REFUSED);
        let named = self::policy("--bypass in:127.0.0.1:8080/tcp", around);
        assert_eq!(at(&named, "127.0.0.1:8080"), Verdict::Bypass);
        assert_eq!(at(&named, "127.0.0.2:8080"), Verdict::Stack);
    }
    let closed = policy("--deny in:*", slirp());
    assert_eq!(at(&closed, "0.0.0.0:80"), REFUSED);
    assert_eq!(at(&closed, "127.0.0.1:80"), REFUSED);
    assert_eq!(verdict(&closed, "203.0.113.1:80"), Verdict::Stack);
}

#[test]
fn a_rule_without_a_protocol_matches_every_protocol() {
    let policy = policy("--deny 192.0.2.1 --deny 192.0.2.2:53 --deny 192.0.2.3/udp", slirp());
    let at = |address: &str, proto| {
        let address: SocketAddr = address.parse().unwrap();
        policy.judge(&Destination { address, proto, direction: Direction::Out }).verdict
    };
    for proto in [Proto::Icmp, Proto::Tcp, Proto::Udp] {
        assert_eq!(at("192.0.2.1:53", proto), REFUSED);
    }
    assert_eq!(at("192.0.2.2:53", Proto::Udp), REFUSED);
    assert_eq!(at("192.0.2.2:53", Proto::Icmp), Verdict::Stack, "icmp has no ports");
    assert_eq!(at("192.0.2.3:53", Proto::Udp), REFUSED);
    assert_eq!(at("192.0.2.3:53", Proto::Tcp), Verdict::Stack);
}

#[test]
fn a_translated_address_is_closed_like_the_one_inside_but_not_opened_by_it() {
    let policy =
        policy("--deny 192.0.2.1 --bypass 192.0.2.2 --bypass [64:ff9b::192.0.2.2] --bypass *:9", slirp());
    for form in ["64:ff9b::", "2002:", "::"] {
        // 2002: carries the address in its second and third group.
        let wrap = |hex: &str, port: u16| match form {
            "2002:" => format!("[2002:{hex}::1]:{port}"),
            _ => format!("[{form}{hex}]:{port}"),
        };
        assert_eq!(why(&policy, &wrap("c000:201", 80)), Reason::Rule(0), "{form} deny");
        assert_eq!(why(&policy, &wrap("a9fe:a9fe", 9)), Reason::Protected(Group::LinkLocal), "{form}");
        assert_eq!(why(&policy, &wrap("7f00:1", 9)), Reason::Protected(Group::HostLocal), "{form}");
        let opened = why(&policy, &wrap("c000:202", 80));
        let named = form == "64:ff9b::";
        assert_eq!(opened, if named { Reason::Rule(2) } else { Reason::Default }, "{form} open");
    }
}

#[test]
fn rules_that_cannot_be_kept_are_errors_that_say_what_to_add() {
    let bypass =
        Policy::new(rules("--deny * --bypass 192.0.2.1"), Surroundings { link: true, ..Default::default() });
    assert_eq!(bypass.unwrap_err().to_string(), BYPASS);
    let allow = Policy::new(rules("--allow 192.0.2.1"), shunt()).unwrap_err();
    assert!(matches!(allow, PolicyError::AllowWithoutLink { .. }));
    assert!(allow.to_string().contains("--net=slirp"));
}

const BYPASS: &str =
    "--bypass 192.0.2.1: nothing to connect on the host with; add a shunt, as in --net=slirp,host-bypass";

#[test]
fn a_decision_explains_itself() {
    let policy = policy("--bypass 192.0.2.10:9000/tcp", slirp());
    let says = |to: &str| policy.judge(&tcp(to)).to_string();
    assert_eq!(says("192.0.2.10:9000"), "bypass: rule 1, --bypass 192.0.2.10:9000/tcp");
    assert_eq!(says("192.0.2.10:9001"), "stack: default");
    assert_eq!(
        says("10.0.2.2:80"),
        "deny (EACCES): protected group host-local; only a rule that names host-local, or a destination wholly \
         inside it, opens it"
    );
}

#[test]
fn an_address_that_turns_out_to_be_the_hosts_is_protected_from_then_on() {
    let mut policy = policy("--bypass * --bypass 203.0.113.9:22", shunt());
    assert_eq!(verdict(&policy, "203.0.113.9:80"), Verdict::Bypass);
    assert!(policy.learn_host("203.0.113.9".parse().unwrap()));
    assert!(matches!(verdict(&policy, "203.0.113.9:80"), Verdict::Deny(_)));
    assert_eq!(verdict(&policy, "203.0.113.9:22"), Verdict::Bypass);
    assert!(!policy.learn_host("203.0.113.9".parse().unwrap()), "known by now");
}
