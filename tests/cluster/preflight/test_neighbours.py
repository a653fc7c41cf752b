"""Nodes that visit each other, as loopback addresses of this machine."""

import socket
import threading

import pytest

from cluster.preflight import neighbours
from cluster.preflight.neighbours import Neighbours, network_findings

ADDRESSES = {"node1": "127.0.0.1", "node2": "127.0.0.2", "node3": "127.0.0.3"}


@pytest.fixture
def port(monkeypatch):
    """Free; each node listens on its own address, as they share a machine."""
    real = socket.create_server
    monkeypatch.setattr(neighbours, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(neighbours, "VISIT_SECONDS", 1.0)
    monkeypatch.setattr(socket, "create_server", lambda address, **named: real((listening[0], address[1]), **named))
    with real(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


listening = [""]


def node(name, port):
    listening[0] = ADDRESSES[name]
    return Neighbours(name, ADDRESSES, port)


def test_nodes_that_see_each_other_find_nothing_wrong(port):
    nodes = [node(name, port) for name in ADDRESSES]
    visits = [one.visit_all() for one in nodes]
    for one in nodes:
        one.wait_for_visitors(0.0)
        one.close()
    assert [sorted(seen) for seen in visits] == [["node2", "node3"], ["node1", "node3"], ["node1", "node2"]]
    assert all(abs(visit.clock_ahead_seconds) < 0.5 for seen in visits for visit in seen.values())
    (finding,) = network_findings(visits[0], port)
    assert finding.problem == ""
    assert finding.value > 0


def test_a_node_that_does_not_listen_is_told(port):
    first, _ = node("node1", port), node("node2", port)
    (finding,) = network_findings(first.visit_all(), port)
    assert finding.other == "node3"
    assert "does not get through to node3: " in finding.problem
    assert f"firewall on ports such as {port}" in finding.mend


def test_a_node_through_to_which_only_small_messages_come_is_told(port):
    def swallow(server):
        visitor, _ = server.accept()
        visitor.recv(neighbours.NAME_BYTES)
        visitor.sendall(b"1000.0".ljust(neighbours.TIME_BYTES))
        threading.Event().wait(3)

    listening[0] = ADDRESSES["node2"]
    server = socket.create_server(("", port))
    threading.Thread(target=swallow, args=(server,), daemon=True).start()
    first, _ = node("node1", port), node("node3", port)
    (finding,) = network_findings(first.visit_all(), port)
    assert finding.other == "node2"
    assert "timed out" in finding.problem


def test_a_clock_that_is_wrong_is_measured(port, monkeypatch):
    first = node("node1", port)
    node("node3", port)
    node("node2", port)
    real = neighbours.time.time
    seen = threading.local()
    seen.main = True
    monkeypatch.setattr(neighbours.time, "time", lambda: real() + (0 if threading.current_thread() in mine else 60))
    mine = set()

    original = first._visit

    def visit(name):
        mine.add(threading.current_thread())
        return original(name)

    monkeypatch.setattr(first, "_visit", visit)
    assert first.visit_all()["node2"].clock_ahead_seconds == pytest.approx(60, abs=0.5)


def test_a_port_that_is_taken_cannot_be_listened_on(port):
    with socket.socket() as other:
        other.bind((ADDRESSES["node1"], port))
        other.listen()
        with pytest.raises(OSError, match="in use"):
            node("node1", port)
