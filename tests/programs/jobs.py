"""Has a shell with job control run netshunt on a terminal: jobs.py SCENE SHELL NETSHUNT...

The scenes are the functions at the end. NETSHUNT runs worker.py, where a scene says nothing else.
"""
import os
import pty
import re
import select
import shlex
import signal
import sys
import time

DEADLINE = time.monotonic() + 20
SHELLS = {
    "bash": ["bash", "--norc", "--noprofile", "--noediting", "-i"],
    "dash": ["dash", "-i"],
    # None: netshunt itself is the leader of the session, so nobody can continue it.
    "none": ["./job"],
}
scene, shell = sys.argv[1:3]
with open("job", "w") as script:
    # exec: what the shell starts is netshunt itself.
    script.write("#!/bin/sh\nexec " + shlex.join(sys.argv[3:]) + "\n")
os.chmod("job", 0o755)
leader, terminal = pty.fork()
if leader == 0:
    os.environ["PS1"] = "$ "
    os.execvp(SHELLS[shell][0], SHELLS[shell])
seen = b""


def until(what, condition):
    """Waits for the condition, reading what comes: a terminal that is full stops its writers."""
    while not (found := condition()):
        assert time.monotonic() < DEADLINE, (what, seen)
        read(0.002)
    return found


def read(patience):
    global seen
    if select.select([terminal], [], [], patience)[0]:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # EIO: nobody has it open
            piece = b""
            time.sleep(patience)
        os.write(1, piece)
        seen += piece


def expect(pattern):
    """Waits for the pattern behind what was already expected."""
    global seen
    found = until(pattern, lambda: re.search(pattern, seen))
    seen = seen[found.end():]
    return found


def press(key):
    os.write(terminal, key)


def type_in(line):
    os.write(terminal, line.encode() + b"\n")


