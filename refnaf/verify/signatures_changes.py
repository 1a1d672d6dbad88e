"""Steps with a mistake in them, for :mod:`refnaf.verify.signatures`: wrong layers in place of the right ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from refnaf.flows.fixed import Permutation, Standardise
from refnaf.flows.inverse import Inverse
from refnaf.reference.stable import squash
from refnaf.verify import signatures_altered as altered
from refnaf.verify.signatures_steps import Step

#: A step with the mistake in it, or None where it cannot have it.
Change = Callable[[Step], Step | None]


def altered_transform(transform: altered.Transform, *names: str, all_at_once: bool = False) -> Change:
    """Steps whose transformer has one of the names; ``all_at_once`` where it must see all dimensions together."""

    def change(step: Step) -> Step | None:
        if step.network is None or step.network.transformer.name not in names:
            return None
        if all_at_once and isinstance(step.layer, Inverse):
            return None
        return Step(step.layer, step.params, altered.Altered(transform))

    return change


def mixture(changed: altered.Mixture) -> Change:
    """Sigmoidal transformers with another mixture of sigmoids."""
    return altered_transform(altered.sigmoidal(changed), "dsf", "ddsf")


def soft_slopes(which: str) -> Change:
    """Another function for positive slopes (see :data:`.signatures_altered.SLOPES`), in the steps that have them."""

    def change(step: Step) -> Step | None:
        if step.network is None:
            return None
        config = step.network.transformer.config()
        if config["name"] not in ("dsf", "ddsf") and config.get("form") != "softplus":
            return None
        return Step(step.layer, step.params, altered.Altered(altered.slopes_from(altered.SLOPES[which])))

    return change


def other_transformer(*names: str, **options: Any) -> Change:
    """The transformer with other options in its configuration, where it is one of those and can have them."""

    def change(step: Step) -> Step | None:
        if step.network is None or step.network.transformer.name not in names:
            return None
        config = step.network.transformer.config()
        try:
            changed = step.configured(transformer_config={**config, **options})
        except ValueError:  # an affine form without such an option
            return None
        return None if config == {**config, **options} else changed

    return change


def block_orders() -> Iterator[tuple[str, Change]]:
    """Every order of the pseudo-parameters but the right one."""
    for name, letters in (("dsf", "abw"), ("ddsf", "abwu")):
        for order in itertools.permutations(letters):
            if order != tuple(letters):
                yield f"{', '.join(order)}", altered_transform(altered.reread(altered.in_order(order)), name)
        yield "unit by unit", altered_transform(altered.reread(altered.interleaved), name)
    yield "the a of all layers first", altered_transform(altered.reread(altered.by_kind), "ddsf")
    for order in itertools.permutations(("weights", "means", "scales")):
        if order[0] != "weights" or order[1] != "means":
            yield ", ".join(order), altered_transform(altered.reread(altered.in_order(order)), "mog")
    yield "scale, shift", altered_transform(altered.reread(altered.in_order(("scale", "shift"))), "affine")


def softmaxes() -> Iterator[tuple[str, Change]]:
    """Softmaxes of w, u or both over the rows of the matrix or over the dimensions, with either form of the logit."""
    for said, mixture in (("", altered.usual_mixture), (", log m - log(1 - m)", altered.plain_logit)):
        for of in ("wu", "w", "u"):
            letters = " and ".join(of)
            rows = altered.sigmoidal(mixture, altered.softmax_over(-1, of))
            yield f"{letters} over the rows of the matrix{said}", altered_transform(rows, "ddsf")
            dimensions = altered.sigmoidal(mixture, altered.softmax_over(1, of))
            yield f"{letters} over the dimensions{said}", altered_transform(dimensions, "ddsf", all_at_once=True)
        dimensions = altered.sigmoidal(mixture, altered.softmax_over(1, "w"))
        yield f"over the dimensions{said}", altered_transform(dimensions, "dsf", all_at_once=True)


def other_form(form: str) -> Change:
    """An affine step in another form."""

    def change(step: Step) -> Step | None:
        if step.network is None or step.network.transformer.options.get("form", form) == form:
            return None
        return step.configured(transformer_config={"name": "affine", "form": form})

    return change


def other_activation(name: str) -> Change:
    """A network with that activation."""

    def change(step: Step) -> Step | None:
        net = step.network
        return None if net is None or not net.hidden or net.activation == name else step.configured(activation=name)

    return change


def other_bound(step: Step) -> Step | None:
    """The network reads x and the context as they are."""
    return step.configured(bound=None) if step.network is not None and step.network.bound is not None else None


def one_bound(of_context: bool) -> Change:
    """Only one of x and the context is bounded."""

    def change(step: Step) -> Step | None:
        if step.network is None or step.network.bound is None or not step.layer.context_dim:
            return None
        bound = step.network.bound

        def arguments(given: tuple[Any, ...]) -> tuple[Any, ...]:
            x, context, *numbers = given
            x, context = (squash(x, bound), context) if not of_context else (x, squash(context, bound))
            numbers[5] = None  # the bound
            return (x, context, *numbers)

        return Step(step.layer, step.params, altered.Altered(arguments=arguments))

    return change


def output_rows(rows: Callable[[np.ndarray], np.ndarray], all_at_once: bool = False) -> Change:
    """The network's outputs ``(D, outputs, N)`` taken for something else."""

    def change(step: Step) -> Step | None:
        net = step.network
        if net is None or net.dim == 1 or (all_at_once and isinstance(step.layer, Inverse)):
            return None
        shape = (net.dim, net.outputs, -1)
        taken = altered.Altered(rows=lambda out: rows(out.reshape(shape)).reshape(out.shape))
        return Step(step.layer, step.params, taken)

    return change


