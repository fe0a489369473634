//! The exit status, and what surrounds a run: each test runs a command as a guest without any
//! network, which needs seccomp notifications and nothing else.

mod common;

use std::fs::File;
use std::process::{Command, Stdio};

use common::{command, netshunt, said};

#[test]
fn the_status_is_the_commands() {
    for status in [0, 1, 7, 125, 255] {
        let run = netshunt(&["--net=none", "--", "sh", "-c", &format!("exit {status}")]);
        assert_eq!((run.status, run.err.as_str()), (status, ""));
    }
}

#[test]
fn death_by_a_signal_is_ours_too() {
    use std::os::unix::process::ExitStatusExt;
    // SIGQUIT dumps core, SIGKILL has no disposition to reset, SIGPIPE is ignored by Rust itself,
    // SIGXFSZ caught, 40 is a real-time signal without a name.
    for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGQUIT, libc::SIGPIPE, libc::SIGXFSZ, 40] {
        let script = format!("ulimit -c 0; kill -{signal} $$");
        // What started these tests may ignore some, and a shell cannot undo that.
        let words = ["--net=none", "--", "env", "--default-signal", "sh", "-c", &script];
        let ended = command(&words).status().unwrap();
        assert_eq!(ended.signal(), Some(signal));
        assert!(!ended.core_dumped());
    }
}

#[test]
fn what_cannot_be_executed_is_126_and_what_is_not_there_127() {
    let run = netshunt(&["--net=none", "--", "/etc/passwd"]);
    assert_eq!(run.err, "netshunt: cannot execute /etc/passwd: Permission denied (os error 13)\n");
    assert_eq!(run.status, 126);
    for missing in ["no-such-command-anywhere", "/nonexistent/command"] {
        let run = netshunt(&["--net=none", "--", missing]);
        assert_eq!((run.err, run.status), (format!("netshunt: command not found: {missing}\n"), 127));
    }
}

#[test]
fn the_command_has_our_input_and_output() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input");
    std::fs::write(&input, "through").unwrap();
    let run = said(
        command(&["--net=none", "--", "sh", "-c", "cat; echo aside >&2"]).stdin(File::open(&input).unwrap()),
    );
    assert_eq!((run.out.as_str(), run.err.as_str()), ("through", "aside\n"));
}

#[test]
fn a_command_whose_reader_is_gone_ends_as_it_would_alone() {
    use std::os::unix::process::ExitStatusExt;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    // Rust ignores SIGPIPE for itself; the command must not inherit that.
    let ended = command(&["--net=none", "--", "yes"]).stdout(writer).stderr(Stdio::null()).status().unwrap();
    assert_eq!(ended.signal(), Some(libc::SIGPIPE));
}

#[test]
fn only_kept_descriptors_reach_the_command() {
    let script = "\"$0\" --net=none $1 -- sh -c 'cat <&5' 5</proc/self/comm";
    let run = |keep: &str| {
        let program = env!("CARGO_BIN_EXE_netshunt");
        said(Command::new("sh").args(["-c", script, program, keep]))
    };
    assert_eq!(run("--keep-fd=5").out, "sh\n");
    let closed = run("");
    assert_ne!(closed.status, 0, "{closed:?}");
    assert_eq!(closed.out, "");
}

#[test]
fn a_file_names_the_composition_and_verbose_shows_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("netshunt.toml");
    std::fs::write(&file, "net = \"none\"\nrules = [\"deny *\"]\n").unwrap();
    let run = netshunt(&["-v", "--config", file.to_str().unwrap(), "--", "true"]);
    assert!(run.err.contains("netshunt: network link=\"none\" shunt=\"none\""), "{}", run.err);
    assert_eq!(run.status, 0);
}

#[test]
fn what_was_counted_is_written_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let (stats, flows) = (folder.path().join("stats"), folder.path().join("flows"));
    let run = netshunt(&[
        "--net=none",
        "--stats",
        stats.to_str().unwrap(),
        "--flow-log",
        flows.to_str().unwrap(),
        "--",
        "true",
    ]);
    assert_eq!((run.status, run.err.as_str()), (0, ""));
    let counted: serde_json::Value = serde_json::from_slice(&std::fs::read(&stats).unwrap()).unwrap();
    assert_eq!(counted["frames_out"], 0);
    assert!(counted["notifications"].is_object(), "{counted}");
    // `true` has no flows.
    assert_eq!(std::fs::read(&flows).unwrap(), b"");
}

#[test]
fn a_dash_is_standard_error() {
    let run = netshunt(&["--net=none", "--stats=-", "--", "true"]);
    let counted: serde_json::Value = serde_json::from_str(&run.err).unwrap();
    assert_eq!((run.status, &counted["frames_out"]), (0, &0.into()));
}

#[test]
fn netshunt_inside_netshunt_says_why_not() {
    let run = netshunt(&["--net=none", "--", env!("CARGO_BIN_EXE_netshunt"), "--net=none", "--", "true"]);
    assert_eq!(run.status, 125);
    assert!(run.err.contains("it does not run inside another netshunt"), "{}", run.err);
}

