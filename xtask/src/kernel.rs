//! The kernel library: built from Debian's kernel source and `crates/lkl/kernel`, cached by the
//! content of everything that goes into it, and the same bytes in any folder.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure as check};
use sha2::{Digest, Sha256};

use crate::shell::{self, say};

/// What everything looks for below the output folder.
const LIBRARY: &str = "liblkl.so";

/// Part of the cache key: to be raised when this file builds differently.
const RECIPE: u32 = 1;

/// The tools whose version decides about the bytes.
const TOOLS: [&str; 3] = ["gcc", "ld", "strip"];

/// Lines of the log that a failure shows.
const TAIL: usize = 40;

/// A built kernel library.
#[derive(Debug)]
pub(crate) struct Built {
    /// The library, at a path that later builds replace.
    pub(crate) library: PathBuf,
    /// The kernel's release, such as `6.12.117`.
    pub(crate) version: String,
    /// SHA-256 of the library, in hexadecimal.
    pub(crate) sha256: String,
    /// How long the build took, or `None` when it came from the cache.
    pub(crate) seconds: Option<u64>,
}

/// The library for this source tarball, in `out_root/liblkl.so`: built, unless the cache below
/// `out_root` has it. Waits while another process builds in the same folder.
///
/// # Errors
/// When a tool is missing or a step of the build fails; names the log and shows its end.
pub(crate) fn ensure(source_tarball: &Path, out_root: &Path, jobs: usize) -> Result<Built> {
    fs::create_dir_all(out_root).with_context(|| format!("cannot make {}", out_root.display()))?;
    let lock = File::create(out_root.join("lock")).context("cannot make the build's lock")?;
    lock.lock().context("cannot take the build's lock")?;

    let cached = out_root.join(key(&port(), source_tarball)?);
    let mut seconds = None;
    if !cached.join(LIBRARY).is_file() {
        let start = Instant::now();
        say("building the kernel library (a few minutes; 1.7 GB of disk while it runs)");
        let work = out_root.join("building");
        build(source_tarball, &work, jobs)?;
        // The rename is what makes it a library: an interrupted build leaves none.
        remove(&cached)?;
        fs::rename(work.join("result"), &cached).context("cannot put the library into its place")?;
        remove(&work)?;
        seconds = Some(start.elapsed().as_secs());
    }
    let library = out_root.join(LIBRARY);
    let sha256 = install(&cached.join(LIBRARY), &library)?;
    let version = fs::read_to_string(cached.join("version")).context("cannot read the version")?;
    Ok(Built { library, version, sha256, seconds })
}

/// Builds the library twice, in folders with paths of different lengths, and compares the bytes.
///
/// # Errors
/// When a build fails or the bytes differ.
pub(crate) fn verify(source_tarball: &Path, out_root: &Path, jobs: usize) -> Result<()> {
    let root = out_root.join("verify");
    let mut hashes = Vec::new();
    for folder in ["a", "another/folder-with-a-longer-name"] {
        let work = root.join(folder);
        build(source_tarball, &work, jobs)?;
        let hash = hash_file(&work.join("result").join(LIBRARY))?;
        say(format!("{hash}  built in {}", work.display()));
        hashes.push(hash);
        remove(&work.join("source"))?;
    }
    check!(
        hashes.windows(2).all(|pair| pair[0] == pair[1]),
        "the kernel library is not reproducible: compare the two below {}",
        root.display()
    );
    remove(&root)
}

/// Our part of the kernel.
fn port() -> PathBuf {
    shell::workspace().join("crates/lkl/kernel")
}

/// Builds in the folder `work`, leaving `work/result` with the library and its version.
fn build(tarball: &Path, work: &Path, jobs: usize) -> Result<()> {
    remove(work)?;
    if is_fit(work) {
        return build_in(&work.join("source"), tarball, work, jobs);
    }
    let folder = shell::output(Command::new("mktemp").args(["-d", "/var/tmp/netshunt-kernel.XXXXXX"]))?;
    let folder = Path::new(folder.trim());
    say(format!("in {}: the kernel's own makefiles take no path with a space or a colon", folder.display()));
    let built = build_in(&folder.join("source"), tarball, work, jobs);
    remove(folder)?;
    built
}

