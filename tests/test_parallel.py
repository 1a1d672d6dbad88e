"""Threads: the same bits for any number of them, wherever they are started, and nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import refnaf
from refnaf import parallel
from refnaf.flows import chain
from refnaf.kernels.array import workspace
from refnaf.objective import NegativeLogLikelihood
from refnaf.parallel import Order, Workers, default_threads, serial_algebra
from tests.cases import CASES, make, rows

NAMES = ("maf-ddsf-D3-C2-units=5", "made-mog-D4-components=4", "iaf-D4", "planar-D4", "bnaf-D2")


def _algebra():
    return [library["num_threads"] for library in parallel._libraries().info() if library["user_api"] == "blas"]


@pytest.fixture
def two_threads_of_algebra():
    """Linear algebra with two threads, as is usual; given back."""
    with threadpool_limits(2, "blas"):
        yield _algebra()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_threads_does_not_change_the_bits(name, backend, dtype, two_threads_of_algebra):
    case = CASES[name]
    flow = make(case, dtype=dtype, backend=backend)
    x, context = rows(case, 2 * flow._chunk + 77)
    few, some = x[:5], None if context is None else context[:1100]
    found = []
    for threads in (1, 2, 3):
        other = flow.replace({}, threads=threads)
        z, logdet = other.forward(x, context)
        # several chunks of an inverse, and one
        drawn, nats = other.sample(1100, seed=3, context=some, return_log_prob=True)
        alone = other.sample(40, context=None if context is None else context[:40])
        arrays = [other.log_prob(x, context), z, logdet, drawn, nats, alone]
        arrays += [other.log_prob(few, None if context is None else context[:5])]
        found.append([a.tobytes() for a in arrays])
        assert _algebra() == two_threads_of_algebra
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("n", [60, 250])
def test_neither_do_those_of_linear_algebra(n):
    """A single chunk, of which several threads of algebra would round some products otherwise."""
    flow = refnaf.build("maf-ddsf", 40, hidden=(256, 256), flows=1, units=4)
    rng = np.random.default_rng(0)
    flow = flow.replace({name: a + 0.05 * rng.normal(size=a.shape) for name, a in flow.params.items()})
    x = rng.normal(size=(n, 40))
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads, "blas"):
            found.append([a.tobytes() for a in (flow.log_prob(x), flow.sample(n), *flow.inverse(x))])
    assert found[0] == found[1]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_threads_of_a_program_may_score_at_the_same_time(backend, two_threads_of_algebra):
    case = CASES["maf-ddsf-D3-C2-units=5"]
    flow = make(case, dtype="float32", backend=backend).replace({}, threads=2)
    flow._chunk = 64
    x, context = rows(case, 400)
    jobs = [(flow.log_prob, x, context), (flow.inverse, x, context), (flow.forward, x[:70], context[:70])]

    def one(job):
        out = job[0](*job[1:])
        return [a.tobytes() for a in (out if isinstance(out, tuple) else (out,))]

    expected = [one(job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, jobs * 12))
    assert found == expected * 12
    assert _algebra() == two_threads_of_algebra


CHILDREN = """
import hashlib, multiprocessing, os, sys, threading, time
import refnaf
from refnaf.parallel import serial_algebra
from tests.cases import CASES, make, rows
from threadpoolctl import threadpool_info

def digest(threads, backend):
    case = CASES["maf-ddsf-D3-C2-units=5"]
    flow = make(case, dtype="float32", backend=backend).replace({}, threads=threads)
    flow._chunk = 64
    x, context = rows(case, 700)
    arrays = [flow.log_prob(x, context), flow.sample(1100, context=context[:1], seed=1)]
    return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()

def algebra():
    return [i["num_threads"] for i in threadpool_info() if i["user_api"] == "blas"]

def child(queue, backend):
    queue.put((digest(2, backend), algebra()))

if __name__ == "__main__":
    method, backend = sys.argv[1:]
    own, before = digest(2, backend), algebra()
    held, leave = threading.Event(), threading.Event()

    def hold():
        with serial_algebra():
            held.set()
            leave.wait()

    # the child is made while another thread, which it will not have, holds linear algebra to one
    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=child, args=(queue, backend))
    process.start()
    got, inside = queue.get(timeout=100)
    process.join(100)
    leave.set()
    other.join()
    assert process.exitcode == 0, process.exitcode
    assert got == own == digest(1, backend), "other bits in the child"
    assert algebra() == before and inside == before, (before, inside, algebra())
