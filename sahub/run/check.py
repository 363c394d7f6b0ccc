"""What can be known of a cell before a model is loaded: whether everything that it names can be meant."""

from importlib import import_module

from sahub.attention import per_layer
from sahub.attention.stack import Stack
from sahub.builders.space import extremes, overrides_of
from sahub.compute.devices import check_gpus
from sahub.config.cell import Cell
from sahub.errors import ConfigError
from sahub.extensions import member
from sahub.measures import MEASURES
from sahub.models.reading import read_config
from sahub.models.supported import geometry
from sahub.models.weights import spec_of
from sahub.scores import check_metric
from sahub.search.limits import limits_of, own_limit
from sahub.search.objective import SECONDS, function_of, minimised, reads_errors
from sahub.search.trial import attention_of, space_of_cell


def check_cell(cell: Cell) -> None:
    """What can be known of a cell before a model is loaded. Raises ConfigError, with the address of what is wrong.

    Every value that a free field may take is tried, the others at their defaults: a range that no stage takes is an
    error, not a search of rejected points.
    """
    _check_tracker(cell)
    settings = cell.settings
    try:
        check_metric(spec_of(cell).name, settings.task.metric)
    except ConfigError as error:
        raise ConfigError(f"task.{error}" if str(error).startswith("metric=") else str(error)) from None
    _check_objective(cell)
    check_gpus(settings.compute)
    space = space_of_cell(cell)
    _check_model(cell, attention_of(cell, overrides_of(space.default)).stack)
    limits_of(cell)
    own_limit(cell)
    for leaf, free in space.free.items():
        for value in extremes(free):
            try:
                attention_of(cell, overrides_of(space.reaching(leaf, value)))
            except ConfigError as error:
                raise ConfigError(f"builder.search.{leaf} allows {value}: {error}") from None


def _check_model(cell: Cell, stack: Stack | None) -> None:
    """Raise ConfigError for stages that the cell's model cannot have: of it, only the configuration is read."""
    if stack is not None and per_layer.read_geometry(stack.stages):
        model = cell.settings.model
        config = read_config(model.path, model.revision, model.trust_remote_code)
        stack.check(geometry(config))


def _check_objective(cell: Cell) -> None:
    """Raise ConfigError for an objective that reads what is not measured, or whose function cannot be imported."""
    objective = cell.settings.objective
    if (objective.loss is None) != (objective.largest_loss is None):
        raise ConfigError(
            f"objective.loss={objective.loss} objective.largest_loss={objective.largest_loss}: both must be set, or "
            "neither"
        )
    if minimised(objective) == SECONDS and objective.loss in (None, SECONDS):
        raise ConfigError(
            f"objective.measure={SECONDS} objective.loss={objective.loss}: must be bounded by the loss of another "
            "measure (objective.loss=tokens_changed objective.largest_loss=0.02), as what reads least is fastest"
        )
    if not objective.function and reads_errors(objective) and cell.settings.protocol.measure_error == "off":
        key = "measure" if MEASURES[objective.measure].reads_error else "loss"
        named = f"objective.{key}={getattr(objective, key)}"
        raise ConfigError(f"protocol.measure_error=off: {named} needs it (all, or N)")
    if objective.function:
        function_of("objective.function", objective.function.get("_target_"), cell.config_dir)


def _check_tracker(cell: Cell) -> None:
    """Raise ConfigError where the library of the chosen tracker is not installed."""
    name = cell.settings.tracker.name
    if name == "none":
        return
    library = member("trackers", name).LIBRARY
    try:
        import_module(library)
    except ImportError as error:
        raise ConfigError(
            f"tracker={name}: {library} cannot be imported ({error}); pip install 'sahub[{name}]'"
        ) from None
