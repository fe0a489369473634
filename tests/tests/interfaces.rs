//! The interfaces that a guest sees are the stack's.

use netshunt_tests::{TestLink, World, copy_program};

#[test]
fn ioctl_describes_the_interfaces_of_the_stack() {
    let world = World::new();
    let run = world.netshunt_with(["--net=link"]).command(["python3", &world.program("interfaces.py")]).run();
    run.assert_success();
    let text = run.stdout();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "lo 127.0.0.1 255.0.0.0 up 65536", "{}", run.describe());
    let eth0: Vec<&str> = lines[1].split(' ').collect();
    let [name, address, netmask, state, mtu] = eth0[..] else { panic!("{}", run.describe()) };
    assert_eq!((name, state), ("eth0", "up"), "{}", run.describe());
    assert!(address.starts_with("10.") && netmask.starts_with("255."), "{}", run.describe());
    assert!(mtu.parse::<u32>().is_ok_and(|mtu| mtu > 1500), "{}", run.describe());
    let rest = [
        "room for one: 40 ['lo']",
        "no room: 80 []",
        "by number: 1 eth0",
        "by another family: 0 ENOTTY",
        "none such: ENODEV",
        // As natively: psutil gives up if it is anything else.
        "driver of lo: ENOTSUP EPERM ENOTSUP",
        "driver of eth7: ENODEV EPERM ENODEV",
        "set: EPERM",
        "no memory: EFAULT",
        "no socket: ENOTTY",
    ];
    assert_eq!(lines[2..], rest, "{}", run.describe());
}

/// What a guest's `command` prints.
fn says(world: &World, command: &[&str]) -> String {
    let run = world.netshunt_with(["--net=link"]).command(command.iter().copied()).run();
    run.assert_success();
    run.stdout()
}

#[test]
fn netlink_describes_the_interfaces_of_the_stack() {
    let world = World::new();
    let addresses = says(&world, &["ip", "-br", "address"]);
    assert!(
        addresses.lines().any(|line| line.starts_with("lo ") && line.contains("127.0.0.1/8")),
        "{addresses}"
    );
    assert!(
        addresses.lines().any(|line| line.starts_with("eth0 ") && line.contains(" 10.0.2.15/24")),
        "{addresses}"
    );
    assert!(!addresses.contains("192.0.2."), "the host's: {addresses}");
    let routes = says(&world, &["ip", "route"]);
    assert!(routes.contains("default via 10.0.2.2 dev eth0"), "{routes}");
    assert!(says(&world, &["ip", "-6", "route"]).contains("dev eth0"), "{routes}");
    let node = "for (const [name, all] of Object.entries(require('os').networkInterfaces())) \
                console.log(name, all.map(one => one.address).join(' '))";
    let node = says(&world, &["node", "-e", node]);
    assert!(node.contains("lo 127.0.0.1 ::1") && node.contains("eth0 10.0.2.15"), "{node}");
    let python = says(&world, &["python3", "-c", "import socket; print(socket.if_nameindex())"]);
    assert!(python.contains("(1, 'lo')") && python.contains("(2, 'eth0')"), "{python}");
}

#[test]
fn ss_lists_the_sockets_of_the_stack() {
    let world = World::new();
    let script = "import socket, subprocess\n\
                  udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                  udp.bind(('0.0.0.0', 5353))\n\
                  tcp = socket.create_server(('127.0.0.1', 8088))\n\
                  subprocess.run(['ss', '-tuanH'], check=True)";
    let list = says(&world, &["python3", "-c", script]);
    let has = |kind: &str, local: &str| {
        list.lines().any(|line| line.starts_with(kind) && line.split_whitespace().any(|word| word == local))
    };
    assert!(has("udp", "0.0.0.0:5353") && has("tcp", "127.0.0.1:8088"), "{list}");
    assert_eq!(list.lines().count(), 2, "the host's: {list}");
}

#[test]
fn netlink_changes_nothing() {
    let world = World::new();
    for change in [
        "ip address add 10.9.9.9/32 dev lo",
        "ip link set eth0 down",
        "ip route del default",
        "ip link add veth0 type veth",
    ] {
        let words = change.split(' ');
        let run = world.netshunt_with(["--net=link"]).command(words).run();
        assert!(!run.status.success() && run.stderr().contains("not permitted"), "{}", run.describe());
    }
}

