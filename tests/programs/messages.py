"""Says what datagram sockets do with control messages, many messages at once, segments, groups and shared
ports, line by line, so that two runs can be compared. Arguments: the echo server's address and port, and a
port of it where nobody is."""
import ctypes
import errno
import os
import select
import socket
import struct
import sys

server = (sys.argv[1], int(sys.argv[2]))
nobody = (sys.argv[1], int(sys.argv[3]))
v6 = ":" in server[0]
family = socket.AF_INET6 if v6 else socket.AF_INET
any_address, loop = ("::", "::1") if v6 else ("0.0.0.0", "127.0.0.1")
IP, IPV6, UDP, SOCKET = socket.IPPROTO_IP, socket.IPPROTO_IPV6, socket.IPPROTO_UDP, socket.SOL_SOCKET
IP_PKTINFO, IP_RECVERR, IP_RECVTTL, IP_RECVTOS, IP_MTU_DISCOVER, IP_MTU = 8, 11, 12, 13, 10, 14
IPV6_RECVPKTINFO, IPV6_PKTINFO, IPV6_RECVERR, IPV6_RECVHOPLIMIT, IPV6_HOPLIMIT = 49, 50, 25, 51, 52
IPV6_RECVTCLASS, IPV6_TCLASS, IPV6_MTU_DISCOVER = 66, 67, 23
UDP_SEGMENT, UDP_GRO = 103, 104
SO_TIMESTAMP, MSG_WAITFORONE, MSG_ERRQUEUE = 29, 0x10000, 0x2000
libc = ctypes.CDLL(None, use_errno=True)


def say(what, *answers):
    print(what + ":", *answers, flush=True)


def attempt(what, call):
    try:
        say(what, call())
    except OSError as error:
        say(what, errno.errorcode.get(error.errno, error))


def new(timeout=20.0):
    made = socket.socket(family, socket.SOCK_DGRAM)
    made.settimeout(timeout)
    return made


def number(value):
    return struct.pack("i", value)


def shown(control):
    """Control messages without what differs from machine to machine."""
    lines = []
    for level, kind, data in control:
        if (level, kind) == (IP, IP_PKTINFO):
            index, local, to = struct.unpack("I4s4s", data)
            lines.append(("pktinfo", index != 0, local == to))
        elif (level, kind) == (IPV6, IPV6_PKTINFO):
            lines.append(("pktinfo6", struct.unpack("16sI", data)[1] != 0))
        elif (level, kind) == (SOCKET, SO_TIMESTAMP):
            lines.append(("timestamp", len(data)))
        elif len(data) in (1, 4):
            lines.append((level, kind, int.from_bytes(data, sys.byteorder) if kind not in (2, IPV6_HOPLIMIT) else "hops"))
        else:
            lines.append((level, kind, len(data)))
    return sorted(map(str, lines))


# What comes with a datagram, on the machine's own loopback.
names = [(IPV6, IPV6_RECVPKTINFO), (IPV6, IPV6_RECVHOPLIMIT), (IPV6, IPV6_RECVTCLASS)] if v6 else [
    (IP, IP_PKTINFO), (IP, IP_RECVTTL), (IP, IP_RECVTOS)]
for names_, what in (names, "loopback"), (names, "server"):
    one = new()
    for level, name in names_ + [(SOCKET, SO_TIMESTAMP)]:
        attempt("set %d %d" % (level, name), lambda: one.setsockopt(level, name, 1))
        attempt("get %d %d" % (level, name), lambda: one.getsockopt(level, name))
    if what == "loopback":
        one.bind((any_address, 0))
        to = (loop, one.getsockname()[1])
    else:
        to = server
    one.sendto(b"x", to)
    data, control, flags, _ = one.recvmsg(10, 1000)
    say("control from " + what, data, flags, shown(control))
    one.sendto(b"x", to)
    data, control, flags, _ = one.recvmsg(10, 20)
    say("no room for control from " + what, data, flags & socket.MSG_CTRUNC)
    one.sendto(b"x", to)
    say("without asking", one.recvmsg(10)[:3])

# What goes with a datagram.
two = new()
two.bind((any_address, 0))
here = (loop, two.getsockname()[1])
for level, name in names:
    two.setsockopt(level, name, 1)
