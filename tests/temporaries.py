"""How large the tensors are that a piece of work makes."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Largest(TorchDispatchMode):
    """The most elements, and the most bytes, that any operation put out in memory of its own."""

    def __init__(self):
        super().__init__()
        self.elements = self.nbytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {arg.untyped_storage().data_ptr() for arg in args if isinstance(arg, torch.Tensor)}
        if isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() not in given:
            nbytes = out.untyped_storage().nbytes()
            self.elements, self.nbytes = max(self.elements, nbytes // out.element_size()), max(self.nbytes, nbytes)
        return out
