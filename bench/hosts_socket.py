"""What plain TCP does on the hosts of bench/hosts.py: each sends to the next and receives from the one before, at once.

hosts_socket.py INDEX BYTES NAME0 NAME1 ...      on every host; index 0 prints JSON: [us, ...], one a turn
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time

PORT = 7919
PATIENCE = 30.0  # seconds for anything to happen
TURNS = 5


def main(index: int, nbytes: int, names: list[str]) -> None:
    with socket.create_server(("", PORT)) as server:
        server.settimeout(PATIENCE)
        following = connect(names[(index + 1) % len(names)])
        preceding = server.accept()[0]
    data, landing = memoryview(bytes(1 << 20)), memoryview(bytearray(1 << 20))
    for connection in (following, preceding):
        connection.settimeout(PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(left: int) -> None:
        while left:
            left -= following.send(data[:left])

    def receive(left: int) -> None:
        while left:
            taken = preceding.recv_into(landing[: min(left, len(landing))])
            if taken == 0:
                raise ConnectionError(f"{names[index - 1]} has gone")
            left -= taken

    times = []
    for _ in range(TURNS):
        for _ in names:  # a byte that goes round: all have begun
            send(1)
            receive(1)
        begin = time.perf_counter()
        sender = threading.Thread(target=send, args=(nbytes,))
        sender.start()
        receive(nbytes)
        sender.join()
        times.append(round((time.perf_counter() - begin) * 1e6, 2))
    if index == 0:
        print(json.dumps(times))


def connect(name: str) -> socket.socket:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection((name, PORT), PATIENCE)
        except ConnectionRefusedError:  # it is still starting
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
