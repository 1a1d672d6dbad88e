"""What other libraries do that the equations do not: epsilons, offsets, layouts. Data for the importers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Torchkit:
    """The NAF authors' torchkit (Huang et al. 2018).

    Its slopes and scales are ``softplus(raw) + delta``; mixtures m are clipped to ``m (1 - delta) + delta / 2`` before
    the logit, and so are IAF's gates; each logarithm of a sigmoid is low by delta, and with it each layer's
    log-derivative by twice that. Its density estimation takes a normal of variance e as the base.
    """

    delta: float = 1e-6
    base_variance: float = 2.718281828459045


TORCHKIT = Torchkit()


@dataclass(frozen=True)
class Zuko:
    """zuko (Rozet et al. 2022).

    MAF's log-scales a are softly clipped, ``a / (1 + |a / log slope|)``; between NAF's transforms stands
    ``x / (1 + |x / softclip|)``.
    """

    slope: float = 1e-3
    softclip: float = 11.0


@dataclass(frozen=True)
class Flowjax:
    """flowjax (Ward 2023).

    The affine transformer's scale is ``softplus(raw + softplus^-1(1 - min_scale)) + min_scale``. In block networks,
    rows of weights have the length ``softplus(scale)``, and weights within a dimension are ``softplus(raw)``, of any
    common factor of a row; the activation ``tanh(z) + min_grad z`` has its min_grad, 0.01, in the state.
    """

    min_scale: float = 1e-2


ZUKO, FLOWJAX = Zuko(), Flowjax()


@dataclass(frozen=True)
class Pyro:
    """Pyro (Bingham et al. 2019).

    eps is added to the slopes in NeuralAutoregressive's log-determinant, under the logarithm of the ELU's inverse, and
    to the norms of BlockAutoregressive's weights; in its log-determinant, to their squares, and to the gate's shares.
    The rest are AffineAutoregressive's defaults.
    """

    eps: float = 1e-8
    log_scale_min_clip: float = -5.0
    log_scale_max_clip: float = 3.0
    sigmoid_bias: float = 2.0


@dataclass(frozen=True)
class Nflows:
    """nflows (Durkan et al. 2020).

    The affine transform's scale is ``softplus(raw) + scale_floor``, and was
    ``sigmoid(raw + sigmoid_bias) + scale_floor`` in earlier versions. A mixture's deviations are
    ``softplus(raw) + mixture_floor``.
    """

    scale_floor: float = 1e-3
    mixture_floor: float = 1e-2
    sigmoid_bias: float = 2.0


PYRO, NFLOWS = Pyro(), Nflows()


@dataclass(frozen=True)
class Bnaf:
    """The B-NAF authors' code (De Cao et al. 2019).

    No epsilons, no clipping. Units of a dimension stand together. A MaskedWeight's numbers have these names: the gain
    ``(out, 1)`` is the logarithm of the length of each row; the masks are those of the diagonal blocks and below them.
    """

    weight: str = "_weight"
    gain: str = "_diag_weight"
    bias: str = "bias"
    masks: tuple[str, str] = ("mask_d", "mask_o")


BNAF = Bnaf()
