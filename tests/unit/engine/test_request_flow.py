"""From a task's question to the ids that the model reads and writes, by every option of the protocol."""

import copy
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from task_rows import contexts, filler, fixture, load, prompt, spec, write

import sahub
from sahub.config.cell import compose_cell
from sahub.config.choices import conf_dir, group_choices
from sahub.data.examples import Example, Question, example_id, shuffled
from sahub.engine.evaluate import Plan, _key, evaluate
from sahub.engine.forward import Forward
from sahub.engine.model import Model, wrap_model
from sahub.engine.requests import Prepared, Request, prepare
from sahub.engine.session import Attention, Session
from sahub.errors import ConfigError
from sahub.results.reproduce import reproducing
from sahub.search.scope import search_key

AS_TEXT = ("trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p")
QUEST = sahub.build_stack([{"name": "quest", "page_size": 4, "density": 0.5}])


def asked(number: int = 0, max_new_tokens: int = 8) -> Question:
    return Question(
        id=str(number),
        text=f"\nWhy {number}?",
        answer_prefix="Because",
        references=("x",),
        max_new_tokens=max_new_tokens,
    )


def example(context: str, *questions: Question, cut_mark: str = "") -> Example:
    return Example(id=example_id(context), context=context, questions=questions or (asked(),), cut_mark=cut_mark)


def requests_of(model: Model, *examples: Example, most: int = 1000, **options: object) -> list[Request]:
    how = {"max_context_length": most, "max_new_tokens": None, "truncation": "middle", **options}
    return prepare(model, examples, **how)  # type: ignore[arg-type]


def read(model: Model, request: Request) -> str:
    """What the model reads before the answer, special tokens included."""
    return str(model.tokenizer.decode([*request.context_ids, *request.question_ids[0]]))


# Templates, by task and by hand


def test_what_each_tasks_authors_do_is_in_its_file() -> None:
    names = group_choices("task", [conf_dir()])
    for name in names:
        benchmark, _, subset = name.partition("/")
        expected = {"truncation": "head"} if benchmark == "zero_scrolls" else {}
        if benchmark in ("longbench", "longbench_e"):
            expected |= {"template": "none"} if subset in AS_TEXT else {}
            expected |= {"newline_stops": True} if subset == "samsum" else {}
        assert yaml.safe_load((conf_dir() / "task" / f"{name}.yaml").read_text("utf-8")).get("protocol", {}) == expected
    assert "longbench_e/samsum" in names


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("longbench/samsum", ("none", "middle", True)),
        ("zero_scrolls/qasper", ("auto", "head", False)),
        ("ruler/vt", ("auto", "middle", False)),
    ],
)
def test_the_protocol_takes_from_the_task(task: str, expected: tuple[str, str, bool]) -> None:
    protocol = compose_cell([f"task={task}"]).settings.protocol
    assert (protocol.template, protocol.truncation, protocol.newline_stops) == expected


def test_what_is_typed_wins_over_the_task_and_is_reproduced() -> None:
    cell = compose_cell(["task=longbench/samsum", "protocol.template=auto", "protocol.newline_stops=false"])
    assert (cell.settings.protocol.template, cell.settings.protocol.newline_stops) == ("auto", False)
    again = compose_cell(reproducing(cell))
    assert again.settings.protocol == cell.settings.protocol
    assert compose_cell(reproducing(compose_cell(["task=longbench/samsum"]))).settings.protocol.newline_stops


def test_a_task_sets_what_the_protocol_takes_from_it() -> None:
    message = r"task\.protocol\.question: a task sets template, truncation, newline_stops; set protocol\.question"
    with pytest.raises(ConfigError, match=message):
        compose_cell(["+task.protocol.question=dense"])
    with pytest.raises(ConfigError, match=r"protocol\.template=some: must be one of auto, none"):
        compose_cell(["+task.protocol.template=some"])


def test_one_model_reads_tasks_with_and_without_template(chat: Model) -> None:
    prepared = Prepared(chat)
    small = ["search.max_requests=1", "search.max_context_length=600", "search.max_new_tokens=4"]
    spoken = prepared.requests(compose_cell(["task=ruler/niah_single_1", *small]), "search")
    bare = prepared.requests(compose_cell(["task=ruler/niah_single_1", "protocol.template=none", *small]), "search")
    assert read(chat, spoken[0]).startswith("<|bos|>[user] ")
    assert "[assistant]" not in read(chat, bare[0])
    for [request] in (spoken, bare):
        ids = [*request.context_ids, *request.question_ids[0]]
        assert (ids[0], ids.count(0)) == (0, 1)  # one BOS, by the template or by hand
        assert len(ids) <= 600


