"""Writes tests/vectors/zuko_*.npz and flowjax_*.npz.

Run ``python -m tests.interop.make_vectors_zuko_flowjax`` where both libraries are installed.
"""

from __future__ import annotations

from tests.interop import peer_flowjax, peer_zuko, stored


def main() -> None:
    """One small file a case, in float64."""
    for library, peer in (("zuko", peer_zuko), ("flowjax", peer_flowjax)):
        for number, name in enumerate(peer.CASES):
            stored.save(library, name, peer.random(name, seed=number, rows=5))


if __name__ == "__main__":
    main()
