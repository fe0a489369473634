# SPDX-License-Identifier: MIT OR Apache-2.0
"""Leaves the port of the host's at which a socket waits to be connected, and lets the stack's connection come up then.

Another that has left its port connects anew."""
import errno
import select
import socket
import subprocess
import sys
import time


def parked():
    """Ports of the host's loopback from which sockets are connecting (SYN_SENT)."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return {int(row[1].split(":")[1], 16) for row in rows if row[1].startswith("0100007F") and row[3] == "02"}


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            sys.exit("in vain")
        time.sleep(0.01)


def connecting():
    return subprocess.run(["ss", "-Htn", "state", "syn-sent"], capture_output=True, text=True, check=True).stdout


def client():
    one = socket.socket()
    one.setblocking(False)
    one.connect_ex(server.getsockname())
    return one


def left():
    """A socket that was waiting, and its port."""
    before = parked()
    one = client()
    until(lambda: parked() - before)
    (port,) = parked() - before
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    until(lambda: port not in parked())
    return one, port


server = socket.socket()
server.bind(("127.0.0.1", 0))
server.listen(0)
# As many as it takes until the stack's listener answers nobody.
clients = []
while not connecting():
    clients.append(client())
    time.sleep(0.1)
back, _ = left()
assert back.connect_ex(server.getsockname()) == errno.EINPROGRESS
gone, port = left()
print(port, flush=True)
sys.stdin.readline()

server.settimeout(0.1)
callers = set()


def served():
    try:
        one, caller = server.accept()
        clients.append(one)
        callers.add(caller)
    except TimeoutError:
        pass
    return not connecting() and select.select([], [back], [], 0)[1]


until(served)
assert back.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
until(lambda: served() and back.getsockname() in callers)
