"""What a tracker's event file holds, read without the tracker."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def events(folder: Path) -> Iterator[Any]:
    """The records of an event file: length, checksum, record, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    [file] = folder.rglob("events.out.tfevents.*")
    rest = file.read_bytes()
    while rest:
        (size,) = struct.unpack("<Q", rest[:8])
        yield Event.FromString(rest[12 : 12 + size])
        rest = rest[16 + size :]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and numbers by their names."""
    found: dict[str, list[tuple[int, float]]] = {}
    for event in events(folder):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found
