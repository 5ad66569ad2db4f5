from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medray.shards.cells import csv_text, read_cells, read_lines, zeros_and_ones

ROWS = [["ID", "Label", "Site"], ["a", "0", ""], ["b", "1", "north wing"]]


def text(separator: str = ",", end: str = "\n", quote: str = "") -> str:
    return end.join(separator.join(f"{quote}{cell}{quote}" for cell in row) for row in ROWS) + end


@pytest.mark.parametrize(
    "data",
    [
        text().encode(),
        text().rstrip().encode(),
        text(quote='"').encode(),
        text(end="\r\n").encode(),
        text(end="\r").encode(),
        text(";").encode(),
        text("\t").encode(),
        text(";", "\r\n", '"').encode(),
        text(", ").encode(),
        text(", ", quote='"').encode(),
        text(end="\r\n", quote='"').encode("utf-8-sig"),
        text().encode("utf-8-sig"),
        (text() + "\r\n\r\n \r\n").encode(),
        (text() + ",,\n,,\n").encode(),
        text(end=",,\n").encode(),
        text().replace("ID,Label,Site\n", "ID,Label,Site,,\n").encode(),
        text().replace("1,north", "1 ,  north").encode(),
        text().replace("a,0,\n", "a,0,,,\n").encode(),
    ],
)
def test_however_a_spreadsheet_saves_it(data: bytes) -> None:
    table = read_cells(data, "t.csv")
    assert table[["ID", "Label", "Site"]].to_numpy().tolist() == ROWS[1:]
    assert table.index.tolist() == [2, 3]
    assert [name for name in table.columns if not name.startswith(" (")] == ROWS[0]


def test_rows_keep_the_numbers_of_their_lines() -> None:
    for quote in ("", '"'):
        rows = f"\n{quote}ID{quote},Label\n\na,0\n,\n \nb,1\n"
        assert read_cells(rows.encode(), "t.csv").index.tolist() == [4, 7]
    over_lines = read_cells(b'ID,Label\n"a\nb",0\nc,1\n', "t.csv")
    assert over_lines.index.tolist() == [3, 4]
    assert over_lines["ID"].tolist() == ["a\nb", "c"]


def test_names_of_columns() -> None:
    table = read_cells(b",ID,note,note\n0,a,x,y\n", "t.csv", meaning=lambda name: name if name == "ID" else None)
    assert table.columns.tolist() == [" (1)", "ID", "note (3)", "note (4)"]
    with pytest.raises(ValueError, match=r"--labels t.csv: 2 columns are named id; keep one$"):
        read_cells(b"ID,id\na,b\n", "t.csv")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (text().encode("utf-16"), "not a CSV file in UTF-8; save it as one"),
        (text().encode("utf-16-le"), "not a CSV file in UTF-8; save it as one"),
        (text().replace("north", "nörd").encode("latin-1"), "not a CSV file in UTF-8; save it as one"),
        (b'ID,Label\n"a,0\n', "not a CSV file in UTF-8; save it as one"),
        (b'"ID,Label\na,0\n', "not a CSV file in UTF-8; save it as one"),
        (b"", "there is no row in it"),
        (b"ID,Label\n", "there is no row in it"),
        (b"ID,Label\n\n , \n", "there is no row in it"),
        (b"ID,Label\na,0\n\nb\n", "line 4 has 1 cells, the header has 2"),
        (b'ID,Label\n"a",0\nb,0,1\n', "line 3 has 3 cells, the header has 2"),
    ],
)
def test_what_is_no_table_is_one_line(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match="^--reader t.csv: ") as error:
        read_cells(data, "t.csv", "--reader")
    assert str(error.value) == f"--reader t.csv: {message}"


CELL = st.text(st.characters(codec="utf-8", exclude_characters='",\r\n\0', exclude_categories=["Cs"]), max_size=4)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6), separator=st.sampled_from(",;\t"))
def test_a_file_without_quotes_reads_as_the_same_file_with_quotes(rows: list[tuple[str, str]], separator: str) -> None:
    def read(quoting: int) -> pd.DataFrame | str:
        written = io.StringIO(newline="")
        writer = csv.writer(written, delimiter=separator, quoting=quoting)  # type: ignore[arg-type]
        writer.writerows([["left", "right"], *rows])
        try:
            return read_cells(written.getvalue().encode(), "t.csv")
        except ValueError as error:
            return str(error)

    plain, quoted = read(csv.QUOTE_MINIMAL), read(csv.QUOTE_ALL)
    if isinstance(plain, str) or isinstance(quoted, str):
        assert plain == quoted
    else:
        pd.testing.assert_frame_equal(plain, quoted, check_index_type=False)