def test_no_special_token_is_added_between_context_question_and_answer(chat: Model, tokenizer) -> None:
    adding = copy.deepcopy(tokenizer)
    from tokenizers.processors import TemplateProcessing

    adding.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|bos|> $A <|eos|>", special_tokens=[("<|bos|>", 0), ("<|eos|>", 1)]
    )
    assert adding("a")["input_ids"][0] == 0  # as Llama's does
    model = replace(chat, tokenizer=adding).templated("none")
    [request] = requests_of(model, example("Some text."))
    assert read(model, request) == "<|bos|>Some text.\nWhy 0?\nBecause"


# The question inside the context


@pytest.mark.parametrize("template", ["auto", "none"])
def test_query_aware_moves_the_question_into_the_context(chat: Model, template: str) -> None:
    model = chat.templated(template)
    text = example("Some text.", asked(0), asked(1))
    [apart] = requests_of(model, text)
    aware = requests_of(model, text, query_aware=True)
    assert [request.example.id for request in aware] == [text.id, text.id]
    assert [request.example.questions for request in aware] == [(asked(0),), (asked(1),)]
    for number, request in enumerate(aware):
        ids = [*request.context_ids, *request.question_ids[0]]
        assert ids == [*apart.context_ids, *apart.question_ids[number]]  # the same prompt, cut elsewhere
        assert list(request.context_ids) == [*apart.context_ids, *model.encode(f"\nWhy {number}?")]
        assert list(request.question_ids[0]) == model.question_ids("", "Because")


def test_a_cut_leaves_the_question_inside_the_context(chat: Model) -> None:
    for truncation in ("middle", "head"):
        [request] = requests_of(chat, example("word " * 100), most=120, query_aware=True, truncation=truncation)
        assert read(chat, request).endswith("\nWhy 0? [end][assistant] Because")
        assert len(request.context_ids) + len(request.question_ids[0]) + 8 == 120


# Cuts


