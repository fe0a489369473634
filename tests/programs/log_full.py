# SPDX-License-Identifier: MIT OR Apache-2.0
"""Connects COUNT times, and has back what it sends: log_full.py ADDRESS PORT COUNT."""
import socket
import sys

address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for number in range(count):
    with socket.create_connection((address, port)) as peer:
        peer.sendall(b"%09d" % number)
        assert peer.recv(9, socket.MSG_WAITALL) == b"%09d" % number
print("ok")
