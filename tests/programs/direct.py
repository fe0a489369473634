# SPDX-License-Identifier: MIT OR Apache-2.0
"""Two sockets of a guest's, connected to each other over its loopback: what they and the stack know of it."""
import ctypes
import socket
import struct
import subprocess
import time

MIB = 1 << 20


def dissolve(s):
    address = struct.pack("H14x", socket.AF_UNSPEC)
    return ctypes.CDLL(None).connect(s.fileno(), address, len(address))


def result(call, *words):
    try:
        call(*words)
        return "ok"
    except OSError as error:
        return error.strerror


def stack():
    """The stack's connections: their bytes, and how many there are."""
    said = subprocess.run(["ss", "-Htni"], capture_output=True, text=True, check=True).stdout
    sent = [int(word.split(":")[1]) for word in said.split() if word.startswith("bytes_sent:")]
    return said.count("ESTAB"), sum(sent)


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            return "in vain"
    return "yes"


def pair(family, at):
    server = socket.socket(family)
    server.bind((at, 0))
    server.listen(5)
    client = socket.create_connection(server.getsockname()[:2])
    accepted, peer = server.accept()
    assert peer == client.getsockname() == accepted.getpeername(), (peer, client.getsockname())
    assert client.getpeername() == accepted.getsockname(), accepted.getsockname()
    assert accepted.family == family and accepted.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) == family
    return server, client, accepted


def main():
    for family, at in [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET6, "::ffff:127.0.0.1")]:
        print("from", at)
        server, client, accepted = pair(family, at)
        got = 0
        for n in range(64):
            client.sendall(bytes(MIB // 16))
            while got < (n + 1) * MIB // 16:
                got += len(accepted.recv(MIB))
        print("came", got)
        connections, sent = stack()
        print("stack has", connections, "and sent less" if sent < MIB else sent)
        info = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        # tcpi_bytes_received.
        print("received", struct.unpack_from("Q", info, 128)[0])

        print("dissolved", dissolve(accepted))
        print("its peer", result(client.recv, 1))
        print("connects", result(accepted.connect, server.getsockname()[:2]))
        second, _ = server.accept()
        accepted.sendall(b"again")
        print("second", second.recv(16).decode())
        print("dissolved", dissolve(second))
        print("bound", result(second.bind, (at, 0)))
        print("listens", result(second.listen, 1))
        client.close()
        accepted.close()
        second.close()
        print("forgotten", until(lambda: stack()[0] == 0))
        server.close()


main()