def test_the_middle_is_cut_from_context_ids_by_what_question_and_answer_need(chat: Model, caplog) -> None:
    context = "".join(chr(ord("a") + i % 26) for i in range(300))
    model = chat.templated("none")
    [request, whole] = requests_of(model, example(context), example("short"), most=100)
    room = 100 - len("\nWhy 0?\nBecause") - 8
    ids = [0, *model.encode(context)]
    assert list(request.context_ids) == ids[: (room + 1) // 2] + ids[-(room // 2) :]
    assert whole.cut_tokens == 0
    assert "contexts=2 cut=1 truncation=middle" in caplog.text


def test_the_end_of_a_document_is_replaced_by_its_own_mark(chat: Model) -> None:
    model = chat.templated("none")
    text, mark = "x" * 300, "... [cut]"
    [request] = requests_of(model, example(text, cut_mark=mark), most=100, truncation="head")
    room = 100 - len("\nWhy 0?\nBecause") - 8
    assert read(model, request) == "<|bos|>" + "x" * (room - 1 - len(mark)) + mark + "\nWhy 0?\nBecause"
    [fits] = requests_of(model, example("x" * 50, cut_mark=mark), most=100, truncation="head")
    [middle] = requests_of(model, example(text, cut_mark=mark), most=100)
    assert mark not in read(model, fits) + read(model, middle)


def test_what_workers_elsewhere_cut_is_said_once_per_task(chat: Model, monkeypatch, caplog, tmp_path) -> None:
    from sahub.compute.ray_workers import RayWorkers

    cell = compose_cell(["task=longbench/qasper", "search.max_new_tokens=8", "builder=quest"])
    cut_short = requests_of(chat, example("word " * 100), example("word"), most=100, max_new_tokens=8)
    caplog.clear()
    workers = RayWorkers(cell=cell, results=tmp_path)
    there = SimpleNamespace(remote=lambda cell, split: cut_short if split == "search" else cut_short[1:])  # the uncut
    workers.slots = [SimpleNamespace(handle=SimpleNamespace(requests=there))]  # type: ignore[list-item]
    monkeypatch.setattr("sahub.compute.ray_workers.ray.get", lambda found: found)
    for split in ("search", "search", "validate"):
        workers.requests(cell, split)
    [said] = caplog.messages
    assert said == (
        "task=longbench/qasper split=search contexts=2 cut=1 truncation=middle: with question and answer they were "
        f"longer than 100 tokens (median cut {cut_short[0].cut_tokens})"
    )


def test_zero_scrolls_marks_the_cut_as_its_rows_say(chat: Model, tmp_path) -> None:
    task = spec("zero_scrolls/qasper", path=str(fixture("zero_scrolls/qasper", tmp_path)))
    assert task.protocol == {"truncation": "head"}
    [request, *_] = requests_of(chat, *load(task), most=300, truncation="head")
    before, mark, after = read(chat, request).rpartition("... [cut]\n\nQuestion:\nWhat happened?")
    assert mark
    assert request.example.context.startswith(before.removeprefix("<|bos|>[user] "))
    assert after == " [end][assistant] Answer:"
    [aware, *_] = requests_of(chat, *load(task), most=300, truncation="head", query_aware=True)
    assert read(chat, aware) == read(chat, request)


# How answers end


def generated(model: Model, *, line_stop: int | None = None, most: int = 6, stack=None) -> list[int]:
    session, context = Session(model), tuple(model.context_ids("Some text to answer from, here."))
    ids = model.question_ids("\nWhy?", "Because")
    return session.generate(
        session.prefix(context, len(ids) + most), ids, Attention(stack=stack), max_new_tokens=most, line_stop=line_stop
    ).ids


@pytest.mark.parametrize("stack", [None, QUEST], ids=["dense", "quest"])
def test_every_stop_id_ends_an_answer_also_as_its_first_token(chat: Model, stack) -> None:
    free = generated(chat, stack=stack)
    later = next(i for i, one in enumerate(free) if one not in free[:i] and i) if len(set(free)) > 1 else 0
    for place in (0, later):
        stopping = replace(chat, stop_ids=frozenset({510, free[place], 511}))
        assert generated(stopping, stack=stack) == free[: place + 1]


def test_all_declared_stop_ids_count(make_model, tokenizer) -> None:
    model = make_model()
    model.generation_config.eos_token_id = [7, 9]
    assert wrap_model(model, tokenizer).stop_ids == {1, 7, 9}


def test_a_line_break_stops_but_never_first(chat: Model) -> None:
    free = generated(chat)
    stopped = generated(replace(chat, stop_ids=frozenset({500})), line_stop=free[0])
    assert stopped[0] != free[0]  # the best id but those that stop
    barred = generated(replace(chat, stop_ids=frozenset({free[0]})), line_stop=stopped[0])
    assert barred[0] not in (free[0], stopped[0])  # nor does any other stop id come first
    second = generated(chat, line_stop=510)
    assert second == free
    place = next((i for i, one in enumerate(free) if i and one not in free[:i]), None)
    assert place is not None
    assert generated(chat, line_stop=free[place]) == free[: place + 1]


def test_the_line_break_of_the_tokenizer_is_asked_for_and_in_the_journals_key(chat: Model) -> None:
    text, plan = example("Some text."), Plan(task="longbench/samsum")
    [plain] = requests_of(chat, text)
    [lines] = requests_of(chat, text, newline_stops=True)
    assert plain.line_stop is None
    assert lines.line_stop == chat.encode("\n")[-1]
    session = Session(chat, fingerprint={})
    keys = [_key(session, request, Attention(), plan) for request in (plain, lines)]
    assert keys[0] != keys[1]


def test_answers_that_end_differently_are_not_shared(chat: Model) -> None:
    free = generated(chat)
    chat.stop_ids = frozenset({500})
    [plain] = requests_of(chat, example("Some text to answer from, here."))
    session = Session(chat)
    outcomes = [
        evaluate(session, [replace(plain, line_stop=one)], [Attention()], Plan(task="longbench/samsum"))[0]
        for one in (None, free[0], None)
    ]
    texts = [outcome.answers[0].answer for outcome in outcomes]
    assert texts[0] == texts[2] != texts[1]


@pytest.mark.parametrize("stack", [None, QUEST], ids=["dense", "quest"])
def test_budgets_of_questions_do_not_leak(chat: Model, stack) -> None:
    chat.stop_ids = frozenset()
    budgets = (2, 5, 1, 7)
    one = example("Some text to answer from, here.", *(asked(i, most) for i, most in enumerate(budgets)))
    other = example("Another text to answer from.", asked(9, 3))
    for asked_for, expected in ((None, [2, 5, 1, 7, 3]), (4, [2, 4, 1, 4, 3])):
        requests = requests_of(chat, one, other, max_new_tokens=asked_for)
        plan = Plan(task="longbench/qasper", fidelity="generate", max_new_tokens=asked_for)
        [outcome] = evaluate(Session(chat), requests, [Attention(stack=stack)], plan)
        assert outcome.state == "complete", outcome.reason
        assert [answer.n_new for answer in outcome.answers] == expected


# Setups


@pytest.mark.parametrize(("dense_question", "sparse"), [(True, {"decode": 4}), (False, {"question": 1, "decode": 4})])
def test_setups_differ_in_who_reads_the_question(chat: Model, monkeypatch, dense_question, sparse) -> None:
    chat.stop_ids = frozenset()
    session, [request] = Session(chat), requests_of(chat, example("Some text to answer from, here."))
    calls: list[tuple[str, list[int]]] = []

    forward = Forward.__call__

    def noted(self, ids, phase, *, keep):
        calls.append((phase, list(ids)))
        return forward(self, ids, phase, keep=keep)

    monkeypatch.setattr(Forward, "__call__", noted)
    attention = Attention(stack=QUEST, dense_question=dense_question)
    run = session.generate(
        session.prefix(request.context_ids, 40), list(request.question_ids[0]), attention, max_new_tokens=5
    )
    assert calls == [("question", list(request.question_ids[0])), *(("decode", [one]) for one in run.ids[:-1])]
    assert {phase for _, phase in run.hook.tallies} == set(sparse)
    assert Counter(phase for phase, _ in calls if phase in sparse) == sparse


# What is drawn


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60), st.integers(0, 3))
def test_every_beginning_has_its_share_of_every_group(groups: list[str], seed: int) -> None:
    some = [example(f"{number}") for number in range(len(groups))]
    by_id = {one.id: group for one, group in zip(some, groups, strict=True)}
    drawn = shuffled(some, seed=seed, limit=None, group=lambda one: by_id[one.id])
    assert sorted(one.id for one in drawn) == sorted(by_id)
    assert drawn == shuffled(some[::-1], seed=seed, limit=None, group=lambda one: by_id[one.id])
    for most in range(1, len(some) + 1):
        beginning = shuffled(some, seed=seed, limit=most, group=lambda one: by_id[one.id])
        assert beginning == drawn[:most]
        held = Counter(by_id[one.id] for one in beginning)
        for group, count in Counter(groups).items():
            assert abs(held[group] - count * most / len(groups)) < 2