"""


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_have_threads_of_their_own(method, backend, tmp_path):
    if sys.platform == "win32" and method == "fork":
        pytest.skip("there is no fork")
    script = tmp_path / "children.py"
    script.write_text(CHILDREN)
    # newer Pythons warn of a fork in a program with threads
    command = [sys.executable, "-W", "ignore::DeprecationWarning", script, method, backend]
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": root, "OPENBLAS_NUM_THREADS": "2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["maf-D4", "maf-ddsf-D3-C2-units=5", "iaf-dsf-D2-units=5", "bnaf-D2"])
def test_a_single_chunk_is_shared_and_has_the_same_bytes(name, monkeypatch):
    monkeypatch.setattr(workspace, "SHARED", 1)
    case = CASES[name]
    x, context = rows(case, 70)
    found = []
    for threads in (1, 2):
        flow = make(case, dtype="float32", backend="numba").replace({}, threads=threads)
        z, logdet = flow.forward(x, context)
        back, _ = flow.inverse(z, context)
        found.append(b"".join(a.tobytes() for a in (z, logdet, back, flow.log_prob(x, context))))
    assert found[0] == found[1]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("name", ["maf-ddsf-D3-C2-units=5", "made-mog-D4-components=4", "bnaf-D2"])
def test_objectives_are_the_same_bytes(name, backend):
    case = CASES[name]
    flow = make(case, dtype="float32", backend=backend)
    x, context = rows(case, 700)
    found = []
    for threads in (1, 2, 3):
        objective = NegativeLogLikelihood(flow, threads)
        with serial_algebra():
            for _ in range(2):
                loss, grad = objective(objective.flat(), x, context)
                found.append((loss, grad.tobytes()))
        objective.close()
    assert len(set(found)) == 1


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize(
    ("model", "options"), [("maf-ddsf", {"units": 4}), ("maf-mog", {"components": 3}), ("bnaf", {})]
)
def test_fits_are_the_same_bytes(model, options, backend, tmp_path):
    x = np.random.default_rng(0).normal(size=(700, 3)) @ np.array([[1, 0.5, 0], [0, 1, 2], [0, 0, 0.3]])
    hidden = (4,) if model == "bnaf" else (24, 24)
    files = []
    for threads in (1, 2):
        settings = {"hidden": hidden, "flows": 1, "epochs": 3, "backend": backend, "threads": threads}
        flow = refnaf.fit(x, model, validation=0.2, **settings, **options)
        flow.save(tmp_path / f"{threads}")
        files.append((tmp_path / f"{threads}").read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_commands_write_the_same_bytes(backend, tmp_path):
    """The command also limits linear algebra's threads. Columns and units enough for these to matter."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "data.npy", (rng.normal(size=(500, 40)) @ rng.normal(size=(40, 40))))
    files = []
    for threads in ("1", "2"):
        folder = tmp_path / threads
        folder.mkdir()
        size = ["--option", "hidden=256,", "--option", "flows=1", "--option", "units=4", "--epochs", "2"]
        for command in (
            ["fit", "../data.npy", "--out", "m.safetensors", "--quiet", *size],
            ["score", "m.safetensors", "../data.npy", "--out", "nats.npy"],
            ["sample", "m.safetensors", "-n", "60", "--out", "drawn.npy"],
        ):
            command = [sys.executable, "-m", "refnaf_cli", *command, "--threads", threads, "--backend", backend]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0, done.stderr
        files.append([(folder / name).read_bytes() for name in ("m.safetensors", "nats.npy", "drawn.npy")])
    assert files[0] == files[1]


def test_a_number_of_threads_is_at_least_one():
    for bad in (0, -1):
        with pytest.raises(ValueError, match=f"threads must be at least 1, got {bad}"):
            default_threads(bad)
        with pytest.raises(ValueError, match="threads must be at least 1"):
            refnaf.build("maf", 2).replace({}, threads=bad)
    assert default_threads(7) == 7
    assert 1 <= default_threads(None) <= 4


