"""Scores along the sampling direction, and what layers keep of it."""

from __future__ import annotations

import numpy as np
import pytest
from autograd import elementwise_grad

from refnaf.flows import chain
from refnaf.ops import ArrayOps
from tests.cases import CASES, make, rows
from tests.checks import close, reference_log_prob

NAMES = (
    "gaussian-D2",
    "maf-D3-C2",
    "maf-ddsf-D2-units=5",
    "maf-dsf-D3-C2-units=5-linear=True",
    "iaf-D3-C2",
    "iaf-dsf-D4-units=5",
    "iaf-ddsf-D3-C2-units=5",
    "planar-D3-C2",
    "planar-D3-C2-direction=sampling",
    "bnaf-D3-C2",
)


@pytest.fixture(params=NAMES)
def drawn(request):
    """A flow, its operations, base points z ``(D, N)``, their context as given and as layers read it, and images."""
    case = CASES[request.param]
    flow, ops = make(case), ArrayOps()
    z, context = rows(case, 6, scale=1.0)
    z, c = z.T.copy(), None if context is None else flow.standard_context(context.T)
    images = chain.inverse(flow.layers, flow.layer_params(), ops, z, c)[3]
    return flow, ops, z, context, c, images


def test_the_score_is_the_gradient_of_log_p(drawn):
    flow, ops, z, context, c, images = drawn
    score = chain.inverse_score(flow.layers, flow.layer_params(), ops, images, c, z)
    x = images[0][0].T
    expected = elementwise_grad(lambda x: reference_log_prob(flow, x, context, flow.params))(x)
    close(score.T, expected, 1e-8)


def test_what_layers_keep_changes_no_number(drawn):
    flow, ops, z, _, c, images = drawn
    rng = np.random.default_rng(0)
    grad_x, grad_logdet = rng.normal(size=z.shape), rng.normal(size=z.shape[1])
    bare = [(image, None) for image, _ in images]
    found = []
    for some in (images, bare):
        grad_z, grad_context, grads = chain.inverse_vjp(
            flow.layers, flow.layer_params(), ops, some, c, grad_x, grad_logdet
        )
        score = chain.inverse_score(flow.layers, flow.layer_params(), ops, some, c, z)
        named = [array.copy() for layer_grads in grads for _, array in sorted(layer_grads.items())]
        found.append([grad_z.copy(), score, *([] if grad_context is None else [grad_context.copy()]), *named])
    for got, expected in zip(*found, strict=True):
        close(got, expected, 1e-8)