def test_without_groups_the_order_is_the_seeds() -> None:
    some = [example(f"{number}") for number in range(40)]
    orders = {seed: shuffled(some, seed=seed, limit=None) for seed in (0, 1)}
    assert orders[0] != orders[1] != some


def test_benchmarks_that_group_by_length_are_drawn_from_every_group(tmp_path) -> None:
    lengths = [100] * 24 + [5000] * 12 + [9000] * 12
    rows = [
        prompt(context, "qasper", answers=["x"], length=length)
        for context, length in zip(contexts(24), lengths, strict=True)
    ]
    write(tmp_path / "qasper_e" / "test.jsonl", rows)
    task = spec("longbench_e/qasper", path=str(tmp_path))
    drawn = [one.questions[0].metadata["length"] for one in load(task)]
    of_all = Counter(drawn)
    assert len(of_all) == 3
    assert all(abs(count - of_all[length] / 3) < 1 for length, count in Counter(drawn[: len(drawn) // 3]).items())


def test_longbench_v2_is_drawn_by_difficulty_and_length(tmp_path) -> None:
    kinds = [("easy", "short"), ("easy", "long"), ("hard", "short"), ("hard", "long")]
    rows = [
        prompt(filler(number), "0shot", answer="C", difficulty=kinds[number % 4][0], length=kinds[number % 4][1])
        for number in range(120)
    ]
    write(tmp_path / "0shot" / "test.jsonl", rows)
    drawn = [one.questions[0].metadata for one in load(spec("longbench_v2/0shot", path=str(tmp_path)))]
    assert len(Counter((one["difficulty"], one["length"]) for one in drawn[:6])) == 4


def test_one_search_for_tasks_that_are_asked_differently() -> None:
    everything = ["search.scope=global"]
    keys = {search_key(compose_cell([f"task=longbench/{one}", *everything])) for one in ("trec", "samsum", "qasper")}
    assert len(keys) == 1
    typed = compose_cell(["task=longbench/trec", "protocol.template=auto", *everything])
    assert search_key(typed) not in keys
