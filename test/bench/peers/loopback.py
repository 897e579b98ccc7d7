"""The limit of the bench `collectives`: two processes send each other bytes over one TCP connection, both ways at once,
from and into memory that exists already. Done in two ways, the faster one counts: two threads, one of which writes and the
other reads (Python is outside of both system calls), and one thread that waits for whichever is possible."""

import select
import socket
import threading
import time

from side import serve

connection = None
listener = socket.create_server(("127.0.0.1", 0))
buffers = {}


def with_threads(outgoing, incoming):
    connection.setblocking(True)
    writer = threading.Thread(target=connection.sendall, args=(outgoing,))
    writer.start()
    view, received = memoryview(incoming), 0
    while received < len(incoming):
        received += connection.recv_into(view[received:])
    writer.join()


def with_poll(outgoing, incoming):
    connection.setblocking(False)
    sending, receiving = memoryview(outgoing), memoryview(incoming)
    sent = received = 0
    poll = select.poll()
    poll.register(connection, select.POLLIN | select.POLLOUT)
    while sent < len(outgoing) or received < len(incoming):
        for _, event in poll.poll():
            if event & select.POLLOUT and sent < len(outgoing):
                sent += connection.send(sending[sent : sent + 2**20])
                if sent == len(outgoing):
                    poll.modify(connection, select.POLLIN)
            if event & select.POLLIN and received < len(incoming):
                received += connection.recv_into(receiving[received:])


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
    ways = []
    for swap in (with_threads, with_poll):
        start = time.perf_counter()
        for _ in range(command["count"]):
            swap(outgoing, incoming)
        ways.append(1e3 * (time.perf_counter() - start) / command["count"])
    # Both processes must choose the same: each tells both, and the bench takes the slower process of the faster way.
    return {"threads": ways[0], "poll": ways[1]}


serve(answer)
