"""The limit of the bench `collectives`: two processes send each other bytes over one TCP connection, both ways at once,
from and into memory that exists already. A thread writes, another reads; Python is outside of both system calls."""

import socket
import threading
import time

from side import serve

connection = None
listener = socket.create_server(("127.0.0.1", 0))
buffers = {}


def swap(outgoing, incoming):
    writer = threading.Thread(target=connection.sendall, args=(outgoing,))
    writer.start()
    view, received = memoryview(incoming), 0
    while received < len(incoming):
        received += connection.recv_into(view[received:])
    writer.join()


def answer(command):
    global connection
    if command["do"] == "listen":
        return {"port": listener.getsockname()[1]}
    if command["do"] == "open":
        port = command.get("port")
        connection = socket.create_connection(("127.0.0.1", port)) if port else listener.accept()[0]
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return {}
    size = command["bytes"]
    outgoing, incoming = buffers.setdefault(size, (bytearray(b"x") * size, bytearray(b"y") * size))
    start = time.perf_counter()
    for _ in range(command["count"]):
        swap(outgoing, incoming)
    return {"ms": 1e3 * (time.perf_counter() - start) / command["count"]}


serve(answer)
