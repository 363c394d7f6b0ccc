"""Weights of HashAttention: safetensors files with an MLP per layer, side (query, key) and query head.

Tensors `layers.{l}.{query|key}.{i}.weight` [h, in, out] and `.bias` [h, out] for MLP layer i; the metadata say what the
weights are for and where they come from.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sahub.config.choices import command
from sahub.errors import ConfigError
from sahub.files.package import ROOT
from sahub.files.pointers import ADVICE as POINTER
from sahub.files.pointers import is_pointer

FORMAT = "sahub/hash_attention/1"
INPUT = "post_rope"
SIDES = ("query", "key")
PACKAGED = {"embedded": ROOT / "hashes" / "embedded.safetensors"}  # for the model of that name
_NAME = re.compile(r"layers\.(\d+)\.(query|key)\.(\d+)\.(weight|bias)")
MAKE = (
    f"convert published ones with `{command('convert_hash_weights')} source=... output=...`, or learn them with "
    f"`{command('train_hash')} model=... output=...`"
)
Mlp = tuple[tuple[Tensor, Tensor], ...]  # weight [h, in, out] and bias [h, out] of each layer


@dataclass(frozen=True, kw_only=True)
class HashFile:
    """What a file holds, its tensors apart."""

    layers: tuple[int, ...]  # of the model, that can be sparse
    num_heads: int
    head_dim: int
    mlp_layers: int
    hidden_size: int | None  # None: a single MLP layer has none
    bits: int
    activation: str | None  # None: the file does not say
    digest: str

    def __str__(self) -> str:
        """Its shapes, by the fields of the builder that must equal them."""
        return (
            f"{len(self.layers)} layers, {self.num_heads} heads of {self.head_dim}, hat_bits={self.bits} "
            f"hat_mlp_layers={self.mlp_layers} hat_mlp_hidden_size={self.hidden_size}"
        )


def located(file: str) -> Path:
    """The packaged file for the name of a packaged model, else the path as given."""
    return PACKAGED.get(file, Path(file).expanduser())


def read_header(file: str) -> HashFile:
    """What a weights file holds. Raises ConfigError, naming the file and what is wrong, without reading tensors."""
    path = located(file)
    try:
        if is_pointer(path):
            raise ConfigError(f"weights={file}: {POINTER}")
        state = path.stat()
        return _header(str(path), state.st_mtime_ns, state.st_size)
    except OSError as error:
        raise ConfigError(f"weights={file}: cannot be read ({path}: {error.strerror}); {MAKE}") from error
    except SafetensorError as error:
        raise ConfigError(f"weights={file}: is not a safetensors file ({error}); {MAKE}") from error


def read_layer(file: str, layer: int, device: str) -> dict[str, Mlp]:
    """The MLPs of one layer on a device, read once per process."""
    path = located(file)
    header, state = read_header(file), path.stat()
    if layer not in header.layers:
        raise ConfigError(f"weights={file}: has no layer {layer}, only {len(header.layers)} others")
    return _layer(str(path), layer, device, state.st_mtime_ns, header.mlp_layers)


@lru_cache(maxsize=256)
def _layer(path: str, layer: int, device: str, changed: int, mlp_layers: int) -> dict[str, Mlp]:
    del changed  # a file that changes is read again
    with safe_open(path, framework="pt", device=device) as tensors:
        return {
            side: tuple(
                (tensors.get_tensor(f"{at}.weight"), tensors.get_tensor(f"{at}.bias"))
                for at in (f"layers.{layer}.{side}.{i}" for i in range(mlp_layers))
            )
            for side in SIDES
        }


@lru_cache(maxsize=8)
def _header(path: str, changed: int, size: int) -> HashFile:
    del changed, size
    with safe_open(path, framework="pt") as tensors:
        shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        written = dict(tensors.metadata() or {})
    with Path(path).open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()[:16]
    return described(f"weights={path}", shapes, written, digest)


def described(
    address: str, shapes: Mapping[str, tuple[int, ...]], written: Mapping[str, str], digest: str = ""
) -> HashFile:
    """What tensors of these shapes are. Raises ConfigError for the first one that is missing or does not fit."""
    if written.get("format", FORMAT) != FORMAT or written.get("input", INPUT) != INPUT:
        raise ConfigError(
            f"{address}: format {written.get('format')}, input {written.get('input')}; must be {FORMAT}, {INPUT}"
        )
    names = [match for name in shapes if (match := _NAME.fullmatch(name))]
    if not names:
        raise ConfigError(f"{address}: has no tensor layers.N.query.M.weight; it has {', '.join(sorted(shapes)[:4])}")
    layers = tuple(sorted({int(match[1]) for match in names}))
    mlp_layers = 1 + max(int(match[3]) for match in names)
    first = [shapes.get(f"layers.{layers[0]}.query.{i}.weight", ()) for i in range(mlp_layers)]
    for i, shape in enumerate(first):
        if len(shape) != 3:
            raise ConfigError(f"{address}: layers.{layers[0]}.query.{i}.weight {list(shape)} must be [heads, in, out]")
    heads, widths = first[0][0], [first[0][1], *(shape[2] for shape in first)]
    if len(set(widths[1:-1])) > 1:
        raise ConfigError(f"{address}: hidden layers of {widths[1:-1]} must be equally wide")
    for layer, side, i in product(layers, SIDES, range(mlp_layers)):
        at = f"layers.{layer}.{side}.{i}"
        _check(address, shapes, f"{at}.weight", (heads, *widths[i : i + 2]))
        _check(address, shapes, f"{at}.bias", (heads, widths[i + 1]))
    return HashFile(
        layers=layers,
        num_heads=heads,
        head_dim=widths[0],
        mlp_layers=mlp_layers,
        hidden_size=widths[1] if mlp_layers > 1 else None,
        bits=widths[-1],
        activation=written.get("activation"),
        digest=digest,
    )


def _check(address: str, shapes: Mapping[str, tuple[int, ...]], name: str, shape: tuple[int, ...]) -> None:
    if shapes.get(name) != shape:
        held = "missing" if name not in shapes else str(list(shapes[name]))
        raise ConfigError(f"{address}: {name} is {held}, must be {list(shape)}")


def write(output: Path, tensors: Mapping[str, Tensor], activation: str, **about: object) -> HashFile:
    """Check tensors and write them, whole or not at all, with what they are and what is said `about` them."""
    found = described(str(output), {name: tuple(tensor.shape) for name, tensor in tensors.items()}, {})
    metadata = {
        "format": FORMAT,
        "input": INPUT,
        "bits": found.bits,
        "mlp_layers": found.mlp_layers,
        "hidden_size": found.hidden_size,
        "activation": activation,
        "num_layers": len(found.layers),
        "num_heads": found.num_heads,
        "head_dim": found.head_dim,
        "dtype": str(next(iter(tensors.values())).dtype).removeprefix("torch."),
        **about,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(f"{output.name}.part")
    try:
        save_file(dict(tensors), part, metadata={name: str(value) for name, value in metadata.items()})
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
    return found
