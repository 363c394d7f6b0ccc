"""Random weights for HashAttention, on disk."""

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import torch
from safetensors.torch import save_file

FOLDER = TemporaryDirectory(prefix="sahub-hashes-")  # removed as this process ends


def hash_tensors(heads=2, head_dim=8, layers=2, widths=(6, 10), seed=0):
    """Tensors of MLPs head_dim -> widths for each layer, side and head, by their names."""
    noise = torch.Generator().manual_seed(seed)
    sizes = [head_dim, *widths]
    tensors = {}
    for layer in range(layers):
        for side in ("query", "key"):
            for i, (into, out) in enumerate(pairwise(sizes)):
                at = f"layers.{layer}.{side}.{i}"
                tensors[f"{at}.weight"] = torch.randn(heads, into, out, generator=noise)
                tensors[f"{at}.bias"] = torch.randn(heads, out, generator=noise)
    return tensors


def hash_fields(folder=None, **shape):
    """Fields of a hash_attention stage with such weights, two MLP layers of 6 and 10 channels."""
    file = Path(folder or mkdtemp(dir=FOLDER.name)) / "hashes.safetensors"
    save_file(hash_tensors(**shape), file)
    return {"weights": str(file), "hat_bits": 10, "hat_mlp_layers": 2, "hat_mlp_hidden_size": 6}
