"""``refnaf score``."""

import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import refnaf
import refnaf_cli.score
from tests.cli.small_tables import table


def told(result):
    return dict(re.split(r"\s{2,}", line, maxsplit=1) for line in result.stdout.splitlines())


def test_nats_mean_and_standard_error(ok, model):
    np.save("rows.npy", table(300, seed=1))
    result = ok("score", model, "rows.npy")
    nats = np.load("rows.nats.npy")
    assert nats.dtype == np.float64
    np.testing.assert_array_equal(nats, refnaf.load(model).log_prob(table(300, seed=1)))
    facts = told(result)
    assert facts["rows"] == "300"
    assert facts["wrote"] == "rows.nats.npy"
    assert facts["mean"] == f"{nats.mean():.6f} nats"
    assert facts["s.e."] == f"{nats.std(ddof=1) / 300**0.5:.6f} nats"
    assert result.stderr == ""


def save(name, x, c=None):
    if name.endswith(".npy"):
        np.save(name, x)
    elif name.endswith(".npz"):
        np.savez_compressed(name, **({"x": x} if c is None else {"x": x, "c": c}))
    else:
        np.savetxt(name, x, delimiter=",", fmt="%.17g", header=",".join("abc"[: x.shape[1]]), comments="")


@pytest.mark.parametrize("name", ["rows.npy", "rows.npz", "rows.csv", "fortran.npy", "fortran.npz"])
def test_every_format_streamed_in_small_chunks(ok, model, monkeypatch, name):
    x = table(103)
    save(name, np.asfortranarray(x) if "fortran" in name else x)
    whole = refnaf.load(model).log_prob(x)
    seen = []
    real = refnaf.Flow.log_prob
    monkeypatch.setattr(refnaf.Flow, "log_prob", lambda self, x, c=None: seen.append(len(x)) or real(self, x, c))
    monkeypatch.setattr(refnaf_cli.score, "_ROWS", 10)
    result = ok("score", model, name, "--out", "o.npy")
    np.testing.assert_allclose(np.load("o.npy"), whole, rtol=1e-6)
    assert np.load("o.npy", mmap_mode="r").shape == (103,)
    assert seen == [10] * 10 + [3]
    assert told(result)["rows"] == "103"


@pytest.mark.parametrize("name", ["pair.npz", "two.npy", "two.csv"])
def test_context(ok, context_model, monkeypatch, name):
    x, c = table(95)[:, :2], table(95)[:, 2]
    save(name, x, c)
    np.save("c.npy", c)
    monkeypatch.setattr(refnaf_cli.score, "_ROWS", 10)
    ok("score", context_model, name, *([] if name == "pair.npz" else ["--context", "c.npy"]), "--out", "o.npy")
    np.testing.assert_allclose(np.load("o.npy"), refnaf.load(context_model).log_prob(x, c[:, None]), rtol=1e-6)


def test_context_file_takes_the_place_of_the_archives_own(ok, context_model):
    x, c = table(50)[:, :2], table(50)[:, 2]
    np.savez("pair.npz", x=x, c=0 * c)
    np.savez("other.npz", x=x, c=c)
    ok("score", context_model, "pair.npz", "--key", "x", "--context", "other.npz", "--out", "o.npy")
    np.testing.assert_allclose(np.load("o.npy"), refnaf.load(context_model).log_prob(x, c[:, None]), rtol=1e-12)
    again = ("--key", "x", "--context", "other.npz", "--context-key", "c", "--out", "p.npy")
    ok("score", context_model, "other.npz", *again)
    np.testing.assert_array_equal(np.load("p.npy"), np.load("o.npy"))


def test_bad_rows_are_counted_to_the_end_and_numbered_in_the_file(refused, model, monkeypatch):
    x = table(100)
    x[[35, 36, 99]] = np.nan
    save("holes.npy", x)
    monkeypatch.setattr(refnaf_cli.score, "_ROWS", 10)
    refused("score", model, "holes.npy", words="3 of 100 rows (rows 35, 36, 99, counted from 0)")


def test_all_rows_bad(ok, model):
    save("holes.npy", np.full((20, 3), np.nan))
    facts = told(ok("score", model, "holes.npy", "--drop-nonfinite"))
    assert facts["left out"] == "20"
    assert np.isnan(np.load("holes.nats.npy")).all()


def test_one_row(ok, model):
    save("one.npy", table(1))
    assert told(ok("score", model, "one.npy"))["s.e."] == "nan nats"


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of resident memory as Linux tells it")
@pytest.mark.parametrize("name", ["big.npy", "big.npz"])
def test_a_table_is_never_held_whole(name):
    refnaf.build("gaussian", 64).save("g.safetensors")
    big = np.lib.format.open_memmap("big.npy", "w+", np.float64, (600_000, 64))  # zeros that take no room on the disk
    if name == "big.npz":
        with zipfile.ZipFile(name, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.write("big.npy", "x.npy")
    code = (
        "import sys\nfrom refnaf_cli.main import main\n"
        "try: main(['score', *sys.argv[1:]])\nexcept SystemExit as e: assert not e.code\n"
        # of this program's memory alone: ru_maxrss begins at what the process that started it held
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    command = [sys.executable, "-c", code, "g.safetensors", name, "--out", "o.npy", "--threads", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert np.load("o.npy", mmap_mode="r").shape == (600_000,)
    assert 1024 * int(done.stdout.splitlines()[-1]) < big.nbytes
