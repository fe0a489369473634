//! Networks without a link: the guest has a loopback of its own, and what a rule sends to the host.

use std::net::SocketAddr;

use netshunt_tests::{FAR4, Run, World};

const PORT: u16 = 7007;
const BOOTED: &str = "stack up";

fn alone(world: &World, options: &[&str]) -> Run {
    let words = ["python3".to_owned(), world.program("alone.py"), FAR4.to_string()];
    let run = world.netshunt_with(options.iter().copied()).command(words).run();
    run.assert_success();
    run
}

/// As in a network namespace that has nothing but a loopback, but for what lies beyond it: the policy says so,
/// before a route does.
#[test]
fn a_network_without_a_link_has_its_own_loopback() {
    let world = World::new();
    let program = world.program("alone.py");
    let script = "ip link set lo up; exec python3 \"$@\"";
    let namespace = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script, "sh"];
    let words = namespace.iter().map(|word| (*word).to_owned()).chain([program, FAR4.to_string()]);
    let native = world.native().command(words).run();
    native.assert_success();
    let expected = native.stdout().replace("beyond ENETUNREACH", "beyond EACCES");
    assert!(expected.contains("b'to the server'") && expected.contains("beyond EACCES"), "{expected}");
    for options in [&["--net=none"][..], &["--net=host-bypass"], &["--net=host-bypass", "--bypass=*:7/tcp"]] {
        let run = alone(&world, options);
        assert_eq!(run.stdout(), expected, "{}", run.describe());
    }
}

#[test]
fn datagrams_are_bypassed_without_a_link() {
    let world = World::new();
    world.datagram_echo(PORT);
    let script = "import socket, sys\n\
                  to = (sys.argv[1], int(sys.argv[2]))\n\
                  s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                  s.settimeout(10)\n\
                  s.sendto(b'one', to)\n\
                  print(*s.recvfrom(100))\n\
                  s.connect(to)\n\
                  s.send(b'two')\n\
                  print(*s.recvfrom(100))";
    let rule = format!("--bypass={FAR4}:{PORT}/udp");
    let words = ["python3", "-c", script, &FAR4.to_string(), &PORT.to_string()];
    let run = world.netshunt_with(["--net=host-bypass", &rule]).command(words).run();
    run.assert_success();
    let from = format!("('{FAR4}', {PORT})");
    assert_eq!(run.stdout(), format!("b'one' {from}\nb'two' {from}\n"), "{}", run.describe());
    let to = SocketAddr::new(FAR4.into(), PORT);
    let bypassed = |flow: &netshunt_tests::Flow| (flow.dst, flow.verdict.as_str()) == (to, "bypass");
    assert!(run.flows.iter().any(bypassed), "{}", run.describe());
}

/// Its error could not be told, and was told again and again.
#[test]
fn a_refused_datagram_of_a_socket_that_is_gone_holds_nobody_up() {
    let world = World::new();
    let script = "import contextlib, socket\n\
                  for _ in range(500):\n\
                  \x20   with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:\n\
                  \x20       s.connect(('127.0.0.1', 9))\n\
                  \x20       for _ in range(4):\n\
                  \x20           with contextlib.suppress(OSError):\n\
                  \x20               s.send(b'x')\n\
                  print('all closed')";
    let run = world.netshunt_with(["--net=none"]).command(["python3", "-c", script]).run();
    run.assert_success();
    assert_eq!(run.stdout(), "all closed\n", "{}", run.describe());
}

/// A guest whose streams are all the host's needs none: neither its start nor its memory.
#[test]
fn without_a_link_the_kernel_boots_when_it_is_needed() {
    let world = World::new();
    world.echo(&[PORT]);
    let rule = format!("--bypass={FAR4}:{PORT}/tcp");
    let look = |script: &str| {
        let words = ["python3", "-c", script, &FAR4.to_string(), &PORT.to_string()];
        let run = world.netshunt_with(["--net=host-bypass", &rule, "-vv"]).command(words).run();
        run.assert_success();
        run.stderr().contains(BOOTED)
    };
    let bypassed = "import socket, sys\n\
                    socket.create_connection((sys.argv[1], int(sys.argv[2]))).sendall(b'x')";
    assert!(!look(bypassed));
    assert!(look("import socket\nsocket.socket().bind(('127.0.0.1', 0))"));
}
