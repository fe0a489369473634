# SPDX-License-Identifier: MIT OR Apache-2.0
"""Has a part of what a server sends back, and then the rest when standard input ends: cut.py ADDRESS PORT.

Prints "going", and at last "ended" for an end in order, or the name of an errno.
"""
import errno
import socket
import sys

with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as peer:
    peer.sendall(bytes(100_000))
    assert len(peer.recv(50_000, socket.MSG_WAITALL)) == 50_000
    print("going", flush=True)
    sys.stdin.read()
    try:
        while peer.recv(65536):
            pass
        print("ended")
    except OSError as error:
        print(errno.errorcode[error.errno])
