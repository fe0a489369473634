"""Accepts, waits for a byte, and resets: reset.py ADDRESS PORT."""
import socket
import struct
import sys

with socket.create_server((sys.argv[1], int(sys.argv[2]))) as listener:
    print("ready", flush=True)
    while True:
        peer, _ = listener.accept()
        peer.recv(100)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
