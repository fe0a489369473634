//! Where the numbers come from: whoever reads them asks this first.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::shell;

/// What is known about the machine and the programs, each a name and its value.
pub(crate) type Machine = Vec<(&'static str, String)>;

/// Looks around. What cannot be found out is `unknown`.
pub(crate) fn describe(files: &Path) -> Machine {
    vec![
        ("date", said("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        ("commit", commit()),
        ("netshunt", said(&files.join("netshunt").display().to_string(), &["--version"])),
        ("kernel library", library(&files.join("liblkl.so"))),
        ("libslirp", package("libslirp0")),
        ("passt, pasta", package("passt")),
        ("passt, pasta of sid", read(&files.join("passt-sid/version").display().to_string())),
        ("slirp4netns", package("slirp4netns")),
        ("system", system()),
        ("kernel", said("uname", &["-srm"])),
        ("processor", processor()),
        ("memory", memory()),
        ("tcp_rmem", setting("tcp_rmem")),
        ("tcp_wmem", setting("tcp_wmem")),
        ("congestion control", setting("tcp_congestion_control")),
        ("rustc", said("rustc", &["--version"])),
        ("gcc", said("gcc", &["-dumpfullversion"])),
        ("load average before", load_average()),
    ]
}

/// How busy others kept the machine.
pub(crate) fn load_average() -> String {
    read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        shell::output(Command::new("git").args(arguments).current_dir(shell::workspace()))
    };
    let Ok(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".to_owned() };
    let clean =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_ok_and(|changes| changes.is_empty());
    format!("{}{}", commit.trim(), if clean { "" } else { ", with changes" })
}

/// The kernel carries its own name: `Linux version 6.12.x (…`.
fn library(path: &Path) -> String {
    const BANNER: &[u8] = b"Linux version ";
    let bytes = fs::read(path).unwrap_or_default();
    bytes
        .windows(BANNER.len())
        .position(|window| window == BANNER)
        .and_then(|at| bytes[at + BANNER.len()..].split(|byte| *byte == b' ').next())
        .filter(|version| version.first().is_some_and(u8::is_ascii_digit))
        .map_or("unknown".to_owned(), |version| format!("Linux {}", String::from_utf8_lossy(version)))
}

fn system() -> String {
    let release = read("/etc/os-release");
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("unknown").trim_matches('"').to_owned()
}

fn processor() -> String {
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let virtualised = if info.contains(" hypervisor") { ", virtual" } else { "" };
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{count} x {}{virtualised}", model.map_or("unknown", |(_, model)| model))
}

fn memory() -> String {
    let info = read("/proc/meminfo");
    let kib = info.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok())
        .map_or("unknown".to_owned(), |kib| format!("{} MiB", kib >> 10))
}

fn package(name: &str) -> String {
    said("dpkg-query", &["-W", "-f", "${Version}", name])
}

fn setting(name: &str) -> String {
    read(&format!("/proc/sys/net/ipv4/{name}")).split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or("unknown".to_owned(), |text| text.trim_end().to_owned())
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = shell::output(Command::new(program).args(arguments));
    output.map_or("unknown".to_owned(), |said| said.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_described() {
        let machine = describe(Path::new("/nonexistent"));
        let value = |name| machine.iter().find(|(n, _)| *n == name).unwrap().1.as_str();
        assert!(value("kernel").starts_with("Linux "));
        assert!(value("memory").ends_with(" MiB"));
        assert_eq!(value("kernel library"), "unknown");
    }
}
