"""Is the Ray that this process hangs on still there? Asked before calls that would hang, or end the process, if not.

Where the raylet of its node dies, Ray ends the driver after 15 s without a word; where the GCS dies, after a minute of
silence and with a line of C++ log. So both are asked for a TCP connection once a second, to end before that and say so.
"""

import socket
import time

from rrcm_dist.errors import RunFailure

ASK_SECONDS = 1.0
CONNECT_SECONDS = 5.0
GCS_SECONDS = 40.0
"""The GCS of a cluster may be restarted; after 60 s Ray ends this process. Nothing restarts a raylet, or the GCS of a
Ray of one's own."""
GO_ON = "every block counted so far is in the ledger: the same command goes on from there"


class RayHealth:
    """Of the Ray that this process is connected to."""

    def __init__(self, embedded: bool) -> None:
        """`embedded`: it was started by this process."""
        import ray

        (node,) = [node for node in ray.nodes() if node["NodeID"] == ray.get_runtime_context().get_node_id()]
        gcs_host, _, gcs_port = ray.get_runtime_context().gcs_address.rpartition(":")
        self._embedded = embedded
        self._raylet = node["NodeManagerAddress"], int(node["NodeManagerPort"])
        self._gcs = gcs_host, int(gcs_port)
        self._gcs_seen = self._asked = time.monotonic()
        self._well = True

    def check(self) -> bool:
        """Whether calls to Ray are safe now. Raises `RunFailure` where Ray is gone."""
        now = time.monotonic()
        if now - self._asked < ASK_SECONDS:
            return self._well
        self._asked = now
        gcs = f"{self._gcs[0]}:{self._gcs[1]}"
        if not _listens(self._raylet):
            self._end("raylet", f"the raylet of this machine, a node of the Ray cluster at {gcs}, died")
        self._well = _listens(self._gcs)
        if self._well:
            self._gcs_seen = now
        elif self._embedded or now - self._gcs_seen > GCS_SECONDS:
            self._end("GCS", f"the Ray cluster at {gcs} has taken no connection for {now - self._gcs_seen:.0f} s")
        return self._well

    def _end(self, part: str, of_cluster: str) -> None:
        own = f"Ray's {part} on this machine died, as when it is killed or memory runs out"
        raise RunFailure(f"{own if self._embedded else of_cluster}; {GO_ON}")


def _listens(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
