"""Gets an HTTP body with bare sockets and writes it to standard output.

Arguments: how (blocking, timeout, asyncio), address, port, path.
"""
import asyncio
import socket
import sys


def request(path, address):
    return f"GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode()


def body(write):
    """Takes a response in pieces and writes what follows its head."""
    head = b""
    past = False

    def take(piece):
        nonlocal head, past
        if past:
            write(piece)
            return
        head += piece
        before, blank, rest = head.partition(b"\r\n\r\n")
        if blank:
            assert b" 200 " in before.splitlines()[0], before
            past = True
            write(rest)

    return take


def synchronous(address, port, path, timeout):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as peer:
        peer.settimeout(timeout)
        peer.connect((address, port))
        assert peer.getpeername()[:2] == (address, port), peer.getpeername()
        peer.sendall(request(path, address))
        take = body(sys.stdout.buffer.write)
        while piece := peer.recv(65536):
            take(piece)


async def asynchronous(address, port, path):
    reader, writer = await asyncio.open_connection(address, port)
    writer.write(request(path, address))
    await writer.drain()
    take = body(sys.stdout.buffer.write)
    while piece := await reader.read(65536):
        take(piece)
    writer.close()
    await writer.wait_closed()


how, address, port, path = sys.argv[1:]
if how == "asyncio":
    asyncio.run(asynchronous(address, int(port), path))
else:
    synchronous(address, int(port), path, {"blocking": None, "timeout": 30.0}[how])
