"""What is written comes back, and the same content gives the same bytes."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from refnaf import persistence
from refnaf.persistence import read_archive, write_archive
from tests.persistence.archives import HEADER, OWN_KEYS, example_tensors, same


def test_roundtrip(archive):
    tensors, header = read_archive(archive)
    expected = example_tensors()
    assert same(tensors, {k: expected[k] for k in sorted(expected)})
    assert {k: v for k, v in header.items() if k not in OWN_KEYS} == HEADER
    assert header["format"] == persistence.FORMAT
    assert len(header["sha256"]) == 64
    for array in tensors.values():
        assert array.flags.writeable
        assert array.flags.aligned


@pytest.mark.parametrize(
    "dtype", ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ">f4", ">f8", ">i8"]
)
def test_every_dtype_and_byte_order(tmp_path, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    write_archive(tmp_path / "a", {"x": array}, {})
    back = read_archive(tmp_path / "a")[0]["x"]
    np.testing.assert_array_equal(back, array)
    assert back.dtype == array.dtype.newbyteorder("=")


def test_special_numbers_keep_their_bits(tmp_path):
    array = np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, 5e-324, 1.7e308])
    write_archive(tmp_path / "a", {"x": array}, {})
    assert read_archive(tmp_path / "a")[0]["x"].tobytes() == array.tobytes()


@pytest.mark.parametrize("view", [
    lambda a: a.T, lambda a: a[::2], lambda a: a[:, ::-1], lambda a: np.asfortranarray(a),
    lambda a: np.broadcast_to(a[0], (3, 5)), lambda a: a[1, 2], lambda a: a[:0],
])  # fmt: skip
def test_strided_views_are_stored_in_their_logical_order(tmp_path, view):
    array = view(np.arange(20.0).reshape(4, 5))
    write_archive(tmp_path / "a", {"x": array}, {})
    back = read_archive(tmp_path / "a")[0]["x"]
    np.testing.assert_array_equal(back, array)
    assert back.shape == np.shape(array)


def test_no_tensors_and_no_header(tmp_path):
    write_archive(tmp_path / "a", {}, {})
    tensors, header = read_archive(tmp_path / "a")
    assert tensors == {}
    assert set(header) == OWN_KEYS


def test_header_entries(tmp_path):
    header = {"a": np.float64(0.1), "b": np.int64(3), "c": np.float32(0.1), "d": np.bool_(True), "e": (1, 2),
              "f": float("-inf"), "g": 5e-324, "h": 2**80, "i": {10: "x", 9: "y"},
              "j": "caf\udce9 \x00 \n \U0001f600"}  # fmt: skip
    write_archive(tmp_path / "a", {}, header)
    back = {k: v for k, v in read_archive(tmp_path / "a")[1].items() if k not in OWN_KEYS}
    plain = {"b": 3, "c": float(np.float32(0.1)), "d": True, "e": [1, 2], "i": {"10": "x", "9": "y"}}
    assert back == {**header, **plain}
    assert type(back["b"]) is int
    assert type(back["d"]) is bool


def test_what_was_read_can_be_written_again_to_the_same_bytes(archive, tmp_path):
    write_archive(tmp_path / "again", *read_archive(archive))
    assert (tmp_path / "again").read_bytes() == archive.read_bytes()


def test_other_readers_open_it(archive):
    loaded = safetensors.numpy.load_file(archive)
    assert set(loaded) == set(example_tensors())


def test_bytes_do_not_depend_on_the_order(archive, tmp_path):
    tensors = dict(reversed(list(example_tensors().items())))
    header = dict(reversed(list(HEADER.items())))
    header["config"] = dict(reversed(list(HEADER["config"].items())))
    for _ in range(5):
        write_archive(tmp_path / "again", tensors, header)
        assert (tmp_path / "again").read_bytes() == archive.read_bytes()


def test_bytes_are_the_same_in_other_processes(tmp_path):
    code = (
        "import sys, numpy as np; from refnaf.persistence import write_archive;"
        "write_archive(sys.argv[1], {str(k): np.full(3, k) for k in {5, 1, 99, 12}}, {str(k): 1 for k in 'zyxabc'})"
    )
    for seed in "12":
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / seed)], check=True, env=env)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_the_digest_is_the_documented_one(archive):
    tensors, header = read_archive(archive)
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f'["{name}", "{array.dtype.name}", {list(array.shape)}]\n'.encode())
        digest.update(array.tobytes())
    assert header["sha256"] == digest.hexdigest()
