"""Uses a network that leads nowhere: its loopback, by every address that means it, and what lies beyond.

Arguments: a host's IPv4 address. Prints a line for each.
"""
import errno
import socket
import sys

V4, V6 = socket.AF_INET, socket.AF_INET6


def outcome(call):
    try:
        return call()
    except OSError as error:
        return errno.errorcode[error.errno]


def stream(family, at, to):
    with socket.socket(family) as server, socket.socket(family) as client:
        server.bind((at, 0))
        server.listen()
        client.connect((to, server.getsockname()[1]))
        accepted, peer = server.accept()
        with accepted:
            client.sendall(b"to the server")
            accepted.sendall(b"to the client")
            same = peer[:2] == client.getsockname()[:2]
            return accepted.recv(99), client.recv(99), client.getpeername()[0], same


def datagrams(family, at, to):
    with socket.socket(family, socket.SOCK_DGRAM) as server, socket.socket(family, socket.SOCK_DGRAM) as client:
        server.bind((at, 0))
        client.sendto(b"question", (to, server.getsockname()[1]))
        question, asker = server.recvfrom(99)
        server.sendto(b"answer", asker)
        return question, client.recv(99), asker[0]


def beyond(kind):
    with socket.socket(V4, kind) as one:
        one.connect((sys.argv[1], 9))


for family, at, to in [
    (V4, "127.0.0.1", "127.0.0.1"),
    (V4, "0.0.0.0", "127.1.2.3"),
    (V4, "0.0.0.0", "0.0.0.0"),
    (V6, "::1", "::1"),
    (V6, "::", "::"),
    (V6, "::", "::ffff:127.0.0.1"),
    (V6, "::", "::ffff:0.0.0.0"),
]:
    print(at, to, outcome(lambda: stream(family, at, to)), outcome(lambda: datagrams(family, at, to)))
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    print("beyond", outcome(lambda: beyond(kind)))
print(socket.if_nameindex())
