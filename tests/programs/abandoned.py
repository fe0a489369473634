# SPDX-License-Identifier: MIT OR Apache-2.0
"""Connections that nobody waits for any more, and some that somebody does: abandoned.py PORT PREFIX...

Each way to lose or to keep a connecting socket, by its own host number below every PREFIX. Prints
"pending", then, as they come up, the numbers of those that were kept, once for every prefix.
"""
import os
import select
import signal
import socket
import sys

port, prefixes = int(sys.argv[1]), sys.argv[2:]


def start(prefix, number):
    family = socket.AF_INET6 if ":" in prefix else socket.AF_INET
    s = socket.socket(family)
    s.setblocking(False)
    assert s.connect_ex((f"{prefix}{number}", port)) == 115
    return s


def child(body):
    pid = os.fork()
    if pid == 0:
        body()
        os._exit(0)
    return pid


def report(s, number):
    select.select([], [s], [])
    error = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    os.write(1, f"{number} {error}\n".encode())


def wait(prefix, told):
    s = socket.socket(socket.AF_INET6 if ":" in prefix else socket.AF_INET)
    os.write(told, b"x")
    s.connect((f"{prefix}3", port))


def receive(theirs):
    _, fds, _, _ = socket.recv_fds(theirs, 1, 1)
    report(socket.socket(fileno=fds[0]), 14)


def in_connect(pid):
    with open(f"/proc/{pid}/syscall") as file:
        return file.read().startswith("42 ")


kept = []
for prefix in prefixes:
    # Lost: closed; by a process that ends; by one that is killed while its connect() waits.
    start(prefix, 1).close()
    os.waitpid(child(lambda: start(prefix, 2)), 0)
    tell, told = os.pipe()
    pid = child(lambda: wait(prefix, told))
    os.read(tell, 1)
    while not in_connect(pid):
        pass

    # Kept: where it was; under another number; by a child alone; by whom it was sent to.
    kept.append(start(prefix, 11))
    child(lambda: report(kept[-1], 11))
    first = start(prefix, 12)
    kept.append(first.dup())
    first.close()
    child(lambda: report(kept[-1], 12))
    third = start(prefix, 13)
    child(lambda: report(third, 13))
    third.close()
    ours, theirs = socket.socketpair()
    child(lambda: receive(theirs))
    with start(prefix, 14) as fourth:
        socket.send_fds(ours, [b"x"], [fourth.fileno()])
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
os.write(1, b"pending\n")
try:
    while True:
        os.wait()
except ChildProcessError:
    pass
