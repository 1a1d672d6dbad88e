"""Tables from .csv and .parquet."""

import sys

import numpy as np
import pytest

from refnaf.tables import open_table, read_table
from tests.refusals import refusal

CSV = {
    "plain": ("1,2\n3,4\n", None, [[1, 2], [3, 4]]),
    "header": ("a,b c\n1,2\n", ["a", "b c"], [[1, 2]]),
    "semicolons": ("a;b\n1;2\n", ["a", "b"], [[1, 2]]),
    "tabs": ("1\t2\n3\t4\n", None, [[1, 2], [3, 4]]),
    "quotes": ('"a,x","b"\n"1","2"\n', ["a,x", "b"], [[1, 2]]),
    "byte order mark": ("\ufeffa,b\n1,2\n", ["a", "b"], [[1, 2]]),
    "empty cells": ("a,b\n1,\n,4\n", ["a", "b"], [[1, np.nan], [np.nan, 4]]),
    "nan and inf": ("nan,1\n-inf,1e400\n", None, [[np.nan, 1], [-np.inf, np.inf]]),
    "blank lines": ("\n1,2\n\n3,4\n\n", None, [[1, 2], [3, 4]]),
    "carriage returns": ("a,b\r\n1,2\r\n", ["a", "b"], [[1, 2]]),
    "no end of line": ("1,2", None, [[1, 2]]),
    "one column": ("a\n1\n2\n", ["a"], [[1], [2]]),
    "spaces": (" 1 , 2.5e3\n", None, [[1, 2500]]),
    "one column of text cells with commas in the header": ('"a,b"\n1\n', ["a,b"], [[1]]),
}


@pytest.mark.parametrize("name", CSV)
def test_csv(tmp_path, name):
    text, columns, rows = CSV[name]
    path = tmp_path / "t.csv"
    path.write_bytes(text.encode())
    table = read_table(path)
    assert table.columns == columns
    np.testing.assert_array_equal(table.x, np.array(rows, float))
    np.testing.assert_array_equal(np.concatenate(list(open_table(path).chunks(1))), table.x)


BAD_CSV = {
    "text cell": ("a,b\n1,2\n3,high\n", "line 3, column 2 ('b') holds 'high'"),
    "text in the first line": ("1,x\n2,3\n", "line 1, column 2 holds 'x'"),
    "text after many rows": ("1,2\n" * 9000 + "1,?\n", "line 9001, column 2 holds '?'"),
    "decimal commas": ("a;b\n1,5;2\n", "decimals with a point"),
    "ragged": ("1,2\n3\n", "line 2 has 1 cells, expected 2"),
    "header alone": ("a,b\n", "below the header"),
    "blank": ("\n\n", "without rows"),
    "spaces between": ("a b\n1 2\n", "separate cells by commas"),
    "long cell": ("a\n" + "z" * 10000 + "\n", "zzz..."),
}


@pytest.mark.parametrize("name", BAD_CSV)
def test_bad_csv(tmp_path, name):
    text, words = BAD_CSV[name]
    path = tmp_path / "t.csv"
    path.write_text(text)
    message = refusal(read_table, path)
    assert words in message
    assert len(message) < 400


def test_csv_that_is_not_text(tmp_path):
    for data in (b"\xff\xfe1\0,\0002\0", b"\x93NUMPY\x01\0"):
        (tmp_path / "t.csv").write_bytes(data)
        assert "UTF-8" in refusal(read_table, tmp_path / "t.csv")


def test_csv_round_trips_every_digit(tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 3)) * 10.0 ** np.arange(-150, 150, 6).reshape(50, 1)
    (tmp_path / "t.csv").write_text("\n".join(",".join(map(repr, row)) for row in x.tolist()))
    np.testing.assert_array_equal(read_table(tmp_path / "t.csv").x, x)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    assert "pip install pyarrow" in refusal(read_table, tmp_path / "t.parquet")


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "t.parquet"
    columns = {"a": [1, None, 3, 4, 5], "b": [True, None, False, True, True], "c": [0.5, 1.5, 2.5, 3.5, 4.5]}
    parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    table = read_table(path)
    assert table.columns == ["a", "b", "c"]
    np.testing.assert_array_equal(table.x[:3], [[1, 1, 0.5], [np.nan, np.nan, 1.5], [3, 0, 2.5]])
    assert [len(c) for c in open_table(path).chunks(3)] == [3, 2]
    parquet.write_table(pyarrow.table({"a": ["x"]}), path)
    assert "column 'a' holds string" in refusal(read_table, path)
    path.write_bytes(b"something else")
    assert "damaged" in refusal(read_table, path)
