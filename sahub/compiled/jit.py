"""Compiling with numba: once for each machine where a cache can be written, else once for each process.

Importing this takes a second: who attends imports it when the first row comes.
"""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from pickle import PickleError
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

Function = Callable[..., Any]
PLAIN = {"error_model": "numpy", "nogil": True}
SUMS = {**PLAIN, "fastmath": {"reassoc", "contract", "nsz"}}  # in any order; NaN and infinity mean what they mean

_UNKEPT = (  # nowhere to keep it, a full disk, a damaged file
    AttributeError, EOFError, ImportError, LookupError, OSError, PickleError, RuntimeError, TypeError, ValueError
)  # fmt: skip
_SHARED = [Path(__file__).with_name(f"{name}.py") for name in ("jit", "splitting", "vectors")]  # others call these
_VERSION = sha256(b"".join(one.read_bytes() for one in _SHARED)).hexdigest()[:8]
inner, inner_sums = numba.njit(**PLAIN), numba.njit(**SUMS)  # what compiled functions call


def compiled(function: Function, signature: str, **options: Any) -> Function:
    """The function for arguments of one signature, in numba's words, compiled now."""
    function.__qualname__ = f"{function.__name__}_{_VERSION}"  # numba's cache looks at the file of the function alone
    made: Function
    try:
        made = numba.njit(signature, cache=True, **options)(function)
    except _UNKEPT:
        made = numba.njit(signature, **options)(function)
    return made


@intrinsic
def prefetch(typing: Any, array: Any, element: Any) -> Any:
    """prefetch(array, i): ask memory for the line that holds element i, counted flat, and go on."""
    del typing, element

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = arrayobj.make_array(signature.args[0])(context, builder, arguments[0]).data
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), cgutils.voidptr_t)
        kinds = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, *[ir.IntType(32)] * 3])
        call = cgutils.get_or_insert_function(builder.module, kinds, "llvm.prefetch.p0")
        read, keep, data_cache = (ir.Constant(ir.IntType(32), value) for value in (0, 2, 1))
        builder.call(call, [pointer, read, keep, data_cache])
        return context.get_dummy_value()

    return types.void(array, types.intp), code


@intrinsic
def ones(typing: Any, word: Any) -> Any:
    """ones(word): how many bits of a uint32 are 1."""
    del typing, word

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        del context, signature
        return builder.ctpop(arguments[0])

    return types.uint32(types.uint32), code