def state(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(") ", 1)[1].split()[0]


def parent(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return int(stat.read().rsplit(") ", 1)[1].split()[1])


def gone(pid):
    try:
        return state(pid) == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def ticks():
    try:
        with open("ticks") as file:
            return int(file.read() or 0)
    except FileNotFoundError:
        return 0


def flows():
    """The daemon's connection carries bytes: a hundred more round trips."""
    start = ticks()
    until("the daemon's connection", lambda: ticks() >= start + 100)


def start(background=False):
    """Starts the job; the processes: front, supervisor, command."""
    type_in("./job" + (" &" if background else ""))
    return started()


def started():
    command = int(expect(rb"pid=(\d+)\.")[1])
    flows()
    supervisor = parent(command)
    return parent(supervisor), supervisor, command


def stopped(front, supervisor, command, word=rb"Stopped"):
    """The shell says so, has its terminal, and all but the command and its front go on."""
    expect(word)
    type_in("echo shell=$((40 + 2))")
    expect(rb"shell=42")
    assert os.tcgetpgrp(terminal) == leader
    # A signal to the whole group reaches the front first, at times.
    until("both stop", lambda: (state(front), state(command)) == ("T", "T"))
    assert state(supervisor) != "T"
    flows()


def running(front, command, number):
    """The command was continued once, and the job is in the foreground again."""
    expect(rb"SIGCONT=%d\." % number)
    until("the front goes on", lambda: state(front) != "T")
    assert state(command) != "T"
    assert os.tcgetpgrp(terminal) == os.getpgid(front)


def interrupted(number):
    press(b"\x03")
    expect(rb"SIGINT=%d\." % number)


def end(status):
    """Ends in the shell."""
    type_in("echo status=$?.")
    expect(rb"status=%d\." % status)
    assert os.tcgetpgrp(terminal) == leader
    type_in("exit 3")
    assert os.waitstatus_to_exitcode(os.waitpid(leader, 0)[1]) == 3


def stop_and_go():
    """^Z, fg, ^C, ^Z, bg, fg; then the end by SIGTERM."""
    front, supervisor, command = start()
    interrupted(1)
    press(b"\x1a")
    stopped(front, supervisor, command)
    type_in("fg")
    running(front, command, 1)
    interrupted(2)
    press(b"\x1a")
    stopped(front, supervisor, command)
    type_in("bg")
    expect(rb"SIGCONT=2\.")
    until("the front goes on", lambda: state(front) != "T")
    type_in("fg; echo status=$?.")
    until("the foreground", lambda: os.tcgetpgrp(terminal) == os.getpgid(front))
    interrupted(3)
    os.kill(front, signal.SIGTERM)
    expect(rb"SIGTERM=1\.")
    expect(rb"status=7\.")
    end(0)


def stops_itself():
    front, supervisor, command = start()
    for turn in (1, 2, 3):
        os.kill(front, signal.SIGUSR1)
        expect(rb"SIGUSR1=%d\." % turn)
        stopped(front, supervisor, command)
        type_in("fg")
        running(front, command, turn)
    interrupted(1)
    os.kill(front, signal.SIGTERM)
    end(7)


def stopped_as_a_group():
    """By kill(1), each kind of stop, with and without the shell's help in going on."""
    front, supervisor, command = start()
    for turn, number in enumerate((signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTOU), 1):
        os.killpg(os.getpgid(front), number)
        stopped(front, supervisor, command)
        type_in("fg")
        running(front, command, turn)
    # To the command's own process, which nothing outside usually knows.
    os.kill(command, signal.SIGSTOP)
    stopped(front, supervisor, command)
    # By somebody else than the shell.
    os.kill(command, signal.SIGCONT)
    until("the front follows", lambda: state(front) != "T")
    os.kill(command, signal.SIGSTOP)
    until("the front follows", lambda: state(front) == "T")
    os.kill(front, signal.SIGCONT)
    until("the command follows", lambda: state(command) != "T")
    type_in("fg")
    until("the foreground", lambda: os.tcgetpgrp(terminal) == os.getpgid(front))
    interrupted(1)
    os.kill(front, signal.SIGTERM)
    end(7)


def supervisor_stopped():
    """Whoever stops the supervisor stops the job, and fg continues both."""
    front, supervisor, command = start()
    os.kill(supervisor, signal.SIGSTOP)
    expect(rb"Stopped")
    assert (state(front), state(supervisor)) == ("T", "T")
    type_in("fg")
    until("the supervisor goes on", lambda: state(supervisor) != "T")
    flows()
    os.kill(front, signal.SIGTERM)
    end(7)


def killed_while_stopped():
    front, supervisor, command = start()
    press(b"\x1a")
    stopped(front, supervisor, command)
    os.kill(command, signal.SIGKILL)
    until("all are gone", lambda: gone(front) and gone(supervisor))
    type_in("wait %1; echo status=$?.")
    # The shell tells it before its next prompt, and may have forgotten by then.
    expect(rb"Killed")
    end(0)


def front_killed():
    front, supervisor, _ = start()
    os.kill(front, signal.SIGKILL)
    expect(rb"Killed")
    until("the supervisor is gone", lambda: gone(supervisor))
    end(137)


def supervisor_killed():
    front, supervisor, _ = start()
    os.kill(supervisor, signal.SIGKILL)
    expect(rb"netshunt: the supervisor was killed by signal 9")
    end(125)
    assert gone(front)


def nobody_to_continue_it():
    """What leads its session cannot be stopped from the terminal, with netshunt or without."""
    front, supervisor, command = started()
    assert front == leader
    press(b"\x1a")
    interrupted(1)
    assert (state(front), state(command)) != ("T", "T")
    os.killpg(front, signal.SIGTSTP)
    interrupted(2)
    flows()
    # The terminal hangs up: the leader alone is told, and tells the command.
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(leader, 0)[1]) == 8


def reads_in_the_background():
    """The command is `cat`."""
    type_in("./job &")

    def job():
        with open(f"/proc/{leader}/task/{leader}/children") as children:
            return [int(pid) for pid in children.read().split()]

    until("the job stops", lambda: job() and state(job()[0]) == "T")
    # bash tells it before its next prompt.
    type_in("")
    expect(rb"Stopped")
    type_in("fg")
    until("the foreground", lambda: os.tcgetpgrp(terminal) != leader)
    type_in("through")
    # Once from the terminal, once from the command.
    expect(rb"through\r\nthrough")
    press(b"\x04")
    end(0)


def warns_in_the_background():
    """The command is silent, and refused something; the terminal stops jobs that write."""
    type_in("stty tostop; ./job &")
    expect(rb"netshunt: warning: ")
    type_in("wait %1; echo waited=$?.")
    expect(rb"waited=5\.")
    end(0)


globals()[scene]()
