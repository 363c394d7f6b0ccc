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
    """Where `num` rows of memory, the third argument, begin that the fourth names from place r, the fifth, on."""
    rows = _data(context, builder, signature, arguments, 3)
    places = [builder.add(arguments[4], ir.Constant(arguments[4].type, i)) for i in range(num)]
    named = [builder.load(builder.gep(rows, [place])) for place in places]
    return [_row_at(context, builder, signature, arguments, 2, row) for row in named]


def _row_at(context: Any, builder: Any, signature: Any, arguments: Any, place: int, row: Any) -> Any:
    """Where a row of an argument begins."""
    array = arrayobj.make_array(signature.args[place])(context, builder, arguments[place])
    return builder.gep(array.data, [builder.mul(row, cgutils.unpack_tuple(builder, array.shape)[1])])


def _next_rows(context: Any, builder: Any, signature: Any, arguments: Any, place: int, num: int) -> list[Any]:
    """Where `num` rows of an argument begin, the first of which the second argument is."""
    rows = [builder.add(arguments[1], ir.Constant(arguments[1].type, i)) for i in range(num)]
    return [_row_at(context, builder, signature, arguments, place, row) for row in rows]


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


def _dots(num: int) -> Any:
    """dots(x, i, memory, rows, r, n, out): out[i, r] is the product of the first n numbers of x[i] with those of
    memory[rows[r]], out[i, r + 1] with those of memory[rows[r + 1]], and so four; for x[i] and as many as are `num`
    with it, so that memory is read once for all. n a multiple of WIDE."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        given = context, builder, signature, arguments
        none, width, places = ir.Constant(_WIDE, [0.0] * WIDE), arguments[5], _rows_at(*given, 4)
        asked, found = (_next_rows(*given, place, num) for place in (0, 6))
        sums = [[cgutils.alloca_once(builder, _WIDE) for _ in places] for _ in asked]
        for one in (one for each in sums for one in each):
            builder.store(none, one)
        step = ir.Constant(width.type, WIDE)
        with cgutils.for_range_slice(builder, ir.Constant(width.type, 0), width, step) as (j, _):
            read = [_read(builder, row, j) for row in places]
            for x, each in zip(asked, sums, strict=True):
                times = _read(builder, x, j)
                for one, row in zip(each, read, strict=True):
                    builder.store(builder.call(_fused(builder), [times, row, builder.load(one)]), one)
        for out, each in zip(found, sums, strict=True):
            pointer = builder.bitcast(builder.gep(out, [arguments[4]]), _FOUR.as_pointer())
            builder.store(_across(builder, [builder.load(one) for one in each]), pointer, align=4)

    @intrinsic
    def dots(typing: Any, x: Any, i: Any, memory: Any, rows: Any, r: Any, n: Any, out: Any) -> Any:
        del typing, i, r, n
        return types.void(x, types.intp, memory, rows, types.intp, types.intp, out), code

    return dots


def _add_scaled(heads: int, num: int) -> Any:
    """add_scaled(out, i, memory, rows, r, n, by): add the first n numbers of memory[rows[r]], times by[i, r], to those
    of out[i], and so of `num` rows; and so to as many of out as are `heads`. n a multiple of WIDE."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        given = context, builder, signature, arguments
        width, places = arguments[5], _rows_at(*given, num)
        sums, by = (_next_rows(*given, place, heads) for place in (0, 6))
        scales = [[_spread(builder, one, arguments[4], i) for i in range(num)] for one in by]
        step = ir.Constant(width.type, WIDE)
        with cgutils.for_range_slice(builder, ir.Constant(width.type, 0), width, step) as (j, _):
            read = [_read(builder, row, j) for row in places]
            for out, each in zip(sums, scales, strict=True):
                at = _wide(builder, out, j)
                total = builder.load(at, align=4)
                for row, scale in zip(read, each, strict=True):
                    total = builder.call(_fused(builder), [row, scale, total])
                builder.store(total, at, align=4)

    @intrinsic
    def add_scaled(typing: Any, out: Any, i: Any, memory: Any, rows: Any, r: Any, n: Any, by: Any) -> Any:
        del typing, i, r, n
        return types.void(out, types.intp, memory, rows, types.intp, types.intp, by), code

    return add_scaled


def _spread(builder: Any, data: Any, at: Any, i: int) -> Any:
    """The number i places behind one, as often as vectors are wide."""
    found = builder.load(builder.gep(data, [builder.add(at, ir.Constant(at.type, i))]))
    anything, first = ir.Constant(_WIDE, ir.Undefined), ir.Constant(ir.VectorType(_INT, WIDE), [0] * WIDE)
    return builder.shuffle_vector(builder.insert_element(anything, found, ir.Constant(_INT, 0)), anything, first)


dot_four, dot_four_twice = map(_dots, (1, 2))
add_scaled, add_scaled_four, add_scaled_four_twice = _add_scaled(1, 1), _add_scaled(1, 4), _add_scaled(2, 4)
