# SPDX-License-Identifier: MIT OR Apache-2.0
"""Connects to sockets that wait on the host's loopback to be connected, from where they are connected to: what a rule of the user's
that names their ports lets a guest do."""
import ctypes
import errno
import os
import select
import socket
import struct
import sys
import time

NOBODY = struct.pack("H14x", socket.AF_UNSPEC)


def waiting():
    """Sockets that are connecting on the host's loopback (SYN_SENT): where they are, and where to."""

    def address(word):
        ip, port = word.split(":")
        return socket.inet_ntoa(struct.pack("I", int(ip, 16))), int(port, 16)

    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return {address(row[1]): address(row[2]) for row in rows if row[1].startswith("0100007F") and row[3] == "02"}


def client():
    one = socket.socket()
    one.setblocking(False)
    one.connect_ex(server.getsockname())
    return one


def is_connected(one, wait=0):
    return bool(select.select([], [one], [], wait)[1])


def usurp(what, one):
    """`one` connects to a socket that waits: what it hears, and whether that socket is connected then."""
    before = waiting()
    victim = client()
    deadline = time.monotonic() + 20
    while not waiting().keys() - before.keys():
        if time.monotonic() > deadline:
            sys.exit("it does not wait")
    (at,) = waiting().keys() - before.keys()
    number = one(waiting()[at]).connect_ex(at)
    print(what, os.strerror(number), is_connected(victim, 0.2))
    return victim


def bound(at):
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind(at)
    return one


def bound_after(at):
    """It has its option on the host by then."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    assert one.connect_ex(("127.0.0.1", 50000)) == errno.ECONNREFUSED
    assert ctypes.CDLL(None).connect(one.fileno(), NOBODY, 16) == 0
    one.bind(at)
    return one


# Below the ports that are the host's.
server = socket.socket()
server.bind(("127.0.0.1", 3000))
server.listen(0)
first = client()
accepted, _ = server.accept()
# As many as it takes until the stack's listener answers nobody.
clients = [client()]
while is_connected(clients[-1], 0.2):
    clients.append(client())
assert ctypes.CDLL(None).connect(accepted.fileno(), NOBODY, 16) == 0
try:
    accepted.bind(("127.0.0.1", 0))
except OSError as error:
    print(error.strerror)
clients.append(usurp("dissolved", lambda _: accepted))
clients.append(usurp("bound", bound))
clients.append(usurp("bound after", bound_after))
