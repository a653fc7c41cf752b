"""The process that a node of Ray hangs on: it starts the node's processes, and none of them outlives it.

`python -m cluster.ray_nodes.keeper SETTINGS` prints one line of JSON, `NodeAddresses`, once the node is up; its other
output is for people. It ends when it is asked to (SIGTERM), when its parent ends, by any means, or, with exit code 1,
when the node dies.
"""

import json
import os
import secrets
import signal
import socket
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from cluster.die_with_parent import die_with_parent
from cluster.ray_nodes.node import NodeAddresses, NodeSettings
from cluster.ray_nodes.processes import adopt_orphans, end_descendants
from rrcm_dist.certification.on_ray.address import OF_ANOTHER_RAY
from rrcm_dist.certification.on_ray.folder import RAY_FOLDER, private_folder

VITAL = {"gcs_server", "raylet"}
"""Without the other processes, such as the dashboard's, a node still works."""
PORTS = (
    "object_manager_port",
    "node_manager_port",
    "min_worker_port",
    "max_worker_port",
    "metrics_agent_port",
    "metrics_export_port",
    "runtime_env_agent_port",
    "dashboard_agent_listen_port",
    "dashboard_port",
)
WATCH_SECONDS = 0.5
MOST_OBJECT_STORE_BYTES = 4 * 2**30


def main() -> None:
    """Keep a node until it ends or shall end."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which asks
    die_with_parent()
    adopt_orphans()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what Ray prints is no answer
    settings = NodeSettings.from_json(sys.argv[1])
    with private_folder() as folder:
        try:
            node = _start(settings, folder)
            dashboard = f"http://{node.webui_url}" if settings.head is None else ""
            print(json.dumps(asdict(NodeAddresses(node.address, dashboard))), file=answers, flush=True)
            sys.exit(_watch(node))
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            end_descendants("raylet")  # it tells the head, if asked, so that nobody waits for this node


def _start(settings: NodeSettings, folder: Path) -> Any:
    """A node of Ray; every port is one that the kernel finds free."""
    os.environ |= {**_environment(settings), "TMPDIR": str(folder)}  # what Ray's processes leave goes with it
    import psutil
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    head = settings.head is None
    parameters: dict[str, Any] = {
        "gcs_address": settings.head,
        "gcs_server_port": 0 if head else None,
        "node_ip_address": settings.host_address,
        "node_name": f"{socket.gethostname()}-{secrets.token_hex(4)}",
        "num_cpus": settings.cpus,
        "num_gpus": settings.gpus,
        "object_store_memory": min(MOST_OBJECT_STORE_BYTES, psutil.virtual_memory().total // 8),
        "temp_dir": str(folder / RAY_FOLDER),
        "include_dashboard": head,
        "dashboard_host": settings.host_address,
        "no_monitor": True,
        "include_log_monitor": False,
        **dict.fromkeys(PORTS, 0),
    }
    return Node(RayParams(**parameters), head=head, shutdown_at_exit=False, spawn_reaper=True)


def _environment(settings: NodeSettings) -> dict[str, str]:
    for name in OF_ANOTHER_RAY:
        os.environ.pop(name, None)
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": settings.token_file,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else `uv run` makes Ray pack the working folder
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else a warning at every start
        "DASHBOARD_METRIC_PORT": str(_free_port()),  # the one port that Ray does not let the kernel choose
    }


def _free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])


def _watch(node: Any) -> int:
    while True:
        dead = [name for name, _ in node.dead_processes() if name in VITAL]
        if dead:
            print(f"Ray's {' and '.join(dead)} died", file=sys.stderr, flush=True)
            return 1
        time.sleep(WATCH_SECONDS)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
