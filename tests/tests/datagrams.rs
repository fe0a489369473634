//! UDP: what programs see of it, held against a native run, over both paths.

use std::net::{IpAddr, SocketAddr};

use netshunt_tests::{FAR4, FAR6, Path, Run, TestLink, World};

const PORT: u16 = 7007;
const NOBODY: u16 = 7099;
/// Groups and broadcasts stay in the stack, where a rule opens them.
const GROUPS: &str = "--allow=multicast";

/// The longest datagram that a link carries: libslirp puts none of IPv6 together, passt none at all.
fn largest(link: TestLink, server: IpAddr) -> usize {
    match (link, server) {
        (TestLink::Slirp, IpAddr::V4(_)) => 65_507,
        (TestLink::Slirp, IpAddr::V6(_)) => 16_000,
        (TestLink::Passt | TestLink::PasstVhostUser, _) => 65_000,
    }
}

/// Runs a client on a path to one family's echo server.
fn client(world: &World, program: &str, path: Path, server: IpAddr) -> Run {
    let words = ["python3".to_owned(), world.program(program), server.to_string()];
    let largest = largest(world.link(), server);
    let ports = [PORT.to_string(), NOBODY.to_string(), largest.to_string()];
    let mut launch = match path {
        Path::Native => world.native(),
        Path::Stack => world.netshunt_with(["--net=link,host-bypass", GROUPS]),
        Path::Bypass => {
            let named = |ip: IpAddr| if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
            let rule = format!("--bypass={}:{PORT}-{NOBODY}/udp", named(server));
            world.netshunt_with(["--net=link,host-bypass", &rule, GROUPS])
        }
    };
    launch = launch.command(words.into_iter().chain(ports));
    let run = launch.run();
    run.assert_success();
    run
}

