"""What daemons send to the host's services, as datagrams with an address or over a connection.

notify.py SOCKET FILE: a log line by logging, a readiness message, a file for the store.
"""

import array
import logging.handlers
import socket
import sys

path, name = sys.argv[1:]
handler = logging.handlers.SysLogHandler(address=path)
logging.getLogger().addHandler(handler)
logging.error("a line of the log")
handler.close()

notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.sendto(b"READY=1", path)
with open(name, "rb") as file:
    rights = array.array("i", [file.fileno()])
    message = (socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)
    notify.sendmsg([b"FDSTORE=1\n", b"FDNAME=file"], [message], 0, path)
print("done")
