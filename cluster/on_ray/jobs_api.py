"""A running Ray cluster, by its dashboard: what it is, and its jobs. Every no is one sentence."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrcm_dist.certification.on_ray.address import TOKEN_HINT, find_token
from rrcm_dist.errors import InvalidInput, RunFailure

ANSWER_SECONDS = 10.0
RUN = "rrcm-run"
"""What the metadata of every job of ours have the run folder under."""
ADDRESS = "RAY_API_SERVER_ADDRESS"
"""Where Ray's own commands look for a dashboard's address first."""


class NoCluster(RunFailure):
    """Nothing listens at the address: what ran there is gone."""


@dataclass(frozen=True)
class JobInfo:
    """A job as Ray has it."""

    state: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    message: str
    metadata: Mapping[str, str]


class RayCluster:
    """A cluster that answered."""

    def __init__(self, address: str) -> None:
        """Raises `NoCluster` where nothing listens, `RunFailure` for any other cluster that takes no job from here."""
        try:
            import ray
            from ray.job_submission import JobSubmissionClient
        except ImportError as error:
            raise InvalidInput(f"Ray is not installed ({error}): pip install 'rrcm-dist[cluster]'") from None
        self._token = find_token()
        self._headers = {"Authorization": f"Bearer {self._token.text}"} if self._token else {}
        self.address = address.rstrip("/")
        version = self._get("/api/version").get("ray_version")
        if version != ray.__version__:
            raise RunFailure(
                f"the Ray cluster at {address} runs Ray {version} and this environment has {ray.__version__}: submit "
                "from the environment that the cluster was started from"
            )
        with _in_environment(ADDRESS, self.address):  # which goes before the argument
            self._jobs = JobSubmissionClient(self.address, headers=self._headers)

    def nodes(self) -> list[dict[str, float]]:
        """Resources of each living node, such as {'CPU': 8.0, 'GPU': 1.0}."""
        found = self._get("/api/v0/nodes?detail=1&limit=10000")["data"]["result"]["result"]
        return [node["resources_total"] for node in found if node["state"] == "ALIVE"]

    def submit(self, job: str, entrypoint: str, environment: Mapping[str, str], run: Path) -> None:
        """Start `entrypoint` on the head node as a job of that submission id, for a run folder."""
        try:
            self._jobs.submit_job(
                entrypoint=entrypoint,
                submission_id=job,
                runtime_env={"env_vars": dict(environment)},
                metadata={RUN: str(run)},
            )
        except RuntimeError as error:
            raise RunFailure(f"the Ray cluster at {self.address} did not take the job: {error}") from None

    def job(self, job: str) -> JobInfo | None:
        """None where the cluster does not know it."""
        try:
            info = self._jobs.get_job_info(job)
        except RuntimeError as error:
            if "404" in str(error):
                return None
            raise RunFailure(f"the Ray cluster at {self.address} tells nothing of job {job}: {error}") from None
        return JobInfo(str(info.status.value), info.message or "", info.metadata or {})

    def stop(self, job: str) -> None:
        """Ask its driver to end; Ray kills it later."""
        try:
            self._jobs.stop_job(job)
        except RuntimeError as error:
            raise RunFailure(f"the Ray cluster at {self.address} did not end job {job}: {error}") from None

    def log(self, job: str) -> str:
        """What its driver has printed so far."""
        try:
            return self._jobs.get_job_logs(job)
        except RuntimeError as error:
            raise RunFailure(f"the Ray cluster at {self.address} has no log of job {job}: {error}") from None

    def _get(self, path: str) -> dict[str, Any]:
        request = urllib.request.Request(self.address + path, headers=self._headers)
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as response:
                return dict(json.load(response))
        except urllib.error.HTTPError as error:
            raise self._refused(error.code) from None
        except TimeoutError:
            raise RunFailure(
                f"{self.address} did not answer within {ANSWER_SECONDS:.0f} s: is that machine up?"
            ) from None
        except OSError as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(reason, TimeoutError):
                raise RunFailure(
                    f"{self.address} did not answer within {ANSWER_SECONDS:.0f} s: is that machine up?"
                ) from None
            raise NoCluster(
                f"no Ray cluster takes jobs at {self.address} ({reason}): give the address of its dashboard, which "
                "`ray start --head` printed (http://HOST:8265)"
            ) from None
        except ValueError:
            raise RunFailure(f"{self.address} is not the dashboard of a Ray cluster: it speaks otherwise") from None

    def _refused(self, code: int) -> RunFailure:
        if code == 401 or (code == 403 and self._token is None):
            return RunFailure(f"the Ray cluster at {self.address} asks for a token: {TOKEN_HINT}")
        if code == 403 and self._token is not None:
            return RunFailure(
                f"the Ray cluster at {self.address} refuses the token of {self._token.source}: {TOKEN_HINT}"
            )
        return RunFailure(f"{self.address} is not the dashboard of a Ray cluster: it answers with HTTP {code}")


@contextmanager
def _in_environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before
