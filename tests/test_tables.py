"""Tables from arrays, .npy and .npz: what is taken, what is refused in one line, and reading in chunks."""

import contextlib
import io
import os
import pickle
import re
import zipfile

import numpy as np
import pytest

from refnaf.tables import check_pair, check_rows, open_context, open_table, read_context, read_table
from tests.refusals import refusal

X = np.arange(12.0).reshape(6, 2) / 4


def npy(path, array, **options):
    with open(path, "wb") as file:
        np.lib.format.write_array(file, np.asanyarray(array), **options)
    return path


ACCEPTED = {
    "float64": (X, np.float64),
    "float32": (X.astype(np.float32), np.float32),
    "float16": (X.astype(np.float16), np.float32),
    "long double": (X.astype(np.longdouble), np.float64),
    "big-endian": (X.astype(">f8"), np.float64),
    "big-endian integers": ((4 * X).astype(">i4"), np.float64),
    "Fortran order": (np.asfortranarray(X), np.float64),
    "bytes": ((4 * X).astype(np.uint8), np.float32),
    "int16": ((4 * X).astype(np.int16), np.float32),
    "int64": ((4 * X).astype(np.int64), np.float64),
    "booleans": (X > 1, np.float32),
    "one row": (X[:1], np.float64),
    "one column": (X[:, :1], np.float64),
    "strided": (np.arange(24.0).reshape(6, 4)[:, ::2], np.float64),
}


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("name", ACCEPTED)
def test_every_real_array_is_read_exactly(tmp_path, name, suffix):
    array, dtype = ACCEPTED[name]
    path = tmp_path / f"t{suffix}"
    (np.save if suffix == ".npy" else np.savez_compressed)(path, array)
    for x in (read_table(path).x, np.concatenate(list(open_table(path).chunks(4))), check_rows(array)[0]):
        assert x.dtype == dtype
        assert x.dtype.isnative
        assert x.flags.c_contiguous
        np.testing.assert_array_equal(x, array.astype(dtype))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_chunks_have_the_size_asked_for(tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    for array in (X, np.asfortranarray(X)):
        (np.save if suffix == ".npy" else np.savez)(path, array)
        assert [len(c) for c in open_table(path).chunks(4)] == [4, 2]
    (tmp_path / "t.csv").write_text("a,b\n" + "1,2\n" * 6)
    assert [len(c) for c in open_table(tmp_path / "t.csv").chunks(4)] == [4, 2]


def test_chunks_are_the_callers_to_write_in(tmp_path):
    np.save(tmp_path / "t.npy", X)
    chunk = next(open_table(tmp_path / "t.npy").chunks(3))
    chunk[:] = 0
    np.testing.assert_array_equal(np.load(tmp_path / "t.npy"), X)


def test_one_dimension_is_one_column_and_said_so(tmp_path):
    np.save(tmp_path / "t.npy", X[:, 0])
    table = read_table(tmp_path / "t.npy")
    assert table.x.shape == (6, 1)
    assert any("1-D" in note and "one column" in note for note in table.notes)
    x, notes = check_rows([1.0, 2.0])
    assert x.shape == (2, 1)
    assert "one column" in notes[0]


def test_memory_map(tmp_path):
    np.save(tmp_path / "t.npy", X)
    x = read_table(tmp_path / "t.npy", mmap=True).x
    assert isinstance(x, np.memmap)
    assert not x.flags.writeable
    np.testing.assert_array_equal(x, X)
    np.save(tmp_path / "t.npy", X.astype(np.int32))
    assert not isinstance(read_table(tmp_path / "t.npy", mmap=True).x, np.memmap)  # needs conversion


def test_newer_header_versions(tmp_path):
    for version in ((1, 0), (2, 0), (3, 0)):
        np.testing.assert_array_equal(read_table(npy(tmp_path / "t.npy", X, version=version)).x, X)


class Evil:
    """Writes a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


REFUSED = {
    "objects": (np.array([[1, "a"]], dtype=object), "objects"),
    "strings": (np.array([["1", "2"]]), "strings"),
    "byte strings": (np.array([[b"1", b"2"]]), "byte strings"),
    "records": (np.zeros(3, [("a", "f8"), ("b", "f8")]), "records"),
    "dates": (np.zeros((3, 1), "M8[D]"), "dates"),
    "time differences": (np.zeros((3, 1), "m8[s]"), "time differences"),
    "complex": (X + 1j, "complex"),
    "no dimension": (np.float64(3.0), "single number"),
    "three dimensions": (np.zeros((2, 2, 2)), "3 dimensions"),
    "no rows": (np.zeros((0, 3)), "no rows"),
    "no rows at all": (np.zeros(0), "no rows"),
    "no columns": (np.zeros((3, 0)), "no columns"),
}


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_a_table_of_real_numbers_is_refused(tmp_path, name, suffix):
    array, words = REFUSED[name]
    path = tmp_path / f"t{suffix}"
    (np.save if suffix == ".npy" else np.savez)(path, array)
    text = refusal(read_table, path)
    assert words in text
    assert str(path) in text
    assert words in refusal(check_rows, array)


def test_pickles_are_never_opened(tmp_path):
    proof = tmp_path / "opened"
    np.save(tmp_path / "a.npy", np.array([Evil(proof)], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "b.npz", x=np.array([Evil(proof)], dtype=object))
    for name in ("c.npy", "d.npz"):
        (tmp_path / name).write_bytes(pickle.dumps(Evil(proof)))
    for name in ("a.npy", "b.npz", "c.npy", "d.npz"):
        assert "pickle" in refusal(read_table, tmp_path / name)
    assert not proof.exists()


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".parquet"])
def test_empty_file(tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    path.touch()
    assert "empty" in refusal(read_table, path)


def test_missing_file_folder_and_suffix(tmp_path):
    assert "no such file" in refusal(read_table, tmp_path / "t.npy", error=FileNotFoundError)
    (tmp_path / "d.npy").mkdir()
    assert "folder" in refusal(read_table, tmp_path / "d.npy", error=IsADirectoryError)
    for name in ("t.txt", "t"):
        (tmp_path / name).write_text("1\n")
        assert ".csv" in refusal(read_table, tmp_path / name)


def test_suffix_that_does_not_match_the_content(tmp_path):
    np.save(tmp_path / "t.npy", X)
    np.savez(tmp_path / "u.npz", X)
    os.rename(tmp_path / "t.npy", tmp_path / "t.npz")
    os.rename(tmp_path / "u.npz", tmp_path / "u.npy")
    assert "name it .npy" in refusal(read_table, tmp_path / "t.npz")
    assert "name it .npz" in refusal(read_table, tmp_path / "u.npy")
    (tmp_path / "v.npy").write_text("1,2\n")
    assert ".npy" in refusal(read_table, tmp_path / "v.npy")
    (tmp_path / "v.npz").write_text("1,2\n")
    assert ".npz" in refusal(read_table, tmp_path / "v.npz")


def test_truncated_anywhere(tmp_path):
    np.save(tmp_path / "t.npy", X)
    np.savez_compressed(tmp_path / "t.npz", x=X)
    for name in ("t.npy", "t.npz"):
        whole = (tmp_path / name).read_bytes()
        for length in range(0, len(whole), 7):
            (tmp_path / name).write_bytes(whole[:length])
            refusal(read_table, tmp_path / name)


def test_damaged_bytes_never_escape_as_another_error(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "t.npy", X)
    np.savez_compressed(tmp_path / "t.npz", x=X, c=X)
    for name in ("t.npy", "t.npz"):
        whole = bytearray((tmp_path / name).read_bytes())
        for _ in range(300):
            damaged = whole.copy()
            for place in rng.integers(len(whole), size=2):
                damaged[place] = rng.integers(256)
            (tmp_path / name).write_bytes(damaged)
            with contextlib.suppress(ValueError):  # some damage leaves a table
                read_table(tmp_path / name)


def test_a_header_that_asks_for_more_than_there_is_allocates_nothing(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**15, 3)})
    (tmp_path / "t.npy").write_bytes(header.getvalue() + b"\0" * 24)
    assert "cut short" in refusal(open_table, tmp_path / "t.npy")
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
        archive.writestr("x.npy", header.getvalue() + b"\0" * 24)
    assert "cut short" in refusal(open_table, tmp_path / "t.npz")


def test_npz_keys(tmp_path):
    path = tmp_path / "t.npz"
    np.savez(path, a=X, b=2 * X)
    assert "a, b" in refusal(read_table, path)
    np.testing.assert_array_equal(read_table(path, key="b").x, 2 * X)
    text = refusal(read_table, path, key="z")
    assert "'z'" in text
    assert "a, b" in text
    assert "a, b" in refusal(read_table, path, context_key="z")
    table = read_table(path, key="a", context_key="b")
    np.testing.assert_array_equal(table.context, 2 * X)
    np.testing.assert_array_equal(read_table(path, context_key="b").x, X)  # one array is left
    np.savez(path, only=X)
    assert read_table(path).context is None
    np.savez(path)
    assert "no array" in refusal(read_table, path)


@pytest.mark.parametrize("name", ["c", "context"])
def test_npz_of_data_and_context(tmp_path, name):
    path = tmp_path / "t.npz"
    np.savez(path, **{"x": X, name: X[:, 0], "other": X})
    table = read_table(path)
    np.testing.assert_array_equal(table.x, X)
    np.testing.assert_array_equal(table.context, X[:, :1])
    assert any(repr(name) in note for note in table.notes)
    assert read_table(path, key="x").context is None  # told otherwise
    np.testing.assert_array_equal(read_context(path).x, X[:, :1])
    np.testing.assert_array_equal(read_context(path, "other").x, X)
    assert open_context(path).dim == 1


def test_key_without_npz(tmp_path):
    np.save(tmp_path / "t.npy", X)
    for option in ("key", "context_key"):
        assert f"--{option.replace('_', '-')}" in refusal(read_table, tmp_path / "t.npy", **{option: "x"})


def test_nonfinite_rows_are_counted_named_and_dropped():
    x = X.copy()
    x[1, 0], x[4, 1] = np.nan, -np.inf
    text = refusal(check_rows, x, what="t.npy")
    assert re.search(r"t\.npy.*2 of 6 rows \(rows 1, 4, counted from 0\).*drop_nonfinite", text)
    kept, notes = check_rows(x, drop_nonfinite=True)
    np.testing.assert_array_equal(kept, X[[0, 2, 3, 5]])
    assert "2 of 6" in notes[0]
    assert "rows 0, 1, 2, 3, 4, ..." in refusal(check_rows, np.full((9, 1), np.nan))
    assert "(row 1, " in refusal(check_rows, x[:3])
    assert "at least 1 finite" in refusal(check_rows, np.full((9, 1), np.nan), drop_nonfinite=True)


def test_context_rows_are_dropped_together():
    context = X[:, 0].copy()
    context[2] = np.inf
    x, c, notes = check_pair(X, context, drop_nonfinite=True)
    np.testing.assert_array_equal(x, np.delete(X, 2, axis=0))
    np.testing.assert_array_equal(c[:, 0], np.delete(X[:, 0], 2))
    assert len(notes) == 2
    assert "row 2," in refusal(check_pair, X, context)
    assert "one context row for each of the 6 rows, got 5" in refusal(check_pair, X, context[1:])
    assert check_pair(X)[1] is None


def test_minimum_number_of_rows():
    assert "at least 10 rows, got 6" in refusal(check_rows, X, minimum=10)


def test_array_likes():
    np.testing.assert_array_equal(check_rows([[1, 2], [3, 4]])[0], [[1, 2], [3, 4]])
    masked = np.ma.masked_array(X, mask=np.zeros_like(X, bool))
    masked[3, 0] = np.ma.masked
    assert "row 3," in refusal(check_rows, masked)
    assert "rows of equal length" in refusal(check_rows, [[1, 2], [3]])
    assert "objects" in refusal(check_rows, None)
    assert "strings" in refusal(check_rows, "data.npy")


def test_input_is_left_as_it_was():
    x = X.copy()
    x[0, 0] = np.nan
    before = x.copy()
    check_rows(x, drop_nonfinite=True)
    np.testing.assert_array_equal(x, before)


def test_long_double_beyond_float64_counts_as_infinite():
    x = np.full((3, 1), 1.0, np.longdouble)
    x[1] = np.longdouble(10) ** 400
    if not np.isfinite(x[1]):
        pytest.skip("long double is float64 here")
    assert "row 1," in refusal(check_rows, x)