for what, control in (
    ("tos", [(IPV6, IPV6_TCLASS, number(8))] if v6 else [(IP, socket.IP_TOS, number(8))]),
    ("ttl", [(IPV6, IPV6_HOPLIMIT, number(33))] if v6 else [(IP, socket.IP_TTL, number(33))]),
    ("source", [(IPV6, IPV6_PKTINFO, struct.pack("16sI", socket.inet_pton(family, loop), 0))] if v6
     else [(IP, IP_PKTINFO, struct.pack("I4s4s", 0, socket.inet_aton("127.0.0.2"), b"\0" * 4))]),
    ("a source of others", [(IPV6, IPV6_PKTINFO, struct.pack("16sI", socket.inet_pton(family, "2001:db8::77"), 0))]
     if v6 else [(IP, IP_PKTINFO, struct.pack("I4s4s", 0, socket.inet_aton("198.51.100.77"), b"\0" * 4))]),
    ("an interface that is not", [(IPV6, IPV6_PKTINFO, struct.pack("16sI", b"\0" * 16, 4096))] if v6
     else [(IP, IP_PKTINFO, struct.pack("I4s4s", 4096, b"\0" * 4, b"\0" * 4))]),
    ("too short", [(IPV6, IPV6_TCLASS, b"\0")] if v6 else [(IP, IP_PKTINFO, b"\0")]),
    ("unknown level", [(77, 1, number(1))]),
    ("unknown kind", [(IPV6, 99, number(1))] if v6 else [(IP, 99, number(1))]),
    ("rights", [(SOCKET, socket.SCM_RIGHTS, number(0))]),
):
    def exchange():
        two.sendmsg([b"with"], control, 0, here)
        data, control_, flags, sender = two.recvmsg(100, 1000)
        return data, flags, sender[0], shown(control_)
    attempt("sent with " + what, exchange)
    # From the loopback's address nobody answers.
    attempt("to the server with " + what, lambda: (
        two.sendmsg([b"with"], control, 0, server), what == "source" or two.recv(100)))

# Errors of the network, in their queue.
three = new(None)
three.setsockopt(IPV6 if v6 else IP, IPV6_RECVERR if v6 else IP_RECVERR, 1)
attempt("no error", lambda: three.recvmsg(100, 1000, MSG_ERRQUEUE | socket.MSG_DONTWAIT))
three.sendto(b"lost", nobody)
poller = select.poll()
poller.register(three, select.POLLIN)
say("told of an error", [event for _, event in poller.poll(10000)])
data, control, flags, to = three.recvmsg(100, 1000, MSG_ERRQUEUE)
# passt quotes a few bytes more than there were.
say("the error", data.rstrip(b"\0"), flags, to[:2] == nobody)
for level, kind, body in control:
    told, origin, sort, code = struct.unpack("IBBB", body[:7])
    say("extended", level, kind, errno.errorcode[told], origin, sort, code)
attempt("no other", lambda: three.recvmsg(100, 1000, MSG_ERRQUEUE | socket.MSG_DONTWAIT))
two.sendto(b"data", here)
poller.register(two, select.POLLIN)
# An error that has been taken is not announced any more.
say("told of data", [event for _, event in poller.poll(10000)])
# A socket with a time-out would try again until then.
two.settimeout(None)
attempt("no error where there is data", lambda: two.recv(100, MSG_ERRQUEUE | socket.MSG_DONTWAIT))
attempt("the data", lambda: two.recv(100))

# Nothing is waited for after shutdown(2).
five = new(None)
five.connect(server)
five.shutdown(socket.SHUT_RD)
attempt("received after shutdown", lambda: five.recvfrom(100))
attempt("a message after shutdown", lambda: five.recvmsg(100, 100))

# Segments.
four = new()
attempt("segments", lambda: four.setsockopt(UDP, UDP_SEGMENT, 100))
attempt("segments set", lambda: four.getsockopt(UDP, UDP_SEGMENT))
attempt("a segment of 70000", lambda: four.setsockopt(UDP, UDP_SEGMENT, 70000))
four.connect(server)
attempt("sent in segments", lambda: four.send(b"a" * 100 + b"b" * 100 + b"c" * 50))
attempt("received", lambda: [four.recv(1000) for _ in range(3)])
attempt("segments off", lambda: four.setsockopt(UDP, UDP_SEGMENT, 0))
attempt("in segments by message", lambda: four.sendmsg(
    [b"d" * 30, b"e" * 25], [(UDP, UDP_SEGMENT, struct.pack("H", 20))]))
