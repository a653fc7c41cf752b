"""Is there a Ray cluster at this address that this process can join? Asked before Ray tries, in seconds.

`ray.init` on an address that does not answer is silent for 40 s and more, and then prints what its C++ parts think. So
the cluster's GCS is asked directly, by calls with which Ray itself begins, with a deadline; each no is one sentence.
"""

import json
import os
import socket
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from rrcm_dist.errors import InvalidInput, RunFailure

ANSWER_SECONDS = 5.0
"""For each step of asking; a living GCS answers in milliseconds."""
OF_ANOTHER_RAY = ("RAY_ADDRESS", "RAY_REDIS_ADDRESS", "RAY_GCS_SERVER_PORT", "RAY_NAMESPACE", "RAY_AUTH_TOKEN")
"""Variables that would lead a Ray of one's own to another one; a token in RAY_AUTH_TOKEN goes before one in a file."""
TOKEN_HINT = "give it in RAY_AUTH_TOKEN, in a file named by RAY_AUTH_TOKEN_PATH, or in ~/.ray/auth_token"


class Token(NamedTuple):
    """What the cluster is shown, and where it came from."""

    text: str
    source: str


def check_cluster(ray: ModuleType, address: str) -> str:
    """HOST:PORT of the cluster that `address` (HOST:PORT or `auto`) names, once it is known that it can be joined.

    A token that is found where Ray looks for one is meant for the cluster: RAY_AUTH_MODE, if not set, becomes `token`.
    Raises `InvalidInput` for what cannot be an address, `RunFailure` for a cluster that cannot be joined.
    """
    if address == "auto":
        address = _running_here(ray)
    host, port = _host_and_port(address)
    host = _as_ray_reaches(ray, host, port)
    address = f"{host}:{port}"
    token = find_token()
    if token is not None:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    _check_versions(ray, address, _cluster_metadata(address, token))
    _check_member(address, [node.raylet_socket_name for node in nodes_alive(address, token)])
    return address


def _running_here(ray: ModuleType) -> str:
    try:
        address = ray._private.services.get_ray_address_from_environment("auto", None)
    except ConnectionError:
        address = None
    if address is None:
        raise RunFailure(
            "no Ray is running on this machine: start one with `ray start --head`, join one with `ray start "
            "--address=HOST:PORT`, or leave the address out to use this machine alone"
        )
    return str(address)


