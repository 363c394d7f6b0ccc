"""What numba does not make vectors of by itself: several numbers at once, wherever they lie. All are fp32, or bf16."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FOUR = ir.VectorType(_FLOAT, 4)
WIDE = 16  # numbers that are multiplied at once where vectors are long
_WIDE = ir.VectorType(_FLOAT, WIDE)


def _data(context: Any, builder: Any, signature: Any, arguments: Any, place: int) -> Any:
    return arrayobj.make_array(signature.args[place])(context, builder, arguments[place]).data


def _over_four(out: Any, one: Any, other: Any, join: Callable[[Any, Any, Any, Any], Any]) -> Any:
    """Type and code of f(out, i, one, a, other, b), which writes four floats to out[i] and behind, counted flat.

    join(builder, there, left, right)  what is written, of a pointer to what is there and of one[a] and other[b]
    """

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def at(place: int) -> Any:
            data = _data(context, builder, signature, arguments, place)
            return builder.bitcast(builder.gep(data, [arguments[place + 1]]), _FOUR.as_pointer())

        left, right = (builder.load(at(place), align=4) for place in (2, 4))
        builder.store(join(builder, at(0), left, right), at(0), align=4)

    return types.void(out, types.intp, one, types.intp, other, types.intp), code


@intrinsic
def multiply_four(typing: Any, out: Any, to: Any, one: Any, a: Any, other: Any, b: Any) -> Any:
    """multiply_four(out, i, one, a, other, b): out[i] = one[a] * other[b], and so the three behind."""
    del typing, to, a, b
    return _over_four(out, one, other, lambda builder, _, left, right: builder.fmul(left, right))


@intrinsic
def add_four(typing: Any, sums: Any, to: Any, one: Any, a: Any, other: Any, b: Any) -> Any:
    """add_four(sums, i, one, a, other, b): sums[i] = (sums[i] + one[a]) + other[b], and so the three behind."""
    del typing, to, a, b

    def join(builder: Any, there: Any, left: Any, right: Any) -> Any:
        return builder.fadd(builder.fadd(builder.load(there, align=4), left), right)

    return _over_four(sums, one, other, join)


def _as_numbers(builder: Any, bits: Any, kind: Any) -> Any:
    """The fp32 that 16 bits are the upper half of, one or a vector of them."""
    half = ir.Constant(_INT, 16) if kind == _FLOAT else ir.Constant(ir.VectorType(_INT, WIDE), [16] * WIDE)
    return builder.bitcast(builder.shl(builder.zext(bits, half.type), half), kind)


@intrinsic
def number(typing: Any, x: Any) -> Any:
    """number(x): a number of fp32 as it is; of int16, the bits of bf16, as fp32."""
    del typing

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context
        known = signature.args[0] == types.float32
        return arguments[0] if known else _as_numbers(builder, arguments[0], _FLOAT)

    return types.float32(x), code


def _wide(builder: Any, data: Any, at: Any) -> Any:
    """Where numbers lie that are read or written at once."""
    kind = ir.VectorType(data.type.pointee, WIDE)
    return builder.bitcast(builder.gep(data, [at]), kind.as_pointer())


def _read(builder: Any, data: Any, at: Any) -> Any:
    """Several numbers as fp32."""
    found = builder.load(_wide(builder, data, at), align=2)
    return found if found.type == _WIDE else _as_numbers(builder, found, _WIDE)


def _fused(builder: Any) -> Any:
    kinds = ir.FunctionType(_WIDE, [_WIDE] * 3)
    return cgutils.get_or_insert_function(builder.module, kinds, f"llvm.fma.v{WIDE}f32")


def _rows_at(context: Any, builder: Any, signature: Any, arguments: Any, num: int) -> list[Any]:
    """Where `num` rows of memory, the third argument, begin that the fourth names, from place `fifth` on."""
    memory = arrayobj.make_array(signature.args[2])(context, builder, arguments[2])
    stride, rows = cgutils.unpack_tuple(builder, memory.shape)[1], _data(context, builder, signature, arguments, 3)
    places = [builder.add(arguments[4], ir.Constant(arguments[4].type, i)) for i in range(num)]
    named = [builder.load(builder.gep(rows, [place])) for place in places]
    return [builder.gep(memory.data, [builder.mul(row, stride)]) for row in named]


def _parts(builder: Any, one: Any, other: Any, places: list[int]) -> Any:
    """Numbers of two vectors, counted through both."""
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(_INT, len(places)), places))


def _across(builder: Any, sums: list[Any]) -> Any:
    """The four sums of the numbers of four vectors, by halves."""

    def joined(one: Any, other: Any, *halves: list[int]) -> Any:
        wide = [[at % 4 + begin + at // 4 * WIDE for begin in range(0, WIDE, 4) for at in half] for half in halves]
        return builder.fadd(*(_parts(builder, one, other, half) for half in wide))

    pairs = [joined(*sums[i : i + 2], [0, 4, 1, 5], [2, 6, 3, 7]) for i in (0, 2)]
    found, width = joined(*pairs, [0, 1, 4, 5], [2, 3, 6, 7]), WIDE
    while width > 4:
        width //= 2
        halves = [list(range(begin, begin + width)) for begin in (0, width)]
        found = builder.fadd(*(_parts(builder, found, found, half) for half in halves))
    return found


@intrinsic
def dot_four(typing: Any, x: Any, at: Any, memory: Any, rows: Any, first: Any, width: Any, out: Any, to: Any) -> Any:
    """dot_four(x, i, memory, rows, r, n, out, o): out[o] is the product of n numbers of x, from element i on, with the
    first of memory[rows[r]], the next with those of memory[rows[r + 1]], and so four; n a multiple of WIDE."""
    del typing, at, first, width, to

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, out = (_data(context, builder, signature, arguments, place) for place in (0, 6))
        none, num = ir.Constant(_WIDE, [0.0] * WIDE), arguments[5]
        places = _rows_at(context, builder, signature, arguments, 4)
        sums = [cgutils.alloca_once(builder, _WIDE) for _ in range(4)]
        for one in sums:
            builder.store(none, one)
        with cgutils.for_range_slice(builder, ir.Constant(num.type, 0), num, ir.Constant(num.type, WIDE)) as (j, _):
            asked = _read(builder, data, builder.add(arguments[1], j))
            for one, row in zip(sums, places, strict=True):
                builder.store(builder.call(_fused(builder), [asked, _read(builder, row, j), builder.load(one)]), one)
        pointer = builder.bitcast(builder.gep(out, [arguments[7]]), _FOUR.as_pointer())
        builder.store(_across(builder, [builder.load(one) for one in sums]), pointer, align=4)

    return types.void(x, types.intp, memory, rows, types.intp, types.intp, out, types.intp), code


def _add_scaled(num: int, out: Any, memory: Any, rows: Any, by: Any) -> Any:
    """Type and code of f(out, i, memory, rows, r, n, by, b), for `num` rows."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, by = (_data(context, builder, signature, arguments, place) for place in (0, 6))
        width, anything = arguments[5], ir.Constant(_WIDE, ir.Undefined)
        first, scales = ir.Constant(ir.VectorType(_INT, WIDE), [0] * WIDE), []
        for i in range(num):
            place = builder.add(arguments[7], ir.Constant(arguments[7].type, i))
            alone = builder.insert_element(anything, builder.load(builder.gep(by, [place])), ir.Constant(_INT, 0))
            scales.append(builder.shuffle_vector(alone, anything, first))
        places, step = _rows_at(context, builder, signature, arguments, num), ir.Constant(width.type, WIDE)
        with cgutils.for_range_slice(builder, ir.Constant(width.type, 0), width, step) as (j, _):
            at = _wide(builder, data, builder.add(arguments[1], j))
            total = builder.load(at, align=4)
            for row, scale in zip(places, scales, strict=True):
                total = builder.call(_fused(builder), [_read(builder, row, j), scale, total])
            builder.store(total, at, align=4)

    return types.void(out, types.intp, memory, rows, types.intp, types.intp, by, types.intp), code


@intrinsic
def add_scaled(typing: Any, out: Any, to: Any, memory: Any, rows: Any, first: Any, width: Any, by: Any, b: Any) -> Any:
    """add_scaled(out, i, memory, rows, r, n, by, b): add the first n numbers of memory[rows[r]], times by[b], to those
    of out from element i on; n a multiple of WIDE."""
    del typing, to, first, width, b
    return _add_scaled(1, out, memory, rows, by)


@intrinsic
def add_scaled_four(
    typing: Any, out: Any, to: Any, memory: Any, rows: Any, first: Any, width: Any, by: Any, b: Any
) -> Any:
    """The same of four rows, rows[r] and the three behind, times by[b] and the three behind."""
    del typing, to, first, width, b
    return _add_scaled(4, out, memory, rows, by)
