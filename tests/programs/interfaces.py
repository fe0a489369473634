"""What ioctl(2) says of the interfaces, a line each: NAME ADDRESS NETMASK FLAGS MTU."""
import array
import ctypes
import errno
import fcntl
import socket
import struct

GIFCONF, GIFFLAGS, GIFADDR, SIFADDR, GIFNETMASK, GIFMTU = 0x8912, 0x8913, 0x8915, 0x8916, 0x891B, 0x8921
ETHTOOL, GMIIPHY, GHWTSTAMP = 0x8946, 0x8947, 0x89B1
SIZE = 40


def ask(sock, request, name):
    record = struct.pack("16s24x", name.encode())
    return fcntl.ioctl(sock, request, record)


def address(record):
    return socket.inet_ntoa(record[20:24])


def describe(sock, name):
    flags, = struct.unpack("H", ask(sock, GIFFLAGS, name)[16:18])
    mtu, = struct.unpack("i", ask(sock, GIFMTU, name)[16:20])
    parts = (address(ask(sock, GIFADDR, name)), address(ask(sock, GIFNETMASK, name)))
    print(name, *parts, "up" if flags & 1 else "down", mtu)


def listed(sock, size):
    """The names and the length that SIOCGIFCONF gives, for a buffer of that size."""
    buffer = array.array("B", bytes(size))
    at = buffer.buffer_info()[0] if size else 0
    length, = struct.unpack("i12x", fcntl.ioctl(sock, GIFCONF, struct.pack("ixxxxP", size, at)))
    records = buffer.tobytes()[: length if size else 0]
    return length, [records[i : i + 16].rstrip(b"\0").decode() for i in range(0, len(records), SIZE)]


def failure(call):
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "0"


tcp = socket.socket()
for name in listed(tcp, 4000)[1]:
    describe(tcp, name)
print("room for one:", *listed(tcp, SIZE + 39))
print("no room:", *listed(tcp, 0))
print("by number:", socket.if_nametoindex("lo"), socket.if_indextoname(socket.if_nametoindex("eth0")))
with socket.socket(socket.AF_UNIX) as unix:
    print("by another family:", failure(lambda: ask(unix, GIFMTU, "eth0")), failure(lambda: ask(unix, GIFADDR, "eth0")))
print("none such:", failure(lambda: ask(tcp, GIFMTU, "eth7")))
command = ctypes.c_uint32(1)
for name in ("lo", "eth7"):
    link = struct.pack("16sP16x", name.encode(), ctypes.addressof(command))
    print("driver of", name + ":", *(failure(lambda: fcntl.ioctl(tcp, r, link)) for r in (ETHTOOL, GMIIPHY, GHWTSTAMP)))
print("set:", failure(lambda: ask(tcp, SIFADDR, "eth0")))
print("no memory:", failure(lambda: fcntl.ioctl(tcp, GIFMTU, 8)))
with open("/dev/null", "rb") as file:
    print("no socket:", failure(lambda: ask(file, GIFMTU, "eth0")))
