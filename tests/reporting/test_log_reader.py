"""Published logs come in many forms; all are read, and what does not add up is named by file and line."""

import math

import numpy as np
import pytest

from rrcm_dist.errors import InvalidInput
from rrcm_dist.reporting.reading.logs import parse_seconds, read_log

HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"


def one(path, **options):
    (run,) = read_log(path, **options)
    return run


def test_a_log_gives_one_row_per_image_with_its_correctness(write_log):
    run = one(write_log("noise_0.50.tsv"))
    assert (run.sigma, run.images) == (0.5, 4)
    assert run.image.tolist() == [0, 20, 40, 60]
    assert run.correct.tolist() == [True, False, True, False]
    assert run.abstained.tolist() == [False, True, False, False]
    assert run.radius.tolist() == [0.5, 0.0, 0.25, 0.75]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("15.4", 15.4),
        ("0:00:13.736080", 13.73608),
        ("1:02:03", 3723.0),
        ("1 day, 2:03:04.5", 93784.5),
        ("3 days, 0:00:01", 259201.0),
    ],
)
def test_every_published_form_of_time_is_seconds(text, seconds):
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "-", "nan", "None"])
def test_a_missing_time_is_nan(text):
    assert math.isnan(parse_seconds(text))


def test_the_time_column_may_be_absent(tmp_path):
    path = tmp_path / "sigma_0.25.tsv"
    path.write_text("idx\tlabel\tpredict\tradius\tcorrect\n0\t1\t1\t0.3\t1\n")
    assert np.isnan(one(path).seconds).all()
    path.write_text("0\t1\t1\t0.3\t1\n")
    assert np.isnan(one(path).seconds).all()


def test_without_a_header_columns_go_by_position_and_extra_ones_are_ignored(tmp_path):
    path = tmp_path / "sigma_0.25.tsv"
    path.write_text("5\t1\t1\t0.3\t1\t0:00:02\tanything\t7\n")
    run = one(path)
    assert (run.image[0], run.radius[0], run.seconds[0]) == (5, 0.3, 2.0)


def test_with_a_header_columns_go_by_name_in_any_order(tmp_path):
    path = tmp_path / "sigma_0.25.tsv"
    path.write_text("p_lower\tcorrect\tradius\tpredict\tlabel\tidx\tn\n0.9\t1\t0.3\t1\t1\t5\t1000\n")
    run = one(path)
    assert (run.image[0], run.radius[0]) == (5, 0.3)
    assert run.provenance.settings["n"] == "1000"


def test_a_sigma_column_splits_a_log_by_noise_level(tmp_path):
    path = tmp_path / "all.tsv"
    path.write_text(
        "idx\tlabel\tpredict\tradius\tcorrect\tsigma\n0\t1\t1\t0.3\t1\t0.5\n0\t1\t1\t0.2\t1\t0.25\n1\t1\t2\t0.2\t0\t0.25\n"
    )
    low, high = read_log(path)
    assert (low.sigma, low.images, high.sigma, high.images) == (0.25, 2, 0.5, 1)
    assert low.name == high.name


def test_windows_line_ends_byte_order_marks_blank_lines_and_repeated_headers_do_no_harm(write_log, tmp_path):
    path = write_log("sigma_0.5.tsv", newline="\r\n")
    path.write_text("\ufeff" + path.read_text() + "\n" + HEADER + "80\t1\t1\t0.1\t1\t1.0\n", encoding="utf-8")
    assert one(path).images == 5


def test_sigma_is_asked_for_where_nothing_states_it(write_log):
    path = write_log("certificates.tsv")
    with pytest.raises(InvalidInput, match=r"certificates\.tsv does not state its noise level: give --sigma"):
        read_log(path)
    assert one(path, sigma=0.25).sigma == 0.25


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("1\t2\t3", "3 columns where 6 are expected"),
        ("1\t2\t2\tabc\t1\t1.0", "radius is 'abc', expected a number"),
        ("1\t2\t2\tnan\t1\t1.0", "radius is 'nan', expected a number"),
        ("1\t2\t2\t-0.5\t1\t1.0", "radius -0.5 is negative"),
        ("1\t2\t2\t0.5\tperhaps\t1.0", "correct is 'perhaps', expected 0 or 1"),
        ("1\t2\t3\t0.5\t1\t1.0", "correct is 1 but label is 2 and predict is 3"),
        ("1\t2\t-1\t0.0\t1\t1.0", "correct is 1 but label is 2 and predict is -1"),
        ("1.5\t2\t2\t0.5\t1\t1.0", "idx is '1.5', expected a whole number"),
        ("1\t2\t2\t0.5\t1\tsoon", "time is 'soon', expected seconds or h:mm:ss"),
        ("1\t2\t2\t0.5\t1\t1.0\t9", "7 columns where the header names 6"),
    ],
)
def test_a_damaged_line_is_named_with_its_file_and_number(tmp_path, line, complaint):
    path = tmp_path / "sigma_0.25.tsv"
    path.write_text(HEADER + "0\t1\t1\t0.3\t1\t1.0\n" + line + "\n")
    with pytest.raises(InvalidInput, match="line 3") as caught:
        read_log(path)
    assert complaint in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_image_that_stands_twice_is_an_error_with_both_lines(write_log):
    path = write_log("sigma_0.25.tsv", [(0, 1, 1, 0.3, 1), (1, 1, 1, 0.3, 1), (0, 1, 1, 0.3, 1)])
    with pytest.raises(InvalidInput, match="lines 2 and 4: image 0 stands twice"):
        read_log(path)


@pytest.mark.parametrize("content", ["", "\n\n", HEADER])
def test_a_log_without_certificates_is_an_error(tmp_path, content):
    path = tmp_path / "sigma_0.25.tsv"
    path.write_text(content)
    with pytest.raises(InvalidInput, match="holds no certificates"):
        read_log(path)


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n\xff\xfe", b"# title\nSome prose about smoothing\n", b"a,b,c\n1,2,3\n"]
)
def test_a_file_that_is_no_log_is_said_to_be_none(tmp_path, content):
    path = tmp_path / "sigma_0.25.tsv"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match="not a certification log"):
        read_log(path)


def test_radii_with_three_digits_are_noticed_and_full_ones_are_not(write_log):
    assert one(write_log("sigma_0.25.tsv")).provenance.rounded
    assert not one(write_log("sigma_0.50.tsv", [(0, 1, 1, 0.4723105, 1)])).provenance.rounded