/// A line that differs from the native one, on which paths, and why.
type Allowed = (&'static str, &'static [Path], &'static str);

const CALLS: &[Allowed] = &[];
const MESSAGES: &[Allowed] = &[
    (
        "send, unconnected: 1",
        &[Path::Stack, Path::Bypass],
        "send(2) goes to our end, which cannot say EDESTADDRREQ",
    ),
    ("shutdown, unconnected: None", &[Path::Stack, Path::Bypass], "the guest's end has a peer: ours"),
    (
        "too long for the loopback: 65530",
        &[Path::Stack, Path::Bypass],
        "send(2) goes to our end; sendmsg(2) says EMSGSIZE",
    ),
    (
        "to the server with an interface that is not: (4, b'with')",
        &[Path::Bypass],
        "interfaces are the stack's: the host's socket is not told of any",
    ),
];

fn as_natively(program: &str, payload: u64, allowed: &[Allowed], path: Path, server: IpAddr) {
    let world = World::of_waiting();
    world.datagram_echo(PORT);
    let native = client(&world, program, Path::Native, server);
    let run = client(&world, program, path, server);
    let (expected, seen) = (native.stdout(), run.stdout());
    let lines = expected.lines().zip(seen.lines());
    let (mut excused, different): (Vec<_>, Vec<_>) = lines
        .filter(|(native, seen)| native != seen)
        .partition(|(_, seen)| allowed.iter().any(|(line, paths, _)| line == seen && paths.contains(&path)));
    assert!(different.is_empty(), "native, seen: {different:#?}\n{}", run.describe());
    assert_eq!(expected.lines().count(), seen.lines().count(), "{}", run.describe());
    excused.dedup();
    let expected = allowed.iter().filter(|(_, paths, _)| paths.contains(&path)).count();
    assert_eq!(excused.len(), expected, "an allowed difference has gone\n{}", run.describe());
    let to = SocketAddr::new(server, PORT);
    run.assert_path(path, to, payload);
    assert!(run.flows.iter().any(|flow| flow.dst == to && flow.proto == "udp"), "{}", run.describe());
}

fn calls_as_natively(path: Path, server: IpAddr) {
    as_natively("datagrams.py", 1 << 17, CALLS, path, server);
}

fn messages_as_natively(path: Path, server: IpAddr) {
    as_natively("messages.py", 1 << 10, MESSAGES, path, server);
}

#[test]
fn through_the_stack() {
    calls_as_natively(Path::Stack, FAR4.into());
}

#[test]
fn through_the_stack_ipv6() {
    calls_as_natively(Path::Stack, FAR6.into());
}

#[test]
fn bypassed() {
    calls_as_natively(Path::Bypass, FAR4.into());
}

#[test]
fn bypassed_ipv6() {
    calls_as_natively(Path::Bypass, FAR6.into());
}

#[test]
fn messages_through_the_stack() {
    messages_as_natively(Path::Stack, FAR4.into());
}

#[test]
fn messages_through_the_stack_ipv6() {
    messages_as_natively(Path::Stack, FAR6.into());
}

#[test]
fn messages_bypassed() {
    messages_as_natively(Path::Bypass, FAR4.into());
}

#[test]
fn messages_bypassed_ipv6() {
    messages_as_natively(Path::Bypass, FAR6.into());
}

/// A published port of UDP: the guest sees who sends, and who sends sees the port that it asked.
#[test]
fn published() {
    const PUBLISHED: u16 = 5300;
    let world = World::of_waiting();
    let script = "import socket\n\
                  s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                  s.bind(('0.0.0.0', 8053))\n\
                  print('ready', flush=True)\n\
                  for _ in range(2):\n    \
                      data, sender = s.recvfrom(100)\n    \
                      print(data.decode(), sender[0], flush=True)\n    \
                      s.sendto(data.upper(), sender)";
    let options = ["--net=link".to_owned(), format!("--publish={PUBLISHED}:8053/udp")];
    let mut server = world.netshunt_with(options).command(["python3", "-c", script]).start();
    server.prints("ready");
    let script = "import socket, sys\n\
                  s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                  s.settimeout(10)\n\
                  for word in (b'one', b'two'):\n    \
                      s.sendto(word, (sys.argv[1], int(sys.argv[2])))\n    \
                      print(*s.recvfrom(100))";
    let host = netshunt_tests::HOST4.to_string();
    let words = ["python3", "-c", script, &host, &PUBLISHED.to_string()];
    let client = world.native().far().command(words).run();
    client.assert_success();
    let from = format!("('{host}', {PUBLISHED})");
    assert_eq!(client.stdout(), format!("b'ONE' {from}\nb'TWO' {from}\n"), "{}", client.describe());
    let server = server.wait();
    assert_eq!(server.stdout(), format!("ready\none {FAR4}\ntwo {FAR4}\n"), "{}", server.describe());
}

/// Who asks a published port from the host itself is answered, though the command may not begin to speak to it; by another
/// socket of the port's, too. Over IPv6 the answer comes from the address that was asked.
#[test]
fn a_published_port_answers_the_host_itself() {
    let world = World::new();
    let script = "import socket\n\
                  def bound(address):\n    \
                      s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n    \
                      s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n    \
                      s.bind((address, 8053))\n    \
                      return s\n\
                  s = bound('::')\n\
                  print('ready', flush=True)\n\
                  for number in range(14):\n    \
                      data, sender = s.recvfrom(100)\n    \
                      if number % 2:\n        \
                          other = bound('::')\n        \
                          other.connect(sender)\n        \
                          other.send(data.upper())\n        \
                          other.close()\n    \
                      else:\n        \
                          s.sendto(data.upper(), sender)\n\
                  def refused(to):\n    \
                      try: s.sendto(b'x', to)\n    \
                      except PermissionError: print('refused', flush=True)\n\
                  refused((sender[0], sender[1] ^ 1))\n\
                  refused(('::ffff:192.0.2.1', 53))";
    let options = ["--net=link", "--publish=5300:8053/udp"];
    let mut server = world.netshunt_with(options).command(["python3", "-c", script]).start();
    server.prints("ready");
    let script = "import socket, sys\n\
                  for to in sys.argv[1:]:\n    \
                      family = socket.AF_INET6 if ':' in to else socket.AF_INET\n    \
                      s = socket.socket(family, socket.SOCK_DGRAM)\n    \
                      s.settimeout(10)\n    \
                      s.connect((to, 5300))\n    \
                      for word in (b'one', b'two'):\n        \
                          s.send(word)\n        \
                          print(s.recv(100).decode())";
    let (host4, host6) = (netshunt_tests::HOST4.to_string(), netshunt_tests::HOST6.to_string());
    // libslirp's hears the loopback only as long as nobody else was answered.
    for (launch, to) in [
        (world.native(), [Some("127.0.0.1"), Some(&host4)]),
        (world.native().far(), [Some(&host4), Some(&host6)]),
        (world.native(), [Some("127.0.0.1"), None]),
        (world.native(), [Some("::1"), Some(&host6)]),
    ] {
        let to: Vec<&str> = to.into_iter().flatten().collect();
        let client = launch.command(["python3", "-c", script].iter().chain(&to).copied()).run();
        assert_eq!(client.stdout(), "ONE\nTWO\n".repeat(to.len()), "{}", client.describe());
    }
    let server = server.wait();
    assert_eq!(server.stdout(), "ready\nrefused\nrefused\n", "{}", server.describe());
}

/// Serves `answers` questions on a port, and prints who asked.
const SERVER: &str = "import socket, sys\n\
                      s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                      s.bind(('0.0.0.0', int(sys.argv[1])))\n\
                      print('ready', *s.getsockname(), flush=True)\n\
                      for _ in range(int(sys.argv[2])):\n    \
                          data, sender = s.recvfrom(100)\n    \
                          print(data.decode(), sender[0], flush=True)\n    \
                          s.sendto(data.upper(), sender)";

/// By a rule the guest is reached on the host, and may answer whoever asked, though nothing else is open to it.
#[test]
fn an_in_rule_lets_a_guest_be_reached_on_the_host() {
    let world = World::of_waiting();
    let rule = format!("--bypass=in:0.0.0.0/0:{PORT}/udp");
    let mut server = world
        .netshunt_with(["--net=host-bypass", &rule])
        .command(["python3", "-c", SERVER, &PORT.to_string(), "2"])
        .start();
    server.prints("ready");
    let host = netshunt_tests::HOST4.to_string();
    let script = "import socket, sys\n\
                  s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                  s.settimeout(10)\n\
                  s.sendto(sys.argv[2].encode(), (sys.argv[1], int(sys.argv[3])))\n\
                  print(*s.recvfrom(100))";
    let ask = |launch: netshunt_tests::Launch<'_>, what: &str| {
        let client = launch.command(["python3", "-c", script, &host, what, &PORT.to_string()]).run();
        client.assert_success();
        let answer = format!("b'{}' ('{host}', {PORT})\n", what.to_uppercase());
        assert_eq!(client.stdout(), answer, "{}", client.describe());
    };
    ask(world.native().far(), "from afar");
    ask(world.native(), "from the host");
    let server = server.wait();
    let told = format!("ready 0.0.0.0 {PORT}\nfrom afar {FAR4}\nfrom the host {host}\n");
    assert_eq!(server.stdout(), told, "{}", server.describe());
    let inward =
        |flow: &netshunt_tests::Flow| (flow.direction.as_str(), flow.verdict.as_str()) == ("in", "bypass");
    assert!(server.flows.iter().any(inward), "{}", server.describe());
}

