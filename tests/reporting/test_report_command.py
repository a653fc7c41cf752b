"""`rrcm report` as a user meets it: what it prints, writes and complains of."""

import json

import pytest
import typer
from typer.testing import CliRunner

from rrcm_dist.cli.report_command import command
from rrcm_dist.errors import InvalidInput


@pytest.fixture
def rrcm_report(tmp_path, monkeypatch):
    """Run the command in an empty folder; errors come out as exceptions, as the door sees them."""
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(command)

    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if isinstance(result.exception, InvalidInput):
            raise result.exception
        return result

    return run


def test_a_path_alone_prints_a_table_and_writes_the_page(rrcm_report, write_log, tmp_path):
    result = rrcm_report(write_log("logs/sigma_0.25.tsv"))
    assert result.exit_code == 0
    assert "ACR" in result.stdout
    assert "page: report/report.html" in result.stdout
    assert (tmp_path / "report" / "report.html").is_file()


def test_json_to_the_terminal_prints_only_json_and_writes_nothing(rrcm_report, write_log, tmp_path):
    result = rrcm_report(write_log("logs/sigma_0.25.tsv"), "--radii", "0,0.25", "--json", "-")
    (row,) = json.loads(result.stdout)["rows"]
    assert row["certified_accuracy"] == {"0.0": 0.5, "0.25": 0.5}
    assert [entry.name for entry in tmp_path.iterdir()] == ["logs"]


def test_json_and_csv_go_to_the_files_named(rrcm_report, write_log, tmp_path):
    rrcm_report(write_log("logs/sigma_0.25.tsv"), "--json", "a.json", "--csv", "b.csv")
    assert json.loads((tmp_path / "a.json").read_text())["rows"][0]["sigma"] == 0.25
    assert (tmp_path / "b.csv").read_text().startswith("name,sigma,images,acr")
    assert not (tmp_path / "report").exists()


def test_names_group_paths_into_families(rrcm_report, write_log):
    one, other = write_log("a/sigma_0.25.tsv"), write_log("b/x=1/sigma_0.25.tsv")
    result = rrcm_report("--name", f"pre-trained={one}", "--name", f"from scratch={other}", "--json", "-")
    assert [row["name"] for row in json.loads(result.stdout)["rows"]] == ["pre-trained", "from scratch"]


def test_sigma_is_given_where_a_log_does_not_state_it(rrcm_report, write_log):
    result = rrcm_report(write_log("logs/all.tsv"), "--sigma", "0.5", "--json", "-")
    assert json.loads(result.stdout)["rows"][0]["sigma"] == 0.5


def test_figures_may_be_left_out_and_alpha_given_for_logs(rrcm_report, write_log, tmp_path):
    rrcm_report(write_log("logs/sigma_0.25.tsv"), "--no-figures", "--alpha", "0.001")
    assert not (tmp_path / "report" / "figures").exists()
    assert json.loads((tmp_path / "report" / "report.json").read_text())["rows"][0]["guaranteed"]["alpha"] == 0.001


def test_a_ledger_is_reported_at_its_own_radii_and_at_the_alpha_given(rrcm_report, write_adaptive_ledger):
    result = rrcm_report(write_adaptive_ledger("run/ledger.sqlite"), "--alpha", "0.01", "--json", "-")
    document = json.loads(result.stdout)
    assert document["radii"] == [0.0, 0.25, 0.5, 1.0]
    assert document["rows"][0]["guaranteed"]["alpha"] == 0.01


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "nothing to report on"),
        (["absent"], "there is nothing at absent"),
        (["log", "--radii", "0,x"], "is not a list of numbers"),
        (["log", "--radii=-1"], "radius -1 cannot be"),
        (["log", "--sigma", "0"], "--sigma 0 cannot be"),
        (["log", "--alpha", "1"], "--alpha 1 cannot be"),
        (["log", "--dataset", "mnist"], "no published results on 'mnist'"),
        (["--name", "label"], "is not LABEL=PATH"),
        (["log", "--json", "-", "--csv", "-"], "both want the terminal"),
    ],
)
def test_impossible_requests_are_answered_in_words(rrcm_report, write_log, arguments, complaint):
    log = write_log("logs/sigma_0.25.tsv")
    with pytest.raises(InvalidInput, match=complaint):
        rrcm_report(*(log if argument == "log" else argument for argument in arguments))
