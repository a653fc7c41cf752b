"""The LaTeX tables: balanced, rectangular, every name escaped."""

import re

import pytest

from rrcm_dist.reporting.certificates import Source
from rrcm_dist.reporting.report import build_report
from rrcm_dist.reporting.text.latex import escape

HOSTILE = r"50% & $x_1$ #{~^\} <a|b> ≥ σ"


@pytest.fixture
def latex(tmp_path, write_log, write_adaptive_ledger):
    """Two families that share a σ, one with several; one of them is called by every special character."""
    write_log("good/sigma_0.25.tsv")
    write_log("good/sigma_0.50.tsv")
    write_log("plain/sigma_0.50.tsv")
    sources = [Source(tmp_path / "good", HOSTILE, alpha=0.001), Source(tmp_path / "plain", "plain")]
    sources.append(Source(write_adaptive_ledger("ledger.sqlite")))
    return build_report(sources, (0.0, 0.5, 1.0), title="Line\nbreak").latex()


def test_environments_and_braces_are_balanced(latex):
    depth = []
    for what, name in re.findall(r"\\(begin|end)\{(\w+)\}", latex):
        if what == "begin":
            depth.append(name)
        else:
            assert depth.pop() == name
    assert depth == []
    bare = re.sub(r"\\[{}]", "", re.sub(r"^%.*$", "", latex, flags=re.MULTILINE))
    balance = 0
    for character in bare:
        balance += {"{": 1, "}": -1}.get(character, 0)
        assert balance >= 0
    assert balance == 0
    assert bare.replace(r"\$", "").count("$") % 2 == 0


def test_every_line_of_a_table_has_all_its_columns(latex):
    tabulars = re.findall(r"\\begin\{tabular\}\{@\{\}(\w+)@\{\}\}(.*?)\\end\{tabular\}", latex, re.DOTALL)
    assert len(tabulars) == 5
    for alignment, body in tabulars:
        lines = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len(lines) > 2
        for line in lines:
            spans = [int(width) for width in re.findall(r"\\multicolumn\{(\d+)\}", line)]
            cells = len(re.findall(r"(?<!\\)&", line)) + 1
            assert cells - len(spans) + sum(spans) == len(alignment), line


def test_only_booktabs_rules_and_known_commands_are_used(latex):
    assert r"\hline" not in latex
    assert "|" not in re.sub(r"\$\|\$", "", latex)
    known = {"begin", "end", "centering", "caption", "label", "footnotesize", "scriptsize", "setlength", "tabcolsep",
             "toprule", "midrule", "bottomrule", "cmidrule", "addlinespace", "smallskip", "multicolumn",
             "textit", "textbf", "emph", "usepackage", "sigma", "alpha", "Phi", "ell", "geq", "leq", "times", "pm",
             "textbackslash", "textasciitilde", "textasciicircum"}  # fmt: skip
    assert set(re.findall(r"\\([a-zA-Z]+)", latex)) <= known


def test_names_are_escaped_and_a_title_cannot_leave_its_comment(latex):
    assert HOSTILE not in latex
    assert escape(HOSTILE) in latex
    assert escape(HOSTILE) == (
        r"50\% \& \$x\_1\$ \#\{\textasciitilde{}\textasciicircum{}\textbackslash{}\} $<$a$|$b$>$ $\geq$ $\sigma$"
    )
    assert latex.startswith("% Line break\n")


def test_the_best_value_of_a_radius_is_bold_and_nothing_outside_ascii_is_left(latex):
    assert r"\textbf{75.0}" in latex or r"\textbf{50.0}" in latex
    assert "Bold: the highest value at each radius." in latex
    assert latex.isascii()
