//! What a command sent before it ended arrives, as it does from a kernel that outlives its programs.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use netshunt_tests::{FAR4, FAR6, Path, World, eventually};

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

/// The first datagram of a network has to wait for its gateway's hardware address. One is sent by a call that netshunt
/// performs, and one natively.
#[test]
fn a_last_datagram_arrives_through_the_stack() {
    let world = World::new();
    for (address, family) in [(IpAddr::from(FAR4), "AF_INET"), (IpAddr::from(FAR6), "AF_INET6")] {
        let server = world.far.inside(|| UdpSocket::bind((address, PORT)));
        let server = server.expect("the world is the test's own");
        server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let performed = format!(
            "import socket\nsocket.socket(socket.{family}, socket.SOCK_DGRAM).sendto(b'x', ('{address}', {PORT}))"
        );
        let native = format!("echo -n x >/dev/udp/{address}/{PORT}");
        for words in [["python3", "-c", &performed], ["bash", "-c", &native]].iter().cycle().take(20) {
            let run = world.netshunt(Path::Stack, &[PORT]).command(*words).run();
            run.assert_success();
            let got = server.recv(&mut [0; 16]);
            assert_eq!(got.ok(), Some(1), "{words:?}: {}", run.describe());
        }
    }
}
