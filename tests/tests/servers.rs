//! Servers as guests: reached from outside by published ports, from inside by other guests, and on the host where an
//! `in:` rule says so. More programs are tried by pairs_over_the_link.rs and pairs_apart_from_the_link.rs.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use netshunt_tests::{Blob, DEADLINE, FAR4, HOST4, Running, World, eventually, sha256};

/// Of the host, and published to port 8000 of the guest.
const PUBLISHED: u16 = 8080;
const PORT: u16 = 8000;

const LARGE: u64 = 64 << 20;

/// Starts a server as a guest whose port 8000 is the host's 8080.
fn serve<'w>(world: &'w World, words: &[&str]) -> Running<'w> {
    let publish = format!("--publish={PUBLISHED}:{PORT}");
    world.netshunt_with(["--net=link", &publish]).command(words.iter().copied()).start()
}

/// Where clients of the far side find it.
fn published() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(HOST4), PUBLISHED)
}

/// Runs a client on the far side until it succeeds: a link takes connections before the server does.
fn client(world: &World, words: &[&str]) -> netshunt_tests::Run {
    let mut run = None;
    eventually(&format!("{} succeeds", words.join(" ")), || {
        let client = world.native().far().command(words.iter().copied()).run();
        let success = client.status.success();
        run = Some(client);
        success
    });
    run.expect("the last one")
}

fn script(world: &World, name: &str, text: &str) -> String {
    let path = world.folder().join(name);
    fs::write(&path, text).expect("a folder of ours");
    path.display().to_string()
}

/// Runs a shell script as a guest, with nothing published.
fn inside(world: &World, text: &str) -> netshunt_tests::Run {
    let path = script(world, "inside.sh", text);
    let run = world.netshunt_with(["--net=link"]).command(["sh", "-eu", &path]).run();
    run.assert_success();
    run
}

/// Waits in a shell until something listens; connecting is what every program can.
const UNTIL_UP: &str = "\
up() { until python3 -c 'import socket, sys; socket.create_connection((\"127.0.0.1\", int(sys.argv[1]))).close()' \"$1\" \
2>/dev/null; do :; done; }
";

#[test]
fn a_peer_from_outside_is_served_and_known() {
    let world = World::of_waiting();
    for address in ["0.0.0.0", "::"] {
        let words = ["python3", &world.program("server.py"), address, "8000", "1"];
        let publish = format!("--publish={PUBLISHED}:{PORT}");
        let mut server = world.netshunt_with(["--net=link", &publish]).command(words).stdin_pipe().start();
        server.prints("listening");
        let data: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 251) as u8).collect();
        let (greeting, echo) = world.far.inside(|| {
            let mut peer = TcpStream::connect(published()).expect("the link listens");
            peer.set_read_timeout(Some(DEADLINE)).expect("more than nothing");
            let mut greeting = Vec::new();
            while greeting.last() != Some(&b'\n') {
                let mut byte = [0];
                peer.read_exact(&mut byte).expect("a greeting");
                greeting.push(byte[0]);
            }
            let mut writer = peer.try_clone().expect("a descriptor");
            let sent = data.clone();
            let writing = std::thread::spawn(move || {
                writer.write_all(&sent).expect("the server reads");
                writer.shutdown(std::net::Shutdown::Write).expect("still open");
            });
            let mut echo = Vec::new();
            peer.read_to_end(&mut echo).expect("all of it");
            writing.join().expect("it wrote");
            (String::from_utf8(greeting).expect("text"), echo)
        });
        assert!(echo == data, "{} bytes of {}", echo.len(), data.len());
        let run = server.wait();
        run.assert_success();
        // Both links stand in for the client, with an address of their own.
        let flow = run.flows.iter().find(|flow| flow.direction == "in").expect("it was logged");
        let source = flow.src.expect("accepted");
        assert!(greeting.contains(&format!(" {}", source.port())), "{greeting}\n{}", run.describe());
        assert_eq!((flow.verdict.as_str(), flow.dst.port()), ("stack", PORT), "{}", run.describe());
        assert!(run.stats.as_ref().is_some_and(|stats| stats.bytes() >= 2 << 20), "{}", run.describe());
    }
}

