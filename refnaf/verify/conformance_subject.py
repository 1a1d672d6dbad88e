"""The flow under test: somebody else's functions, called with care, and the inputs they are tried on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from refnaf.flows.chain import base_log_prob
from refnaf.verify.conformance_returns import Broken, Raised, Skip, array_of, sample_signature, split, wrong_sample

FUNCTIONS = ("forward", "inverse", "log_prob", "sample")
#: Rows given to the flow in one call.
BATCH = 1 << 14


def functions_of(flow: Any) -> dict[str, Callable[..., Any]]:
    """The functions of a flow given as a mapping, as an object that has them, or as its forward function alone.

    Raises ValueError where none of forward, inverse, log_prob and sample is found.
    """
    if isinstance(flow, Mapping):
        unknown = sorted(set(flow) - set(FUNCTIONS))
        if unknown:
            raise ValueError(f"a flow's functions are {', '.join(FUNCTIONS)}, not {unknown[0]!r}")
        found = {name: flow[name] for name in FUNCTIONS if flow.get(name) is not None}
    else:
        found = {name: getattr(flow, name) for name in FUNCTIONS if callable(getattr(flow, name, None))}
        if not found and callable(flow):
            found = {"forward": flow}
    for name, function in found.items():
        if not callable(function):
            raise ValueError(f"{name} must be a function, got {type(function).__name__}")
    if not set(found) - {"inverse"}:
        kind = type(flow).__name__
        raise ValueError(f"expected a flow with forward, log_prob or sample, got {kind} without any of them")
    return found


class Subject:
    """A flow's functions, the checks' settings, and seeded inputs.

    The functions see copies of what the checks hold, C-contiguous and of ``dtype``, and what they return is taken apart
    and handed on in float64. Whatever they raise becomes :class:`Broken`.
    """

    def __init__(
        self,
        functions: dict[str, Callable[..., Any]],
        dim: int,
        context_dim: int,
        *,
        context: np.ndarray | None,
        seed: int,
        dtype: DTypeLike,
        rows: int,
        center: Any,
        scale: Any,
        autoregressive: Any,
        tolerance: float | None,
    ) -> None:
        self.functions, self.dim, self.context_dim, self.given_context = functions, dim, context_dim, context
        self.seed, self.rows, self.dtype, self.autoregressive = seed, rows, np.dtype(dtype), autoregressive
        self.eps = float(np.finfo(self.dtype).eps)
        self.double = self.dtype == np.float64
        self.tolerance = tolerance if tolerance is not None else (1e-6 if self.double else 1e-3)
        self.cache: dict[str, Any] = {}
        self.center, self.scale = np.zeros(dim), np.ones(dim)
        located = self._locate() if center is None or scale is None else (self.center, self.scale)
        self.center = located[0] if center is None else np.broadcast_to(np.asarray(center, float), (dim,)).copy()
        self.scale = located[1] if scale is None else np.broadcast_to(np.asarray(scale, float), (dim,)).copy()
        if not (np.isfinite(self.center).all() and np.isfinite(self.scale).all() and (self.scale > 0).all()):
            raise ValueError("center must be finite and scale positive: pass those of the flow's data")

    def has(self, *names: str) -> bool:
        return all(name in self.functions for name in names)

    # inputs

    def rng(self, stream: int) -> np.random.Generator:
        """A generator of its own for every use."""
        return np.random.default_rng([self.seed, stream])

    def rounded(self, x: np.ndarray) -> np.ndarray:
        """x with numbers of the flow's dtype, in float64."""
        return x.astype(self.dtype).astype(np.float64)

    def points(self, n: int, stream: int, spread: float = 1.0) -> np.ndarray:
        """Rows about where the data are: normals of ``spread`` times the data's scale."""
        z = self.rng(stream).normal(size=(n, self.dim))
        return self.rounded(self.center + spread * self.scale * z)

    def contexts(self, n: int, stream: int) -> np.ndarray | None:
        """A context for each of n rows, or None: drawn from the rows that were given, or standard normals."""
        if not self.context_dim:
            return None
        rng = self.rng(1000 + stream)
        if self.given_context is not None:
            return self.given_context[rng.integers(len(self.given_context), size=n)]
        return self.rounded(rng.normal(size=(n, self.context_dim)))

    def noise(self, n: int, stream: int) -> np.ndarray:
        return self.rounded(self.rng(stream).normal(size=(n, self.dim)))

    def where(self, x: np.ndarray, c: np.ndarray | None, row: int, what: str = "x") -> str:
        """A row of the input, in words."""
        text = f"{what} = {np.array2string(x[row], precision=6, separator=', ', threshold=8)}"
        if c is None:
            return text
        return f"{text}, context = {np.array2string(c[row], precision=6, separator=', ', threshold=8)}"

    def _locate(self) -> tuple[np.ndarray, np.ndarray]:
        """Median and robust scale of the data, from the flow itself where it can say."""
        for draw in (
            lambda: self.inverse(self.noise(256, 1), self.contexts(256, 1))[0],
            lambda: self.sample(256, 1)[0],
        ):
            try:
                x = draw()
            except (Broken, Skip):
                continue
            low, middle, high = np.percentile(x, [25, 50, 75], axis=0)
            scale = (high - low) / 1.349
            if np.isfinite(middle).all() and np.isfinite(scale).all() and (scale > 0).all():
                return self.rounded(middle), self.rounded(scale)
        return np.zeros(self.dim), np.ones(self.dim)

    # calls

    def raw(self, name: str, x: np.ndarray, c: np.ndarray | None) -> Any:
        """What the function returns for these very arrays."""
        if name not in self.functions:
            raise Skip(f"no {name} was given")
        try:
            with np.errstate(all="ignore"):
                return self.functions[name](x) if c is None else self.functions[name](x, c)
        except Exception as error:
            seen = f"{name} raised {type(error).__name__}: {str(error)[:200]}"
            raise Raised(seen, where=f"an input of shape {x.shape}, {x.dtype}") from error

    def _call(self, name: str, x: np.ndarray, c: np.ndarray | None) -> Any:
        # np.array copies: a function that writes into its input must not disturb the checks
        return self.raw(name, np.array(x, self.dtype), None if c is None else np.array(c, self.dtype))

    def _pieces(self, name: str, x: np.ndarray, c: np.ndarray | None) -> list[np.ndarray]:
        parts = []
        for start in range(0, max(len(x), 1), BATCH):
            piece = slice(start, start + BATCH)
            got = self._call(name, x[piece], None if c is None else c[piece])
            parts.append(split(name, got, len(x[piece]), self.dim))
        return [np.concatenate(columns) for columns in zip(*parts, strict=True)]

    def forward(self, x: np.ndarray, c: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """z ``(n, D)`` and the log-determinant ``(n,)`` that the flow claims, in float64."""
        z, logdet = self._pieces("forward", x, c)
        return z, logdet

    def inverse(self, z: np.ndarray, c: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        """x ``(n, D)`` and the inverse's log-determinant, or None where it returns x alone."""
        x, *rest = self._pieces("inverse", z, c)
        return x, rest[0] if rest else None

    def log_prob(self, x: np.ndarray, c: np.ndarray | None) -> np.ndarray:
        """``log p(x)`` ``(n,)`` by log_prob, or where there is none by forward and the standard normal."""
        if self.has("log_prob"):
            return self._pieces("log_prob", x, c)[0]
        if not self.has("forward"):
            raise Skip("neither log_prob nor forward was given")
        z, logdet = self.forward(x, c)
        with np.errstate(all="ignore"):
            return base_log_prob(z.T) + logdet

    def sample(self, n: int, stream: int) -> tuple[np.ndarray, np.ndarray | None]:
        """n rows of the flow's own sampling, and their contexts."""
        c = self.contexts(n, stream)
        got = self.raw_sample(n, stream, c)
        x = array_of("sample", got[0] if isinstance(got, tuple) else got)
        if x.shape != (n, self.dim):
            raise Broken(f"sample({n}) returned shape {x.shape}, expected {(n, self.dim)}", wrong_sample(x, n))
        return x.astype(np.float64), c

    def raw_sample(self, n: int, stream: int, c: np.ndarray | None) -> Any:
        """What sample returns, called as its signature asks."""
        if "sample" not in self.functions:
            raise Skip("no sample was given")
        function = self.functions["sample"]
        source, wanted = sample_signature(function)
        seed = int(self.rng(2000 + stream).integers(1 << 31))
        arguments: list[Any] = [n]
        named: dict[str, Any] = {}
        if source is not None:
            value = np.random.default_rng(seed) if wanted == "rng" else seed
            (named.__setitem__(source[1:], value) if source.startswith("=") else arguments.append(value))
        if c is not None:
            named["context"] = np.array(c, self.dtype)
        try:
            with np.errstate(all="ignore"):
                return function(*arguments, **named)
        except Exception as error:
            raise Raised(f"sample raised {type(error).__name__}: {str(error)[:200]}", where=f"n = {n}") from error
