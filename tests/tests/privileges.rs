//! What a guest may no longer do, root or not: gain privileges by executing a program, and use the
//! capabilities that would let it out.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use netshunt_tests::{Launch, Run, World, copy_program};

/// capability.h's numbers of what SECURITY.md says is dropped.
const DROPPED: [u32; 12] = [
    10, // NET_BIND_SERVICE
    11, // NET_BROADCAST
    12, // NET_ADMIN
    13, // NET_RAW
    16, // SYS_MODULE
    17, // SYS_RAWIO
    19, // SYS_PTRACE
    21, // SYS_ADMIN
    22, // SYS_BOOT
    38, // PERFMON
    39, // BPF
    40, // CHECKPOINT_RESTORE
];

const ALLOWED_PORT: u16 = 7000;

fn guest(world: &World) -> Launch<'_> {
    world.netshunt_with(["--net=host-bypass"])
}

/// A field of proc_pid_status(5), of which there may be one or more lines.
fn fields<'r>(status: &'r str, name: &'r str) -> impl Iterator<Item = &'r str> {
    status.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn capabilities(run: &Run, set: &str) -> u64 {
    let status = run.stdout();
    let value = fields(&status, set).next().unwrap_or_else(|| panic!("no {set}\n{}", run.describe()));
    u64::from_str_radix(value, 16).expect("a set is hexadecimal")
}

fn dropped() -> u64 {
    DROPPED.iter().map(|number| 1 << number).sum()
}

#[test]
fn a_setuid_program_runs_without_its_privilege() {
    let world = World::new();
    // Another user's, whoever we are.
    let owner = if world.user().is_root() { 65534 } else { 0 };
    let program = world.folder().join("id").display().to_string();
    assert!(copy_program("/usr/bin/id".as_ref(), program.as_ref()), "coreutils has it");
    chown(&program, Some(owner), Some(owner)).expect("root may give files away");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o6755)).expect("a file of ours");
    let ids = |launch: Launch<'_>| {
        // A child's child: inherited, not only the command's.
        let script = "\"$0\" -u; \"$0\" -g; sh -c '\"$0\" -u' \"$0\"; grep NoNewPrivs /proc/self/status";
        let run = launch.command(["sh", "-c", script, &program]).run();
        run.assert_success();
        run.stdout().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let (other, own) = (owner.to_string(), if owner == 0 { "65534" } else { "0" });
    let natively = [&other, &other, &other, "NoNewPrivs:", "0"];
    assert_eq!(ids(world.native()), natively, "the control: natively it has its owner's rights");
    let own_group = ids(world.native().wrapper(["setpriv", "--no-new-privs"]))[1].clone();
    assert_eq!(ids(guest(&world)), [own, &own_group, own, "NoNewPrivs:", "1"]);
}

#[test]
fn the_capabilities_that_lead_out_are_gone_from_every_set() {
    let world = World::new();
    let look = |launch: Launch<'_>| {
        let run = launch.command(["cat", "/proc/self/status"]).run();
        run.assert_success();
        run
    };
    let (native, inside) = (look(world.native()), look(guest(&world)));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let kept = capabilities(&native, set) & !dropped();
        assert_eq!(capabilities(&inside, set), kept, "{set}\n{}", inside.describe());
    }
    if world.user().is_root() {
        assert_eq!(capabilities(&native, "CapBnd") & dropped(), dropped(), "the control: root has them");
        let kept = look(world.netshunt_with(["--net=host-bypass", "--keep-caps"]));
        assert_eq!(capabilities(&kept, "CapEff") & dropped(), dropped(), "{}", kept.describe());
    }
}

/// A file's capabilities give back nothing either, to a guest of root's who may set them.
#[test]
fn a_programs_own_capabilities_give_nothing_back() {
    const SCRIPT: &str = "\
import os, struct, subprocess
os.system('cp /usr/bin/cat own')
# struct vfs_cap_data, revision 2, effective: NET_ADMIN and NET_BIND_SERVICE.
caps = 1 << 12 | 1 << 10
try: os.setxattr('own', 'security.capability', struct.pack('<IIIII', 0x02000001, caps, 0, 0, 0))
except OSError as error: print('setxattr', error)
try: print(subprocess.run(['./own', '/proc/self/status'], capture_output=True, text=True).stdout)
except OSError as error: print('exec', error)
";
    let world = World::new();
    let run = guest(&world).command(["python3", "-c", SCRIPT]).run();
    run.assert_success();
    let status = run.stdout();
    let held: Vec<_> = fields(&status, "CapEff").chain(fields(&status, "CapPrm")).collect();
    // It runs without them, or not at all.
    assert!(!held.is_empty() || status.contains("exec "), "{}", run.describe());
    for set in held {
        assert_eq!(u64::from_str_radix(set, 16).expect("hexadecimal") & dropped(), 0, "{}", run.describe());
    }
}

