//! Servers and clients in the languages that people write them in, each by what its runtime waits with.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{PORT, Pair, Transport, certificate};
use crate::{World, copy_program};

/// What every client here prints at the end: all its connections got back what they sent.
const DONE: &str = "every byte came back\n";

impl Pair {
    /// net/http of Go, whose programs make their system calls themselves.
    pub fn go(world: &World) -> Self {
        Self::of_runtime(vec![go_program(world)], 10 << 20)
    }

    /// java.nio: a selector on either side, in the language's own source form.
    pub fn java(world: &World) -> Self {
        Self::of_runtime(vec!["java".into(), world.program("pairs/Nio.java")], 10 << 20)
    }

    /// node's http server, and its fetch.
    pub fn node(world: &World) -> Self {
        Self::of_runtime(vec!["node".into(), world.program("pairs/web.js")], 10 << 20)
    }

    /// Python's asyncio.
    pub fn python_asyncio(world: &World) -> Self {
        Self::of_runtime(vec!["python3".into(), world.program("pairs/streams.py")], 10 << 20)
    }

    /// quinn: QUIC over UDP, with segmentation offload and ECN where it finds them.
    pub fn quic(world: &World, program: &Path) -> Self {
        let (key, certificate) = certificate(world);
        let words = vec![copied(world, program), key, certificate];
        Self { transport: Transport::Udp, ..Self::of_runtime(words, 10 << 20) }
    }

    /// tokio.
    pub fn tokio(world: &World, program: &Path) -> Self {
        Self::of_runtime(vec![copied(world, program)], 10 << 20)
    }

    /// A program that serves when its arguments are `serve PORT`, and is a client when they are `check IP PORT`.
    fn of_runtime(program: Vec<String>, payload: u64) -> Self {
        Self {
            transport: Transport::Tcp,
            server: [program.clone(), vec!["serve".into(), PORT.to_string()]].concat(),
            client: Box::new(move |to: SocketAddr| {
                let words = ["check".to_owned(), to.ip().to_string(), to.port().to_string()];
                [&program[..], &words].concat()
            }),
            is_right: Box::new(|said| said == DONE),
            payload,
        }
    }
}

/// A program, where the user of netshunt can run it.
fn copied(world: &World, program: &Path) -> String {
    let copy = world.folder().join(program.file_name().expect("a program has a name"));
    assert!(copy_program(program, &copy), "there is no {}", program.display());
    copy.display().to_string()
}

/// Builds the Go program.
fn go_program(world: &World) -> String {
    let program = world.folder().join("go-web").display().to_string();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs/pairs/web.go");
    let built = Command::new("go")
        .args(["build", "-o", &program])
        .arg(source)
        .env("GO111MODULE", "off")
        .env("GOCACHE", world.folder().join("go-cache"))
        .output()
        .expect("golang-go is installed");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    program
}
