"""Nodes visit each other over plain TCP: is each reached from each, do large messages come through, do clocks agree.

Small packets may pass where large ones are lost (a jumbo frame on the wrong switch port), so every visit carries some.
"""

import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from cluster.preflight.reports import Finding

PAYLOAD_BYTES = 1 << 20
CONNECT_SECONDS = 20.0
"""For so long a node that does not listen yet is tried again."""
VISIT_SECONDS = 10.0
AGAIN_SECONDS = 0.1
TIME_BYTES, NAME_BYTES = 32, 128


@dataclass(frozen=True)
class Visit:
    """What came of visiting one node."""

    problem: str = ""
    megabytes_per_second: float = 0.0
    clock_ahead_seconds: float = 0.0
    """Of the visited node's clock before ours."""


class Neighbours:
    """Answers the visits of others in the background, from its making until `close()`."""

    def __init__(self, own: str, addresses: Mapping[str, str], port: int) -> None:
        """Raise `OSError` where something else listens on the port."""
        self._own, self._port = own, port
        self._others = {name: address for name, address in addresses.items() if name != own}
        self._came: set[str] = set()
        self._listener = socket.create_server(("", port), backlog=len(addresses) + 8)
        threading.Thread(target=self._answer, daemon=True).start()

    def visit_all(self) -> dict[str, Visit]:
        """Visit every other node, all at once."""
        visits: dict[str, Visit] = {}

        def visit(name: str) -> None:
            visits[name] = self._visit(name)

        threads = [threading.Thread(target=visit, args=(name,)) for name in self._others]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return visits

    def wait_for_visitors(self, seconds: float) -> None:
        """Return when all others have been here, or after so long."""
        deadline = time.monotonic() + seconds
        while self._came < self._others.keys() and time.monotonic() < deadline:
            time.sleep(AGAIN_SECONDS)

    def close(self) -> None:
        """Listen no more."""
        self._listener.close()

    def _answer(self) -> None:
        while True:
            try:
                visitor, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._receive, args=(visitor,), daemon=True).start()

    def _receive(self, visitor: socket.socket) -> None:
        with visitor, suppress(OSError):
            visitor.settimeout(VISIT_SECONDS)
            name = _read(visitor, NAME_BYTES).decode().strip()
            visitor.sendall(f"{time.time():.6f}".ljust(TIME_BYTES).encode())
            visitor.sendall(_read(visitor, PAYLOAD_BYTES))
            self._came.add(name)

    def _visit(self, name: str) -> Visit:
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:
            try:
                return self._one_visit(name, max(AGAIN_SECONDS, deadline - time.monotonic()))
            except ConnectionRefusedError as error:  # nobody listens yet
                if time.monotonic() > deadline:
                    return Visit(str(error))
                time.sleep(AGAIN_SECONDS)
            except (OSError, ValueError) as error:  # a ValueError: something else answers there
                return Visit(str(error))

    def _one_visit(self, name: str, connect_seconds: float) -> Visit:
        payload = bytes(PAYLOAD_BYTES)
        with socket.create_connection((self._others[name], self._port), timeout=connect_seconds) as there:
            there.settimeout(VISIT_SECONDS)
            asked = time.time()
            there.sendall(self._own.ljust(NAME_BYTES).encode())
            told = float(_read(there, TIME_BYTES))
            answered = time.time()
            there.sendall(payload)
            _read(there, PAYLOAD_BYTES)
            rate = 2 * PAYLOAD_BYTES / 1e6 / (time.time() - answered)
        return Visit(megabytes_per_second=rate, clock_ahead_seconds=told - (asked + answered) / 2)


def network_findings(visits: Mapping[str, Visit], port: int) -> list[Finding]:
    """One for every node that was not reached, or a single one where all were."""
    failed = {name: visit for name, visit in visits.items() if visit.problem}
    if not failed:
        slowest = min((visit.megabytes_per_second for visit in visits.values()), default=0.0)
        return [Finding("network", f"{slowest:,.0f} MB/s" if visits else "alone", value=slowest)]
    mend = f"look at its network card and cable, and for a firewall on ports such as {port}"
    return [
        Finding("network", "cut", f"does not get through to {name}: {visit.problem}", mend, other=name)
        for name, visit in failed.items()
    ]


def _read(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = connection.recv(min(count - len(data), 1 << 16))
        if not piece:
            raise ConnectionError("the connection was closed")
        data += piece
    return bytes(data)
