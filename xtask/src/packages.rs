//! Which Debian packages are needed, why, and their installation.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::shell::{self, find_program, say};

/// What a package is wanted for; each purpose includes the ones before it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Purpose {
    /// Building netshunt and the kernel library.
    Build,
    /// Running the demonstration.
    Demo,
    /// Running every test.
    Test,
}

/// How to see that a package's work is already done, by whichever package or hand.
#[derive(Clone, Copy, Debug)]
enum Present {
    /// A file.
    Path(&'static str),
    /// A program in the usual folders.
    Program(&'static str),
}

impl Present {
    fn is_met(self) -> bool {
        match self {
            Self::Path(path) => Path::new(path).exists(),
            Self::Program(name) => find_program(name).is_some(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Package {
    name: &'static str,
    purpose: Purpose,
    present: Present,
    why: &'static str,
}

const fn package(purpose: Purpose, name: &'static str, present: Present, why: &'static str) -> Package {
    Package { name, purpose, present, why }
}

use Present::{Path as File, Program};
use Purpose::{Build, Demo, Test};

/// Everything netshunt ever asks Debian for, except the kernel's source and sid's passt (see
/// `kernel_source` and `passt_sid`).
const PACKAGES: &[Package] = &[
    package(Build, "gcc", Program("gcc"), "compiles the kernel library and links Rust programs"),
    package(Build, "libc6-dev", File("/usr/include/stdio.h"), "headers for the kernel's build tools"),
    package(Build, "make", Program("make"), "the kernel's build"),
    package(Build, "flex", Program("flex"), "the kernel's configuration parser"),
    package(Build, "bison", Program("bison"), "the kernel's configuration parser"),
    package(Build, "bc", Program("bc"), "computes the kernel's time constants"),
    package(Build, "patch", Program("patch"), "applies our patches to the kernel"),
    package(Build, "xz-utils", Program("xz"), "unpacks the kernel's source"),
    package(Build, "pkg-config", Program("pkg-config"), "finds libseccomp and libslirp"),
    package(Build, "libseccomp-dev", File("/usr/include/seccomp.h"), "builds the system call filter"),
    package(
        Build,
        "libslirp-dev",
        File("/usr/include/slirp/libslirp.h"),
        "the user-mode network of --net=slirp",
    ),
    package(Demo, "iproute2", Program("ip"), "makes the private network that demo and tests run in"),
    package(Demo, "util-linux", Program("unshare"), "enters network namespaces"),
    package(Demo, "python3", Program("python3"), "the demo's server, and a program under test"),
    package(Demo, "passt", Program("passt"), "the link of --net=passt, and what --net=auto prefers"),
    package(Demo, "curl", Program("curl"), "the program of the demo and of many tests"),
    package(Test, "util-linux", Program("setpriv"), "runs tests as an unprivileged user"),
    package(Test, "wget", Program("wget"), "a program under test"),
    package(Test, "git", Program("git"), "a program under test"),
    package(Test, "nodejs", Program("node"), "a program under test"),
    package(Test, "nginx-light", Program("nginx"), "the web server of the tests"),
    package(Test, "redis-server", Program("redis-server"), "a server of the tests"),
    package(Test, "redis-tools", Program("redis-cli"), "a program under test"),
    package(Test, "iperf3", Program("iperf3"), "a program under test, and its server"),
    package(Test, "openssh-client", Program("ssh"), "a program under test"),
    package(Test, "openssh-server", Program("sshd"), "a server of the tests"),
    package(Test, "musl-tools", Program("musl-gcc"), "builds the static program under test"),
    package(Test, "dnsmasq-base", Program("dnsmasq"), "a server of the tests"),
    package(Test, "bind9-dnsutils", Program("dig"), "a program under test"),
    package(Test, "iputils-ping", Program("ping"), "a program under test"),
    package(Test, "openssl", Program("openssl"), "DTLS under test, and certificates"),
    package(Test, "wrk", Program("wrk"), "a program under test"),
    package(Test, "unbound", Program("unbound"), "a program under test"),
    package(Test, "apt-utils", Program("apt-ftparchive"), "makes the archive that apt-get is tested with"),
    package(Test, "postgresql-15", File("/usr/lib/postgresql/15/bin/pgbench"), "programs under test"),
    package(Test, "openjdk-17-jdk-headless", Program("javac"), "a program under test"),
    package(Test, "golang-go", Program("go"), "builds the Go program under test"),
    package(
        Test,
        "libpython3.11-testsuite",
        File("/usr/lib/python3.11/test/test_socket.py"),
        "CPython's own tests, run in netshunt",
    ),
    package(Test, "golang-1.19-go", File("/usr/lib/go-1.19/bin/go"), "builds Go's own tests"),
    package(Test, "golang-1.19-src", File("/usr/share/go-1.19/src/net/net_test.go"), "Go's own tests"),
    package(
        Test,
        "strace",
        Program("strace"),
        "counts the system calls of a program under test, and makes those of the supervisor fail",
    ),
];

/// Installs as root: `$@` are the packages.
///
/// A freshly installed nginx, redis or sshd must not start serving on a developer's machine: while
/// we install, policy-rc.d forbids it (invoke-rc.d and deb-systemd-invoke both ask it), unless the
/// machine has a policy of its own. Ours carries a mark, so that one left by a killed run is known.
const INSTALL: &str = r#"
policy=/usr/sbin/policy-rc.d
mark='# for the time of an installation by netshunt cargo xtask setup'
if [ -e $policy ] && grep -qxF "$mark" $policy; then rm -f $policy; fi
if ! [ -e $policy ]; then
    trap 'rm -f $policy' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >$policy
    chmod 755 $policy
fi
export DEBIAN_FRONTEND=noninteractive
update() { apt-get update -q; }
install() { apt-get install -q -y --no-install-recommends "$@" </dev/null; }
# Fresh machines have no package lists, old ones have lists of packages that are gone.
apt-cache show --no-all-versions "$@" >/dev/null 2>&1 || update
install "$@" || { update && install "$@"; }
"#;

/// Installs what `purpose` needs and this machine lacks; silent when that is nothing.
///
/// # Errors
/// When the machine is not a Debian, or an installation fails: the message says what is missing.
pub(crate) fn ensure_installed(purpose: Purpose) -> Result<()> {
    let missing = missing(purpose);
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|p| p.name).collect();
    ensure!(
        find_program("apt-get").is_some(),
        "this machine has no apt-get; install what Debian calls {} yourself, then run this again",
        names.join(" ")
    );
    ensure!(
        shell::is_root() || find_program("sudo").is_some(),
        "not root, and there is no sudo: have root run \
         `apt-get update && apt-get install --no-install-recommends {}`",
        names.join(" ")
    );
    let how = if shell::is_root() { "apt-get" } else { "sudo apt-get" };
    say(format!("installing {} Debian packages with {how}; none of their services is started:", names.len()));
    for package in &missing {
        println!("         {:<16} {}", package.name, package.why);
    }
    shell::run(shell::as_root(INSTALL).args(&names)).context("cannot install the packages listed above")?;
    let still = self::missing(purpose);
    ensure!(
        still.is_empty(),
        "installed, and yet not found: {}",
        still.iter().map(|p| format!("{} ({:?})", p.name, p.present)).collect::<Vec<_>>().join(", ")
    );
    Ok(())
}

fn missing(purpose: Purpose) -> Vec<&'static Package> {
    let mut missing: Vec<&Package> =
        PACKAGES.iter().filter(|p| p.purpose <= purpose && !p.present.is_met()).collect();
    missing.dedup_by_key(|p| p.name);
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_says_why() {
        assert!(PACKAGES.iter().all(|p| !p.why.is_empty() && !p.name.contains(' ')));
    }

    #[test]
    fn a_purpose_includes_the_ones_before_it() {
        assert!(Build < Demo && Demo < Test);
    }

    #[test]
    fn what_is_there_is_seen() {
        assert!(Program("sh").is_met());
        assert!(File("/proc/self").is_met());
        assert!(!Program("no-such-program-anywhere").is_met());
    }
}
