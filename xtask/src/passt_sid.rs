//! The newest passt that Debian has, beside the release's own: sid's, unpacked into the target folder
//! with the C library and the loader that it was built for.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::apt::{self, PrivateApt};
use crate::shell::{self, say};
use crate::sources;

/// Both packages: sid's passt asks for symbols that an older C library lacks.
const PACKAGES: [&str; 2] = ["passt", "libc6"];

/// What is kept of them: the path in the package, and ours.
const FILES: [(&str, &str); 4] = [
    ("usr/bin/passt", "bin/passt"),
    ("usr/bin/passt.avx2", "bin/passt.avx2"),
    ("usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "lib/ld-linux-x86-64.so.2"),
    ("usr/lib/x86_64-linux-gnu/libc.so.6", "lib/libc.so.6"),
];

/// Starts it, from wherever the folder is copied to, as passt or as pasta.
const WRAPPER: &str = r#"#!/bin/sh
# Debian sid's passt over its own loader and C library. passt looks for its AVX2 build beside
# /proc/self/exe, which here is the loader: so the choice is made now, and what it says about that is void.
self=$(readlink -f "$0")
here=${self%/*}
program=$here/bin/passt
grep -qw avx2 /proc/cpuinfo && program=$program.avx2
exec "$here/lib/ld-linux-x86-64.so.2" --library-path "$here/lib" --argv0 "${0##*/}" "$program" "$@"
"#;

/// The program, where [`ensure_unpacked`] puts it.
pub(crate) fn program() -> PathBuf {
    folder().join("passt")
}

/// Downloads and unpacks it if the target folder has none yet; silent when it has. To follow a newer
/// one, remove `target/passt-sid`.
///
/// # Errors
/// When the machine's archives have no sid, or the download fails.
pub(crate) fn ensure_unpacked() -> Result<PathBuf> {
    let folder = folder();
    // Written last.
    if folder.join("version").is_file() {
        write_wrapper(&folder)?;
        return Ok(program());
    }
    let (machine, codename) = apt::machine()?;
    let sources = sources::for_sid(&machine, &codename);
    ensure!(!sources.is_empty(), "{}", apt::no_archive(&codename));
    let apt = PrivateApt::new("apt-sid", sources)?;
    say("fetching the newest passt, and the C library it was built for, with apt-get download, from:");
    apt.show_sources();
    let partial = folder.with_extension("partial");
    let _ = fs::remove_dir_all(&partial);
    apt.download(&PACKAGES, &partial).context("this machine's archive has no sid, or not now")?;
    let version = unpack(&partial)?;
    let _ = fs::remove_dir_all(&folder);
    fs::rename(&partial, &folder).with_context(|| format!("cannot name {}", folder.display()))?;
    say(format!("passt {version} of Debian sid: {}", program().display()));
    Ok(program())
}

fn folder() -> PathBuf {
    shell::target().join("passt-sid")
}

/// Makes the folder of the packages what it should be, and returns passt's version.
fn unpack(folder: &Path) -> Result<String> {
    let mut version = String::new();
    let unpacked = folder.join("unpacked");
    for package in PACKAGES {
        let file = apt::downloaded(package, folder)?;
        shell::run(Command::new("dpkg-deb").arg("--extract").arg(&file).arg(&unpacked))?;
        if package == "passt" {
            version = shell::output(Command::new("dpkg-deb").arg("--field").arg(&file).arg("Version"))?;
        }
        fs::remove_file(&file)?;
    }
    for (from, to) in FILES {
        let to = folder.join(to);
        fs::create_dir_all(to.parent().expect("it lies in a folder"))?;
        fs::copy(unpacked.join(from), &to)
            .with_context(|| format!("sid's packages have no {from} any more: see xtask/src/passt_sid.rs"))?;
    }
    fs::remove_dir_all(&unpacked)?;
    write_wrapper(folder)?;
    symlink("passt", folder.join("pasta"))?;
    ensure_complete(folder)?;
    fs::write(folder.join("version"), &version)?;
    Ok(version.trim().to_owned())
}

/// Writes the wrapper, unless it is there already: it may be running.
fn write_wrapper(folder: &Path) -> Result<()> {
    let wrapper = folder.join("passt");
    if fs::read_to_string(&wrapper).is_ok_and(|text| text == WRAPPER) {
        return Ok(());
    }
    fs::write(&wrapper, WRAPPER)?;
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot write {}", wrapper.display()))
}

/// Asks the loader whether the folder holds every library that passt wants.
fn ensure_complete(folder: &Path) -> Result<()> {
    let lib = folder.join("lib");
    let mut list = Command::new(lib.join("ld-linux-x86-64.so.2"));
    list.arg("--library-path").arg(&lib).arg("--list").arg(folder.join("bin/passt"));
    let libraries = shell::output(&mut list)?;
    let foreign: Vec<&str> = libraries
        .lines()
        .filter(|line| line.contains("=>") && !line.contains(&format!("=> {}", lib.display())))
        .collect();
    ensure!(foreign.is_empty(), "sid's passt wants more libraries: {}", foreign.join(", "));
    Ok(())
}
