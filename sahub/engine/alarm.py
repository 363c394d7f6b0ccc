"""The standing alarm: a stack that keeps every key must answer as the model's own attention does."""

import torch

from sahub.engine.session import Attention
from sahub.errors import DenseDiffers

# The most answer_kl (nats a token) that rounding explains, by the type of the weights.
ALLOWED = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def check(attention: Attention, answer_kl: float, dtype: torch.dtype) -> None:
    """Raise DenseDiffers where `attention` keeps everything and its answers are not the dense ones."""
    if attention.stack is None or not attention.stack.is_dense:
        return
    allowed = ALLOWED.get(dtype, ALLOWED[torch.float32])
    if not answer_kl <= allowed:
        raise DenseDiffers(
            f"every key was kept, and the answers differ from the model's own (answer_kl {answer_kl:.2g}, by rounding "
            f"at most {allowed:g}): its attention is more than softmax(q.k) v over its keys, and sparse figures of it "
            "would be wrong"
        )
