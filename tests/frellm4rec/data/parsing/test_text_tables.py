"""A row of a text table is never swallowed by a quote, and every error names its line."""

from __future__ import annotations

import pytest

from frellm4rec.data import read_table
from spectral_probe.errors import DataError

HEADER = "user_id\titem_id\ttimestamp\ttitle\n"
ROWS = [("u1", "a", 1, "Ay"), ("u1", "b", 2, "Bee"), ("u2", "a", 3, "Ay"), ("u2", "c", 4, "See")]


def text(rows, separator="\t"):
    return HEADER.replace("\t", separator) + "".join(separator.join(map(str, row)) + "\n" for row in rows)


def with_title(row: int, title: str) -> list[tuple]:
    return [(*fields[:3], title if index == row else fields[3]) for index, fields in enumerate(ROWS)]


def titles(dataset) -> dict[str, str]:
    return dict(zip(dataset.item_ids, dataset.item_titles, strict=True))


def test_stray_quotes_in_a_tsv_swallow_no_row(tmp_path):
    rows = [*ROWS]
    rows[1], rows[3] = ("u1", "b", 2, '"Bee'), ("u2", "c", 4, 'See"')
    (tmp_path / "log.tsv").write_text(text(rows))
    dataset = read_table(tmp_path / "log.tsv")
    assert dataset.log.n_events == 4
    assert titles(dataset) == {"a": "Ay", "b": '"Bee', "c": 'See"'}


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ('"Weird Al" Yankovic', '"Weird Al" Yankovic'),
        ('"quoted"', "quoted"),
        ('12" single', '12" single'),
        ('"say ""x"""', 'say "x"'),
        ('"a\tb"', "a\tb"),
    ],
)
def test_quotes_in_a_tsv_enclose_a_field_or_are_characters(title, expected, tmp_path):
    (tmp_path / "log.tsv").write_text(text(with_title(1, title)))
    assert titles(read_table(tmp_path / "log.tsv"))["b"] == expected


def test_two_stray_quotes_in_one_line_of_a_tsv(tmp_path):
    (tmp_path / "log.tsv").write_text(HEADER + 'u1\t"a\t1\tx"\nu1\tb\t2\ty\n')
    assert titles(read_table(tmp_path / "log.tsv")) == {'"a': 'x"', "b": "y"}


def test_a_quoted_line_break_in_a_tsv_is_named_by_its_line(tmp_path):
    (tmp_path / "log.tsv").write_text(text(with_title(1, '"Bee\nmore"')) + "u3\ta\tx\ty\n")
    with pytest.raises(DataError, match="line 4 has 1: 'more\"'"):
        read_table(tmp_path / "log.tsv")


@pytest.mark.parametrize("separator", [",", ";", "|"])
@pytest.mark.parametrize("closing", [2, 3])
def test_stray_quotes_in_a_csv_are_refused_with_both_lines(separator, closing, tmp_path):
    rows = with_title(1, '"Bee')
    rows[closing] = (*rows[closing][:3], 'See"')
    (tmp_path / "log.csv").write_text(text(rows, separator))
    with pytest.raises(DataError, match=rf"quote in line 3 .* ends in line {closing + 2}, and line 4 is a row of its"):
        read_table(tmp_path / "log.csv")


def test_a_stray_quote_in_a_column_nobody_asked_for_is_refused_too(tmp_path):
    lines = ["user_id,item_id,note,timestamp", 'u,a,"x,1', 'u,b,y",2', "v,a,z,3"]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="quote in line 2"):
        read_table(tmp_path / "log.csv")


def test_a_quote_that_is_never_closed_names_the_line_where_it_opens(tmp_path):
    (tmp_path / "log.csv").write_text(text(with_title(1, '"Bee'), ","))
    with pytest.raises(DataError, match="line 3: "):
        read_table(tmp_path / "log.csv")


