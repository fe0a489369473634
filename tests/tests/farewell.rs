//! What a command sent before it ended arrives, as it does from a kernel that outlives its programs.

use netshunt_tests::{FAR4, Path, World, eventually};

const PORT: u16 = 9009;
const SENT: usize = 1 << 20;

/// Connects, sends, and ends at once.
const CLIENT: &str = "import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 21)
s.sendall(b'x' * int(sys.argv[3]))";

fn arrives(path: Path) {
    let world = World::new();
    let server = world.native().far().command([
        "python3",
        &world.program("slow.py"),
        &FAR4.to_string(),
        &PORT.to_string(),
    ]);
    let server = server.start();
    eventually("the server listens", || world.far.inside(|| netshunt_tests::listens(PORT)));
    let (address, port, size) = (FAR4.to_string(), PORT.to_string(), SENT.to_string());
    let run = world.netshunt(path, &[PORT]).command(["python3", "-c", CLIENT, &address, &port, &size]).run();
    run.assert_success();
    let server = server.wait();
    server.assert_success();
    assert_eq!(server.stdout().trim(), SENT.to_string(), "{}", run.describe());
}

#[test]
fn a_last_word_arrives_bypassed() {
    arrives(Path::Bypass);
}

#[test]
fn a_last_word_arrives_natively() {
    arrives(Path::Native);
}

#[test]
fn a_last_word_arrives_through_the_stack() {
    arrives(Path::Stack);
}