/// The supervisor performs bind(2), and may itself have what its guest has lost.
#[test]
fn a_low_port_is_not_to_be_had_through_the_supervisor() {
    const SCRIPT: &str = "\
import socket, sys
# A file, and root's: what was there before counts.
try: open('/proc/sys/net/ipv4/ip_unprivileged_port_start', 'w').write('1')
except OSError: pass
for family, any in (socket.AF_INET, '0.0.0.0'), (socket.AF_INET6, '::'):
    with socket.socket(family) as s:
        try: s.bind((any, 700)); print('bound')
        except PermissionError: print('refused')
s = socket.socket()
try:
    s.bind(('0.0.0.0', int(sys.argv[2])))
    s.connect(('192.0.2.10', int(sys.argv[1])))
    print('connected', s.getsockname()[1] == int(sys.argv[2]))
except PermissionError: print('refused')
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try:
    s.bind(('0.0.0.0', int(sys.argv[2])))
    s.sendto(b'x', ('192.0.2.10', int(sys.argv[1])))
    print('sent')
except PermissionError: print('refused')
";
    let world = World::new();
    world.echo(&[ALLOWED_PORT]);
    let bypass = format!("--bypass=192.0.2.10:{ALLOWED_PORT}");
    let port = ALLOWED_PORT.to_string();
    // Each its own: a connection that has ended keeps its port for a while.
    let mut low = 701..;
    let mut run = |launch: Launch<'_>| {
        let reset = || fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "1024");
        world.host.inside(reset).expect("the network is the test's own");
        let from = low.next().expect("endless").to_string();
        let run = launch.command(["python3", "-c", SCRIPT, &port, &from]).run();
        run.assert_success();
        run.stdout().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let natively = run(world.native());
    let root = world.user().is_root();
    assert_eq!(natively[2..], if root { ["connected True", "sent"] } else { ["refused"; 2] });
    // The stack's ports are the guest's own; a connection past it is the host's.
    for net in ["--net=host-bypass", "--net=link,host-bypass"] {
        assert_eq!(
            run(world.netshunt_with([net, &bypass])),
            ["bound", "bound", "refused", "refused"],
            "{net}"
        );
    }
    if root {
        let kept = run(world.netshunt_with(["--net=host-bypass", &bypass, "--keep-caps"]));
        assert_eq!(kept, natively);
    }
}

/// The bytes of the network meet C code there.
#[test]
fn the_stacks_thread_has_few_calls_left() {
    let world = World::new();
    let script = "echo ready; read end";
    let mut running = world.netshunt_with(["--net=slirp"]).command(["sh", "-c", script]).stdin_pipe().start();
    running.prints("ready\n");
    let children =
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.pid())).expect("it lives");
    let supervisor = children.split_whitespace().next().expect("the front's child");
    let threads = fs::read_dir(format!("/proc/{supervisor}/task")).expect("it lives").flatten();
    let read = |thread: &fs::DirEntry, name: &str| fs::read_to_string(thread.path().join(name));
    let is_stacks = |thread: &fs::DirEntry| read(thread, "comm").is_ok_and(|name| name == "netshunt-stack\n");
    let statuses: Vec<String> =
        threads.filter(is_stacks).filter_map(|thread| read(&thread, "status").ok()).collect();
    let [status] = statuses.as_slice() else { panic!("one thread, not {statuses:?}") };
    // SECCOMP_MODE_FILTER.
    assert_eq!(fields(status, "Seccomp").collect::<Vec<_>>(), ["2"], "{status}");
    assert_eq!(fields(status, "NoNewPrivs").collect::<Vec<_>>(), ["1"], "{status}");
    running.write(b"end\n").expect("it waits for that");
    running.wait().assert_success();
}
