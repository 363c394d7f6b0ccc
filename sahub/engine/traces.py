"""The traces that a session keeps, in files that the workers of a machine share.

A file holds the tensors of a trace and is mapped into memory: its pages are there once, whoever reads them.
"""

import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sahub.engine.trace import TENSORS, Layers, Trace

log = logging.getLogger(__name__)
FOLDER_BYTES = 32 << 30  # of the files of all traces
TRACES_BYTES = 2 << 30  # of all that a session holds


class Sized(Protocol):
    """What says how much memory it takes."""

    @property
    def nbytes(self) -> int:
        """Bytes."""


T = TypeVar("T", bound=Sized)


class Recent(Generic[T]):
    """What was made, by key, within a byte budget: the least recently used leaves, the last one never."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._held: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """That of `key`, made when it is not held."""
        if key not in self._held:
            self._held[key] = make()
        self._held.move_to_end(key)
        while len(self._held) > 1 and sum(one.nbytes for one in self._held.values()) > self.budget_bytes:
            self._held.popitem(last=False)
        return self._held[key]

    def clear(self) -> None:
        """Forget all."""
        self._held.clear()


class TraceStore:
    """Traces by key. In memory, and in `folder`, the least recently used leave; anything can be made again.

    budget_bytes  of what is in memory alone: traces without a file, and what was built from traces
    """

    def __init__(self, budget_bytes: int, folder: Path | None = None) -> None:
        self.folder = folder
        self._held = Recent[Trace](budget_bytes)

    def get(self, key: str, device: torch.device, make: Callable[[], Trace]) -> Trace:
        """The trace of `key`, made when neither memory nor a file holds it."""
        return self._held.get(key, make if self.folder is None else lambda: self._shared(key, device, make))

    def clear(self) -> None:
        """Forget those in memory."""
        self._held.clear()

    def _shared(self, key: str, device: torch.device, make: Callable[[], Trace]) -> Trace:
        """From its file, which is written first where there is none; where that fails, the run goes on without."""
        assert self.folder is not None
        file = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"
        found = read_trace(file, device)
        if found is not None:
            return found
        made = make()
        try:
            write_trace(file, made)
            drop_oldest(self.folder, FOLDER_BYTES, but=file)
        except OSError as error:
            log.warning("cache: %s: no trace can be kept there (%s); workers do not share them", self.folder, error)
            self.folder = None
            return made
        return read_trace(file, device) or made


def write_trace(file: Path, trace: Trace) -> None:
    """Put a trace on disk, whole or not at all; one that another worker wrote meanwhile stays. Raises OSError."""
    tensors = {f"{at}.{name}": tensor.contiguous() for at, name, tensor in _tensors(trace)}
    layers = [{"numbers": one.numbers, "scale": one.scale, "softcap": one.softcap} for one in trace.groups]
    said = {"length": trace.length, "example": trace.example, "question": trace.question, "rows": trace.rows}
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.parent / f".draft-{uuid4().hex}"
    try:
        save_file(tensors, draft, metadata={"trace": json.dumps({**said, "groups": layers})})
        if not file.exists():
            draft.replace(file)
    except SafetensorError as error:  # how it says that the disk is full
        raise OSError(str(error)) from error
    finally:
        draft.unlink(missing_ok=True)


def _tensors(trace: Trace) -> Iterator[tuple[int, str, Tensor]]:
    for at, group in enumerate(trace.groups):
        for name in TENSORS:
            tensor = getattr(group, name)
            if tensor is not None:
                yield at, name, tensor


def read_trace(file: Path, device: torch.device) -> Trace | None:
    """The trace in a file, mapped on a CPU; None where there is no file. One that cannot be read is removed."""
    try:
        with safe_open(file, "pt", device=str(device)) as opened:
            said = json.loads(opened.metadata()["trace"])
            names = set(opened.keys())
            groups = [
                Layers(
                    numbers=tuple(one["numbers"]),
                    scale=one["scale"],
                    softcap=one["softcap"],
                    **{name: _tensor(opened, f"{at}.{name}", names) for name in TENSORS},
                )
                for at, one in enumerate(said.pop("groups"))
            ]
        file.touch()  # used last
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        log.warning("cache: %s: a damaged trace (%s); it is made again", file, type(error).__name__)
        with suppress(OSError):
            file.unlink()
        return None
    return Trace(**{**said, "rows": tuple(said["rows"])}, groups=groups, is_mapped=device.type == "cpu")


def _tensor(opened: Any, name: str, names: set[str]) -> Any:
    return opened.get_tensor(name) if name in names else None


def drop_oldest(folder: Path, most_bytes: int, but: Path) -> None:
    """Remove the files that were not used for longest until the others take at most so many bytes."""
    files = []
    for file in folder.glob("*.safetensors"):
        with suppress(FileNotFoundError):  # another worker's doing
            stat = file.stat()
            files.append((stat.st_mtime_ns, stat.st_size, file))
    total = sum(size for _, size, _ in files)
    for _, size, file in sorted(files):
        if total > most_bytes and file != but:
            file.unlink(missing_ok=True)
            total -= size
