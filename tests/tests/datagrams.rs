//! UDP: what programs see of it, held against a native run, over both paths.

use std::net::{IpAddr, SocketAddr};

use netshunt_tests::{FAR4, FAR6, Path, Run, TestLink, World};

const PORT: u16 = 7007;
const NOBODY: u16 = 7099;

/// The longest datagram that a link carries: libslirp puts none of IPv6 together, passt none at all.
fn largest(link: TestLink, server: IpAddr) -> usize {
    match (link, server) {
        (TestLink::Slirp, IpAddr::V4(_)) => 65_507,
        (TestLink::Slirp, IpAddr::V6(_)) => 21_000,
        (TestLink::Passt | TestLink::PasstVhostUser, _) => 65_000,
    }
}

/// Runs the client on a path to one family's echo server.
fn client(world: &World, path: Path, server: IpAddr) -> Run {
    let words = ["python3".to_owned(), world.program("datagrams.py"), server.to_string()];
    let largest = largest(world.link(), server);
    let ports = [PORT.to_string(), NOBODY.to_string(), largest.to_string()];
    let mut launch = match path {
        Path::Native => world.native(),
        Path::Stack => world.netshunt_with(["--net=link,host-bypass"]),
        Path::Bypass => {
            let named = |ip: IpAddr| if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
            let rule = format!("--bypass={}:{PORT}-{NOBODY}/udp", named(server));
            world.netshunt_with(["--net=link,host-bypass", &rule])
        }
    };
    launch = launch.command(words.into_iter().chain(ports));
    let run = launch.run();
    run.assert_success();
    run
}

fn as_natively(path: Path, server: IpAddr) {
    let world = World::new();
    world.datagram_echo(PORT);
    let native = client(&world, Path::Native, server);
    let run = client(&world, path, server);
    let (expected, seen) = (native.stdout(), run.stdout());
    let lines = expected.lines().zip(seen.lines());
    let different: Vec<_> = lines.filter(|(native, seen)| native != seen).collect();
    assert!(different.is_empty(), "native, seen: {different:#?}\n{}", run.describe());
    assert_eq!(expected.lines().count(), seen.lines().count(), "{}", run.describe());
    let to = SocketAddr::new(server, PORT);
    run.assert_path(path, to, 1 << 17);
    assert!(run.flows.iter().any(|flow| flow.dst == to && flow.proto == "udp"), "{}", run.describe());
}

#[test]
fn through_the_stack() {
    as_natively(Path::Stack, FAR4.into());
}

#[test]
fn through_the_stack_ipv6() {
    as_natively(Path::Stack, FAR6.into());
}

#[test]
fn bypassed() {
    as_natively(Path::Bypass, FAR4.into());
}

#[test]
fn bypassed_ipv6() {
    as_natively(Path::Bypass, FAR6.into());
}

/// A published port of UDP: the guest sees who sends, and who sends sees the port that it asked.
#[test]
fn published() {
    const PUBLISHED: u16 = 5300;
    let world = World::new();
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
