//! What a guest must never reach unless a rule names it: this machine, by any of its addresses, and
//! the cloud's metadata address.

use netshunt_tests::{Run, Trap, World};

/// Every address by which the host, or its loopback through a link, might be reached.
const HOST_ADDRESSES: &[&str] = &[
    "127.0.0.1",
    "127.0.0.2",
    "127.255.255.254",
    "0.0.0.0",
    "192.0.2.1",
    "10.0.2.2",
    "10.0.2.3",
    "255.255.255.255",
    "::1",
    "::",
    "::ffff:127.0.0.1",
    "::ffff:192.0.2.1",
    "::ffff:10.0.2.2",
    "::ffff:0.0.0.0",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "2001:db8::1",
    "fd00::2",
    "fd00::3",
    "fd00::1234",
    "fec0::2",
];

fn reach(world: &World, options: &[&str], port: u16, addresses: &[&str]) -> Run {
    let mut words = vec!["python3".to_owned(), world.program("reach.py")];
    words.extend(addresses.iter().flat_map(|address| [(*address).to_owned(), port.to_string()]));
    let run = world.netshunt_with(options.iter().copied()).command(words).run();
    run.assert_success();
    assert_eq!(run.stdout().lines().count(), addresses.len(), "{}", run.describe());
    run
}

/// No combination of backends and wide rules opens the host.
fn assert_unreachable(options: &[&str]) {
    let world = World::new();
    // Both families: Linux's wildcard of IPv6 takes IPv4 too.
    let trap = world.host.trap("[::]:0");
    let native = world.native().command([
        "curl",
        "-s",
        "--http0.9",
        &format!("http://127.0.0.1:{}/", trap.address.port()),
    ]);
    native.run();
    assert_eq!(trap.caught(), 1, "the trap works");
    let run = reach(&world, options, trap.address.port(), HOST_ADDRESSES);
    assert!(!run.stdout().contains(Trap::GREETING.trim()), "{}", run.describe());
    assert_eq!(trap.caught(), 1, "{}", run.describe());
}

#[test]
fn the_host_is_unreachable_through_the_stack() {
    assert_unreachable(&["--net=link"]);
}

#[test]
fn the_host_is_unreachable_past_the_stack() {
    assert_unreachable(&["--net=host-bypass"]);
}

#[test]
fn the_host_is_unreachable_by_either_path() {
    assert_unreachable(&["--net=link,host-bypass"]);
}

#[test]
fn no_wide_bypass_opens_the_host() {
    assert_unreachable(&["--net=link,host-bypass", "--bypass=*", "--bypass=0.0.0.0/0", "--bypass=[::/0]"]);
}

#[test]
fn no_wide_allow_opens_the_host() {
    assert_unreachable(&["--net=link,host-bypass", "--allow=*", "--allow=10.0.0.0/8", "--allow=[fc00::/7]"]);
}

#[test]
fn without_a_network_nothing_is_reached() {
    assert_unreachable(&["--net=none"]);
}

#[test]
fn a_loopback_port_that_a_bypass_names_is_reached_and_no_other() {
    let world = World::new();
    let (named, other) = (world.host.trap("127.0.0.1:0"), world.host.trap("127.0.0.1:0"));
    let rule = format!("--bypass={}/tcp", named.address);
    for net in ["--net=host-bypass", "--net=link,host-bypass"] {
        let before = named.caught();
        let run = reach(&world, &[net, &rule], named.address.port(), &["127.0.0.1"]);
        assert_eq!(run.stdout().trim(), "127.0.0.1: caught", "{}", run.describe());
        assert_eq!(named.caught(), before + 1);
        reach(&world, &[net, &rule], other.address.port(), &["127.0.0.1", "127.0.0.2"]);
        assert_eq!(other.caught(), 0);
    }
}

/// Where the link has such an address; else the rule opens what leads nowhere.
#[test]
fn a_port_of_the_gateway_that_a_rule_names_is_reached_through_the_stack() {
    let world = World::new();
    let trap = world.host.trap("127.0.0.1:0");
    let rule = format!("--allow=10.0.2.2:{}/tcp", trap.address.port());
    let run = reach(&world, &["--net=link", &rule], trap.address.port(), &["10.0.2.2", "10.0.2.3"]);
    let reached = world.link().reaches_the_host();
    assert_eq!(run.stdout().starts_with("10.0.2.2: caught\n"), reached, "{}", run.describe());
    assert_eq!(trap.caught(), usize::from(reached));
}

#[test]
fn a_group_opens_by_its_own_name() {
    let world = World::new();
    let trap = world.host.trap("192.0.2.1:0");
    let options = ["--net=host-bypass", "--bypass=host-local"];
    reach(&world, &options, trap.address.port(), &["127.0.0.1", "192.0.2.1"]);
    assert_eq!(trap.caught(), 1);
}

#[test]
fn the_metadata_address_is_unreachable_unless_named() {
    let world = World::new();
    let trap = world.far.trap("169.254.169.254:80");
    let metadata = ["169.254.169.254"];
    assert!(world.host.inside(|| std::net::TcpStream::connect(trap.address)).is_ok(), "the trap works");
    for wide in ["--bypass=*", "--allow=*", "--bypass=169.0.0.0/8"] {
        let run = reach(&world, &["--net=link,host-bypass", wide], 80, &metadata);
        assert_eq!(run.stdout().trim(), "169.254.169.254: EACCES", "{}", run.describe());
    }
    assert_eq!(trap.caught(), 1);
    reach(&world, &["--net=host-bypass", "--bypass=169.254.169.254:80/tcp"], 80, &metadata);
    assert_eq!(trap.caught(), 2);
}

#[test]
fn a_denial_is_eacces_and_is_logged() {
    let world = World::new();
    let trap = world.far.trap("192.0.2.10:7777");
    for options in [&["--net=link,host-bypass", "--deny=192.0.2.0/24"][..], &["--net=host-bypass"]] {
        let run = reach(&world, options, 7777, &["192.0.2.10"]);
        assert_eq!(run.stdout().trim(), "192.0.2.10: EACCES", "{}", run.describe());
        assert_eq!(run.flows.len(), 1, "{}", run.describe());
        assert_eq!((run.flows[0].verdict.as_str(), run.flows[0].errno.as_deref()), ("deny", Some("EACCES")));
    }
    assert_eq!(trap.caught(), 0);
}