attempt("received", lambda: [four.recv(1000) for _ in range(3)])
five = new()
attempt("to be merged", lambda: five.setsockopt(UDP, UDP_GRO, 1))
attempt("merged", lambda: five.getsockopt(UDP, UDP_GRO))
five.bind((loop, 0))
six = new()
six.setsockopt(UDP, UDP_SEGMENT, 10)
attempt("segments inside", lambda: six.sendto(b"0123456789" * 5, five.getsockname()))
received = b""
while len(received) < 50:
    data, control, _, _ = five.recvmsg(1000, 1000)
    received += data
say("received inside", received == b"0123456789" * 5)


# Many at once.
class Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Msghdr(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("namelen", ctypes.c_uint), ("iov", ctypes.POINTER(Iovec)),
                ("iovlen", ctypes.c_size_t), ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t),
                ("flags", ctypes.c_int)]


class Mmsghdr(ctypes.Structure):
    _fields_ = [("header", Msghdr), ("length", ctypes.c_uint)]


def vector(buffers):
    made = (Mmsghdr * len(buffers))()
    for entry, buffer in zip(made, buffers):
        entry.header.iov = ctypes.pointer(Iovec(ctypes.cast(buffer, ctypes.c_void_p), len(buffer)))
        entry.header.iovlen = 1
    return made


def checked(result):
    return result if result >= 0 else errno.errorcode[ctypes.get_errno()]


seven = new(timeout=None)
seven.connect(server)
out = vector([ctypes.create_string_buffer(b"%d" % n, 3) for n in range(5)])
say("sendmmsg", checked(libc.sendmmsg(seven.fileno(), out, 5, 0)), [entry.length for entry in out])
rooms = [ctypes.create_string_buffer(10) for _ in range(5)]
back = vector(rooms)
count = 0
while count < 5:
    got = checked(libc.recvmmsg(seven.fileno(), back, 5 - count, MSG_WAITFORONE, None))
    count += got
say("recvmmsg, waiting for one", count, back[0].length, back[0].header.flags)
say("sendmmsg", checked(libc.sendmmsg(seven.fileno(), out, 5, 0)))
say("recvmmsg, waiting for all", checked(libc.recvmmsg(seven.fileno(), back, 5, 0, None)),
    [entry.length for entry in back], [room.raw[:1] for room in rooms])
say("recvmmsg, of none", checked(libc.recvmmsg(seven.fileno(), back, 5, socket.MSG_DONTWAIT, None)))
seven.setsockopt(SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 50_000))
say("recvmmsg, in vain", checked(libc.recvmmsg(seven.fileno(), back, 5, 0, None)))
say("sendmmsg", checked(libc.sendmmsg(seven.fileno(), out, 2, 0)))
say("recvmmsg, too few", checked(libc.recvmmsg(seven.fileno(), back, 5, 0, None)))

# To nobody in particular.
eight = new()
attempt("send, unconnected", lambda: eight.send(b"x"))
attempt("shutdown, unconnected", lambda: eight.shutdown(socket.SHUT_RDWR))
attempt("sendmsg, unconnected", lambda: eight.sendmsg([b"x"]))
nine = new(None)
nine.connect(server)
attempt("shutdown", lambda: nine.shutdown(socket.SHUT_RD))
attempt("received then", lambda: nine.recv(10, socket.MSG_DONTWAIT))
attempt("shutdown of both", lambda: nine.shutdown(socket.SHUT_RDWR))
attempt("sent then", lambda: nine.send(b"x"))

# Shared ports: every datagram to one of them, one sender always to the same.
shared = [new(0.0) for _ in range(3)]
for each in shared:
    each.setsockopt(SOCKET, socket.SO_REUSEPORT, 1)
shared[0].bind((loop, 0))
place = shared[0].getsockname()
for each in shared[1:]:
    each.bind(place)
attempt("without asking", lambda: new().bind(place))
poller = select.poll()
for each in shared:
    poller.register(each, select.POLLIN)
