"""A run's numbers arrive at Ray's metrics ports, in a real Prometheus, and in every panel of the shipped dashboard."""

import json
import logging
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rrcm_dist.certification.on_ray.cluster import RayFacts, ray_cluster
from rrcm_dist.certification.watching.ray_metrics import COUNTERS, GAUGES, PREFIX, RayMetrics
from rrcm_dist.certification.watching.snapshot import LevelState, Snapshot

MONITORING = Path(__file__).parents[2] / "configs" / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana" / "dashboards" / "rrcm-certification.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

LEVELS = (
    LevelState(0.25, images=10, decided=4, failed=1, radii=(0.0, 0.5), certified=(3, 1), draws=400, draws_saved=3600),
    LevelState(0.5, images=10, decided=0, failed=0, radii=(0.0, 0.5), certified=(0, 0), draws=0, draws_saved=0),
)


def snapshot(draws: int, workers: dict[str, float], levels: tuple[LevelState, ...] = LEVELS) -> Snapshot:
    return Snapshot(
        seconds=draws / 100, draws=draws, draws_left=10_000 - draws, draws_per_second=sum(workers.values()),
        worker_draws_per_second=workers, blocks_queued=7, blocks_in_flight=3, blocks_retried=2, blocks_audited=1,
        levels=levels,
    )  # fmt: skip


@pytest.fixture(scope="module")
def ray() -> Iterator[RayFacts]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", "3000")
        with ray_cluster() as facts:
            yield facts


@pytest.fixture(scope="module")
def running(ray: RayFacts) -> Iterator[Callable[[], None]]:
    """Three workers, of which one went; then the state that the tests look for, told again and again as by a driver."""
    metrics, ended = RayMetrics("toy"), threading.Event()
    metrics.update(snapshot(1000, {"host:0": 60.0, "host:1": 40.0, "host:2": 20.0}))

    def update() -> None:
        while not ended.wait(0.5):
            metrics.update(snapshot(3000, {"host:0": 70.0, "host:1": 50.0}))

    driver = threading.Thread(target=update)
    driver.start()

    def end() -> None:
        ended.set()
        driver.join()
        metrics.close()

    yield end
    end()


def samples(facts: RayFacts) -> Samples:
    """What the metrics ports serve of ours: name without Ray's prefix and tags that we set → value."""
    found = {}
    if not facts.metrics.exists():  # Ray has just started
        return found
    for target in json.loads(facts.metrics.read_text())[0]["targets"]:
        for line in page(f"http://{target}/metrics").splitlines():
            if line.startswith("ray_" + PREFIX):
                name, tags, value = re.fullmatch(r"ray_(\w+)\{(.*)\} (\S+)", line).groups()
                kept = [t for t in re.findall(r'(\w+)="([^"]*)"', tags) if t[0] in ("worker", "sigma", "radius")]
                assert 'run="toy"' in tags
                found[name.removeprefix(PREFIX), frozenset(kept)] = float(value)
    return found


