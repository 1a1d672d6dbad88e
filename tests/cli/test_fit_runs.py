"""``refnaf fit`` while it runs: interrupts, checkpoints, progress."""

import os
import subprocess
import sys

import numpy as np
import pytest

import refnaf
from refnaf_cli.progress import Progress

FAST = ("--model", "maf", "--option", "flows=1", "--option", "hidden=8,", "--epochs", "2")


def interrupt_at(monkeypatch, steps, action):
    """Lets refnaf.fit tell of so many steps, then calls ``action``."""
    real = refnaf.fit

    def fit(rows, model, *, progress=None, **options):
        def tell(event):
            if progress:
                progress(event)
            if event["kind"] == "step" and event["step"] == steps:
                action()

        return real(rows, model, progress=tell, **options)

    monkeypatch.setattr(refnaf, "fit", fit, raising=False)


def ctrl_c():
    raise KeyboardInterrupt


def test_interrupted_run_is_resumed_to_the_same_bytes(run, ok, folder, x, monkeypatch):
    long = (*FAST, "--epochs", 12)
    ok("fit", "data.npy", *long, "--out", "undisturbed.safetensors")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 9, ctrl_c)
        result = run("fit", "data.npy", *long)
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last == "refnaf: error: interrupted; --resume goes on from data.safetensors.checkpoint"
    assert not (folder / "data.safetensors").exists()

    again = run("fit", "data.npy", *long)
    assert again.exit_code == 2
    assert "--resume" in again.stderr
    assert (folder / "data.safetensors.checkpoint").exists()

    other = run("fit", "data.npy", *long, "--resume", "--seed", 1)
    assert other.exit_code == 2
    assert "another run" in other.stderr
    assert (folder / "data.safetensors.checkpoint").exists()

    ok("fit", "data.npy", *long, "--resume")
    assert (folder / "data.safetensors").read_bytes() == (folder / "undisturbed.safetensors").read_bytes()
    assert not (folder / "data.safetensors.checkpoint").exists()


def test_resume_without_a_checkpoint_starts_and_says_so(ok, x):
    assert "starting from the beginning" in ok("fit", "data.npy", *FAST, "--resume").stderr


def test_interrupt_before_the_first_checkpoint(run, x, monkeypatch):
    interrupt_at(monkeypatch, 1, ctrl_c)
    result = run("fit", "data.npy", *FAST)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "refnaf: error: interrupted"


def test_progress_when_quiet_is_messages(capsys):
    tell = Progress(quiet=True)
    tell({"kind": "step", "step": 1, "steps": 8, "every": 4})
    tell({"kind": "epoch", "epoch": 1.0, "epochs": 2.0, "train": -1.5, "seconds": 2.0, "seconds_left": 2.0})
    tell({"kind": "message", "text": "a step was undone"})
    assert capsys.readouterr().err == "refnaf: note: a step was undone\n"


def test_progress_bar_on_a_terminal(capsys, monkeypatch):
    clock = iter(np.arange(0.0, 100.0, 0.5))
    monkeypatch.setattr("refnaf_cli.progress.time.monotonic", lambda: next(clock))
    monkeypatch.setenv("COLUMNS", "60")
    tell = Progress(terminal=True)
    for step in range(1, 5):
        tell({"kind": "step", "step": step, "steps": 8, "every": 4})
    tell(
        {
            "kind": "epoch",
            "epoch": 1.0,
            "epochs": 2.0,
            "train": -1.5,
            "validation": -1.25,
            "best": -1.25,
            "seconds": 2.0,
            "seconds_left": 2.0,
        }
    )
    tell({"kind": "message", "text": "a step\nwas undone"})
    tell.clear()
    lines = capsys.readouterr().err.split("\r")
    assert " 50% [##########..........]  epoch 1/2  train -1.5000  vali" in lines
    assert "refnaf: note: a step was undone\n" in lines
    assert max(map(len, lines)) < 60


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminal")
def test_a_real_terminal_gets_a_bar_with_time_left(x):
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "refnaf_cli", "fit", "data.npy", *FAST]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "COLUMNS": "120"},
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert b"\r" in shown
    assert b"validation" in shown
    assert b"left" in shown
    assert done.stdout.endswith("wrote       data.safetensors\n")
