"""A server that lets one client wait, takes what it sends little by little, and says how much that was."""
import socket
import sys
import time

listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
listener.bind((sys.argv[1], int(sys.argv[2])))
listener.listen()
client, _ = listener.accept()
client.settimeout(20)
time.sleep(1)
count = 0
while True:
    data = client.recv(16384)
    if not data:
        break
    count += len(data)
    time.sleep(0.002)
print(count)
