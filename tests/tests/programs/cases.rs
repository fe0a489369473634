//! What unmodified programs do, and what must come of it.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use netshunt_tests::{FAR4, Path, Run, Web, World, sha256};

const SMALL: u64 = 256 << 10;
const LARGE: u64 = 64 << 20;
const HUGE: u64 = 1 << 30;

/// Runs a program that writes the web server's file to its standard output.
fn download(world: &World, path: Path, web: &Web, to: SocketAddr, words: &[&str]) -> Run {
    let run = world.netshunt(path, &[web.port]).command(words.iter().copied()).run();
    run.assert_success();
    assert_eq!(run.stdout_sha256(), web.file.sha256, "{}", run.describe());
    run.assert_path(path, to, web.file.len);
    run
}

pub(crate) fn curl(path: Path) {
    let world = World::new();
    let web = world.nginx(SMALL);
    download(&world, path, &web, web.address(), &["curl", "-sS", "--fail", &web.url()]);
}

pub(crate) fn curl_ipv6(path: Path) {
    let world = World::new();
    let web = world.nginx(SMALL);
    download(&world, path, &web, web.address6(), &["curl", "-sS", "--fail", &web.url6()]);
}

pub(crate) fn curl_large(path: Path) {
    let world = World::new();
    let web = world.nginx(LARGE);
    download(&world, path, &web, web.address(), &["curl", "-sS", "--fail", &web.url()]);
}

pub(crate) fn curl_upload(path: Path) {
    let world = World::new();
    let web = world.nginx(LARGE);
    upload(&world, path, &web);
}

/// PUTs the web server's own file back to it.
fn upload(world: &World, path: Path, web: &Web) {
    let (from, to) = (web.file.path.display().to_string(), format!("http://{}/put/up", web.address()));
    let run = world
        .netshunt(path, &[web.port])
        .command(["curl", "-sS", "--fail", "-T", &from, &to])
        .timeout(Duration::from_secs(300))
        .run();
    run.assert_success();
    assert_eq!(sha256(&web.root.join("put/up")), web.file.sha256, "{}", run.describe());
    run.assert_path(path, web.address(), web.file.len);
}

pub(crate) fn gigabyte_down_and_up(path: Path) {
    let world = World::new();
    let web = world.nginx(HUGE);
    let run = world
        .netshunt(path, &[web.port])
        .command(["curl", "-sS", "--fail", &web.url()])
        .timeout(Duration::from_secs(300))
        .run();
    run.assert_success();
    assert_eq!(run.stdout_sha256(), web.file.sha256, "{}", run.describe());
    run.assert_path(path, web.address(), HUGE);
    upload(&world, path, &web);
}

pub(crate) fn four_at_once(path: Path) {
    let world = World::new();
    let web = world.nginx(LARGE);
    let script = "jobs=; for i in 1 2 3 4; do curl -sS --fail -o $i \"$1\" & jobs=\"$jobs $!\"; done; \
                  for job in $jobs; do wait $job || exit 1; done";
    let run = world.netshunt(path, &[web.port]).command(["sh", "-u", "-c", script, "sh", &web.url()]).run();
    run.assert_success();
    for number in 1..=4 {
        assert_eq!(
            sha256(&run.folder.join(number.to_string())),
            web.file.sha256,
            "{number}: {}",
            run.describe()
        );
    }
    run.assert_path(path, web.address(), 4 * LARGE);
    if path != Path::Native {
        assert_eq!(run.flows.len(), 4, "{}", run.describe());
    }
}

pub(crate) fn wget(path: Path) {
    let world = World::new();
    let web = world.nginx(LARGE);
    download(&world, path, &web, web.address(), &["wget", "--no-verbose", "-O", "-", &web.url()]);
}

fn python(path: Path, how: &str) {
    let world = World::new();
    let web = world.nginx(LARGE);
    let (program, port) = (world.program("fetch.py"), web.port.to_string());
    let words = ["python3", &program, how, &FAR4.to_string(), &port, "/file"];
    download(&world, path, &web, web.address(), &words);
}

pub(crate) fn python_asyncio(path: Path) {
    python(path, "asyncio");
}

pub(crate) fn python_blocking(path: Path) {
    python(path, "blocking");
}

pub(crate) fn python_settimeout(path: Path) {
    python(path, "timeout");
}

pub(crate) fn node(path: Path) {
    let world = World::new();
    let web = world.nginx(LARGE);
    let program = world.program("fetch.js");
    download(&world, path, &web, web.address(), &["node", &program, &web.url()]);
}

