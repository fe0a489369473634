//! apt-get as a guest: package lists and a package from an archive of the test's own; nothing of this machine's apt is
//! read or changed. Started by root it downloads as the user `_apt`, which the processes that have the sockets become.

use std::fs;
use std::net::SocketAddr;

use netshunt_tests::{FAR4, Path, World};

const PORT: u16 = 8000;

fn get(path: Path) {
    let world = World::new();
    let made = world.native().as_root().command(["sh", &world.program("apt/mirror.sh")]).run();
    made.assert_success();
    let (serve, folder) = (world.program("serve.sh"), made.folder.display().to_string());
    let words = ["sh", &serve, "8000", "tcp", "python3", "-m", "http.server", "--directory", &folder, "8000"];
    let mut server = world.native().far().command(words).stdin_pipe().start();
    server.prints("ready");
    let archive = SocketAddr::new(FAR4.into(), PORT);
    let words = ["sh".to_owned(), world.program("apt/get.sh"), archive.to_string()];
    let run = world.netshunt(path, &[PORT]).command(words).run();
    run.assert_success();
    let sum = fs::read_to_string(made.folder.join("greeting.sum")).expect("made above");
    assert_eq!(run.stdout(), sum, "{}", run.describe());
    assert!(!run.stderr().contains("unsandboxed"), "{}", run.describe());
    run.assert_path(path, archive, 3_000_000);
}

#[test]
fn bypass() {
    get(Path::Bypass);
}

#[test]
fn native() {
    get(Path::Native);
}

#[test]
fn stack() {
    get(Path::Stack);
}
