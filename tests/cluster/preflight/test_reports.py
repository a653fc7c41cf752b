"""From what processes print to what the listener knows."""

from cluster.preflight.reports import DONE, MOST_BYTES, Finding, Reports, Speaker
from cluster.preflight.table import as_table, in_words
from cluster.preflight.verdict import judge_nodes


def heard(capsys, speak):
    reports = Reports(("node1", "node2").__getitem__, 2)
    speak(Speaker("node2", 1))
    lines = capsys.readouterr().out.splitlines()
    assert all(reports.hear(line) for line in lines)
    assert max(len(line.encode()) for line in lines) < 1024
    return reports


def test_what_is_said_is_heard(capsys):
    finding = Finding("network", "cut", "does not get through", "mend it", other="node1", value=0.5)

    def speak(speaker):
        speaker.begins("network")
        speaker.found(finding)
        speaker.begins(DONE)

    silent, spoken = heard(capsys, speak).all
    assert (silent.node, silent.doing, silent.findings) == ("node1", "", [])
    assert (spoken.node, spoken.done, spoken.findings) == ("node2", True, [finding])


def test_long_words_are_cut_so_that_lines_stay_whole(capsys):
    spoken = heard(
        capsys, lambda speaker: speaker.found(Finding("shards", found="a\nb", problem="ö" * 2000, mend="x" * 2000))
    ).all[1]
    assert len(spoken.findings[0].problem.encode()) <= MOST_BYTES
    assert spoken.findings[0].problem.endswith("ö…")
    assert spoken.findings[0].found == "a b"


def test_other_lines_are_left_to_others():
    reports = Reports(lambda place: "node1", 1)
    for line in ("srun: error: node2", 'preflight {"node": "no', 'preflight {"node": "node9", "place": 9}'):
        assert not reports.hear(line)


def test_a_table_shows_what_was_found_and_a_line_what_is_wrong(capsys):
    def speak(speaker):
        speaker.found(Finding("shards", "unreadable", "data.train: is not there", "mount it"))
        speaker.found(Finding("version of torch", "2.13"))
        speaker.begins(DONE)

    reports = heard(capsys, speak).all
    reports[0].doing = DONE
    table = as_table(reports).splitlines()
    assert table[0].split() == ["node", "shards"]
    assert table[2] == "node2  unreadable (!)"
    assert table[3] == "torch 2.13"
    assert in_words(judge_nodes(reports, 60)) == ["node2: shards: data.train: is not there: mount it"]
