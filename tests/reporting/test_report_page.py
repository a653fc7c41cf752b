"""The page is complete in itself, escapes what users name, and draws every run."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from rrcm_dist.reporting.certificates import Source
from rrcm_dist.reporting.report import build_report

VOID = {"meta", "br", "img", "link", "input", "hr"}
CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


class Elements(HTMLParser):
    """Collects elements and checks that they are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen = [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def sources(tmp_path, write_log):
    write_log("a/sigma_0.25.tsv")
    write_log("a/sigma_0.50.tsv")
    write_log("b/sigma_0.50.tsv")
    return [Source(tmp_path / "a", "<i>pre</i> & trained"), Source(tmp_path / "b", "from scratch")]


def test_the_page_loads_nothing_and_its_elements_are_closed(sources):
    elements = Elements(build_report(sources, dataset="imagenet").html())
    assert elements.open == []
    for tag, attributes in elements.seen:
        assert tag not in {"link", "iframe", "object", "embed", "img"}
        assert "src" not in attributes
        assert "href" not in attributes
    assert "url(" not in build_report(sources).html()


def test_names_are_shown_as_text_not_as_markup(sources):
    page = build_report(sources, title="<script>alert(1)</script>").html()
    assert "<i>pre</i>" not in page
    assert "<script>alert" not in page
    assert "&lt;i&gt;pre&lt;/i&gt; &amp; trained" in page


def test_every_run_has_a_line_and_a_band_and_every_shared_sigma_a_panel(sources):
    page = build_report(sources, dataset="none").html()
    first = page.split('<div class="plot"')[1]
    assert len(re.findall('data-part="line"', first)) == 3
    assert len(re.findall('data-part="band"', first)) == 3
    assert page.split("Compared image by image")[0].count('<div class="panel">') == 1
    assert page.split("Compared image by image")[1].count('<div class="panel">') == 1


def test_published_methods_stand_in_the_figure_and_in_the_table(sources):
    page = build_report(sources, dataset="cifar10").html()
    assert page.count('<g class="published">') == 8
    assert "DMAE-B, continued" in page
    assert "github.com/quanlin-wu/dmae" in page
    assert '<g class="published">' not in build_report(sources, dataset="none").html()


def test_runs_without_any_correct_image_still_make_a_page(write_log):
    path = write_log("sigma_0.25.tsv", [(0, 1, -1, 0.0, 0), (1, 1, 2, 0.1, 0)])
    page = build_report([Source(path)], dataset="imagenet").html()
    assert Elements(page).open == []
    assert "nan" not in page.lower()


def test_curves_of_the_page_run_along_the_axes_only(sources):
    first = build_report(sources, dataset="none").html().split('<div class="plot"')[1]
    paths = re.findall(r'data-part="(?:line|band)"[^>]* d="M([^"]+?)Z?"', first)
    assert len(paths) == 6
    for path in paths:
        numbers = path.split()
        corners = list(zip(numbers[::2], numbers[1::2], strict=True))
        assert len(corners) > 3
        for before, after in pairwise(corners):
            assert (before[0] == after[0]) or (before[1] == after[1])


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine to open the page in")
def test_a_browser_runs_the_page_switches_curves_and_reads_values(tmp_path, sources, write_adaptive_ledger):
    page = build_report([*sources, Source(write_adaptive_ledger("ledger.sqlite"), "adaptive")])
    page.write(tmp_path / "out", figures=False)
    probe = """<script>
    addEventListener("error", (event) => document.body.dataset.error = event.message);
    addEventListener("load", () => {
      const plot = document.querySelector(".plot"), box = plot.getBoundingClientRect();
      document.querySelector('[data-key="s0"]').click();
      document.body.dataset.hidden = plot.querySelectorAll(".series.off").length;
      const at = { clientX: box.left + 1, clientY: box.top + 9, bubbles: true };
      plot.dispatchEvent(new PointerEvent("pointermove", at));
      document.body.dataset.reading = plot.querySelector(".reading").textContent;
      for (const [name, heading] of Object.entries({ pairs: "Compared", sure: "How sure", cost: "What it cost" })) {
        const section = [...document.querySelectorAll("section")].find((s) => s.textContent.startsWith(heading));
        const chart = section.querySelector(".plot"), edge = chart.getBoundingClientRect();
        const there = { clientX: edge.left + 0.5 * edge.width, clientY: edge.top + 9, bubbles: true };
        chart.dispatchEvent(new PointerEvent("pointermove", there));
        document.body.dataset[name] = chart.querySelector(".reading").textContent;
      }
      document.body.dataset.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    });
    </script></body>"""
    path = tmp_path / "out" / "probed.html"
    path.write_text(page.html().replace("<script>\n//", probe.removesuffix("</body>") + "<script>\n//"))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
             "--window-size=500,900", "--dump-dom"]  # fmt: skip
    shown = subprocess.run([CHROMIUM, *flags, path.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    body = re.search("<body[^>]*>", shown.stdout)[0]
    seen = dict(re.findall('data-(\\w+)="([^"]*)"', body))
    assert "error" not in seen
    assert (seen["hidden"], seen["overflow"]) == ("2", "0")
    assert seen["reading"].startswith("r = 0.00")
    assert "from scratch, σ 0.5" in seen["reading"]
    assert "σ 0.25" not in seen["reading"]
    assert seen["pairs"].startswith("r = 0.2")
    assert "trained minus from scratch" in seen["pairs"]
    assert seen["pairs"].endswith("points")
    assert seen["sure"].startswith("p ≥ 0.9")
    assert "adaptive, σ 0.5" in seen["sure"]
    assert re.match(r"after [\d,]+ drawsadaptive, σ 0.5[\d.]+ %$", seen["cost"])
