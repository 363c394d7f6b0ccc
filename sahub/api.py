"""The Python interface to models and searches; everything here is also a command."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from sahub.attention.stack import Stack
from sahub.builders.build import build_stack
from sahub.config.cell import compose_cell
from sahub.config.choices import CELL_GROUPS, conf_dir, group_choices
from sahub.config.explain import composing
from sahub.config.suites import expanded
from sahub.engine import model as models
from sahub.engine.hook import Hook
from sahub.engine.micro_rows import rows_of_tallies
from sahub.engine.outcome import Outcome, weighted
from sahub.engine.probe import probe
from sahub.engine.replay import replay as replayed
from sahub.engine.routing import attached
from sahub.engine.session import Attention, Session
from sahub.engine.trace import Trace
from sahub.errors import RunError, SparseNeverRan
from sahub.files.names import file_name
from sahub.measures import of_run, of_trace
from sahub.models.supported import check_supported, geometry

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sahub.results.cell_result import CellResult

Stages = Stack | Sequence[dict[str, Any]]


class Model(Session):
    """A loaded model that answers questions about contexts, densely or with a stack."""

    def answer(
        self,
        context: str,
        questions: str | Sequence[str],
        stack: Stages | None = None,
        *,
        answer_prefix: str = "",
        max_new_tokens: int = 64,
        dense_layers: Sequence[int] = (),
        dense_question: bool = False,
        seed: int = 0,
    ) -> list[str]:
        """Greedy answers, one per question. The context is prefilled densely, once, whatever is asked about it.

        `stack` None: the model's own attention throughout; else question and answer are sparse (`dense_question`: the
        answer alone), except in `dense_layers`.
        """
        asked = [questions] if isinstance(questions, str) else list(questions)
        ids = [self.model.question_ids(question, answer_prefix) for question in asked]
        room = max(map(len, ids), default=0) + max_new_tokens
        prefix = self.prefix(tuple(self.model.context_ids(context)), room, asked=max(map(len, ids[:1]), default=0))
        attention = Attention(
            stack=None if stack is None else _stack(stack),
            dense_layers=tuple(dense_layers),
            dense_question=dense_question,
            measure=0,
            seed=seed,
        )
        runs = [self.generate(prefix, one, attention, max_new_tokens=max_new_tokens) for one in ids]
        return [self.model.decode(run.ids) for run in runs]

    def trace(self, context: str, question: str, *, answer_prefix: str = "", max_new_tokens: int = 64) -> Trace:
        """What the model's own answer to a question leaves for `replay`."""
        ids = self.model.question_ids(question, answer_prefix)
        context_ids = tuple(self.model.context_ids(context))
        prefix = self.prefix(context_ids, len(ids) + max_new_tokens)
        dense = self.dense_answer(prefix, context_ids, tuple(ids), max_new_tokens=max_new_tokens)
        return self.trace_of(prefix, ids, dense.ids)


def replay(
    trace: Trace, stack: Stages, *, seed: int = 0, dense_layers: Sequence[int] = (), rows: str = "answer"
) -> dict[str, float]:
    """What a stack loses on a trace, layer by layer and without the model: measures and densities.

    rows  those that give the tokens of the `answer`, or `all`, the question's too

    Every layer sees the dense model's own queries and keys, so errors do not pass on to later layers.
    """
    tallies = replayed(trace, _stack(stack), seed=seed, dense_layers=dense_layers, rows=rows)
    micro = rows_of_tallies(tallies, "trace", "question")
    densities = {name: weighted(micro, name) for name in ("density", "kv_density")}
    return {**of_run(Outcome(attention=Attention(), micro=micro)), **of_trace(tallies), **densities}


def load_model(name_or_path: str | None = "embedded", **settings: Any) -> Model:
    """Load a model from a folder, the local cache or the package; `settings` are those of `conf/model`.

    Raises MissingFiles (with the command that fetches the weights), ConfigError and UnsupportedModel.
    """
    return Model(models.load_model(name_or_path, **settings))


@contextmanager
def sparse(
    model: "PreTrainedModel", stack: Stages, *, dense_layers: Sequence[int] = (), seed: int = 0
) -> Iterator[Hook]:
    """Attend sparsely inside a plain transformers model: prompts (calls without past keys) dense, later tokens sparse.

    Yields the hook, whose tallies say what was kept. Raises UnsupportedModel, and SparseNeverRan where nothing went
    through the stack although the model decoded.
    """
    check_supported(model.config, model.config.model_type)
    probe(model)
    hook = Hook(
        stack=_stack(stack),
        geometry=geometry(model.config),
        dense_layers=frozenset(dense_layers),
        measure=0,
        seed=seed,
        guarded=True,
    )
    with attached(model, hook):
        yield hook
    if hook.prompts > 1 and not hook.tallies:
        raise SparseNeverRan(
            f"sparse attention never ran: all {hook.prompts} calls were prompts without past keys; "
            "generate with use_cache=True"
        )
    hook.check_rows()


def optimize(
    *,
    model: str = "embedded",
    task: str = "ruler/niah_multikey_2",
    builder: str = "quest",
    objective: str = "sparsity_10",
    overrides: Sequence[str] = (),
    directory: str | Path | None = None,
) -> "CellResult":
    """One cell, as `sahub search model=... task=... builder=... objective=...` runs it; its files go to `directory`.

    Raises RunError where the cell has no result.
    """
    [found] = optimize_matrix(
        models=[model],
        tasks=[task],
        builders=[builder],
        objectives=[objective],
        overrides=overrides,
        directory=directory,
    )
    if not found.ok:
        raise RunError(found.message)
    return found


def optimize_matrix(
    *,
    models: Sequence[str],
    tasks: Sequence[str],
    builders: Sequence[str],
    objectives: Sequence[str],
    overrides: Sequence[str] = (),
    directory: str | Path | None = None,
) -> "list[CellResult]":
    """Every combination as one matrix, suites such as `ruler/all` among the tasks.

    A cell that fails says so in its result and loses nothing else.
    """
    from sahub.run.matrix import run_matrix  # seconds, which a model alone does not pay

    root = Path(directory) if directory is not None else Path(mkdtemp(prefix="sahub_"))
    cells = []
    known = group_choices("task", [conf_dir()])
    for choices in product(models, tasks, builders, objectives):
        named = [f"{group}={choice}" for group, choice in zip(CELL_GROUPS, choices, strict=True)]
        for job in expanded(named, known):
            name = file_name("_".join(item.partition("=")[2] for item in job))
            with composing():
                cells.append(compose_cell([*job, *overrides], directory=root / name))
    return run_matrix(cells, root)


def _stack(stack: Stages) -> Stack:
    return stack if isinstance(stack, Stack) else build_stack(stack)