/// Its numbers are those of other processes: their files and namespaces would be taken for the guest's.
#[test]
fn the_proc_of_another_pid_namespace_is_refused() {
    let program = env!("CARGO_BIN_EXE_netshunt");
    let unshare = |more: &[&str]| {
        let mut words = vec!["--user", "--map-root-user", "--pid", "--fork"];
        words.extend(more);
        said(Command::new("unshare").args(words).args([program, "--net=none", "--", "true"]))
    };
    let foreign = unshare(&[]);
    assert!(
        foreign.err.contains("/proc shows another pid namespace than ours; mount it anew"),
        "{foreign:?}"
    );
    assert_eq!(foreign.status, 125);
    let own = unshare(&["--mount-proc"]);
    assert_eq!((own.status, own.err.as_str()), (0, ""));
}

#[test]
fn the_supervisor_may_open_what_the_hard_limit_allows_and_the_command_keeps_its_own() {
    let script = "ulimit -Sn 100; ulimit -Hn 200; exec \"$0\" --net=none -- sh -c \"$1\"";
    let limits = "ulimit -Sn; ulimit -Hn; grep 'open files' /proc/$PPID/limits";
    let run = said(Command::new("sh").args(["-c", script, env!("CARGO_BIN_EXE_netshunt"), limits]));
    let words: Vec<&str> = run.out.split_whitespace().collect();
    assert_eq!(words, ["100", "200", "Max", "open", "files", "200", "200", "files"], "{run:?}");
}

#[test]
fn a_limit_of_file_sizes_is_not_our_death() {
    let folder = tempfile::tempdir().unwrap();
    let script = "ulimit -f 0; exec \"$0\" --net=none --stats=\"$1\" -- true";
    let stats = folder.path().join("stats");
    let mut shell = Command::new("sh");
    let run = said(shell.args(["-c", script, env!("CARGO_BIN_EXE_netshunt")]).arg(&stats));
    // SIGXFSZ would have killed it where it writes.
    assert_eq!(run.status, 0, "{run:?}");
    assert!(run.err.contains("cannot write") && run.err.contains("File too large"), "{run:?}");
}

/// Kills what a test leaves behind, also when it fails.
struct Stray(nix::unistd::Pid);

impl Drop for Stray {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(self.0, nix::sys::signal::Signal::SIGKILL);
    }
}

#[test]
fn processes_left_behind_are_counted() {
    let run = netshunt(&["--net=none", "--", "sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!; exit 3"]);
    let _stray = Stray(nix::unistd::Pid::from_raw(run.out.trim().parse().unwrap()));
    assert_eq!(
        (run.err.as_str(), run.status),
        (
            "netshunt: 1 process of the command still runs; its network calls fail from now on \
             (--wait serves them)\n",
            3
        )
    );
}

#[test]
fn wait_serves_processes_left_behind() {
    let script = "(while ! test -e \"$0\"; do sleep 0.01; done; echo late) & exit 3";
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let output = folder.path().join("output");
    let mut child = command(&["--net=none", "--wait", "--", "sh", "-c", script, go.to_str().unwrap()])
        .stdout(File::create(&output).unwrap())
        .spawn()
        .unwrap();
    std::fs::write(&go, "").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    // Written before netshunt ended.
    assert_eq!(std::fs::read(&output).unwrap(), b"late\n");
}

#[test]
fn the_doctor_tries_it_out() {
    let run = netshunt(&["doctor", "--net=none", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    let checks: Vec<&str> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|finding| finding["check"].as_str())
        .collect();
    for check in ["kernel", "yama", "seccomp", "trial"] {
        assert!(checks.contains(&check), "{report}");
    }
    assert_eq!((report["works"].as_bool(), run.status), (Some(true), 0), "{report}");
}

#[test]
fn the_doctor_names_a_library_that_is_not_there() {
    let run = said(command(&["doctor", "--net=slirp"]).env("NETSHUNT_LKL", "/nonexistent/liblkl.so"));
    assert_eq!(run.status, 1, "{run:?}");
    assert!(run.out.contains("BROKEN   library"), "{}", run.out);
    assert!(run.out.ends_with("netshunt does not work here with --net=slirp\n"), "{}", run.out);
}

/// The held child had a copy of the pipe that was to release it, and waited for ever.
#[test]
fn a_stack_that_does_not_start_leaves_no_child_waiting() {
    let run = said(command(&["--net=slirp", "--", "echo", "it ran"]).env("NETSHUNT_LKL", "/dev/null"));
    assert_eq!((run.status, run.out.as_str()), (125, ""));
    assert!(run.err.starts_with("netshunt: "), "{}", run.err);
}

/// With a datagram socket of its own, the command could send anywhere without being asked.
#[test]
fn an_inherited_datagram_socket_is_refused() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let stdin = Stdio::from(std::os::fd::OwnedFd::from(socket));
    let run = said(command(&["--net=none", "--", "echo", "it ran"]).stdin(stdin));
    assert_eq!((run.status, run.out.as_str()), (125, ""));
    assert!(run.err.contains("descriptor 0 is an internet datagram"), "{}", run.err);
}
