"""Receives 1024 datagrams by one recvmmsg(2) that waits while they come one by one, and says what it returns."""
import ctypes
import errno
import socket
import threading
import time

MESSAGES = 1024


class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Header(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("name_length", ctypes.c_uint), ("parts", ctypes.c_void_p),
                ("count", ctypes.c_size_t), ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
                ("flags", ctypes.c_int)]


class Entry(ctypes.Structure):
    _fields_ = [("header", Header), ("length", ctypes.c_uint)]


libc = ctypes.CDLL(None, use_errno=True)
room = ctypes.create_string_buffer(100)
part = Part(ctypes.addressof(room), len(room))
entries = (Entry * MESSAGES)()
for entry in entries:
    entry.header.parts, entry.header.count = ctypes.addressof(part), 1

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 0))
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.connect(server.getsockname())
over = threading.Event()


def send():
    while not over.is_set():
        client.send(b"x")
        # One by one: each is taken before the next is there.
        time.sleep(20e-6)


sender = threading.Thread(target=send)
sender.start()
for _ in range(10):
    got = libc.recvmmsg(server.fileno(), entries, MESSAGES, 0, None)
    print(got if got >= 0 else errno.errorcode[ctypes.get_errno()])
over.set()
sender.join()