/// Whether the kernel's Makefile accepts the path ("source directory cannot contain spaces or colons").
fn is_fit(path: &Path) -> bool {
    !path.as_os_str().as_encoded_bytes().iter().any(|byte| byte.is_ascii_whitespace() || *byte == b':')
}

fn build_in(source: &Path, tarball: &Path, work: &Path, jobs: usize) -> Result<()> {
    let result = work.join("result");
    for folder in [source, &result] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let log = Log { path: work.join("log") };
    let port = port();

    let mut tar = Command::new("tar");
    tar.args(["-x", "--strip-components=1", "-f"]).arg(tarball).arg("-C").arg(source);
    log.run("unpacking the kernel's source", &mut tar)?;

    copy(&port.join("arch"), &source.join("arch"))?;
    for patch in files(&port.join("patches"))? {
        let mut command = Command::new("patch");
        command.args(["-p1", "-N", "-s", "--no-backup-if-mismatch", "-i"]);
        command.arg(port.join("patches").join(&patch)).current_dir(source);
        log.run(&format!("applying {}", patch.display()), &mut command)?;
    }

    let fragment = port.join("lk.config");
    let mut configure = make(source);
    log.run("configuring", configure.arg("allnoconfig").env("KCONFIG_ALLCONFIG", &fragment))?;
    check_configuration(&fragment, &source.join(".config"))?;

    log.run("building", make(source).arg(format!("-j{jobs}")).arg(LIBRARY))?;

    let mut strip = Command::new("strip");
    strip.args(["--strip-all", "--enable-deterministic-archives", "-o"]);
    strip.arg(result.join(LIBRARY)).arg(source.join(LIBRARY));
    log.run("stripping", &mut strip)?;

    let version = fs::read_to_string(source.join("include/config/kernel.release"))
        .context("the build left no version")?;
    fs::write(result.join("version"), version.trim()).context("cannot write the version")
}

/// `make`, with everything fixed that would find its way into the bytes.
fn make(source: &Path) -> Command {
    let mut command = Command::new("nice");
    command.args(["make", "ARCH=lk"]).current_dir(source);
    for inherited in
        ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "CROSS_COMPILE", "CC", "KCFLAGS", "KBUILD_OUTPUT", "O", "LLVM"]
    {
        command.env_remove(inherited);
    }
    command
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .env("LOCALVERSION", "")
        .env("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 1970")
        .env("KBUILD_BUILD_USER", "netshunt")
        .env("KBUILD_BUILD_HOST", "netshunt")
        .env("KBUILD_BUILD_VERSION", "1");
    command
}

/// Kconfig drops an option whose dependencies are missing, without a word: notice.
fn check_configuration(fragment: &Path, configuration: &Path) -> Result<()> {
    let wanted = fs::read_to_string(fragment).context("cannot read our configuration")?;
    let got = fs::read_to_string(configuration).context("cannot read the kernel's configuration")?;
    let missing: Vec<&str> = dropped(&wanted, &got).collect();
    check!(missing.is_empty(), "the kernel's configuration lacks {}", missing.join(", "));
    Ok(())
}

fn dropped<'a>(wanted: &'a str, got: &'a str) -> impl Iterator<Item = &'a str> {
    let settings = wanted.lines().filter(|line| line.starts_with("CONFIG_"));
    settings.filter(move |setting| !got.lines().any(|line| line == *setting))
}

/// Copies the library to its stable path, never half; returns its hash.
fn install(from: &Path, to: &Path) -> Result<String> {
    let hash = hash_file(from)?;
    if hash_file(to).ok().as_ref() != Some(&hash) {
        let partial = to.with_extension("partial");
        fs::copy(from, &partial).with_context(|| format!("cannot copy to {}", partial.display()))?;
        fs::rename(&partial, to).with_context(|| format!("cannot name {}", to.display()))?;
    }
    Ok(hash)
}