def test_texts_of_several_lines_are_read_and_counted_and_lines_stay_right(tmp_path):
    lines = ["user_id,item_id,timestamp,text", 'u,a,1,"Good.', "Well, fine, and", 'so on."', "u,b,2,x", "u,c,soon,x"]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match="line 6 has 'soon'"):
        read_table(tmp_path / "log.csv")
    (tmp_path / "log.csv").write_text("\n".join(lines[:-1]) + "\n")
    dataset = read_table(tmp_path / "log.csv")
    assert dataset.log.n_events == 2
    assert "1 rows have quoted fields that span lines (3 lines in all)." in dataset.report.notes


def test_a_label_may_not_span_lines(tmp_path):
    (tmp_path / "log.csv").write_text('user_id,item_id,timestamp\nu,"a\nb",1\n')
    with pytest.raises(DataError, match="line 2 has a line break"):
        read_table(tmp_path / "log.csv")


def test_blank_lines_and_carriage_returns_do_not_move_the_line_numbers(tmp_path):
    for end in ("\n", "\r\n"):
        (tmp_path / "log.csv").write_text(
            f"user_id,item_id,timestamp{end}{end}u,a,1{end}{end}u,b,soon{end}", newline=""
        )
        with pytest.raises(DataError, match="line 5 has 'soon'"):
            read_table(tmp_path / "log.csv")


@pytest.mark.parametrize("name", ["log.csv", "log.tsv", "log.inter"])
def test_a_long_text_that_nobody_asked_for_is_no_error(name, tmp_path):
    separator = "," if name == "log.csv" else "\t"
    content = text(with_title(1, "x" * 140_000), separator)
    if name == "log.inter":
        content = content.replace(HEADER, "user_id:token\titem_id:token\ttimestamp:float\ttitle:token_seq\n")
    (tmp_path / name).write_text(content)
    assert read_table(tmp_path / name, title=None).log.n_events == 4


def test_a_swallowed_row_with_quotes_of_its_own_is_seen(tmp_path):
    """Its fields are right only where its quotes are read as such."""
    rows = ['u1,a,"See,x', 'u1,b,Bee,",y"', "u2,a,Ay,z"]
    (tmp_path / "log.csv").write_text(
        "user_id,item_id,title,note\n" + "\n".join(rows[:1] + rows[2:]).replace('"', "") + "\n"
    )
    assert read_table(tmp_path / "log.csv").log.n_events == 2
    rows[0] = 'u1,a,"See'
    (tmp_path / "log.csv").write_text("user_id,item_id,title,note\n" + "\n".join(rows) + "\n")
    with pytest.raises(DataError, match=r"line 2 of .* ends in line 3, and line 3 is a row of its own"):
        read_table(tmp_path / "log.csv")


def test_bytes_that_are_not_utf8_matter_only_where_they_are_read(tmp_path):
    rows = [(*fields, note) for fields, note in zip(ROWS, ["", "caf\u00e9", "", ""], strict=True)]
    lines = ["user_id,item_id,timestamp,title,note", *(",".join(map(str, row)) for row in rows)]
    (tmp_path / "log.csv").write_bytes("\n".join(lines).encode("latin-1"))
    assert titles(read_table(tmp_path / "log.csv"))["b"] == "Bee"
    (tmp_path / "log.csv").write_bytes("\n".join(lines).replace("Bee", "B\u00e9e").encode("latin-1"))
    dataset = read_table(tmp_path / "log.csv")
    assert titles(dataset)["b"] == ""
    assert any("1 titles are not UTF-8, first in line 3" in note for note in dataset.report.notes)
    with pytest.raises(DataError, match="line 3 has the byte 0xe9"):
        read_table(tmp_path / "log.csv", title="title")
    (tmp_path / "log.csv").write_bytes("\n".join(lines).replace("u1,b", "\u00e91,b").encode("latin-1"))
    with pytest.raises(DataError, match="line 3 has the byte 0xe9"):
        read_table(tmp_path / "log.csv")
