"""A tile of a matrix product, held in vector registers while it is summed: for :mod:`.staircase`, :mod:`.ddsf_block`.

A compiled loop over arrays would read and write the sums at every term: Numba has no vectors, so this loop is given to
LLVM as it stands. Terms are added one after the other, each with one rounding: an entry has the same bits wherever it
lies in a tile, and so whatever else is computed beside it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from refnaf.kernels.cpu.compiler import config, part

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _wide() -> bool:
    """Whether the machine that is compiled for has AVX-512: 32 registers of 64 bytes."""
    named = config.CPU_FEATURES
    return bool(binding.get_host_cpu_features().get("avx512f")) if named is None else "+avx512f" in named


#: Rows of a tile.
ROWS = 4
#: Bytes of a vector, and vectors of a row: with those of the factors the sums fill the registers.
BYTES, VECTORS = (64, 4) if _wide() else (32, 3)


def _function(rows: int, vectors: int, partly: bool) -> Callable[..., Any]:
    """A tile of so many rows and vectors; ``partly``: of the vectors only the first ``width`` entries are there."""

    def tile(
        context: Any,
        left: Any,
        left_at: Any,
        left_row: Any,
        left_col: Any,
        right: Any,
        right_at: Any,
        right_row: Any,
        out: Any,
        out_at: Any,
        out_row: Any,
        terms: Any,
        add: Any,
        width: Any,
    ) -> Any:
        """``out_ij = sum_k left_ik right_kj`` over so many ``terms``, plus what ``out`` holds with ``add``.

        Arrays are flat and of one dtype: where a tile begins in each, and how far apart its rows (and the factors of a
        row of ``left``) lie, are numbers of entries.
        """
        places = (types.int64,) * 3
        signature = types.void(
            left,
            *places,
            right,
            *places[:2],
            out,
            *places[:2],
            types.int64,
            types.boolean,
            types.int64,
        )
        return signature, functools.partial(_emit, rows=rows, vectors=vectors, partly=partly)

    return intrinsic(tile)


@part
def lanes(array: Any) -> Any:
    """Entries of a vector of an array's dtype."""
    return BYTES // array.itemsize


def _emit(
    context: Any,
    builder: Any,
    signature: Any,
    args: Any,
    rows: int,
    vectors: int,
    partly: bool,
) -> Any:
    """The code of a tile: a loop over the terms, and its sums to ``out``."""
    (
        left,
        left_at,
        left_row,
        left_col,
        right,
        right_at,
        right_row,
        out,
        out_at,
        out_row,
        terms,
        add,
        width,
    ) = args
    kind = signature.args[0].dtype
    element, size = context.get_value_type(kind), kind.bitwidth // 8
    count = BYTES // size
    vector = ir.VectorType(element, count)
    zero = ir.Constant(vector, [0.0] * count)

    def spread(value: Any) -> Any:
        """A vector of one value."""
        whole = ir.VectorType(value.type, count)
        first = builder.insert_element(ir.Constant(whole, ir.Undefined), value, _I32(0))
        every = ir.Constant(ir.VectorType(_I32, count), [0] * count)
        return builder.shuffle_vector(first, ir.Constant(whole, ir.Undefined), every)

    def function(name: str, result: Any, *given: Any) -> Any:
        suffix = f"v{count}f{8 * size}" + (".p0" if "masked" in name else "")
        return cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, given), f"llvm.{name}.{suffix}")

    def start_of(array: Any, which: int, at: Any) -> Any:
        return builder.gep(
            context.make_array(signature.args[which])(context, builder, array).data,
            [at],
        )

    if partly:
        there = builder.icmp_signed(
            "<",
            ir.Constant(ir.VectorType(_I64, count), list(range(count))),
            spread(width),
        )

    def load(place: Any) -> Any:
        place = builder.bitcast(place, vector.as_pointer())
        if not partly:
            return builder.load(place, align=size)
        masked = function("masked.load", vector, place.type, _I32, there.type, vector)
        return builder.call(masked, [place, _I32(size), there, zero])

    def store(value: Any, place: Any) -> None:
        place = builder.bitcast(place, vector.as_pointer())
        if not partly:
            builder.store(value, place, align=size)
            return
        masked = function("masked.store", ir.VoidType(), vector, place.type, _I32, there.type)
        builder.call(masked, [value, place, _I32(size), there])

    left, right, out = (
        start_of(left, 0, left_at),
        start_of(right, 4, right_at),
        start_of(out, 7, out_at),
    )
    places = [
        builder.gep(out, [builder.add(builder.mul(_I64(i), out_row), _I64(j * count))])
        for i in range(rows)
        for j in range(vectors)
    ]

    def phi(value: Any) -> Any:
        node = builder.phi(value.type)
        node.add_incoming(value, before)
        return node

    before = builder.block
    loop, body, end = (builder.append_basic_block(f"tile.{name}") for name in ("loop", "body", "end"))
    builder.branch(loop)
    builder.position_at_end(loop)
    k, factors, row, sums = (
        phi(_I64(0)),
        phi(left),
        phi(right),
        [phi(zero) for _ in places],
    )
    builder.cbranch(builder.icmp_signed("<", k, terms), body, end)

    builder.position_at_end(body)
    others = [load(builder.gep(row, [_I64(j * count)])) for j in range(vectors)]
    product = function("fmuladd", vector, vector, vector, vector)
    for i in range(rows):
        factor = spread(builder.load(builder.gep(factors, [builder.mul(_I64(i), left_row)])))
        for j in range(vectors):
            node = sums[i * vectors + j]
            node.add_incoming(builder.call(product, [factor, others[j], node]), body)
    k.add_incoming(builder.add(k, _I64(1)), body)
    factors.add_incoming(builder.gep(factors, [left_col]), body)
    row.add_incoming(builder.gep(row, [right_row]), body)
    builder.branch(loop)

    builder.position_at_end(end)
    with builder.if_else(add) as (then, otherwise):
        with then:
            for value, place in zip(sums, places, strict=True):
                store(builder.fadd(load(place), value), place)
        with otherwise:
            for value, place in zip(sums, places, strict=True):
                store(value, place)
    return context.get_dummy_value()


#: A whole tile; one vector of its rows of which only some entries are there; and the same of a single row.
whole, edge, single = (
    _function(ROWS, VECTORS, False),
    _function(ROWS, 1, True),
    _function(1, 1, True),
)
