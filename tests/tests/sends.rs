//! Sends over AF_UNIX that netshunt looks at or performs: they must be what they are natively.

use std::fs::File;
use std::io::{IoSliceMut, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;

use netshunt_tests::{DEADLINE, World};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, RecvMsg, UnixAddr, recvmsg};

/// With and without verdicts on the sockets that guests make themselves, and with nothing to look at.
const POLICIES: [&str; 3] = ["--unix=default", "--unix=deny", "--unix=allow"];

#[test]
fn every_send_gives_what_it_gives_natively() {
    let world = World::new();
    let program = world.compile("sockets/sends.c");
    let native = world.native().command([program.clone()]).run();
    native.assert_success();
    assert!(native.stdout().contains("room at last: 3"), "{}", native.describe());
    for policy in POLICIES {
        let run = world.netshunt_with(["--net=host-bypass", policy]).command([program.clone()]).run();
        run.assert_success();
        assert_eq!(run.stdout(), native.stdout(), "{policy}: {}", run.describe());
        let notifications = &run.stats.as_ref().expect("statistics").notifications;
        assert!(notifications["sendmsg"] > 0 && notifications["sendto"] > 0, "{}", run.describe());
        // What carries no address is not asked about.
        for call in ["read", "write", "recvfrom", "close", "epoll_wait"] {
            assert_eq!(notifications.get(call), None, "{call}: {}", run.describe());
        }
    }
}

/// More sends that wait than netshunt has threads for: none fails, and each goes on when there is room for it.
#[test]
fn hundreds_of_sends_that_wait() {
    let world = World::new();
    let script = "import socket, threading\n\
                  COUNT, PART = 300, bytes(100_000)\n\
                  any = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                  pairs = [socket.socketpair() for _ in range(COUNT)]\n\
                  def send(one):\n    \
                      sent = 0\n    \
                      while sent < 10 * len(PART):\n        \
                          sent += one.sendmsg([PART])\n    \
                      one.shutdown(socket.SHUT_WR)\n\
                  threads = [threading.Thread(target=send, args=(one,)) for one, _ in pairs]\n\
                  for thread in threads: thread.start()\n\
                  # The last first: those are the ones without a thread.\n\
                  for _, other in reversed(pairs):\n    \
                      got = 0\n    \
                      while data := other.recv(1 << 20): got += len(data)\n    \
                      assert got == 10 * len(PART), got\n\
                  for thread in threads: thread.join()\n\
                  print('all')";
    let run = world.netshunt_with(["--net=none"]).command(["python3", "-c", script]).run();
    run.assert_success();
    assert_eq!(run.stdout(), "all\n", "{}", run.describe());
}

/// A service outside that guests may reach.
struct Service {
    socket: UnixDatagram,
    path: String,
}

impl Service {
    fn new(world: &World) -> Self {
        let path = world.folder().join("service");
        let socket = world.host.inside(|| UnixDatagram::bind(&path)).expect("a folder of the test's");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).expect("a file of ours");
        socket.set_read_timeout(Some(DEADLINE)).expect("it is a socket");
        Self { socket, path: path.display().to_string() }
    }

    /// The next datagram, and the file that came with it.
    fn next(&self) -> (String, Option<File>) {
        let mut bytes = [0; 256];
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        let mut control = nix::cmsg_space!([i32; 4]);
        let received: RecvMsg<'_, '_, UnixAddr> =
            recvmsg(self.socket.as_raw_fd(), &mut buffers, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)
                .expect("a datagram in time");
        let file = received.cmsgs().expect("room for them").find_map(|message| match message {
            ControlMessageOwned::ScmRights(fds) => {
                let file = File::open(format!("/proc/self/fd/{}", fds[0])).expect("a descriptor of a file");
                nix::unistd::close(fds[0]).expect("it came with the message");
                Some(file)
            }
            _ => None,
        });
        let len = received.bytes;
        (String::from_utf8_lossy(&bytes[..len]).into_owned(), file)
    }
}

#[test]
fn a_log_and_a_service_manager_hear_what_is_sent_to_them() {
    let world = World::new();
    let service = Service::new(&world);
    let stored = world.folder().join("stored");
    std::fs::write(&stored, "what is stored").unwrap();
    std::fs::set_permissions(&stored, std::fs::Permissions::from_mode(0o644)).unwrap();
    let stored = stored.display().to_string();
    let path_rule = format!("--unix={}", service.path);
    for options in [["--net=host-bypass", "--unix=default"], ["--net=host-bypass", &path_rule]] {
        let launch = || world.netshunt_with(options);
        let program = world.program("notify.py");
        launch().command(["python3", &program, &service.path, &stored]).run().assert_success();
        assert!(service.next().0.contains("a line of the log"));
        assert_eq!(service.next().0, "READY=1");
        let (text, file) = service.next();
        assert_eq!(text, "FDSTORE=1\nFDNAME=file");
        let mut behind = String::new();
        file.expect("a descriptor").read_to_string(&mut behind).unwrap();
        assert_eq!(behind, "what is stored");

        let logger = ["logger", "--socket-errors=on", "-u", &service.path, "from logger"];
        launch().command(logger).run().assert_success();
        assert!(service.next().0.ends_with("from logger"));

        // It waits until nobody has the descriptor of the second message any more.
        let notify =
            launch().command(["systemd-notify", "--status=well"]).env("NOTIFY_SOCKET", &service.path);
        let running = notify.start();
        assert!(service.next().0.contains("STATUS=well"));
        assert_eq!(service.next().0, "BARRIER=1");
        running.wait().assert_success();
    }
}
