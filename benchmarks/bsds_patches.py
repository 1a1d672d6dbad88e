"""Draw tables of 8 x 8 patches from the grey images of BSDS300, preprocessed as in the published tables.

    python benchmarks/bsds_patches.py bsds300_gray.npz --out bsds [--rows 20000] [--seed 0]
    refnaf fit bsds/train.npy --validation bsds/validation.npy --test bsds/test.npy

These are not the published patches: those came from the same images by the same steps, but by other random numbers, so
that nats compare to a few tenths only. The printed nats of a Gaussian of full covariance say how near the tables are.

As Papamakarios, Pavlakou and Murray 2017 (MAF) have it, after Uria, Murray and Larochelle 2013: uniform noise of one
grey level is added, levels are divided by 256, the patch's mean is subtracted, and its last pixel, which is now minus
the sum of the others, is left out. Training and validation patches come from different training images (nine in ten,
one in ten), test patches from the test images.

The .npz holds ``train`` and ``test``, uint8 ``(images, height, width)``, and for each a boolean array
``train_transposed`` and ``test_transposed`` ``(images,)``: whether an image is stored on its side.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from refnaf.datasets.published import PUBLISHED, Data, gaussian_nats
from refnaf.persistence import atomic_write
from refnaf.tables_npy import npz_names

Rows = NDArray[np.float32]

SIDE = 8
LEVELS = 256
#: Patches that are drawn at a time; the rows depend on it as they do on the seed.
CHUNK = 50_000


@dataclass(frozen=True)
class Images:
    """Grey levels uint8 ``(images, height, width)``, and which images ``(images,)`` are stored on their side."""

    levels: NDArray[np.uint8]
    transposed: NDArray[np.bool_]

    @classmethod
    def read(cls, archive: np.lib.npyio.NpzFile, part: str) -> Images:
        """The images of a part. Raises KeyError where they are not there, ValueError where they are something else."""
        levels, transposed = archive[part], archive[f"{part}_transposed"]
        fine = levels.dtype == np.uint8 and levels.ndim == 3 and min(levels.shape[1:]) >= SIDE and len(levels) > 1
        if not fine or transposed.shape != levels.shape[:1] or transposed.dtype != bool:
            raise ValueError(
                f"{part} is {levels.dtype} {levels.shape} with {transposed.dtype} {transposed.shape}, not two or more "
                f"images of {SIDE} x {SIDE} pixels at least"
            )
        return cls(levels, transposed)

    def take(self, index: NDArray[np.int64]) -> Images:
        """Those images."""
        return Images(self.levels[index], self.transposed[index])

    def patches(self, count: int, rng: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
        """Chunks (n, 8, 8) of patches, upright, each from a random image at a random place."""
        number, height, width = self.levels.shape
        windows = np.lib.stride_tricks.sliding_window_view(self.levels, (SIDE, SIDE), axis=(1, 2))
        for start in range(0, count, CHUNK):
            n = min(CHUNK, count - start)
            image = rng.integers(number, size=n)
            top, left = rng.integers(height - SIDE + 1, size=n), rng.integers(width - SIDE + 1, size=n)
            found = windows[image, top, left]
            yield np.where(self.transposed[image, None, None], found.transpose(0, 2, 1), found)


def preprocess(patches: NDArray[np.uint8], rng: np.random.Generator) -> Rows:
    """Rows (n, 63) of patches (n, 8, 8): noise, division, the mean subtracted, the last pixel left out."""
    pixels = patches.reshape(len(patches), -1)
    x = (pixels + rng.random(pixels.shape, dtype=np.float32)) / np.float32(LEVELS)
    return (x - x.mean(axis=1, keepdims=True))[:, :-1]


def table(images: Images, count: int, rng: np.random.Generator) -> Rows:
    """So many preprocessed patches (count, 63)."""
    return np.concatenate([preprocess(patches, rng) for patches in images.patches(count, rng)])


def tables(train: Images, test: Images, rows: int, seed: int) -> Data:
    """So many training rows, and validation and test rows in the published proportion to them."""
    shares = np.array(PUBLISHED["bsds300"].rows) / PUBLISHED["bsds300"].rows[0]
    counts = [max(round(rows * share), 2) for share in shares]
    order_rng, *rngs = (np.random.default_rng([seed, k]) for k in range(4))
    order = order_rng.permutation(len(train.levels))
    held_out = max(len(order) // 10, 1)
    images = train.take(order[held_out:]), train.take(order[:held_out]), test
    return Data(*(table(*each) for each in zip(images, counts, rngs, strict=True)))


def main() -> None:
    """Write the three tables, and print what a Gaussian makes of them."""
    published = PUBLISHED["bsds300"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="an .npz of grey images, see above")
    parser.add_argument("--out", type=Path, default=Path("bsds"), help="a folder for the tables (default: bsds)")
    parser.add_argument("--rows", type=int, default=published.rows[0], help="training rows (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the split of the images, the patches and the noise")
    arguments = parser.parse_args()
    if arguments.rows <= published.dim:
        parser.error(f"--rows must be more than the {published.dim} columns, got {arguments.rows}")

    try:
        npz_names(arguments.images)  # refuses anything else in one line
        with np.load(arguments.images, allow_pickle=False) as archive:
            train, test = Images.read(archive, "train"), Images.read(archive, "test")
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        sys.exit(f"expected an .npz of grey images: {error}; --help says what it holds")
    data = tables(train, test, arguments.rows, arguments.seed)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, rows in data._asdict().items():
        with atomic_write(arguments.out / f"{name}.npy") as file:
            np.save(file, rows)
        print(f"{arguments.out / name}.npy: {len(rows):,} rows, {rows.shape[1]} columns")
    mean, se = gaussian_nats(data)
    wanted, spread = published.nats or (np.nan, np.nan)
    print(
        f"Gaussian of full covariance, test nats ± two standard errors: {mean:.2f} ± {2 * se:.2f}; "
        f"of the published patches, which are others of the same images: {wanted:.2f} ± {spread:.2f}"
    )


if __name__ == "__main__":
    main()
