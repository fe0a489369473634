"""Round trips over one connection, with every plain call: rounds.py ADDRESS PORT ROUNDS."""
import os
import select
import socket
import sys

address, port, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
peer = socket.create_connection((address, port))
poll = select.epoll()
poll.register(peer, select.EPOLLIN)
number = peer.fileno()
for turn in range(rounds):
    (os.write if turn % 2 else lambda _, data: peer.send(data))(number, b"word")
    assert poll.poll(20)
    back = os.read(number, 4) if turn % 3 else peer.recv(4)
    assert back == b"word", back
    os.close(os.dup(number))
peer.shutdown(socket.SHUT_WR)
assert peer.recv(1) == b""
peer.close()
print("ok")