def shifted_rows(by: int) -> Change:
    """Each dimension has the pseudo-parameters of another."""
    return output_rows(lambda out: np.roll(out, by, axis=0), all_at_once=True)


def parameter_major(out: np.ndarray) -> np.ndarray:
    """Row ``c * D + i`` taken for parameter c of dimension i."""
    return np.swapaxes(out.reshape(out.shape[1], out.shape[0], -1), 0, 1)


def other_masks(masks: Callable[[list[np.ndarray]], list[np.ndarray]]) -> Change:
    """The network's weights under other masks, made from the ranks and degrees, inputs first."""

    def change(step: Step) -> Step | None:
        net = step.network
        if net is None or not net.hidden:
            return None
        new = masks([net.ranks, *net.degrees])
        if len(new) != len(net.layer_masks):
            return None
        last = np.repeat(new[-1], net.outputs, axis=0)
        weights = {f"weight.{k}": step.params[f"weight.{k}"] * mask for k, mask in enumerate([*new[:-1], last])}
        return Step(step.layer, {**step.params, **weights}, step.ops)

    return change


def strict_masks(first: int = 0, hidden: int = 0, last: int = 0) -> Change:
    """The first mask, those between hidden layers, or the last stricter by so many degrees."""
    return other_masks(masks_with(first, hidden, last))


def masks_with(first: int = 0, hidden: int = 0, last: int = 0) -> Callable[[list[np.ndarray]], list[np.ndarray]]:
    """The usual masks with the first, the middle or the last made stricter by so many degrees."""

    def masks(below: list[np.ndarray]) -> list[np.ndarray]:
        strict = [first] + [hidden] * (len(below) - 2)
        out = [up[:, None] >= low + more for (low, up), more in zip(itertools.pairwise(below), strict, strict=True)]
        return [*out, below[0][:, None] > below[-1] + last]

    return masks


def dealt_degrees(below: list[np.ndarray]) -> list[np.ndarray]:
    """Masks for degrees that go round and round rather than up."""
    ranks, *degrees = below
    lowest = int(degrees[0].min())
    dealt = [lowest + np.arange(len(d)) % max(len(ranks) - lowest, 1) for d in degrees]
    return masks_with()([ranks, *dealt])


def other_order(order: Callable[[np.ndarray], np.ndarray]) -> Change:
    """Another permutation."""

    def change(step: Step) -> Step | None:
        if not isinstance(step.layer, Permutation):
            return None
        return step.configured(order=order(step.layer.order).tolist())

    return change


def other_direction(step: Step) -> Step | None:
    """IAF for MAF, or MAF for IAF."""
    if step.network is None:
        return None
    if isinstance(step.layer, Inverse):
        return Step(step.layer.layer, step.params, step.ops)
    return Step(Inverse(step.layer.dim, step.layer.context_dim, layer=step.layer), step.params, step.ops)


class _Miscounted(Standardise):
    """A standardisation with somebody else's log-determinant."""

    def __init__(self, layer: Standardise, logdet: float) -> None:
        super().__init__(layer.dim, layer.context_dim)
        self.buffers, self.logdet = layer.buffers, logdet

    def forward(self, ops: Any, params: Any, x: Any, context: Any) -> tuple[Any, Any, Any]:
        y, logdet, saved = super().forward(ops, params, x, context)
        return y, 0 * logdet + self.logdet, saved


def other_buffers(
    change_buffers: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]], counted: bool = False
) -> Change:
    """A standardisation with other numbers; with ``counted``, the log-determinant of the right ones."""

    def change(step: Step) -> Step | None:
        if not isinstance(step.layer, Standardise):
            return None
        right = step.layer.buffers
        try:
            new = change_buffers(right)
        except KeyError:  # of a context that the flow does not have
            return None
        layer = Standardise(step.layer.dim, step.layer.context_dim)
        layer.buffers = {**right, **new}
        if counted:
            layer = _Miscounted(layer, -float(np.sum(np.log(right["scale"]))))
        return Step(layer, step.params, step.ops)

    return change