/// Who names a port wants to be reached; who does not asks.
#[test]
fn a_denial_keeps_a_guest_from_serving_datagrams() {
    let world = World::of_waiting();
    let script = "import socket, sys\n\
                  for port in map(int, sys.argv[1:]):\n    \
                      s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n    \
                      try: s.bind(('0.0.0.0', port)); print('bound')\n    \
                      except PermissionError: print('refused')";
    let run = |options: &[&str]| {
        let options = [&["--net=link,host-bypass"], options].concat();
        let run = world.netshunt_with(options).command(["python3", "-c", script, "0", "7007"]).run();
        run.assert_success();
        run.stdout()
    };
    assert_eq!(run(&["--deny=in:*"]), "bound\nrefused\n");
    assert_eq!(run(&["--deny=in:0.0.0.0/0:7008/udp", "--deny=in:0.0.0.0/0:7007/tcp"]), "bound\nbound\n");
}

/// A socket that its guest has closed gets nothing any more that is for another with its port. `first` is what becomes of
/// the one that has it before.
fn the_next_with_its_port_hears(first: &str) {
    let world = World::of_waiting();
    let script = format!(
        "import socket, struct\n\
         def bound():\n    \
             s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n    \
             s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\n    \
             s.bind(('127.0.0.1', 5000))\n    \
             return s\n\
         for number in range(20):\n    \
             first = bound()\n    \
             {first}\n    \
             server = bound()\n    \
             server.settimeout(2)\n    \
             client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n    \
             client.sendto(b'%d' % number, ('127.0.0.1', 5000))\n    \
             print(server.recv(100).decode(), end=' ')\n    \
             server.close()"
    );
    let run = world.netshunt_with(["--net=link"]).command(["python3", "-c", &script]).run();
    run.assert_success();
    let expected: String = (0..20).map(|number| format!("{number} ")).collect();
    assert_eq!(run.stdout(), expected, "{}", run.describe());
}

