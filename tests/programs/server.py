"""A TCP server by hand: says where it listens, greets each peer with the peer's own address, and ends.

Arguments: ADDRESS PORT COUNT.
"""
import socket
import sys

address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
listener = socket.socket(family, socket.SOCK_STREAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((address, port))
listener.listen(16)
print("listening", *listener.getsockname()[:2], flush=True)
for _ in range(count):
    peer, where = listener.accept()
    assert peer.getpeername() == where, (peer.getpeername(), where)
    print("accepted", where[0], "at", *peer.getsockname()[:2], flush=True)
    peer.sendall(f"hello {where[0]} {where[1]}\n".encode())
    while data := peer.recv(65536):
        peer.sendall(data)
    peer.close()
# What was sent last may be on its way still.
sys.stdin.read()
