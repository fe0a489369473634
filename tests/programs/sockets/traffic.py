# SPDX-License-Identifier: MIT OR Apache-2.0
"""Traffic of every kind, until the network fails: traffic.py ADDRESS PORT PORT CLOSED SILENT TURNS.

Echoes over both ports, refused, pending and abandoned connections, in two processes. Ends by itself
when sockets cannot be had any more, as when whoever serves its calls is gone.
"""
import errno
import os
import socket
import sys

address, first, second, closed, silent, turns = sys.argv[1:]
HARMLESS = (errno.ECONNREFUSED, errno.EINPROGRESS, errno.ECONNRESET, errno.EADDRNOTAVAIL)


def attempt(to, blocking):
    peer = socket.socket()
    peer.settimeout(5)
    peer.setblocking(blocking)
    result = peer.connect_ex(to)
    if result and result not in HARMLESS:
        sys.exit(errno.errorcode.get(result, result))
    return peer


os.fork()
kept = []
for turn in range(int(turns)):
    for port in (int(first), int(second)):
        peer = attempt((address, port), True)
        peer.sendall(b"x" * 20000)
        assert len(peer.recv(20000, socket.MSG_WAITALL)) == 20000
        kept.append(peer)
    kept.append(attempt((silent, int(first)), False))
    kept.append(attempt((address, int(first)), False))
    attempt((address, int(closed)), True).close()
    for peer in kept[:-20]:
        peer.close()
    kept = kept[-20:]
    if turn == 3:
        print("going", flush=True)