def page(url: str) -> str:
    """What stands there; nothing where nobody listens yet."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()
    except (ConnectionError, urllib.error.URLError):
        return ""


def sample(name: str, **tags: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(tags.items())


def until(true: Callable[[], Any], seconds: float = 40) -> Any:
    end = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.3)
    return value


@pytest.mark.slow
def test_every_number_of_a_snapshot_is_served_by_ray(ray: RayFacts, running: Callable[[], None]):
    until(lambda: samples(ray).get(sample("draws_total")) == 3000)
    assert samples(ray) == {
        sample("draws_total"): 3000,
        sample("draws_left"): 7000,
        sample("draws_per_second"): 120,
        sample("worker_draws_per_second", worker="host:0"): 70,
        sample("worker_draws_per_second", worker="host:1"): 50,
        sample("worker_draws_per_second", worker="host:2"): 0,  # it went
        sample("blocks_queued"): 7,
        sample("blocks_in_flight"): 3,
        sample("blocks_retried_total"): 2,
        sample("blocks_audited_total"): 1,
        sample("images", sigma="0.25"): 10,
        sample("images", sigma="0.5"): 10,
        sample("images_decided", sigma="0.25"): 4,
        sample("images_decided", sigma="0.5"): 0,
        sample("images_failed", sigma="0.25"): 1,
        sample("images_failed", sigma="0.5"): 0,
        sample("draws_saved", sigma="0.25"): 3600,
        sample("draws_saved", sigma="0.5"): 0,
        sample("certified_accuracy", sigma="0.25", radius="0"): 3 / 5,
        sample("certified_accuracy", sigma="0.25", radius="0.5"): 1 / 5,
    }


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="there is no prometheus to scrape with")
def test_prometheus_as_shipped_answers_every_panel_of_the_dashboard(
    ray: RayFacts, running: Callable[[], None], tmp_path: Path
):
    import ray as connected

    has_gpu = connected.cluster_resources().get("GPU", 0) > 0
    shipped = (MONITORING / "prometheus.yml").read_text(encoding="utf-8")
    assert f"{ray.metrics.parent}/rrcm-ray-*.json" in shipped or ray.metrics.parent != Path("/tmp")
    config = tmp_path / "prometheus.yml"
    config.write_text(shipped.replace("/tmp/rrcm-ray-*.json", str(ray.metrics)).replace("/tmp/ray/", f"{tmp_path}/"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    prometheus = subprocess.Popen(
        ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/data",
         f"--web.listen-address={address}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: value_of(address, "sum(ray_rrcm_certify_draws_total)") == 3000)
        unanswerable = set() if has_gpu else {"GPU by node and index", "GPU memory by node and index"}

        def unanswered() -> set[str]:
            return {title for title, expression in EXPRESSIONS if not results(address, for_every_run(expression))}

        until(lambda: unanswered() == unanswerable)
        expressions = dict(EXPRESSIONS)
        assert value_of(address, for_every_run(expressions["Images done"])) == 5 / 20
        assert value_of(address, for_every_run(expressions["Draws counted"])) == 3000
        workers = results(address, for_every_run(expressions["Draws per second by worker"]))
        assert {tuple(sorted(found["metric"].items())) for found in workers} == {
            (("run", "toy"), ("worker", f"host:{i}")) for i in range(3)
        }
    finally:
        prometheus.terminate()
        prometheus.wait(timeout=20)


def for_every_run(expression: str) -> str:
    return expression.replace("$run", ".*")


def results(address: str, expression: str) -> list[dict[str, Any]]:
    text = page(f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
    return json.loads(text)["data"]["result"] if text else []


def value_of(address: str, expression: str) -> float | None:
    found = results(address, expression)
    return float(found[0]["value"][1]) if found else None


@pytest.mark.slow
def test_a_run_that_ended_shows_no_rate(ray: RayFacts, running: Callable[[], None]):
    running()
    ended = until(lambda: (now := samples(ray)).get(sample("draws_per_second")) == 0 and now)
    assert ended[sample("worker_draws_per_second", worker="host:0")] == 0
    assert ended[sample("blocks_in_flight")] == 0
    assert ended[sample("images_decided", sigma="0.25")] == 4


@pytest.mark.slow
def test_a_metric_that_cannot_be_set_is_said_once_and_stops_nothing(
    ray: RayFacts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    metrics = RayMetrics("broken")
    monkeypatch.setitem(metrics._gauges, "draws_left", None)
    with caplog.at_level(logging.WARNING):
        metrics.update(snapshot(1, {}))
        metrics.update(snapshot(2, {}))
        metrics.close()
    assert [record.message for record in caplog.records if "Ray metrics" in record.message] == [
        "Ray metrics are no longer updated: AttributeError: 'NoneType' object has no attribute 'set'"
    ]


def test_the_dashboard_has_a_panel_for_every_metric_and_asks_for_no_other():
    asked = {name for _, expression in EXPRESSIONS for name in re.findall(r"ray_rrcm_certify_(\w+)", expression)}
    assert asked == set(GAUGES) | {f"{name}_total" for name in COUNTERS}


def test_what_the_dashboard_asks_of_ray_itself_stands_in_ray_s_own_dashboards_too():
    from ray.dashboard.modules.metrics.dashboards import default_dashboard_panels

    rays = Path(default_dashboard_panels.__file__).read_text(encoding="utf-8")
    asked = {name for _, expression in EXPRESSIONS for name in re.findall(r"ray_node_\w+", expression)}
    assert asked
    assert {name for name in asked if name not in rays} == set()


def test_panels_have_their_own_ids_and_places_and_one_data_source():
    everything = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    places = [panel["gridPos"] for panel in everything]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert {x for x, _ in cells} == set(range(24))
    sources = [source["datasource"]["uid"] for panel in PANELS for source in (panel, *panel["targets"])]
    assert set(sources) == {"${datasource}"}
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "run"]