def test_lines_of_a_list() -> None:
    for data in (b"a.png 1\n\nb.png 0", b"\xef\xbb\xbfa.png 1\r\n\r\nb.png  0\r\n", b"a.png 1\r\rb.png 0\r"):
        assert read_lines(data, "list.txt") == [(1, ["a.png", "1"]), (3, ["b.png", "0"])]
    for encoding in ("utf-16", "utf-16-le"):
        with pytest.raises(ValueError, match=r"^--labels list.txt: not a text file in UTF-8; save it as one$"):
            read_lines("a.png\r\n".encode(encoding), "list.txt")


def test_cells_as_labels() -> None:
    cells = read_cells(b"a,b\n1,0.0\n0,Uncertain\n1.0,\n-1,n/a\n", "t.csv")
    np.testing.assert_array_equal(zeros_and_ones(cells["a"], "t.csv"), [1, 0, 1, np.nan])
    np.testing.assert_array_equal(zeros_and_ones(cells["b"], "t.csv"), [0, np.nan, np.nan, np.nan])
    other = read_cells(b'a,b\n\n1,0\n0,"may\nbe"\n', "t.csv")
    with pytest.raises(ValueError, match=r'^--reader t.csv: line 5: b is "may be", neither 0 nor 1; leave .* unknown$'):
        zeros_and_ones(other["b"], "t.csv", "--reader")
    for name in ("Doe", "Doe, Jane 12.03.1960", "123456789"):
        slipped = read_cells(f'a,b\n1,0\n0,"{name}"\n'.encode(), "t.csv")
        with pytest.raises(ValueError, match=rf"line 3: b is text of {len(name)} characters, neither 0 nor 1"):
            zeros_and_ones(slipped["b"], "t.csv")


def test_a_cell_is_no_formula_and_no_row_of_its_own() -> None:
    odd = [
        "=cmd|'/c calc'!A1",
        "+1-HYPERLINK(1)",
        "@SUM(A1)",
        "-x",
        " =1",
        "\uff1d1",
        "\t=1",
        "a\r=1",
        "a\nb",
        "x\u202egnp",
        "x;=1+1;y",
        "a,b",
        'a"b',
        "-5",
        "+1.5e3",
        "plain",
        None,
    ]
    table = pd.DataFrame({"name": odd, "=n": np.arange(len(odd)) / 3, "kind": pd.Categorical(["=a"] * len(odd))})
    found = list(csv.reader(io.StringIO(csv_text(table, 3), newline="")))
    assert len(found) == len(odd) + 1
    assert found[0] == ["name", "'=n", "kind"]
    mended = {
        "\t=1": r"\u0009=1",
        "a\r=1": r"a\u000d=1",
        "a\nb": r"a\u000ab",
        "x\u202egnp": r"x\u202egnp",
        "x;=1+1;y": "x;'=1+1;y",
    }
    assert [row[0] for row in found[1:]] == [f"'{o}" if o in odd[:6] else mended.get(o or "", o or "") for o in odd]
    assert {row[2] for row in found[1:]} == {"'=a"}
    assert found[2][1] == "0.333"
    plain = pd.DataFrame({"id": ["x", "y"], "p": [0.123456789, -1e-9], "n": [1, -2], "ok": [True, False]})
    assert csv_text(plain) == plain.to_csv(index=False)


def test_tables_are_written_in_one_place() -> None:
    package = Path(__file__).resolve().parents[2] / "medray"
    own = {
        "shards/cells.py",
        "systems/boneage/phantoms/films.py",
        "systems/lesion/phantoms.py",
    }  # and drawings with names of ours
    assert {
        path.relative_to(package).as_posix() for path in package.rglob("*.py") if ".to_csv(" in path.read_text()
    } == own


def test_blank_lines_take_no_memory_and_have_an_end() -> None:
    with pytest.raises(ValueError, match=r"20,\d\d\d,\d\d\d lines, at most 20,000,000"):
        read_cells(b"image,Mass\n" + b"\n" * 20_000_001, "a.csv")
    assert len(read_cells(b'image,Mass\n"a",1\n' + b"\n" * 1_000_000, "a.csv")) == 1