def _host_and_port(address: str) -> tuple[str, int]:
    if address.startswith("ray://"):
        raise InvalidInput(
            f"{address}: Ray Client cannot carry a certification; run this command on a node of the cluster "
            "with the address of its GCS, as `ray start` printed it (HOST:6379)"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise InvalidInput(
            f"{address!r} is not the address of a Ray cluster: HOST:PORT (as `ray start` printed it) or auto"
        )
    return host, int(port)


def _as_ray_reaches(ray: ModuleType, host: str, port: int) -> str:
    """The host by which Ray will connect: it takes a loopback address for this node's own, unless told not to."""
    if host not in ("localhost", "127.0.0.1"):
        _connect(host, port)
        return host
    node = ray.util.get_node_ip_address()
    try:
        _connect(node, port)
    except RunFailure:
        _connect("127.0.0.1", port)
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        ray._private.ray_constants.ENABLE_RAY_CLUSTER = False
        return "127.0.0.1"
    return str(node)


def _connect(host: str, port: int) -> None:
    try:
        socket.create_connection((host, port), timeout=ANSWER_SECONDS).close()
    except socket.gaierror:
        raise RunFailure(f"no host is known by the name {host!r}: check the address of the Ray cluster") from None
    except TimeoutError:
        raise RunFailure(
            f"{host}:{port} did not answer within {ANSWER_SECONDS:.0f} s: is that machine up, and does a firewall let "
            "this port through?"
        ) from None
    except OSError as e:
        reason = os.strerror(e.errno).lower() if e.errno else str(e)
        raise RunFailure(
            f"no Ray cluster listens at {host}:{port} ({reason}): start one there with `ray start --head --port={port}`"
            ", or leave the address out to use this machine alone"
        ) from None


def find_token() -> Token | None:
    """What Ray would send, looked for where it looks."""
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return None
    if text := os.environ.get("RAY_AUTH_TOKEN", "").strip():
        return Token(text, "RAY_AUTH_TOKEN")
    if named := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        try:
            return Token(Path(named).read_text().strip(), f"RAY_AUTH_TOKEN_PATH, {named}")
        except (OSError, UnicodeDecodeError) as e:
            raise InvalidInput(f"the token file of RAY_AUTH_TOKEN_PATH cannot be read: {e}") from None
    default = Path.home() / ".ray" / "auth_token"
    return Token(default.read_text().strip(), str(default)) if default.is_file() else None


def _cluster_metadata(address: str, token: Token | None) -> dict[str, Any]:
    """Versions, as the head node wrote them down when it started."""
    gcs = _messages()
    request = gcs.InternalKVGetRequest(namespace=b"cluster", key=b"CLUSTER_METADATA")
    reply = _ask(address, token, "InternalKVGcsService/InternalKVGet", request, gcs.InternalKVGetReply)
    return json.loads(reply.value) if reply.value else {}


def nodes_alive(address: str, token: Token | None) -> list[Any]:
    """Nodes of the cluster at HOST:PORT, each with Ray's own fields: is_head_node, resources_total, …

    Raises `RunFailure` where it does not answer.
    """
    gcs = _messages()
    request = gcs.GetAllNodeInfoRequest()
    reply = _ask(address, token, "NodeInfoGcsService/GetAllNodeInfo", request, gcs.GetAllNodeInfoReply)
    alive = 0  # GcsNodeInfo.GcsNodeState.ALIVE
    return [node for node in reply.node_info_list if node.state == alive]


def _messages() -> Any:
    from ray.core.generated import gcs_service_pb2

    return gcs_service_pb2


def _ask(address: str, token: Token | None, method: str, request: Any, reply_type: Any) -> Any:
    import grpc

    metadata = [("authorization", f"Bearer {token.text}")] if token else None
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        call = channel.unary_unary(f"/ray.rpc.{method}", type(request).SerializeToString, reply_type.FromString)
        try:
            return call(request, timeout=ANSWER_SECONDS, metadata=metadata)
        except grpc.RpcError as e:
            code, details = e.code(), e.details()
    if code is grpc.StatusCode.UNAUTHENTICATED:
        if token is not None:
            raise RunFailure(f"the Ray cluster at {address} refuses the token of {token.source}: {TOKEN_HINT}")
        off = " (RAY_AUTH_MODE is set so that none is sent)" if "RAY_AUTH_MODE" in os.environ else ""
        raise RunFailure(f"the Ray cluster at {address} asks for a token{off}: {TOKEN_HINT}")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        raise RunFailure(
            f"{address} takes connections but did not answer within {ANSWER_SECONDS:.0f} s: it is no Ray cluster, or "
            f"one that hangs; `ray status --address={address}` on its head node tells"
        )
    raise RunFailure(f"{address} is not the GCS of a Ray cluster, the address that `ray start` printed: {details}")


def _check_versions(ray: ModuleType, address: str, metadata: dict[str, Any]) -> None:
    """Ray joins only what runs its own version and the same Python, patch release included."""
    here = {"Ray": ray.__version__, "Python": ".".join(map(str, sys.version_info[:3]))}
    for name, version in here.items():
        there = metadata.get(f"{name.lower()}_version", version)
        if there != version:
            raise RunFailure(
                f"the Ray cluster at {address} runs {name} {there} and this process {version}: Ray needs the same on "
                "both; use the cluster's environment here, or start the cluster from this one"
            )


def _check_member(address: str, raylet_sockets: list[str]) -> None:
    for name in raylet_sockets:
        with socket.socket(socket.AF_UNIX) as raylet:
            raylet.settimeout(ANSWER_SECONDS)
            try:
                raylet.connect(name)
            except OSError:  # a node on another machine
                continue
            return
    raise RunFailure(
        f"this machine is not a node of the Ray cluster at {address}: run `ray start --address={address}` here "
        "(with --num-cpus=0 --num-gpus=0 if it shall not work), or run this command on a node"
    )
