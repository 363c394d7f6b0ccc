"""What beside the method moves a score: cells that differ in it are not compared."""

import json
from dataclasses import asdict
from typing import Any

from sahub.config.cell import Cell
from sahub.config.ranges import leaves

# What stands in the table's columns, cannot move a score, or is said by the protocol as it is used.
LEFT_OUT = (
    "model.device", "model.device_map", "model.name", "model.trust_remote_code", "protocol.measure_error",
    "protocol.replay_rows", "protocol.trace_mib", "task.length", "task.licence", "task.protocol", "task.source",
)  # fmt: skip


def protocol_of(cell: Cell) -> dict[str, Any]:
    """The settings of model, task and protocol that move a score, and those of validation, by key, as JSON has them."""
    settings = cell.settings
    sections = {name: asdict(settings)[name] for name in ("model", "task", "protocol")}
    found = {
        key: value for key, value in leaves(sections) if not any(f"{key}.".startswith(f"{one}.") for one in LEFT_OUT)
    }
    found |= {"search.seed": settings.search.seed, "validate.max_new_tokens": settings.validate.max_new_tokens}
    plain: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return plain
