//! Names: by the name server that the host's resolv.conf names, wherever that is.

use netshunt_tests::{FAR4, Run, TestLink, World};

const WANTED: &str = "192.0.2.12";

/// Programs that ask for name.test, each in its own way, and print its address.
fn programs() -> Vec<Vec<String>> {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let script = |program: &str, flag: &str, text: &str| vec![program.into(), flag.into(), text.into()];
    vec![
        words("getent ahostsv4 name.test"),
        words("dig +short +tries=1 name.test A"),
        words("dig +short +tries=1 +tcp name.test A"),
        script("python3", "-c", "import socket; print(socket.gethostbyname('name.test'))"),
        script("node", "-e", "require('dns').lookup('name.test', 4, (e, a) => console.log(e || a))"),
        script("node", "-e", "require('dns').resolve4('name.test', (e, a) => console.log(e || a[0]))"),
    ]
}

fn ask(world: &World, options: &[&str], resolver: &str, command: Vec<String>) -> Run {
    world.netshunt_with(options.iter().copied()).resolver(resolver).command(command).run()
}

#[test]
fn a_name_server_of_the_network_is_asked() {
    let world = World::new();
    world.dnsmasq(&world.far, &FAR4.to_string());
    for command in programs() {
        let run = ask(&world, &["--net=link"], &FAR4.to_string(), command);
        run.assert_success();
        assert!(run.stdout().contains(WANTED), "{}", run.describe());
    }
}

/// systemd-resolved's place: it does not exist in the guest's network.
#[test]
fn a_name_server_on_the_hosts_loopback_is_asked_by_the_link() {
    let world = World::new();
    world.dnsmasq(&world.host, "127.0.0.53");
    for command in programs() {
        if world.link() != TestLink::Slirp && command.iter().any(|word| word == "+tcp") {
            // passt(1), --dns-forward: "limited to UDP traffic".
            continue;
        }
        let run = ask(&world, &["--net=link"], "127.0.0.53", command);
        run.assert_success();
        assert!(run.stdout().contains(WANTED), "{}", run.describe());
    }
}

#[test]
fn a_bypassed_name_server_is_asked_by_the_host() {
    let world = World::new();
    world.dnsmasq(&world.far, &FAR4.to_string());
    let rule = format!("--bypass={FAR4}:53");
    for command in programs() {
        let run = ask(&world, &["--net=link,host-bypass", &rule], &FAR4.to_string(), command);
        run.assert_success();
        assert!(run.stdout().contains(WANTED), "{}", run.describe());
        assert!(run.flows.iter().all(|flow| flow.verdict == "bypass"), "{}", run.describe());
    }
}

/// Over TCP, too, whatever the link's own forwarder can, and however wide a rule leads past the stack.
#[test]
fn a_name_server_that_was_chosen_is_asked() {
    let world = World::new();
    world.dnsmasq(&world.far, &FAR4.to_string());
    let dns = format!("--dns={FAR4}");
    for command in programs() {
        let run = ask(&world, &["--net=link,host-bypass", &dns, "--bypass=*"], "127.0.0.53", command);
        run.assert_success();
        assert!(run.stdout().contains(WANTED), "{}", run.describe());
    }
    // A rule closes it as it closes any other address.
    let words = ["dig", "+short", "+tries=1", "+time=1", "name.test", "A"].map(str::to_owned).to_vec();
    let run = ask(&world, &["--net=link", &dns, &format!("--deny={FAR4}:53")], "127.0.0.53", words);
    assert!(!run.status.success() && !run.stdout().contains(WANTED), "{}", run.describe());
}

#[test]
fn without_dns_the_hosts_loopback_stays_closed() {
    let world = World::new();
    world.dnsmasq(&world.host, "127.0.0.53");
    let words = ["dig", "+short", "+tries=1", "+time=1", "name.test", "A"].map(str::to_owned).to_vec();
    let run = ask(&world, &["--net=link", "--dns=off"], "127.0.0.53", words);
    assert!(!run.status.success() && !run.stdout().contains(WANTED), "{}", run.describe());
}

/// One that the guest runs itself, on a low port, is not passed over for the link's.
#[test]
fn a_name_server_of_the_guests_own_is_asked_first() {
    let world = World::new();
    world.dnsmasq(&world.host, "127.0.0.53");
    let script = "dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --bind-interfaces \
                  --user= --pid-file= --listen-address=127.0.0.53 --address=/name.test/198.51.100.7 & \
                  until ss -Htuln | grep -c 127.0.0.53:53 | grep -qx 2; do :; done; \
                  for how in +notcp +tcp; do dig +short +tries=1 $how @127.0.0.53 name.test A; done; kill $!";
    let run = ask(&world, &["--net=link"], "127.0.0.53", ["sh", "-c", script].map(str::to_owned).to_vec());
    run.assert_success();
    assert_eq!(run.stdout(), "198.51.100.7\n198.51.100.7\n", "{}", run.describe());
}
