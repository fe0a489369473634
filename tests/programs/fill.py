# SPDX-License-Identifier: MIT OR Apache-2.0
"""Fills the stack's memory: fill.py ADDRESS SILENT ECHO CONNECTIONS QUESTIONERS.

So many connections to a server that never reads, each full; and so many netlink sockets that ask without reading the
answers. Prints one JSON object: how many there were, and how often each errno was seen. Then closes them, talks to another
server, and prints "ok".
"""
import collections
import errno
import json
import resource
import select
import socket
import struct
import sys
import time

address, silent, echo, connections, questioners = sys.argv[1], *map(int, sys.argv[2:])
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
PATIENCE = 60
BLOCK = bytes(65536)
# RTM_GETLINK of the loopback (rtnetlink(7)): an answer of more than a kilobyte.
QUESTION = struct.pack("IHHII", 32, 18, 1, 1, 0) + struct.pack("BxHiII", 0, 0, 1, 0, 0)
seen = collections.Counter()
sent = 0


def told(what, call, *words):
    try:
        return call(*words)
    except OSError as error:
        seen[f"{what}: {errno.errorcode[error.errno]}"] += 1


def until_full(what, each, block):
    count = 0
    while (taken := told(what, each.send, block)) is not None:
        count += taken
    return count


sockets = []
for number in range(connections):
    peer = socket.socket()
    peer.setblocking(False)
    result = peer.connect_ex((address, silent))
    if result not in (0, errno.EINPROGRESS):
        seen[f"connect: {errno.errorcode[result]}"] += 1
        continue
    poller = select.poll()
    poller.register(peer, select.POLLOUT)
    if not poller.poll(PATIENCE * 1000):
        seen["connect: HANG"] += 1
        break
    result = peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if result:
        seen[f"connected: {errno.errorcode[result]}"] += 1
        continue
    sent += until_full("send", peer, BLOCK)
    sockets.append(peer)
full = len(sockets)
for number in range(questioners):
    asker = told("socket", socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, 0)
    if not asker:
        continue
    asker.setblocking(False)
    told("bind", asker.bind, (0, 0))
    told("connect netlink", asker.connect, (0, 0))
    for _ in range(200):
        if told("ask", asker.send, QUESTION) is None:
            break
    sockets.append(asker)
print(json.dumps({"connections": full, "questioners": len(sockets) - full, "sent": sent, **seen}), flush=True)
for each in sockets:
    if each.family == socket.AF_INET:
        # Nobody is to deliver what is in them.
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    each.close()
# What is closed goes in its own time.
end = time.monotonic() + PATIENCE
while True:
    try:
        with socket.create_connection((address, echo), 10) as peer:
            peer.sendall(b"alive")
            assert peer.recv(5, socket.MSG_WAITALL) == b"alive"
            break
    except OSError as error:
        assert time.monotonic() < end, error
print("ok", flush=True)
