"""A server that sends every datagram back, on each address given as ADDRESS PORT pairs, and on the port above.

What begins with "twice" comes back a second time, from the other port.
"""
import select
import socket
import sys

pairs = list(zip(sys.argv[1::2], sys.argv[2::2]))
others = {}
for address, port in pairs:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family, socket.SOCK_DGRAM)
    server.bind((address, int(port)))
    other = socket.socket(family, socket.SOCK_DGRAM)
    other.bind((address, int(port) + 1))
    others[server], others[other] = other, server
# Who waits for the server looks for a listener.
ready = socket.create_server((pairs[0][0], int(pairs[0][1])))
while True:
    for server in select.select(list(others), [], [])[0]:
        data, sender = server.recvfrom(65536)
        server.sendto(data, sender)
        if data.startswith(b"twice"):
            others[server].sendto(data, sender)