/// Names a build by all that goes into it.
fn key(port: &Path, tarball: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(RECIPE.to_le_bytes());
    for tool in TOOLS {
        hash.update(shell::output(Command::new(tool).arg("--version"))?);
    }
    hash.update(hash_file(tarball)?);
    for file in files(port)? {
        hash.update(file.as_os_str().as_encoded_bytes());
        hash.update(hash_file(&port.join(&file))?);
    }
    Ok(format!("{:x}", hash.finalize()))
}

fn hash_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).with_context(|| format!("cannot read {}", path.display()))? {
            0 => return Ok(format!("{:x}", hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}

/// Every file below a folder, by its path relative to it, sorted.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    fn walk(root: &Path, inside: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
        for entry in fs::read_dir(root.join(inside))? {
            let entry = entry?;
            let path = inside.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                walk(root, &path, found)?;
            } else {
                found.push(path);
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    walk(folder, Path::new(""), &mut found).with_context(|| format!("cannot list {}", folder.display()))?;
    found.sort();
    Ok(found)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for file in files(from)? {
        let target = to.join(&file);
        fs::create_dir_all(target.parent().expect("a file has a folder"))
            .and_then(|()| fs::copy(from.join(&file), &target))
            .with_context(|| format!("cannot copy to {}", target.display()))?;
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

/// Where the steps of a build say what they have to say.
struct Log {
    path: PathBuf,
}

impl Log {
    fn run(&self, step: &str, command: &mut Command) -> Result<()> {
        let mut log = File::options()
            .create(true)
            .append(true)
            .open(&self.path)
            .with_context(|| format!("cannot write {}", self.path.display()))?;
        writeln!(log, "--- {step}").context("cannot write the log")?;
        let errors = log.try_clone().context("cannot share the log")?;
        let status = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .status()
            .with_context(|| format!("{step}: cannot start {:?}", command.get_program()))?;
        if status.success() {
            return Ok(());
        }
        let text = fs::read(&self.path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        bail!("{step} failed ({status}). The end of {}:\n{}", self.path.display(), tail(&text, TAIL))
    }
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_the_kernel_refuses_is_noticed() {
        assert!(is_fit(Path::new("/home/me/netshunt/target/lkl/building")));
        assert!(!is_fit(Path::new("/home/me/my projects/netshunt")) && !is_fit(Path::new("/srv/a:b")));
    }

    #[test]
    fn a_dropped_option_is_noticed() {
        let wanted = "# why\nCONFIG_NET=y\nCONFIG_MOON=y\n";
        let got = "CONFIG_NET=y\n# CONFIG_MOON is not set\nCONFIG_MOON_BASE=y\n";
        assert_eq!(dropped(wanted, got).collect::<Vec<_>>(), ["CONFIG_MOON=y"]);
    }

    #[test]
    fn a_failed_step_shows_what_it_said() {
        let log = Log { path: std::env::temp_dir().join(format!("xtask-log-{}", std::process::id())) };
        let mut command = Command::new("sh");
        let error = log.run("baking", command.args(["-c", "echo no flour >&2; exit 3"])).unwrap_err();
        let missing = log.run("icing", &mut Command::new("/nonexistent/icing")).unwrap_err();
        fs::remove_file(&log.path).unwrap();
        let text = error.to_string();
        assert!(text.starts_with("baking failed (exit status: 3). The end of "), "{text}");
        assert!(text.ends_with("--- baking\nno flour"), "{text}");
        assert!(missing.to_string().contains("icing: cannot start"), "{missing}");
    }

    #[test]
    fn the_tail_is_the_end() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a\n", 2), "a");
        assert_eq!(tail("", 2), "");
    }

    #[test]
    fn the_port_has_its_files_in_a_fixed_order() {
        let files = files(&port()).expect("our own folder is readable");
        assert!(files.contains(&PathBuf::from("arch/lk/include/asm/lk.h")));
        assert!(files.is_sorted());
    }
}
