"""Amortised variational inference: a small variational autoencoder of binarised MNIST with each posterior form in turn.

    python benchmarks/vae.py --data mnist_binarized.npz [--posteriors gaussian iaf ...] [--epochs 50] [--minutes M]
                             [--checkpoints FOLDER]

The file holds ``train``, ``valid`` and ``test``: rows of 784 bits, by ``np.packbits(..., axis=1)``. One core: start it
with OPENBLAS_NUM_THREADS=1. Each form has the same networks, epochs and batches; the averaged parameters with the best
validation ELBO are scored on the test images. ELBO: all test images, 10 samples an image. log p(x): importance
sampling, 1,000 samples an image, over a subset of the test images drawn once, the same for every form, so that the last
columns are differences image by image with their own standard errors. With --checkpoints a run that was killed goes on
where it was, when started again with the same options.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from vae_model import POSTERIORS, Array, NegativeElbo, Sizes, Vae, build, log_evidence

import refnaf
from refnaf.objective import mean_and_error
from refnaf.parallel import serial_algebra
from refnaf.reference.variational import annealed
from refnaf.training.data import fingerprint
from refnaf.training.loop import Plan, check_positive, optimise

#: Huang et al. 2018, table 1: ELBO and log p(x) on the test images, nats.
PUBLISHED = {"VAE": (-85.00, -81.66), "IAF, affine": (-82.25, -80.05), "IAF-DSF": (-81.92, -79.86)}
DIFFERENT = (
    "Quoted without the paper at hand: look them up before you cite them. There, by the authors' script: "
    "convolutional residual networks, a context of 450, flows of 1,920 hidden units, "
    "batches of 64 for up to 400 epochs, 2,000 importance samples. Here: fully connected networks, which alone cost "
    "several nats, narrower flows, and minutes of one core. What can be compared is the differences between forms."
)
PARTS = {"train": "training", "valid": "validation", "test": "test"}
ELBO_SAMPLES = 10
# what is drawn from the seed
_NOISE, _VALIDATION, _IMAGES, _ELBO, _EVIDENCE = 1, 2, 3, 4, 5


class Images(NamedTuple):
    """Packed bits, ``(N, P / 8)`` bytes each."""

    train: Array
    valid: Array
    test: Array

    @classmethod
    def read(cls, path: str | Path) -> Images:
        """Raises ValueError for a file that does not hold them, OSError for one that cannot be read."""
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in PARTS if name not in archive]
            if missing:
                raise ValueError(f"expected an .npz with train, valid and test, got one without {missing[0]}")
            found = cls(*(archive[name] for name in PARTS))
        for name, rows in zip(PARTS, found, strict=True):
            if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != found.train.shape[1] or not len(rows):
                raise ValueError(f"{name} must be rows of packed bits (uint8), got {rows.dtype} {rows.shape}")
        return found


def bits(rows: Array) -> Array:
    """Packed rows as ``(N, P)`` float32 zeros and ones."""
    return np.unpackbits(rows, axis=1).astype(np.float32)


class Training:
    """What the training loop works on: a new order of the images each epoch, noise from seed and step alone."""

    judged = True

    def __init__(self, vae: Vae, images: Images, plan: Plan, warm_up: float) -> None:
        self.objective: Any = NegativeElbo(vae)
        self.images, self.plan, self.latent = images, plan, vae.sizes.latent
        self.per_epoch = len(images.train) // plan.batch_size
        self.rising = warm_up * self.per_epoch
        self._epoch, self._order = -1, np.zeros(0, int)

    def loss(self, flat: Array, step: int) -> tuple[float, Array]:
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng([self.plan.seed, epoch])
            self._epoch, self._order = epoch, rng.permutation(len(self.images.train))
        rows = self._order[place * self.plan.batch_size : (place + 1) * self.plan.batch_size]
        noise = np.random.default_rng([self.plan.seed, _NOISE, step])
        eps = noise.standard_normal((len(rows), self.latent), dtype=np.float32)
        return self.objective(flat, bits(self.images.train[rows]), eps, annealed(step, self.rising))

    def score(self, vae: Any) -> tuple[float, float]:
        rng = np.random.default_rng([self.plan.seed, _VALIDATION])
        return float(np.mean(vae.log_weights(bits(self.images.valid), 1, rng))), 0.0


class Result(NamedTuple):
    """A trained form: its ELBOs ``(N,)``, ``log p(x)`` of the subset ``(n,)``, and what else is printed."""

    name: str
    params: tuple[int, int]
    epochs: str
    elbo: Array
    evidence: Array
    seconds: float

    def row(self, first: Result) -> str:
        """A line of the table, with differences to another form."""
        cells = [self.name, f"{self.params[0]:,}", f"{self.params[1]:,}", self.epochs]
        cells += [nats(self.elbo), nats(self.evidence)]
        cells += ["", ""] if self is first else [nats(self.elbo - first.elbo), nats(self.evidence - first.evidence)]
        return f"| {' | '.join(cells)} | {self.seconds:.0f} |"


def nats(values: Array) -> str:
    """Mean ± standard error."""
    mean, error = mean_and_error(values)
    return f"{mean:.2f} ± {error:.2f}"


def run(name: str, images: Images, sizes: Sizes, plan: Plan, options: argparse.Namespace) -> Result:
    """Train one form and score it."""
    vae: Any = build(name, bits(images.train).mean(axis=0), sizes, seed=plan.seed)
    checkpoint = None if options.checkpoints is None else Path(options.checkpoints) / f"{name}.safetensors"
    # what must be the same for a checkpoint to be gone on from
    identity = {"posterior": name, "sizes": {k: repr(v) for k, v in sizes._asdict().items()}, "plan": plan.identity()}
    identity |= {"warm_up": options.warm_up, "backend": vae.backend, "images": fingerprint(images.train)}
    task = Training(vae, images, plan, options.warm_up)
    began = time.process_time()
    vae, record = optimise(
        vae, task, plan, identity, checkpoint=checkpoint, resume=checkpoint is not None, progress=reporter(name)
    )
    seconds = time.process_time() - began
    test, chosen = bits(images.test), subset(len(images.test), options.images, plan.seed)
    elbo = vae.log_weights(test, ELBO_SAMPLES, np.random.default_rng([plan.seed, _ELBO])).mean(axis=1)
    rng = np.random.default_rng([plan.seed, _EVIDENCE])
    evidence = log_evidence(vae.log_weights(test[chosen], options.samples, rng))
    epochs = f"{record['epochs']:g} (best {record['best_epoch']:g})"
    return Result(name, vae.n_params, epochs, elbo, evidence, seconds)


def subset(n: int, size: int, seed: int) -> Array:
    """Which of n images are scored by importance sampling."""
    return np.sort(np.random.default_rng([seed, _IMAGES]).permutation(n)[:size])


def reporter(name: str) -> Callable[[dict[str, Any]], None]:
    """Says on standard error how training goes, a line an evaluation."""

    def tell(event: dict[str, Any]) -> None:
        if event["kind"] == "message":
            print(f"{name}: {event['text']}", file=sys.stderr, flush=True)
        elif event["kind"] == "epoch":
            print(
                f"{name}: epoch {event['epoch']:g}/{event['epochs']:g}, training {event['train']:.2f}, validation "
                f"{event['validation']:.2f}, best {event['best']:.2f}, {event['seconds']:.0f} s, "
                f"{event['seconds_left']:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    return tell


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The options."""
    usual = Sizes()
    parser = argparse.ArgumentParser(description="Variational autoencoders of binarised MNIST with flow posteriors.")
    parser.add_argument("--data", required=True, help="see the head of this file")
    parser.add_argument("--posteriors", nargs="+", choices=POSTERIORS, default=list(POSTERIORS), metavar="FORM")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--minutes", type=float, help="of training, at most, each form")
    parser.add_argument("--batch-size", type=int, default=200)
    parser.add_argument(
        "--learning-rate", type=float, default=4e-3, help="the peak, from which half a cosine leads down"
    )
    parser.add_argument(
        "--warm-up", type=float, default=10, help="epochs in which the weight of the KL term rises to 1"
    )
    parser.add_argument("--latent", type=int, default=usual.latent)
    parser.add_argument("--hidden", type=int, nargs="+", default=usual.hidden, help="of encoder and decoder")
    parser.add_argument("--context", type=int, default=usual.context)
    parser.add_argument("--flows", type=int, default=usual.flows)
    parser.add_argument("--flow-hidden", type=int, nargs="+", default=usual.flow_hidden)
    parser.add_argument("--units", type=int, default=usual.units, help="of DSF and DDSF")
    parser.add_argument("--images", type=int, default=1000, help="test images whose log p(x) is estimated")
    parser.add_argument("--samples", type=int, default=1000, help="importance samples an image")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoints", help="folder; what it has of this run is gone on from")
    return parser.parse_args(arguments)


