"""Writes tests/vectors/pyro_*.npz and nflows_*.npz: ``python -m tests.interop.make_vectors`` with both installed."""

from __future__ import annotations

from tests.interop import peer_nflows, peer_pyro, stored


def main() -> None:
    """One small file a case, in float64."""
    for library, peer in (("pyro", peer_pyro), ("nflows", peer_nflows)):
        for name in peer.CASES:
            stored.save(library, name, peer.random(name, seed=7, rows=5))


if __name__ == "__main__":
    main()
