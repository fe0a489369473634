# SPDX-License-Identifier: MIT OR Apache-2.0
"""Calls with time-outs while the link does not move: stopped.py ADDRESS PORT.

Prints "going" when a connection is up, and after a line on standard input what came of calls that end by themselves. After
another line the connection goes on where it was.
"""
import select
import socket
import struct
import sys
import time

where = sys.argv[1], int(sys.argv[2])
SECOND = struct.pack("ll", 1, 0)


def timed(what, call, *words):
    begin = time.monotonic()
    try:
        result = call(*words)
    except OSError as error:
        result = error.strerror
    print(f"{what}: {result}", "in time" if time.monotonic() - begin < 5 else "late", flush=True)


def fill():
    try:
        while True:
            old.send(bytes(65536))
    except BlockingIOError:
        return "full"


old = socket.create_connection(where)
old.sendall(b"before")
assert old.recv(6, socket.MSG_WAITALL) == b"before"
print("going", flush=True)
sys.stdin.readline()
old.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, SECOND)
old.sendall(b"behind")
timed("received", old.recv, 6)
new = socket.socket()
new.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, SECOND)
timed("connected", new.connect, where)
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, SECOND)
datagrams.sendto(b"x", where)
timed("datagram", datagrams.recv, 9)
with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
    timed("inside", lambda: server.accept()[1][0])
poller = select.poll()
poller.register(old, select.POLLIN)
timed("polled", poller.poll, 1000)
print("stopped", flush=True)
sys.stdin.readline()
old.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 20, 0))
timed("after", lambda: old.recv(6, socket.MSG_WAITALL).decode())
old.setblocking(False)
timed("filled", fill)
print("again", flush=True)
sys.stdin.readline()