pub(crate) fn static_musl(path: Path) {
    let world = World::new();
    let web = world.nginx(LARGE);
    let (source, binary) = (world.program("fetch.c"), world.folder().join("fetch").display().to_string());
    let mut compiler = Command::new("musl-gcc");
    let built = compiler.args(["-static", "-O2", "-Wall", "-Werror", "-o", &binary, &source]).status();
    assert!(built.expect("musl-tools has musl-gcc").success());
    let words = [binary.as_str(), &FAR4.to_string(), &web.port.to_string(), "/file"];
    download(&world, path, &web, web.address(), &words);
}

pub(crate) fn git_clone(path: Path) {
    let world = World::new();
    let web = world.nginx(4 << 20);
    // Served as plain files: the oldest way, with many small requests.
    let script = "git init -q -b main work && cp \"$1/file\" work/ && cd work && git add file && \
                  git -c user.name=t -c user.email=t@example.org commit -q -m one && \
                  git clone -q --bare . \"$1/repo.git\" && git -C \"$1/repo.git\" update-server-info";
    let root = web.root.display().to_string();
    world.native().far().command(["sh", "-eu", "-c", script, "sh", &root]).run().assert_success();
    let url = format!("http://{}/repo.git", web.address());
    let run = world.netshunt(path, &[web.port]).command(["git", "clone", "-q", &url, "copy"]).run();
    run.assert_success();
    assert_eq!(sha256(&run.folder.join("copy/file")), web.file.sha256, "{}", run.describe());
    run.assert_path(path, web.address(), web.file.len);
}

pub(crate) fn iperf3(path: Path) {
    let world = World::new();
    let server = world.iperf3();
    let (host, port, amount) = (FAR4.to_string(), server.port.to_string(), LARGE.to_string());
    for reverse in [None, Some("--reverse")] {
        let words = ["iperf3", "--client", &host, "--port", &port, "--bytes", &amount, "--json"];
        let run = world.netshunt(path, &[server.port]).command(words.into_iter().chain(reverse)).run();
        run.assert_success();
        let report: serde_json::Value = serde_json::from_str(&run.stdout()).expect("iperf3 --json");
        let sum = |which: &str| report["end"][which]["bytes"].as_u64().unwrap_or_default();
        // The clock stops when the sender has sent all: the last of it may still be on its way.
        let (sent, received) = (sum("sum_sent"), sum("sum_received"));
        assert!(sent >= LARGE && received > LARGE / 2, "{reverse:?}: {sent} {received}\n{}", run.describe());
        run.assert_path(path, server.address(), received);
    }
}

pub(crate) fn redis_cli(path: Path) {
    let world = World::new();
    let (server, web) = (world.redis(), world.nginx(LARGE));
    let (host, port, len) = (FAR4.to_string(), server.port.to_string(), LARGE.to_string());
    let client = ["redis-cli", "-h", &host, "-p", &port];
    let set = world.netshunt(path, &[server.port]).command([&client[..], &["-x", "SET", "blob"]].concat());
    let set = set.stdin_file(&web.file.path).run();
    set.assert_success();
    assert_eq!(set.stdout().trim(), "OK", "{}", set.describe());
    set.assert_path(path, server.address(), LARGE);
    // --raw ends the value with a newline of its own.
    let script = "redis-cli -h \"$1\" -p \"$2\" --raw GET blob | head -c \"$3\"";
    let get = world
        .netshunt(path, &[server.port])
        .command(["sh", "-eu", "-c", script, "sh", &host, &port, &len])
        .run();
    get.assert_success();
    assert_eq!(get.stdout_sha256(), web.file.sha256, "{}", get.describe());
    get.assert_path(path, server.address(), LARGE);
}

pub(crate) fn ssh_bytes(path: Path) {
    let world = World::new();
    let (server, web) = (world.sshd(), world.nginx(LARGE));
    let file = web.file.path.display().to_string();
    let words = [server.client(), vec!["cat".to_owned(), file]].concat();
    let run = world.netshunt(path, &[server.port]).command(words).run();
    run.assert_success();
    assert_eq!(run.stdout_sha256(), web.file.sha256, "{}", run.describe());
    run.assert_path(path, server.address(), LARGE);
}

/// A session as a person has one: netshunt on a terminal, ssh in it, a shell on the far side, a
/// window that is resized, an interrupt, and an exit status.
pub(crate) fn ssh_interactive(path: Path) {
    let world = World::new();
    let server = world.sshd();
    let terminal = ["python3".to_owned(), world.program("terminal.py")];
    let words = [server.client(), vec!["TERM=dumb exec /bin/sh -i".to_owned()]].concat();
    let words = words.into_iter().enumerate().flat_map(|(i, word)| {
        // A command turns the terminal off unless -t asks for it.
        if i == 0 { vec![word, "-t".to_owned()] } else { vec![word] }
    });
    let run = world.netshunt(path, &[server.port]).wrapper(terminal).command(words).run();
    run.assert_code(7);
    run.assert_path(path, server.address(), 0);
}
