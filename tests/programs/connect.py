"""What connect() looks like from inside: prints it as one JSON object of names and values.

Arguments: blocking or nonblocking, an address, a port, and "pending" when nothing will ever answer.
"""
import errno
import json
import select
import socket
import sys

how, address, port, *pending = sys.argv[1:]
to = (address, int(port))
seen = {}
peer = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
# Silence is waited for: one retransmission, three seconds.
peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)


def name(number):
    return errno.errorcode.get(number, number) if number else 0


def attempt(label, call, shown=lambda value: value):
    try:
        seen[label] = shown(call())
    except TimeoutError as error:
        seen[label] = name(error.errno)
    except OSError as error:
        seen[label] = name(error.errno)


def events(mask):
    words = ("EPOLLIN", "EPOLLOUT", "EPOLLRDHUP", "EPOLLHUP", "EPOLLERR")
    return [word for word in words if mask & getattr(select, word)]


def so_error():
    return name(peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


if how == "blocking":
    seen["connect"] = name(peer.connect_ex(to))
else:
    peer.setblocking(False)
    poll = select.epoll()
    poll.register(peer, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP)
    seen["events of a new socket"] = [events(mask) for _, mask in poll.poll(0)]
    seen["connect"] = name(peer.connect_ex(to))
    if pending:
        seen["connect again"] = name(peer.connect_ex(to))
        seen["events while pending"] = [events(mask) for _, mask in poll.poll(1)]
        seen["SO_ERROR while pending"] = so_error()
    seen["events"] = [events(mask) for _, mask in poll.poll(30)]
    seen["SO_ERROR"] = so_error()
    seen["SO_ERROR again"] = so_error()
    seen["events after that"] = [events(mask) for _, mask in poll.poll(0)]

attempt("getpeername", peer.getpeername)
peer.settimeout(10)
attempt("send", lambda: peer.send(b"word"))
attempt("recv", lambda: peer.recv(4), lambda data: data.decode())
attempt("recv again", lambda: peer.recv(4) if seen["recv"] != "word" else b"", lambda data: data.decode())
seen["SO_ERROR at the end"] = so_error()
print(json.dumps(seen, sort_keys=True))
