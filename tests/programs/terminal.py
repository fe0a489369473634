"""Runs a command on a terminal of its own, types into it, and shows what came.

Arguments: the command. It must be a shell: asked for its terminal, its size before and after a
change, and a sum; interrupted in a long sleep; told to exit with 7. Exits with the command's status.
"""
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

DEADLINE = time.monotonic() + 40
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])


def resize(rows, columns):
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


seen = b""


def expect(text):
    """Waits for text to appear after what was already expected."""
    global seen
    while text not in seen:
        left = DEADLINE - time.monotonic()
        assert left > 0 and select.select([terminal], [], [], left)[0], (text, seen)
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # EIO: the command is gone
            piece = b""
        assert piece, (text, seen)
        os.write(1, piece)
        seen += piece
    seen = seen.split(text, 1)[1]


def type_in(line):
    os.write(terminal, line.encode() + b"\n")


# Each answer is computed, so that the echo of what was typed is not taken for it.
resize(33, 77)
type_in("PS1=; tty && echo sum=$((6 * 7))")
expect(b"/dev/pts/")
expect(b"sum=42")
type_in("echo size: $(stty size)")
expect(b"size: 33 77")
resize(44, 99)
type_in("until [ \"$(stty size)\" = '44 99' ]; do sleep 0.05; done; echo resized=$((1 + 1))")
expect(b"resized=2")
# Whoever prints is who sleeps. Were it the shell, the interrupt might come before it has begun to wait for the
# sleep, and the trap would run when that is over.
sleep = "sh -c 'echo asleep=$((4 + 4)); exec sleep 30'"
type_in(f"trap 'echo caught=$((2 + 2))' INT; {sleep}; echo awake=$((3 + 3))")
expect(b"asleep=8")
os.write(terminal, b"\x03")
expect(b"caught=4")
type_in("exit 7")
while True:
    try:
        if not os.read(terminal, 65536):
            break
    except OSError:
        break
signal.alarm(20)
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)
