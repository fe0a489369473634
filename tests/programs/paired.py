# SPDX-License-Identifier: MIT OR Apache-2.0
"""Connections among a guest's own sockets: who gets which, what is left of those that are dissolved before they are accepted, and
what those can do that are dissolved afterwards."""
import ctypes
import errno
import select
import socket
import struct
import time

COUNT = 64


CONNECT = ctypes.CDLL(None).connect
NOBODY = struct.pack("H14x", socket.AF_UNSPEC)


def listening(at, backlog):
    server = socket.socket()
    server.bind(at)
    server.listen(backlog)
    return server


def connecting(to, port=None):
    one = socket.socket()
    one.setblocking(False)
    if port:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", port))
    assert one.connect_ex(to) in (0, errno.EINPROGRESS)
    return one


def connected(sockets, wait=0):
    return select.select([], sockets, [], wait)[1]


def dissolved():
    """How a server hears of its clients, each dissolved as soon as it was connected."""
    heard = set()
    with listening(("127.0.0.1", 0), 5) as server:
        for _ in range(10 * COUNT):
            client = connecting(server.getsockname())
            number, poll = client.fileno(), select.poll()
            poll.register(number, select.POLLOUT)
            while not poll.poll(0):
                pass
            CONNECT(number, NOBODY, len(NOBODY))
            accepted, _ = server.accept()
            accepted.settimeout(20)
            try:
                heard.add(accepted.recv(1))
            except OSError as error:
                heard.add(error.strerror)
            accepted.close()
            client.close()
    return heard


def again():
    """Accepted sockets, all dissolved, connect to the same server at once."""
    with listening(("127.0.0.1", 0), 5) as server:
        pairs = [(socket.create_connection(server.getsockname()), server.accept()[0]) for _ in range(5)]
        for _, one in pairs:
            CONNECT(one.fileno(), NOBODY, len(NOBODY))
            one.setblocking(False)
        said = {one.connect_ex(server.getsockname()) for _, one in pairs}
        accepted = [server.accept()[0] for _ in pairs if said == {errno.EINPROGRESS}]
        return len(accepted)


def anew():
    """One end or the other is dissolved as soon as there is a connection, and connects anew."""
    heard = set()
    with listening(("127.0.0.1", 0), 5) as server:
        for n in range(5 * COUNT):
            ends = socket.create_connection(server.getsockname()), server.accept()[0]
            one = ends[n % 2]
            CONNECT(one.fileno(), NOBODY, len(NOBODY))
            try:
                one.connect(server.getsockname())
                accepted, _ = server.accept()
                one.sendall(b"x")
                heard.add(accepted.recv(1))
                accepted.close()
            except OSError as error:
                heard.add(error.strerror)
            for end in ends:
                end.close()
    return heard


def shared():
    """Clients in pairs that share a port, each to a server of its own: both wait for room, and get it at the same time."""
    servers = [listening(("127.0.0.1", 0), COUNT)]
    port = servers[0].getsockname()[1]
    servers.append(listening(("127.0.0.2", port), COUNT))
    others = []
    # Until each has as many as wait in all its queues.
    for server in servers:
        while not others or connected(others[-1:], 0.2):
            others += [connecting(server.getsockname()) for _ in range(COUNT)]
        others.append(others[0])
    first = 20000
    clients = [(connecting(server.getsockname(), first + n), which) for n in range(COUNT) for which, server in enumerate(servers)]
    assert not connected([client for client, _ in clients])

    accepted = []
    deadline = time.monotonic() + 20
    while len(accepted) < len(clients) and time.monotonic() < deadline:
        for which, server in enumerate(servers):
            server.settimeout(0.01)
            try:
                one, (_, port) = server.accept()
                if first <= port < first + COUNT:
                    accepted.append((one, which))
                others.append(one)
            except TimeoutError:
                pass
    for client, which in clients:
        client.setblocking(True)
        client.sendall(bytes([which]))
    right = 0
    for one, which in accepted:
        one.settimeout(5)
        try:
            right += one.recv(1)[0] == which
        except TimeoutError:
            pass
    return right == len(clients)


print("dissolved", dissolved())
print("again", again())
print("anew", anew())
print("shared", shared())
