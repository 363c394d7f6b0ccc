"""Published HashAttention weights, .pt and .pkl, as safetensors, without running what such files could say."""

import collections
import hashlib
import io
import pickle
import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sahub.errors import DataError
from sahub.index.hash_weights import HashFile, described, write

_PARAMETER = re.compile(r"(\d+)\.learning_to_hash_transformation_([qk])\.(\d+)\.(\d+)\.(weight|bias)")
_BROKEN: tuple[type[Exception], ...] = (
    *(ArithmeticError, AttributeError, EOFError, ImportError, LookupError, OSError, RuntimeError),
    *(TypeError, ValueError, pickle.UnpicklingError),
)
_SIDE = {"q": "query", "k": "key"}
_KINDS = {"weight": "matrix", "bias": "bias"}


def convert(source: Path, output: Path, *, model: str = "", revision: str = "", activation: str = "silu") -> HashFile:
    """Write the weights of a training checkpoint (.pt) or of the predecessor's pickle (.pkl) to `output`.

    Raises DataError for a file that asks for more than tensors and containers, and ConfigError for wrong shapes.
    """
    tensors = from_checkpoint(source) if source.suffix in (".pt", ".pth", ".bin") else from_pickle(source)
    described(str(source), {name: tuple(tensor.shape) for name, tensor in tensors.items()}, {})
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    return write(output, tensors, activation, model=model, revision=revision, source_sha256=digest)


def from_checkpoint(source: Path) -> dict[str, Tensor]:
    """Tensors of a state dict `{layer}.learning_to_hash_transformation_{q|k}.{head}.{2i}.{weight|bias}`, [out, in]."""
    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"{source}: cannot be read as a checkpoint of tensors: {_first(error)}") from error
    heads: dict[str, dict[int, Tensor]] = {}
    for name, tensor in state.items() if isinstance(state, Mapping) else ():
        match = _PARAMETER.fullmatch(str(name))
        if match is None or not isinstance(tensor, Tensor) or int(match[4]) % 2:
            raise DataError(f"{source}: {name} is not a weight of a hash function")
        layer, side, head, place, kind = match.groups()
        to = f"layers.{layer}.{_SIDE[side]}.{int(place) // 2}.{kind}"
        heads.setdefault(to, {})[int(head)] = tensor.mT if kind == "weight" else tensor
    if not heads:
        raise DataError(f"{source}: holds no weights of hash functions")
    for to, found in heads.items():
        if sorted(found) != list(range(len(found))):
            raise DataError(f"{source}: {to} lacks some of its heads, it has {sorted(found)}")
    return {to: torch.stack([found[head] for head in range(len(found))]) for to, found in heads.items()}


def from_pickle(source: Path) -> dict[str, Tensor]:
    """Tensors of {layer: {query_matrix, query_bias, key_matrix, key_bias: a list over MLP layers}}, [h, in, out]."""
    try:
        with source.open("rb") as stream:
            tree = _Tensors(stream).load()
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    except _BROKEN as error:
        raise DataError(f"{source}: cannot be read as a pickle of tensors: {_first(error)}") from error
    tensors: dict[str, Tensor] = {}
    for layer, parts in tree.items() if isinstance(tree, Mapping) else ():
        for side, kind in product(_SIDE.values(), _KINDS):
            key = f"{side}_{_KINDS[kind]}"
            several = parts.get(key) if isinstance(parts, Mapping) else None
            if not isinstance(several, list) or not all(isinstance(one, Tensor) for one in several):
                raise DataError(f"{source}: layer {layer} has no list of tensors {key}")
            tensors |= {f"layers.{layer}.{side}.{i}.{kind}": one.contiguous() for i, one in enumerate(several)}
    if not tensors:
        raise DataError(f"{source}: must be a mapping from layer to weights")
    return tensors


class _Tensors(pickle.Unpickler):
    """Tensors in dicts and lists, and nothing else: no other name of any module is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        """The three names that a pickled tensor needs."""
        allowed = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
            ("torch.storage", "_load_from_bytes"): _storage,
        }
        if (module, name) not in allowed:
            raise DataError(f"refused, as it asks for {module}.{name}: weights are tensors in dicts and lists")
        return allowed[module, name]


def _storage(content: bytes) -> Any:
    """A tensor's storage, read as torch reads files that it does not trust."""
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