/// A master and its workers, which inherit the listener and wait for it by epoll.
#[test]
fn nginx() {
    let world = World::of_waiting();
    let folder = world.folder().join("www");
    fs::create_dir(&folder).expect("a folder of ours");
    world.user().own(&folder);
    let at = folder.display().to_string();
    let file = Blob::write(folder.join("file"), LARGE);
    let configuration = format!(
        "worker_processes 2; pid {at}/pid; error_log stderr; daemon off;
         events {{ worker_connections 1024; }}
         http {{ access_log off; sendfile on;
             client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
             uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
             server {{ listen 8000; listen [::]:8000; root {at};
                 location = /who {{ return 200 \"$remote_addr at $server_addr:$server_port\\n\"; }} }} }}"
    );
    let path = script(&world, "nginx.conf", &configuration);
    let _server = serve(&world, &["nginx", "-p", &at, "-e", "stderr", "-c", &path]);
    let url = format!("http://{}", published());
    let get = client(&world, &["curl", "-sS", "--fail", &format!("{url}/file")]);
    assert_eq!(get.stdout_sha256(), file.sha256);
    let who = client(&world, &["curl", "-sS", "--fail", &format!("{url}/who")]).stdout();
    assert!(who.trim_end().ends_with(":8000") && !who.starts_with("127."), "{who}");
    // Each with connections of its own.
    let urls = format!("{url}/who?[1-200]");
    let many = client(&world, &["curl", "-sS", "--fail", "--parallel", "-H", "Connection: close", &urls]);
    assert_eq!(many.stdout().lines().count(), 200);
}

#[test]
fn guests_reach_each_other_by_every_address_of_theirs() {
    let world = World::of_waiting();
    let server = world.program("server.py");
    let client = script(
        &world,
        "client.py",
        "import socket, sys\n\
         def reach(where):\n    \
             with socket.create_connection((where, 8000)) as peer:\n        \
                 own = peer.getsockname()\n        \
                 assert peer.makefile().readline() == f'hello {own[0]} {own[1]}\\n'\n        \
                 peer.sendall(b'x' * 1000)\n        \
                 assert peer.recv(1000, socket.MSG_WAITALL) == b'x' * 1000\n        \
                 print('reached', where)\n\
         for where in sys.argv[1:]: reach(where)\n",
    );
    let run = inside(
        &world,
        &format!(
            "python3 {server} 0.0.0.0 8000 4 >server & until grep -q listening server; do :; done\n\
                  python3 {client} 127.0.0.1 127.0.0.2 127.255.255.254 10.0.2.15\nwait\ncat server"
        ),
    );
    assert_eq!(run.stdout().matches("reached").count(), 4, "{}", run.describe());
    assert_eq!(run.stdout().matches("accepted").count(), 4, "{}", run.describe());
    let v6 = inside(
        &world,
        &format!(
            "python3 {server} ::1 8000 1 >server & until grep -q listening server; do :; done\n\
                  python3 -c 'import socket; s = socket.create_connection((\"::1\", 8000)); print(s.recv(100))'\n\
                  wait"
        ),
    );
    assert!(v6.stdout().contains("hello ::1"), "{}", v6.describe());
}

#[test]
fn a_range_is_published_port_by_port() {
    let world = World::of_waiting();
    let program = script(
        &world,
        "ports.py",
        "import socket\n\
         all = [socket.create_server(('', port)) for port in range(8000, 8003)]\n\
         print('listening', flush=True)\n\
         for one in all:\n    \
             peer, _ = one.accept()\n    \
             peer.sendall(str(one.getsockname()[1]).encode())\n    \
             peer.close()\n",
    );
    let launch = world.netshunt_with(["--net=link", "--publish=192.0.2.1:7000-7002:8000-8002"]);
    let mut server = launch.command(["python3", &program]).start();
    server.prints("listening");
    for (host, guest) in [(7000, "8000"), (7001, "8001"), (7002, "8002")] {
        let mut said = String::new();
        let read = world
            .far
            .inside(|| TcpStream::connect((HOST4, host)).expect("published").read_to_string(&mut said));
        read.expect("the server says its port");
        assert_eq!(said, guest);
    }
    server.wait().assert_success();
}

#[test]
fn a_port_in_use_is_an_error_before_the_guest_starts() {
    let world = World::of_waiting();
    let _taken = world.host.trap("0.0.0.0:8080");
    let run = world.netshunt_with(["--net=link", "--publish=8080:80"]).command(["echo", "started"]).run();
    run.assert_code(125);
    assert!(run.stdout().is_empty() && run.stderr().contains("8080"), "{}", run.describe());
}

/// The server is the host's then, and its peers are who they are.
#[test]
fn an_in_rule_lets_a_guest_listen_on_the_host() {
    let world = World::of_waiting();
    let rule = "--bypass=in:0.0.0.0/0:8000/tcp";
    for (net, address) in [
        ("--net=link,host-bypass", "0.0.0.0"),
        ("--net=host-bypass", "0.0.0.0"),
        ("--net=host-bypass", "192.0.2.1"),
    ] {
        let words = ["python3", &world.program("server.py"), address, "8000", "1"];
        let mut server = world.netshunt_with([net, rule]).command(words).start();
        server.prints("listening");
        let mut said = String::new();
        let own = world.far.inside(|| {
            let mut peer = TcpStream::connect((HOST4, PORT)).expect("it listens on the host");
            let own = peer.local_addr().expect("connected");
            peer.shutdown(std::net::Shutdown::Write).expect("still open");
            peer.read_to_string(&mut said).map(|_| own)
        });
        let own = own.expect("served");
        assert_eq!(own.ip(), IpAddr::V4(FAR4));
        assert_eq!(said, format!("hello {} {}\n", own.ip(), own.port()));
        let run = server.wait();
        run.assert_success();
        let flow = run.flows.iter().find(|flow| flow.direction == "in").expect("it was logged");
        assert_eq!((flow.verdict.as_str(), flow.dst.port()), ("bypass", PORT), "{}", run.describe());
    }
}

/// Root among the guests has no CAP_NET_BIND_SERVICE; the supervisor, which binds for it, has.
#[test]
fn an_in_rule_opens_the_low_port_that_it_names() {
    let world = World::of_waiting();
    if !world.user().is_root() {
        return;
    }
    let program = script(
        &world,
        "low.py",
        "import socket, sys\n\
         def listens(port):\n\
         \x20try: socket.create_server(('', port)).close()\n\
         \x20except OSError as e: return e.errno\n\
         \x20return 'listens'\n\
         print([listens(port) for port in (81, 80, 443)])\n",
    );
    for net in ["--net=host-bypass", "--net=link,host-bypass"] {
        let launch = world.netshunt_with([net, "--bypass=in:0.0.0.0/0:80/tcp", "--deny=in:*"]);
        let run = launch.command(["python3", &program]).run();
        run.assert_success();
        assert_eq!(
            run.stdout().trim(),
            format!("[{0}, 'listens', {0}]", nix::libc::EACCES),
            "{}",
            run.describe()
        );
    }
}

/// Without a rule that names the place a guest listens in its own network, whether that leads anywhere or not.
#[test]
fn nobody_listens_on_the_host_unasked() {
    let world = World::of_waiting();
    let other = "--bypass=in:0.0.0.0/0:8001/tcp";
    for options in [&["--net=none"][..], &["--net=host-bypass", other], &["--net=link,host-bypass", other]] {
        let words = ["python3", &world.program("server.py"), "0.0.0.0", "8000", "1"];
        let mut server = world.netshunt_with(options.iter().copied()).command(words).start();
        server.prints("listening 0.0.0.0 8000");
        let refused = |at: &str| TcpStream::connect((at, PORT)).map_err(|error| error.kind());
        for (from, at) in [(&world.host, "127.0.0.1"), (&world.host, "192.0.2.1"), (&world.far, "192.0.2.1")]
        {
            let refusal = from.inside(|| refused(at)).expect_err("nobody listens there");
            assert_eq!(refusal, std::io::ErrorKind::ConnectionRefused, "{options:?} at {at}");
        }
        assert!(!server.stdout().contains("accepted"), "{options:?}");
        server.kill();
    }
}

#[test]
fn a_denial_keeps_a_guest_from_listening() {
    let world = World::of_waiting();
    for options in [
        &["--net=none", "--deny=in:*"][..],
        &["--net=link", "--deny=in:*:8000/tcp"],
        &["--net=link", "--deny=in:*"],
    ] {
        let words = ["python3", &world.program("server.py"), "0.0.0.0", "8000", "1"];
        let run = world.netshunt_with(options.iter().copied()).command(words).run();
        assert!(run.stderr().contains("PermissionError"), "{}", run.describe());
        assert_eq!(
            run.stderr().matches("listening, for which there is no rule").count(),
            1,
            "{}",
            run.describe()
        );
        let flow = run.flows.iter().find(|flow| flow.direction == "in").expect("it was logged");
        assert_eq!((flow.verdict.as_str(), flow.errno.as_deref()), ("deny", Some("EACCES")));
    }
}

/// Somebody of the host's who finds a listener's private place gets nothing there, and the guest nothing of it.
#[test]
fn a_listener_is_for_the_stack_alone() {
    let world = World::of_waiting();
    let program = script(
        &world,
        "quiet.py",
        "import socket, sys\n\
         listener = socket.create_server(('', 8000))\n\
         print('listening', flush=True)\n\
         peer, where = listener.accept()\n\
         print('accepted', where[0], peer.recv(100), flush=True)\n\
         listener.setblocking(False)\n\
         sys.stdin.readline()\n\
         try: print('accepted', listener.accept()[1], flush=True)\n\
         except BlockingIOError: print('nobody', flush=True)\n",
    );
    let launch = world.netshunt_with(["--net=link", "--publish=8080:8000"]).command(["python3", &program]);
    let mut server = launch.stdin_pipe().start();
    server.prints("listening");
    let place = world.host.inside(private_place);
    let intrude = || {
        world.host.inside(|| {
            let mut peer = TcpStream::connect(place).expect("it is there for everybody");
            peer.set_read_timeout(Some(Duration::from_secs(1))).expect("more than nothing");
            // Dropped as soon as the guest, or somebody for it, looks.
            let _ = peer.write_all(b"let me in");
            let mut said = Vec::new();
            let _ = peer.read_to_end(&mut said);
            assert!(said.is_empty(), "{said:?}");
            peer
        })
    };
    let _first = intrude();
    world
        .far
        .inside(|| TcpStream::connect(published()).expect("published").write_all(b"mine"))
        .expect("written");
    server.prints("b'mine'");
    assert!(!server.stdout().contains("accepted 127."), "{}", server.stdout());
    let _second = intrude();
    server.write(b"\n").expect("it reads");
    server.prints("nobody");
    server.wait().assert_success();
}

/// The only listener of this namespace on a private loopback address.
fn private_place() -> SocketAddr {
    let table = fs::read_to_string("/proc/thread-self/net/tcp").expect("/proc is mounted");
    let places = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().take(4).collect();
        let [_, local, _, "0A"] = words[..] else { return None };
        let (ip, port) = local.split_once(':')?;
        let ip = u32::from_str_radix(ip, 16).ok()?.to_ne_bytes();
        let place = SocketAddr::from((ip, u16::from_str_radix(port, 16).ok()?));
        // The park's listeners are full; they take nobody.
        (ip[0] == 127 && ip[1] >= 64).then_some(place)
    });
    let places: Vec<SocketAddr> = places.collect();
    assert_eq!(places.len(), 1, "{table}");
    places[0]
}

/// The relay of a connection lives as long as the connection, not as long as its listener, and a new server takes
/// over the port.
#[test]
fn a_server_is_replaced_while_connections_last() {
    let world = World::of_waiting();
    let program = script(
        &world,
        "replaced.py",
        "import os, socket\n\
         for round in range(50):\n    \
             listener = socket.create_server(('127.0.0.1', 8000))\n    \
             client = socket.create_connection(('127.0.0.1', 8000))\n    \
             peer, _ = listener.accept()\n    \
             listener.close()\n    \
             try: socket.create_connection(('127.0.0.1', 8000)); print('not refused')\n    \
             except ConnectionRefusedError: pass\n    \
             client.sendall(b'ping'); assert peer.recv(4) == b'ping'\n    \
             globals()[f'keep{round}'] = (client, peer)\n\
         print('replaced')\n",
    );
    let run = world.netshunt_with(["--net=link"]).command(["python3", &program]).run();
    run.assert_success();
    assert_eq!(run.stdout(), "replaced\n", "{}", run.describe());
}

#[test]
fn many_processes_accept_and_each_connection_is_served_once() {
    let world = World::of_waiting();
    let program = script(
        &world,
        "prefork.py",
        "import os, socket, threading\n\
         listener = socket.create_server(('127.0.0.1', 8000), backlog=64)\n\
         workers = []\n\
         for _ in range(8):\n    \
             pid = os.fork()\n    \
             if pid == 0:\n        \
                 while True:\n            \
                     peer, _ = listener.accept()\n            \
                     peer.sendall(peer.recv(100)); peer.close()\n    \
             workers.append(pid)\n\
         def one(i):\n    \
             with socket.create_connection(('127.0.0.1', 8000)) as peer:\n        \
                 peer.sendall(b'%d' % i); assert peer.recv(100) == b'%d' % i; served.append(i)\n\
         served = []\n\
         for batch in range(10):\n    \
             threads = [threading.Thread(target=one, args=(batch * 40 + i,)) for i in range(40)]\n    \
             [t.start() for t in threads]; [t.join() for t in threads]\n\
         [os.kill(pid, 9) for pid in workers]\n\
         print(len(served), len(set(served)))\n",
    );
    let run = world.netshunt_with(["--net=link"]).command(["python3", &program]).run();
    run.assert_success();
    assert_eq!(run.stdout(), "400 400\n", "{}", run.describe());
}

#[test]
fn a_file_of_64_mebibytes_is_uploaded_and_downloaded_inside() {
    let world = World::of_waiting();
    let file = Blob::write(world.folder().join("file"), LARGE);
    let folder = world.folder().display().to_string();
    let run = inside(
        &world,
        &format!(
            "{UNTIL_UP}python3 -m http.server --directory {folder} 8000 >&2 & up 8000\n\
             curl -sS --fail -o got http://127.0.0.1:8000/file\nkill $!"
        ),
    );
    assert_eq!(sha256(&run.folder.join("got")), file.sha256, "{}", run.describe());
    // It never left the stack.
    assert!(run.stats.as_ref().is_some_and(|stats| stats.bytes() < 1 << 20), "{}", run.describe());
}