def test_jobs_keep_their_order_and_run_beside_one_another():
    workers = Workers(2)
    meet = threading.Barrier(2, timeout=10)

    def job(k, pause):
        if k < 2:
            meet.wait()  # passes only where two run at a time
        time.sleep(pause)
        return k

    try:
        assert workers.map(job, [(0, 0.05), (1, 0), (2, 0.02), (3, 0)]) == [0, 1, 2, 3]
        assert workers.map(job, []) == []
    finally:
        workers.close()
    assert Workers(1).map(lambda k: k + 1, [(1,), (2,)]) == [2, 3]


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_in_a_thread_reaches_the_caller(threads, monkeypatch, two_threads_of_algebra):
    case = CASES["maf-D2"]
    flow = make(case).replace({}, threads=threads)
    flow._chunk = 8
    x, _ = rows(case, 80)
    real, calls = chain.forward, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise ArithmeticError("the third chunk")
        return real(*arguments)

    before = set(threading.enumerate())
    monkeypatch.setattr(chain, "forward", failing)
    with pytest.raises(ArithmeticError, match="the third chunk"):
        flow.log_prob(x)
    assert set(threading.enumerate()) == before
    assert _algebra() == two_threads_of_algebra
    assert np.isfinite(flow.log_prob(x)).all()


def test_a_failing_fit_leaves_no_threads(two_threads_of_algebra):
    before = set(threading.enumerate())

    def stop(event):
        if event["kind"] == "step" and event["step"] == 3:
            raise KeyboardInterrupt

    x = np.random.default_rng(0).normal(size=(300, 2))
    with pytest.raises(KeyboardInterrupt):
        refnaf.fit(x, "maf", threads=3, epochs=5, hidden=(4,), flows=1, progress=stop)
    assert set(threading.enumerate()) == before
    assert _algebra() == two_threads_of_algebra


def test_algebra_is_serial_until_the_last_has_left(two_threads_of_algebra):
    """Two callers that overlap: the first must not end the second's limit, nor the second keep it for ever."""
    seen, entered, left = [], threading.Event(), threading.Event()

    def second():
        with serial_algebra():
            entered.set()
            left.wait(10)
            seen.append(_algebra())

    def inside():
        with serial_algebra():
            return _algebra()

    other = threading.Thread(target=second)
    with serial_algebra(), serial_algebra():
        other.start()
        assert entered.wait(10)
        seen.append(_algebra())
    left.set()
    other.join()
    assert seen == [[1] * len(two_threads_of_algebra)] * 2
    assert _algebra() == two_threads_of_algebra
    assert not parallel._serial.depths
    # and one that is not the first thread may as well
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(inside).result() == [1] * len(two_threads_of_algebra)
    assert _algebra() == two_threads_of_algebra


def test_threads_that_change_places_often_do_not_lose_their_buffers():
    flow = make(CASES["gaussian-D1"], backend="numpy").replace({}, threads=8)
    flow._chunk = 1
    x, _ = rows(CASES["gaussian-D1"], 400)
    expected = flow.replace({}, threads=1).log_prob(x)
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(5):
            np.testing.assert_allclose(flow.log_prob(x), expected, rtol=1e-14)
    finally:
        sys.setswitchinterval(usual)


def test_turns_are_taken_in_the_order_of_jobs():
    order, seen = Order(2), []
    workers = Workers(4)

    def work(job: int) -> None:
        time.sleep(0.01 * (4 - job))  # the first job is the slowest
        for place in range(2):
            with order.turn(place, job):
                seen.append((place, job))

    for _ in range(3):
        order.begin()
        seen.clear()
        workers.map(work, [(job,) for job in range(4)])
        assert [job for place, job in seen if place == 0] == [0, 1, 2, 3]
        assert [job for place, job in seen if place == 1] == [0, 1, 2, 3]
    workers.close()


def test_the_error_of_the_job_that_failed_is_the_one_raised():
    order, workers, failed = Order(1), Workers(2), threading.Event()

    def work(job: int) -> None:
        if job == 1:
            order.give_up()
            failed.set()
            raise KeyError("the second")
        failed.wait()
        with order.turn(0, job):
            pass

    with pytest.raises(KeyError, match="the second"):
        workers.map(work, [(0,), (1,)])
    workers.close()


def test_nobody_waits_for_a_job_that_failed():
    order, workers = Order(1), Workers(2)

    def work(job: int) -> None:
        if job == 0:
            order.give_up()
            raise KeyError("the first")
        with order.turn(0, job):
            pytest.fail("the turn of a job whose predecessor failed")

    with pytest.raises(KeyError, match="the first"):
        workers.map(work, [(0,), (1,)])
    workers.close()
