//! Two guests that are connected to each other have a connection of the host's: nothing passes through us.

use std::io::ErrorKind;
use std::net::TcpListener;

use netshunt_tests::World;

/// For each of the ways to name the loopback.
const ALL: &str = "\
came 4194304
stack has 2 and sent less
received 4194304
dissolved 0
its peer Connection reset by peer
connects ok
second again
dissolved 0
bound Invalid argument
listens Invalid argument
forgotten yes
";

fn between(options: &[&str]) {
    let world = World::new();
    let program = world.program("direct.py");
    let run = world.netshunt_with(options.iter().copied()).command(["python3", &program]).run();
    run.assert_success();
    let expected: String =
        ["127.0.0.1", "::1", "::ffff:127.0.0.1"].iter().map(|at| format!("from {at}\n{ALL}")).collect();
    assert_eq!(run.stdout(), expected, "{}", run.describe());
}

#[test]
fn two_guests_have_a_connection_of_the_hosts() {
    between(&["--net=link"]);
}

/// Where somebody else parks it must not listen, and no rule of the user's is about that.
#[test]
fn a_dissolved_end_cannot_listen_where_others_park_whatever_may_be_reached() {
    between(&["--net=link,host-bypass", "--bypass=in:127.64.0.0/10", "--bypass=*"]);
}

#[test]
fn each_gets_the_connection_that_it_asked_for() {
    let world = World::new();
    let program = world.program("paired.py");
    let run = world.netshunt_with(["--net=link"]).command(["python3", &program]).run();
    run.assert_success();
    let expected = "dissolved {'Connection reset by peer'}\nagain 5\nanew {b'x'}\nshared True\n";
    assert_eq!(run.stdout(), expected, "{}", run.describe());
}

/// Whatever ports of the loopback a rule opens, what waits there to be connected is not the guests'.
#[test]
fn no_guest_is_taken_for_the_far_side_of_another() {
    let world = World::new();
    let program = world.program("usurp.py");
    let options = ["--net=link,host-bypass", "--bypass=127.0.0.1:32768-60999/tcp"];
    let run = world.netshunt_with(options).command(["python3", &program]).run();
    run.assert_success();
    let expected = "\
Invalid argument
dissolved Invalid argument False
bound Address already in use False
bound after Address already in use False
";
    assert_eq!(run.stdout(), expected, "{}", run.describe());
}

/// shutdown(2) dissolves a parked socket, and nobody tells us: its port may be a service's of the host by the time that the
/// stack's connection is up.
#[test]
fn the_port_that_a_parked_socket_has_left_is_not_connected_to() {
    let world = World::new();
    let program = world.program("left.py");
    let mut run = world.netshunt_with(["--net=link"]).command(["python3", &program]).stdin_pipe().start();
    run.prints("\n");
    let port = run.stdout().trim().parse().expect("it prints a port");
    let service = world.host.inside(|| TcpListener::bind(("127.0.0.1", port))).expect("it was left");
    service.set_nonblocking(true).expect("a socket of ours");
    run.write(b"\n").expect("it reads");
    let run = run.wait();
    run.assert_success();
    let reached = service.accept().map(|(_, from)| from);
    assert_eq!(reached.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock), "{}", run.describe());
}
