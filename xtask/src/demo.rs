//! `cargo xtask demo`: from a bare machine to one command over both paths.

use std::env;
use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::packages::Purpose;
use crate::shell::{self, Privilege, say};

/// What runs inside the namespaces; see there.
const SCRIPT: &str = include_str!("demo.sh");

/// Builds what is missing, then shows a command whose connections take both paths.
///
/// The server lives in a network namespace, since netshunt keeps its guests from the machine's own
/// addresses: it takes root, sudo, or the right of an ordinary user to make user namespaces.
///
/// # Errors
/// When something cannot be installed or built, or the demonstration does not show what it should.
pub(crate) fn run() -> Result<()> {
    crate::setup(Purpose::Demo)?;
    crate::build_kernel(false)?;
    say("building netshunt (cargo build --release)");
    shell::run(&mut shell::cargo(&["build", "--release", "--package", "netshunt"]))?;
    let scratch = Scratch::new()?;
    let mut words = isolation()?;
    words.extend([
        "env".to_owned(),
        format!("NETSHUNT_LKL={}", shell::target().join("lkl/liblkl.so").display()),
    ]);
    words.extend(["sh", "-eu", "-c", SCRIPT, "demo"].map(str::to_owned));
    words.push(shell::target().join("release/netshunt").display().to_string());
    words.push(scratch.0.clone());
    let status = Command::new(&words[0])
        .args(&words[1..])
        .env("PATH", path())
        .stdin(Stdio::null())
        .status()
        .context("cannot start unshare")?;
    ensure!(status.success(), "the demonstration did not show what it should: see above");
    println!();
    say("that was it: try `target/release/netshunt -- COMMAND`, and see README.md");
    Ok(())
}

/// The words that put a command into network and process namespaces of its own, all of whose
/// processes die when the command ends.
fn isolation() -> Result<Vec<String>> {
    let unshare = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let user = ["--user", "--map-root-user"];
    let choices = match Privilege::detect() {
        Privilege::Root => vec![unshare.to_vec()],
        // Without any privilege if the machine lets us: netshunt itself needs none.
        Privilege::None => vec![[&unshare[..], &user].concat()],
        Privilege::Sudo => {
            vec![[&unshare[..], &user].concat(), [Privilege::Sudo.prefix(), &unshare].concat()]
        }
    };
    let works = |words: &&Vec<&str>| {
        let mut attempt = Command::new(words[0]);
        attempt
            .args(&words[1..])
            .arg("true")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        attempt.status().is_ok_and(|status| status.success())
    };
    let words = choices.iter().find(works).context(
        "cannot make a network namespace: run this as root, or let users make user namespaces \
         (`sysctl kernel.unprivileged_userns_clone` and `user.max_user_namespaces`)",
    )?;
    Ok(words.iter().map(|word| (*word).to_owned()).collect())
}

/// Ours, with the folders of `ip` and its like, which an ordinary user's lacks.
fn path() -> String {
    format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default())
}

/// A folder that goes with us.
#[derive(Debug)]
struct Scratch(String);

impl Scratch {
    fn new() -> Result<Self> {
        let made = shell::output(Command::new("mktemp").args(["-d", "-t", "netshunt-demo-XXXXXX"]))?;
        Ok(Self(made.trim().to_owned()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