def planned(options: argparse.Namespace, images: Images) -> Plan:
    """The numbers of the runs. Raises ValueError for those that make no sense."""
    check_positive(**{k: getattr(options, k) for k in ("epochs", "minutes", "batch_size", "images", "samples")})
    check_positive(learning_rate=options.learning_rate)
    per_epoch = len(images.train) // options.batch_size
    if not per_epoch:
        raise ValueError(f"a batch of {options.batch_size} is more than the {len(images.train)} training images")
    return Plan(
        steps=options.epochs * per_epoch,
        batch_size=options.batch_size,
        every=per_epoch,
        patience=None,
        learning_rate=options.learning_rate,
        weight_decay=0.0,
        amsgrad=False,
        clip=10.0,
        averaging=0.998,
        seed=options.seed,
        max_time=None if options.minutes is None else 60 * options.minutes,
    )


def heading(options: argparse.Namespace, images: Images, sizes: Sizes) -> str:
    """What was run, and what the columns are."""
    count = min(options.images, len(images.test))
    return (
        f"{datetime.date.today()}, refnaf {refnaf.__version__}, numpy {np.__version__}, Python "
        f"{platform.python_version()}, one thread; seed {options.seed}. {len(images.train):,} training images, "
        f"{options.epochs} epochs in batches of {options.batch_size}, learning rate {options.learning_rate:g}, KL "
        f"warm-up {options.warm_up:g} epochs; latent {sizes.latent}, hidden {sizes.hidden}, context {sizes.context}; "
        f"flows: {sizes.flows} of hidden {sizes.flow_hidden}, {sizes.units} units.\n\n"
        f"Test ELBO: {len(images.test):,} images, {ELBO_SAMPLES} samples each; log p(x): {count:,} of them (seeded), "
        f"{options.samples:,} samples each; nats, mean ± standard error over images. Differences: to the first form, "
        f"paired. Networks, flow: free parameters. CPU s: of training (after resuming, of the rest)."
    )