#[test]
fn a_port_shared_with_a_socket_that_is_gone() {
    the_next_with_its_port_hears("first.close()");
}

/// A receive that had timed out held the socket for netshunt after the guest had closed it.
#[test]
fn a_port_shared_with_a_socket_that_received_in_vain_and_is_gone() {
    the_next_with_its_port_hears(
        "first.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack('ll', 0, 1000))\n    \
         try: first.recvfrom(100)\n    \
         except BlockingIOError: first.close()",
    );
}

/// dig binds its next socket, which may share, to any port, and only then closes the last one: where both had the same, once
/// in 28,000 times, the answer went to that.
#[test]
fn a_port_that_the_stack_chooses_is_no_other_sockets() {
    let world = World::of_waiting();
    // Of so many, some have the same natively.
    let script = "import socket\n\
                  def port(options, choose):\n    \
                      s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n    \
                      for option in options: s.setsockopt(socket.SOL_SOCKET, option, 1)\n    \
                      choose(s)\n    \
                      after = [s.getsockopt(socket.SOL_SOCKET, option) for option in options]\n    \
                      assert after == [1] * len(options), after\n    \
                      return s, s.getsockname()[1]\n\
                  for option in socket.SO_REUSEPORT, socket.SO_REUSEADDR:\n    \
                      for choose in (lambda s: s.bind(('', 0))), (lambda s: s.connect(('127.0.0.1', 9))):\n        \
                          all = [port([option], choose) for _ in range(700)]\n        \
                          print(len({port for _, port in all}), end=' ')\n\
                  again = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                  again.setsockopt(socket.SOL_SOCKET, option, 1)\n\
                  again.bind(('', all[0][1]))\n\
                  print('and shared')";
    let run = world.netshunt_with(["--net=link"]).command(["python3", "-c", script]).run();
    run.assert_success();
    assert_eq!(run.stdout(), "700 700 700 700 and shared\n", "{}", run.describe());
}

/// UDP_SEGMENT cuts what one call sends, and IP_TOS marks it, also where the host's socket sends it: QUIC does both.
#[test]
fn a_bypassed_send_is_cut_and_marked() {
    let world = World::of_waiting();
    let script = "import socket\n\
                  s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                  s.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)\n\
                  s.bind(('192.0.2.10', 7007))\n\
                  print('ready', flush=True)\n\
                  for _ in range(6):\n    \
                      data, control, _, _ = s.recvmsg(5000, 100)\n    \
                      print(len(data), data[0], control[0][2][0], flush=True)";
    let mut server = world.native().far().command(["python3", "-c", script]).start();
    server.prints("ready");
    let script = "import socket, struct\n\
                  s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                  data = b'\\1' * 1000 + b'\\2' * 1000 + b'\\3' * 10\n\
                  cut = (socket.IPPROTO_UDP, 103, struct.pack('H', 1000))\n\
                  mark = (socket.IPPROTO_IP, socket.IP_TOS, struct.pack('i', 2))\n\
                  s.sendmsg([data], [cut, mark], 0, ('192.0.2.10', 7007))\n\
                  s.setsockopt(*cut[:2], 1000)\n\
                  s.setsockopt(*mark[:2], 1)\n\
                  s.connect(('192.0.2.10', 7007))\n\
                  s.send(data)";
    let options = ["--net=link,host-bypass", "--bypass=192.0.2.10:7007/udp"];
    let run = world.netshunt_with(options).command(["python3", "-c", script]).run();
    run.assert_success();
    let server = server.wait();
    let expected = "ready\n1000 1 2\n1000 2 2\n10 3 2\n1000 1 1\n1000 2 1\n10 3 1\n";
    assert_eq!(server.stdout(), expected, "{}\n{}", server.describe(), run.describe());
}

/// A recvmmsg(2) that went on waiting after each datagram took a descriptor of netshunt's for each.
#[test]
fn a_receive_of_many_needs_no_descriptor_for_each() {
    let world = World::new();
    let run = world
        .netshunt_with(["--net=none"])
        .wrapper(["prlimit", "--nofile=48:48"])
        .command(["python3", &world.program("trickle.py")])
        .run();
    run.assert_success();
    assert_eq!(run.stdout(), "1024\n".repeat(10), "{}", run.describe());
}
