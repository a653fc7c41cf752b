"""What the ports of a Ray say to a stranger."""

import http.client
import urllib.error
import urllib.request

ONE_METHOD_OF_EACH_SERVICE = (
    "InternalKVGcsService/InternalKVKeys",
    "NodeManagerService/GetNodeStats",
    "ObjectManagerService/Pull",
    "CoreWorkerService/GetCoreWorkerStats",
    "ReporterService/HealthCheck",
)


def asks_for_a_token(port: int) -> bool:
    """Whether a stranger is turned away: by HTTP, or by whichever of Ray's gRPC services is there."""
    import grpc

    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).status != 200
    except urllib.error.HTTPError as refused:
        return refused.code == 401
    except (OSError, http.client.HTTPException):  # no HTTP/1
        pass
    answers = []
    for method in ONE_METHOD_OF_EACH_SERVICE:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary(f"/ray.rpc.{method}", bytes, bytes)
            answers.append(call.future(b"", timeout=5).code())
    return set(answers) == {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAUTHENTICATED}