def main(arguments: list[str] | None = None) -> None:
    """Print the table, each line as it is known."""
    options = parsed(arguments)
    try:
        images = Images.read(options.data)
        plan = planned(options, images)
        if options.checkpoints is not None:
            Path(options.checkpoints).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        sys.exit(f"{options.data}: {error}")
    sizes = Sizes(
        pixels=8 * images.train.shape[1],
        latent=options.latent,
        hidden=tuple(options.hidden),
        context=options.context,
        flows=options.flows,
        flow_hidden=tuple(options.flow_hidden),
        units=options.units,
    )
    print(f"{heading(options, images, sizes)}\n")
    print(
        "| posterior | networks | flow | epochs | ELBO | log p(x) | ELBO, difference | log p(x), difference | CPU s |"
    )
    print(f"|---|{'---:|' * 8}", flush=True)
    first: Result | None = None
    with serial_algebra():
        for name in options.posteriors:
            result = run(name, images, sizes, plan, options)
            first = first or result
            print(result.row(first), flush=True)
    print("\n| published: Huang et al. 2018, table 1 | ELBO | log p(x) |\n|---|---:|---:|")
    for name, (elbo, evidence) in PUBLISHED.items():
        print(f"| {name} | {elbo:.2f} | {evidence:.2f} |")
    print(f"\n{DIFFERENT}")


if __name__ == "__main__":
    main()
