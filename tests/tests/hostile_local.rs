//! A hostile guest and the services of its host that are not of the internet: the AF_UNIX sockets that `--unix=default`
//! refuses, by every way to them.

#[path = "hostile/range.rs"]
mod range;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};

use range::{Range, Tally, number};

/// Without a link: nothing of it goes over one.
const PAST: &[&str] = &["--net=host-bypass", "--bypass=192.0.2.10:7000/tcp", "--bypass=203.0.113.1/tcp"];

/// Services outside: by path name, refused and allowed, and by abstract name.
struct Services {
    range: Range,
    folder: String,
    name: String,
}

impl Services {
    /// The folder is the guest's user's: the worst case, a service of the same user.
    fn new() -> Self {
        let range = Range::new();
        let folder = range.world.folder().join("services");
        std::fs::create_dir_all(folder.join("datagram")).expect("the world is the test's own");
        // In the host's namespace: elsewhere they would be refused for that, whatever they are called.
        let host = &range.world.host;
        for (file, counter) in [("docker.sock", &range.denied), ("plain.sock", &range.allowed)] {
            let (stream, datagram) = (folder.join(file), folder.join("datagram").join(file));
            accept(host.inside(|| UnixListener::bind(stream)).expect("the world is the test's own"), counter);
            receive(
                host.inside(|| UnixDatagram::bind(datagram)).expect("the world is the test's own"),
                counter,
            );
        }
        let owner = if range.world.user().is_root() { None } else { Some(user_id()) };
        for file in
            ["", "docker.sock", "plain.sock", "datagram", "datagram/docker.sock", "datagram/plain.sock"]
        {
            let path = folder.join(file);
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))
                .expect("the world is the test's own");
            std::os::unix::fs::chown(&path, owner, owner).expect("the world is the test's own");
        }
        let name = format!("netshunt-hostile-{}-{}", std::process::id(), folder.display()).replace('/', "-");
        Self { folder: folder.display().to_string(), range, name }
    }

    fn take_name(&self, name: &str) -> SocketAddr {
        SocketAddr::from_abstract_name(name).expect("the world is the test's own")
    }
}

fn user_id() -> u32 {
    let name = std::env::var("NETSHUNT_TEST_USER").expect("the world is the test's own");
    nix::unistd::User::from_name(&name)
        .expect("the world is the test's own")
        .expect("the world is the test's own")
        .uid
        .as_raw()
}

fn accept(listener: UnixListener, tally: &Tally) {
    tally.add(listener, UnixListener::set_nonblocking, |l| l.accept().map(drop));
}

fn receive(socket: UnixDatagram, tally: &Tally) {
    tally.add(socket, UnixDatagram::set_nonblocking, |s| s.recv(&mut [0; 8]).map(drop));
}

/// The way to the socket `docker.sock`, which `--unix=default` refuses wherever it is.
#[track_caller]
fn attack(name: &str) {
    let services = Services::new();
    let arguments = [name, services.folder.as_str(), services.name.as_str()];
    assert!(services.range.control("local", &arguments) > 0, "the control reached nothing");
    services.range.repelled(PAST, "local", &arguments);
}

#[test]
fn a_refused_service_by_all_its_names() {
    attack("names");
}

#[test]
fn a_refused_service_by_a_hard_link() {
    attack("hard_link");
}

/// The supervisor resolves a guest's paths: by the guest's root, and as little by its own /proc/self.
#[test]
fn a_path_that_leads_out_of_the_guests_root() {
    let services = Services::new();
    let range = &services.range;
    let arguments = ["out_of_root", services.folder.as_str(), services.name.as_str()];
    assert_eq!(range.control("local", &arguments), 0, "natively it does not lead out");
    let before = range.allowed.heard();
    let run = range.repelled(PAST, "local", &arguments);
    assert_eq!(range.allowed.heard(), before, "{}", run.describe());
    assert!(run.stdout().contains("inside: 0"), "{}", run.describe());
}

#[test]
fn a_refused_service_renamed() {
    attack("renamed");
}

#[test]
fn a_refused_service_mounted_elsewhere() {
    attack("bind_mount");
}

#[test]
fn a_path_swapped_in_memory() {
    attack("path_race");
}

#[test]
fn a_path_swapped_in_the_file_system() {
    attack("link_race");
}

#[test]
fn datagrams_to_a_refused_service() {
    attack("datagrams");
}

/// One thread sends, others change what about.
#[track_caller]
fn send_race(name: &str, both: bool) {
    let services = Services::new();
    let range = &services.range;
    let arguments = [name, services.folder.as_str(), services.name.as_str()];
    assert!(range.control("local", &arguments) > 0, "the control reached nothing");
    // The first datagram socket is a moment of its own, and comes once in each run.
    for _ in 0..if both { 1 } else { 8 } {
        let before = range.allowed.heard();
        let run = range.repelled(PAST, "local", &arguments);
        run.assert_success();
        let count = |key| number(&run, key);
        assert!(count("changes=") > 0 && count("overlaps=") > 0, "it proves nothing\n{}", run.describe());
        if both {
            let judged = count("granted=") > 0 && count("refused=") > 0;
            assert!(judged && range.allowed.heard() > before, "{}", run.describe());
        }
    }
    // The check switched off.
    let before = range.reached();
    range.guest(&["--net=host-bypass", "--unix=allow"], "local", &arguments).run().assert_success();
    assert!(range.reached() > before, "with a policy that allows it");
}

#[test]
fn a_datagrams_path_swapped_in_memory() {
    send_race("send_path_race", true);
}

#[test]
fn a_datagrams_address_swapped_in_memory() {
    send_race("send_pointer_race", true);
}

#[test]
fn a_datagram_socket_swapped_for_a_stream() {
    send_race("descriptor_race", false);
}

#[test]
fn an_abstract_name_of_the_outside() {
    let services = Services::new();
    let (stream, datagram) =
        (services.take_name(&services.name), services.take_name(&format!("{}-datagram", services.name)));
    let range = &services.range;
    accept(range.world.host.inside(|| UnixListener::bind_addr(&stream)).unwrap(), &range.denied);
    receive(range.world.host.inside(|| UnixDatagram::bind_addr(&datagram)).unwrap(), &range.denied);
    let arguments = ["abstract_name", services.folder.as_str(), services.name.as_str()];
    assert!(range.control("local", &arguments) > 0, "the control reached nothing");
    range.repelled(PAST, "local", &arguments);
}

/// A name that a guest bound and gave up is not its own any more.
#[test]
fn an_abstract_name_that_was_the_guests_once() {
    let services = Services::new();
    let range = &services.range;
    let arguments = ["stale_abstract", services.folder.as_str(), services.name.as_str()];
    let mut run = range.guest(PAST, "local", &arguments).stdin_pipe().start();
    run.prints("given up");
    let name = services.take_name(&services.name);
    accept(range.world.host.inside(|| UnixListener::bind_addr(&name)).unwrap(), &range.denied);
    run.write(b"x").unwrap();
    let run = run.wait();
    assert_eq!(range.reached(), 0, "{}", run.describe());
}
