"""Is the Ray that this process hangs on still there? Asked before calls that would hang, or end the process, if not.

Where the raylet of its node dies, Ray ends the driver after 15 s without a word; where the GCS dies, after a minute of
silence and with a line of C++ log. So both are asked for a TCP connection once a second, to end before that and say so.
"""

import socket
import time

from rrcm_dist.errors import RunFailure

ASK_SECONDS = 1.0
CONNECT_SECONDS = 5.0
RAYLET_SECONDS = 2.0
"""A raylet, or the GCS of a Ray of one's own, that takes no connection for so long is dead: nothing restarts it."""
GCS_SECONDS = 40.0
"""The GCS of a cluster may be restarted; after 60 s Ray ends this process."""
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
        self._raylet_seen = self._gcs_seen = self._asked = time.monotonic()
        self._well = True

    def check(self) -> bool:
        """Whether calls to Ray are safe now. Raises `RunFailure` where Ray is taken to be gone."""
        now = time.monotonic()
        if now - self._asked < ASK_SECONDS:
            return self._well
        self._asked = now
        raylet, gcs = _listens(self._raylet), _listens(self._gcs)
        self._raylet_seen = now if raylet else self._raylet_seen
        self._gcs_seen = now if gcs else self._gcs_seen
        self._well = raylet and gcs
        if not self._well:
            self._give_up(now - self._raylet_seen, now - self._gcs_seen)
        return self._well

    def _give_up(self, raylet_silent: float, gcs_silent: float) -> None:
        """Raise if either was silent for too long, in seconds."""
        gcs = f"{self._gcs[0]}:{self._gcs[1]}"
        if self._embedded and max(raylet_silent, gcs_silent) > RAYLET_SECONDS:
            what = "raylet" if raylet_silent > RAYLET_SECONDS else "GCS"
            raise RunFailure(f"Ray's {what} on this machine died, as when it is killed or memory runs out; {GO_ON}")
        if raylet_silent > RAYLET_SECONDS:
            raise RunFailure(
                f"the raylet of this machine, a node of the Ray cluster at {gcs}, died; {GO_ON} once this machine "
                f"has joined again (`ray start --address={gcs}`)"
            )
        if gcs_silent > GCS_SECONDS:
            raise RunFailure(f"the Ray cluster at {gcs} takes no connection since {gcs_silent:.0f} s; {GO_ON}")


def _listens(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
