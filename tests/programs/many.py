"""Many sockets in one epoll, all registered before they connect.

Arguments: level or edge, an address, how many sockets for each port, and two ports, each followed by
the bytes for each of its sockets.
Every socket sends bytes of its own to a server that echoes them. Prints "ok N" when all came back.
"""
import errno
import resource
import select
import socket
import sys

trigger, address, each, *ports = sys.argv[1:]
ports = list(map(int, ports))
amounts = dict(zip(ports[::2], ports[1::2]))
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
edge = select.EPOLLET if trigger == "edge" else 0
poll = select.epoll()


class Peer:
    def __init__(self, number, port, amount):
        self.amount = amount
        pattern = f"{number} to {port};".encode()
        self.content = (pattern * (amount // len(pattern) + 1))[:amount]
        self.sent = 0
        self.back = b""
        self.connected = False
        self.socket = socket.socket()
        self.socket.setblocking(False)
        poll.register(self.socket, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | edge)
        self.port = port

    def connect(self):
        result = self.socket.connect_ex((address, self.port))
        assert result in (0, errno.EINPROGRESS), errno.errorcode[result]

    def ready(self, events):
        assert not events & select.EPOLLERR, (self.port, self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        if not self.connected:
            if not events & select.EPOLLOUT:
                return False
            assert self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            assert self.socket.getpeername() == (address, self.port)
            self.connected = True
        try:
            while self.sent < self.amount:
                self.sent += self.socket.send(self.content[self.sent :])
        except BlockingIOError:
            pass
        if self.sent == self.amount and not edge:
            poll.modify(self.socket, select.EPOLLIN)
        try:
            while len(self.back) < self.amount:
                piece = self.socket.recv(65536)
                assert piece, "closed too soon"
                self.back += piece
        except BlockingIOError:
            return False
        assert self.back == self.content, "these are not the bytes that were sent"
        poll.unregister(self.socket)
        self.socket.close()
        return True


peers = {}
for number in range(int(each)):
    for port, amount in amounts.items():
        peer = Peer(number, port, amount)
        peers[peer.socket.fileno()] = peer
for peer in peers.values():
    peer.connect()
left = len(peers)
while left:
    ready = poll.poll(30)
    assert ready, f"{left} of {len(peers)} never came"
    for number, events in ready:
        left -= peers[number].ready(events)
print("ok", len(peers))
