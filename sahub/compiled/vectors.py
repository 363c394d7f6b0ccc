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


def _rows_at(context: Any, builder: Any, signature: Any, arguments: Any) -> list[Any]:
    """Where the four rows of memory, the third argument, begin that the fourth names."""
    memory = arrayobj.make_array(signature.args[2])(context, builder, arguments[2])
    stride, rows = cgutils.unpack_tuple(builder, memory.shape)[1], _data(context, builder, signature, arguments, 3)
    places = [builder.load(builder.gep(rows, [ir.Constant(_INT, i)])) for i in range(4)]
    return [builder.gep(memory.data, [builder.mul(place, stride)]) for place in places]


@intrinsic
def dot_four(typing: Any, x: Any, at: Any, memory: Any, rows: Any, width: Any, out: Any) -> Any:
    """dot_four(x, i, memory, rows, n, out): out[0] is the product of n numbers of x, from element i on, with the first
    of memory[rows[0]], out[1] with those of memory[rows[1]], and so on; n a multiple of WIDE."""
    del typing, at, width

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, out = (_data(context, builder, signature, arguments, place) for place in (0, 5))
        none, num = ir.Constant(_WIDE, [0.0] * WIDE), arguments[4]
        places = _rows_at(context, builder, signature, arguments)
        sums = [cgutils.alloca_once(builder, _WIDE) for _ in range(4)]
        for one in sums:
            builder.store(none, one)
        with cgutils.for_range_slice(builder, ir.Constant(num.type, 0), num, ir.Constant(num.type, WIDE)) as (j, _):
            asked = _read(builder, data, builder.add(arguments[1], j))
            for one, row in zip(sums, places, strict=True):
                builder.store(builder.call(_fused(builder), [asked, _read(builder, row, j), builder.load(one)]), one)
        kinds = ir.FunctionType(_FLOAT, [_FLOAT, _WIDE])
        added = cgutils.get_or_insert_function(builder.module, kinds, f"llvm.vector.reduce.fadd.v{WIDE}f32")
        for i, one in enumerate(sums):
            total = builder.call(added, [ir.Constant(_FLOAT, -0.0), builder.load(one)], fastmath=("reassoc",))
            builder.store(total, builder.gep(out, [ir.Constant(_INT, i)]))

    return types.void(x, types.intp, memory, rows, types.intp, out), code


@intrinsic
def add_scaled_four(typing: Any, out: Any, to: Any, memory: Any, rows: Any, width: Any, by: Any) -> Any:
    """add_scaled_four(out, i, memory, rows, n, by): add the first n numbers of memory[rows[0]], times by[0], of
    memory[rows[1]], times by[1], and so on to those of out from element i on; n a multiple of WIDE."""
    del typing, to, width

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, by = (_data(context, builder, signature, arguments, place) for place in (0, 5))
        num, anything = arguments[4], ir.Constant(_WIDE, ir.Undefined)
        first, scales = ir.Constant(ir.VectorType(_INT, WIDE), [0] * WIDE), []
        for i in range(4):
            scale = builder.load(builder.gep(by, [ir.Constant(_INT, i)]))
            alone = builder.insert_element(anything, scale, ir.Constant(_INT, 0))
            scales.append(builder.shuffle_vector(alone, anything, first))
        places = _rows_at(context, builder, signature, arguments)
        with cgutils.for_range_slice(builder, ir.Constant(num.type, 0), num, ir.Constant(num.type, WIDE)) as (j, _):
            at = _wide(builder, data, builder.add(arguments[1], j))
            total = builder.load(at, align=4)
            for row, scale in zip(places, scales, strict=True):
                total = builder.call(_fused(builder), [_read(builder, row, j), scale, total])
            builder.store(total, at, align=4)

    return types.void(out, types.intp, memory, rows, types.intp, by), code