found = {}
for sender in range(8):
    with new() as source:
        for turn in range(4):
            source.sendto(b"%d" % sender, place)
            (at, _), = poller.poll(10000)
            (each,) = [each for each in shared if each.fileno() == at]
            found.setdefault(int(each.recv(10)), set()).add(at)
say("shared", all(len(at) == 1 for at in found.values()), len(found))

# Groups and everybody. A rule must open them.
ten = new()
ten.setsockopt(SOCKET, socket.SO_REUSEADDR, 1)
ten.bind((any_address, 0))
port = ten.getsockname()[1]
if v6:
    group, index = "ff15::7", socket.if_nametoindex("lo")
    join = socket.inet_pton(family, group) + struct.pack("I", index)
    attempt("join", lambda: ten.setsockopt(IPV6, socket.IPV6_JOIN_GROUP, join))
    attempt("join again", lambda: ten.setsockopt(IPV6, socket.IPV6_JOIN_GROUP, join))
    attempt("out of", lambda: ten.setsockopt(IPV6, socket.IPV6_MULTICAST_IF, index))
    attempt("hops", lambda: (ten.setsockopt(IPV6, socket.IPV6_MULTICAST_HOPS, 3),
                             ten.getsockopt(IPV6, socket.IPV6_MULTICAST_HOPS)))
    attempt("loop", lambda: ten.getsockopt(IPV6, socket.IPV6_MULTICAST_LOOP))
    attempt("to a group", lambda: (ten.sendto(b"all", (group, port, 0, index)), ten.recv(10)))
    attempt("leave", lambda: ten.setsockopt(IPV6, socket.IPV6_LEAVE_GROUP, join))
    attempt("leave again", lambda: ten.setsockopt(IPV6, socket.IPV6_LEAVE_GROUP, join))
else:
    group = "239.1.2.3"
    join = socket.inet_aton(group) + socket.inet_aton("127.0.0.1")
    attempt("join", lambda: ten.setsockopt(IP, socket.IP_ADD_MEMBERSHIP, join))
    attempt("join again", lambda: ten.setsockopt(IP, socket.IP_ADD_MEMBERSHIP, join))
    attempt("out of", lambda: ten.setsockopt(IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1")))
    attempt("which", lambda: ten.getsockopt(IP, socket.IP_MULTICAST_IF, 4))
    attempt("ttl", lambda: (ten.setsockopt(IP, socket.IP_MULTICAST_TTL, 3),
                            ten.getsockopt(IP, socket.IP_MULTICAST_TTL)))
    attempt("loop", lambda: ten.getsockopt(IP, socket.IP_MULTICAST_LOOP))
    attempt("to a group", lambda: (ten.sendto(b"all", (group, port)), ten.recv(10)))
    attempt("leave", lambda: ten.setsockopt(IP, socket.IP_DROP_MEMBERSHIP, join))
    attempt("leave again", lambda: ten.setsockopt(IP, socket.IP_DROP_MEMBERSHIP, join))
    attempt("to everybody, without asking", lambda: ten.sendto(b"all", ("255.255.255.255", port)))
    ten.setsockopt(SOCKET, socket.SO_BROADCAST, 1)
    attempt("to everybody on the loopback", lambda: (ten.sendto(b"all", ("127.255.255.255", port)), ten.recv(10)))

# A device.
eleven = new()
attempt("device", lambda: eleven.setsockopt(SOCKET, socket.SO_BINDTODEVICE, b"lo\0"))
attempt("which device", lambda: eleven.getsockopt(SOCKET, socket.SO_BINDTODEVICE, 16))
attempt("no such device", lambda: new().setsockopt(SOCKET, socket.SO_BINDTODEVICE, b"none0\0"))

# Path MTU.
twelve = new()
twelve.connect((loop, 9))
attempt("mtu", lambda: twelve.getsockopt(IPV6 if v6 else IP, 24 if v6 else IP_MTU))
attempt("never fragment", lambda: twelve.setsockopt(IPV6 if v6 else IP, IPV6_MTU_DISCOVER if v6 else IP_MTU_DISCOVER, 2))
attempt("too long for the loopback", lambda: twelve.send(b"x" * 65530))
os._exit(0)