#[test]
fn ping_reaches_the_guest_itself_and_the_network() {
    let world = World::new();
    // Debian's has a capability, which execve(2) refuses to give to who could never have it (capabilities(7));
    // a copy has none.
    let program = world.folder().join("ping");
    assert!(copy_program("/usr/bin/ping".as_ref(), &program), "iputils-ping is installed");
    let program = program.display().to_string();
    let far = [netshunt_tests::FAR4.to_string(), netshunt_tests::FAR6.to_string()];
    // libslirp: "external icmpv6 not supported yet".
    let reached = if world.link() == TestLink::Slirp { &far[..1] } else { &far[..] };
    for to in ["127.0.0.1", "::1", "10.0.2.15"].into_iter().chain(reached.iter().map(String::as_str)) {
        let launch = world.netshunt_with(["--net=link"]);
        let run = launch.command([&program, "-c", "2", "-i", "0.2", "-W", "5", to]).run();
        assert!(run.stdout().contains("2 received"), "{}", run.describe());
        // When an answer came is the stack's clock's to say, and when the question went, the host's.
        assert!(!run.stderr().contains("time of day goes back"), "{}", run.describe());
    }
}

/// As on a machine whose network has none: the loopback stays, and nothing leads out.
#[test]
fn without_ipv6_on_the_link_the_loopback_has_it_still() {
    let world = World::new();
    let script = "import errno, socket\n\
                  def to(address):\n    \
                      for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):\n        \
                          with socket.socket(socket.AF_INET6, kind) as one:\n            \
                              try: one.connect((address, 9)); yield 'connected'\n            \
                              except OSError as error: yield errno.errorcode[error.errno]\n\
                  print(*to('2001:db8::10'), *to('::1'))\n\
                  with socket.create_server(('::1', 0), family=socket.AF_INET6) as server:\n    \
                      socket.create_connection(server.getsockname()[:2]).sendall(b'inside')\n    \
                      print(server.accept()[0].recv(100))";
    let run = |option: &str| {
        let launch = world.netshunt_with(["--net=link", option]);
        let run = launch.command(["sh", "-c", "ip -6 route; exec python3 -c \"$0\"", script]).run();
        run.assert_success();
        run.stdout()
    };
    let (on, off) = (run("--ipv6=on"), run("--ipv6=off"));
    let inside = "ECONNREFUSED connected\nb'inside'\n";
    assert!(off.ends_with(&format!("ENETUNREACH ENETUNREACH {inside}")), "{off}");
    assert!(on.ends_with(&format!("ECONNREFUSED connected {inside}")), "{on}");
    assert!(on.contains("default via") && !off.contains("default"), "{on}\n{off}");
}

/// The link-local address is the guest's own from the start: for UDP and TCP, and no rule has to name it.
#[test]
fn the_own_link_local_address_is_near() {
    let world = World::new();
    let script = "import socket, subprocess\n\
                  words = ['ip', '-6', '-o', 'addr', 'show', 'scope', 'link']\n\
                  own = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()\n\
                  own = own[own.index('inet6') + 1].split('/')[0] + '%' + own[1]\n\
                  for kind in socket.SOCK_DGRAM, socket.SOCK_STREAM:\n    \
                      at = socket.getaddrinfo(own, 0, type=kind)[0][4]\n    \
                      server, client = socket.socket(socket.AF_INET6, kind), socket.socket(socket.AF_INET6, kind)\n    \
                      server.settimeout(10)\n    \
                      server.bind(at)\n    \
                      if kind == socket.SOCK_STREAM:\n        \
                          server.listen()\n    \
                      client.connect(server.getsockname())\n    \
                      client.send(b'x')\n    \
                      peer = server.accept()[1] if kind == socket.SOCK_STREAM else server.recvfrom(9)[1]\n    \
                      print(peer == client.getsockname(), peer[0] == at[0], peer[3] == at[3])";
    let run = world.netshunt_with(["--net=link"]).command(["python3", "-c", script]).run();
    run.assert_success();
    assert_eq!(run.stdout(), "True True True\n".repeat(2), "{}", run.describe());
}
