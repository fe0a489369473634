//! A datagram that a command sent just before it ended is sent, as it is by a kernel that outlives its programs.

use netshunt_tests::{World, eventually};

/// A datagram that was sent natively, by a program that does not wait for anything.
#[test]
fn a_last_datagram_arrives() {
    let world = World::new();
    let script = "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('192.0.2.10', 9010))
ready = socket.create_server(('192.0.2.10', 9010))
s.settimeout(20)
print(s.recv(100).decode())";
    let server = world.native().far().command(["python3", "-c", script]).start();
    eventually("the server is there", || world.far.inside(|| netshunt_tests::listens(9010)));
    let words = ["bash", "-c", "echo -n the last >/dev/udp/192.0.2.10/9010"];
    world.netshunt_with(["--net=link"]).command(words).run().assert_success();
    assert_eq!(server.wait().stdout().trim(), "the last");
}
