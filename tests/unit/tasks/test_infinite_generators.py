"""InfiniteBench's generated tasks: fitted to a length, answers worked out again from the text alone, sweeps even."""

import ast
import json
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sahub.data.examples import Example, Question, TaskSpec, split_of
from sahub.errors import ConfigError, DataError
from sahub.tasks.infinite_bench.generate import SUBSETS, load
from sahub.tasks.infinite_bench.generate_prompt import swept

BUDGETS = {
    "passkey": 6, "number_string": 12, "kv_retrieval": 50, "math_find": 3, "math_calc": 30000, "code_run": 5,
}  # fmt: skip
SIGNS = re.compile(r"\w+|[^\w\s]|\n")
RETRIEVAL = ("passkey", "number_string", "kv_retrieval")


@cache
def packaged():
    """The tokenizer of the packaged model."""
    from sahub.training.tokenizer import build

    return build()


@cache
def tiny():
    """A tokenizer of 400 entries that merges letters, spaces and digits as it finds them in a few lines."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=sorted(alphabet), show_progress=False)
    lines = ["the road was long and the rain fell, then it was quiet", "return func_12(x) + 34", "12, 345, 6789"]
    tokenizer.train_from_iterator(lines * 20, trainer)
    return tokenizer


COUNTERS: dict[str, Callable[[str], int]] = {
    "packaged": lambda text: len(packaged().encode(text).ids),
    "tiny": lambda text: len(tiny().encode(text).ids),
    "signs": lambda text: len(SIGNS.findall(text)),
}


def spec(subset: str, **options) -> TaskSpec:
    return TaskSpec(
        benchmark="infinite_bench",
        subset=subset,
        metric=subset,
        max_new_tokens=BUDGETS.get(subset, 1),
        options=options,
    )


def draw(
    subset: str,
    length: int = 1200,
    *,
    limit: int | None = 6,
    split: str = "validate",
    seed: int = 0,
    count: Callable[[str], int] = COUNTERS["signs"],
    **options,
) -> list[Example]:
    return load(spec(subset, **options), split=split, limit=limit, length=length, count_tokens=count, seed=seed)


def used(example: Example, count: Callable[[str], int]) -> int:
    """Tokens of prompt and answer, context and question tokenised apart or together."""
    [question] = example.questions
    tail = f"{question.text}\n{question.answer_prefix}"
    prompt = max(count(example.context) + count(tail), count(example.context + tail))
    return prompt + question.max_new_tokens


@pytest.mark.parametrize(("length", "draws"), [(4096, 20), (32768, 2)])
@pytest.mark.parametrize("counter", ["packaged", "tiny"])
@pytest.mark.parametrize("subset", sorted(SUBSETS))
def test_prompts_fill_their_length_to_3_percent_and_never_exceed_it(
    subset: str, counter: str, length: int, draws: int
) -> None:
    count = COUNTERS[counter]
    fills = [used(example, count) / length for example in draw(subset, length, limit=draws, count=count)]
    assert len(fills) == draws
    assert max(fills) <= 1
    assert sum(fill >= 0.97 for fill in fills) >= 0.95 * draws


@pytest.mark.parametrize("subset", sorted(SUBSETS))
@settings(max_examples=15, deadline=None)
@given(length=st.integers(1, 700), seed=st.integers(0, 9), counter=st.sampled_from(sorted(COUNTERS)))
def test_any_length_is_kept_or_refused(subset: str, length: int, seed: int, counter: str) -> None:
    with suppress(DataError):
        [example] = draw(subset, length, limit=1, seed=seed, count=COUNTERS[counter])
        assert used(example, COUNTERS[counter]) <= length


@pytest.mark.parametrize("counter", sorted(COUNTERS))
@pytest.mark.parametrize("subset", sorted(SUBSETS))
def test_a_thousand_tokens_hold_every_task(subset: str, counter: str) -> None:
    [example] = draw(subset, 1000, limit=1, count=COUNTERS[counter])
    assert 700 < used(example, COUNTERS[counter]) <= 1000


@pytest.mark.parametrize("subset", sorted(SUBSETS))
def test_a_length_that_holds_nothing_ends_at_once(subset: str) -> None:
    with pytest.raises(DataError, match=r"20 tokens cannot hold the instruction, .*answer; raise max_context_length"):
        draw(subset, 20)
    with pytest.raises(DataError, match="tokens cannot hold"):
        draw(subset, 4096, count=lambda text: 5000)


@pytest.mark.parametrize("subset", sorted(SUBSETS))
def test_seeds_repeat_and_differ_and_splits_share_nothing(subset: str) -> None:
    examples = draw(subset)
    assert examples == draw(subset)
    assert draw(subset, limit=4) == examples[:4]
    other, search = draw(subset, seed=1), draw(subset, split="search")
    assert len({example.id for example in [*examples, *other, *search]}) == 18
    assert {split_of(example.context) for example in search} == {"search"}
    assert {split_of(example.context) for example in examples} == {"validate"}


@pytest.mark.parametrize("subset", RETRIEVAL)
def test_the_answer_stands_in_the_context_but_not_in_the_question(subset: str) -> None:
    for example in draw(subset):
        [question] = example.questions
        [gold] = question.references
        assert gold in example.context
        assert gold not in question.text + question.answer_prefix


@pytest.mark.parametrize(("subset", "name"), [("passkey", "pass key"), ("number_string", "sequence of digits")])
def test_one_line_states_the_key_twice(subset: str, name: str) -> None:
    for example in draw(subset, limit=20):
        [question] = example.questions
        [first, second] = re.findall(r"\d+", example.context)
        assert (first,) == (second,) == question.references
        assert f"\nThe {name} is {first}. Remember it. {first} is the {name}." in example.context
        assert name in question.text


def halved(key: str) -> set[str]:
    """Every text of five digits that this one can have grown out of, by taking back five repetitions."""
    found = {key}
    for _ in range(5):
        found = {text[:i] + text[i + 1 :] for text in found for i in range(1, len(text)) if text[i] == text[i - 1]}
    return found


def test_keys_have_their_digits() -> None:
    keys = [example.questions[0].references[0] for example in draw("passkey", 300, limit=80)]
    assert all(re.fullmatch(r"\d{5}", key) for key in keys)
    assert min(Counter("".join(keys)).values()) > 15  # uniform: 40 of each digit on average
    assert any(key.startswith("0") for key in keys)
    doubled = [example.questions[0].references[0] for example in draw("number_string", 300, limit=80)]
    assert all(re.fullmatch(r"\d{10}", key) and halved(key) for key in doubled)
    assert not halved("0123456789")


@pytest.mark.parametrize("subset", ["passkey", "number_string"])
def test_the_key_is_swept_through_all_depths(subset: str) -> None:
    depths = []
    for example in draw(subset, 2000, limit=59, split="search"):
        lines = example.context.split("\n")[1:]
        [at] = [i for i, line in enumerate(lines) if "Remember it." in line]
        depths.append(at / (len(lines) - 1))
    assert (min(depths), max(depths)) == (0.0, 1.0)
    assert sorted(depths) == pytest.approx([i / 58 for i in range(59)], abs=0.03)
    early = [0.0, *sorted(depths[:8]), 1.0]
    assert max(after - before for before, after in pairwise(early)) < 0.3  # few examples lie at all depths too


def pairs_of(example: Example) -> dict[str, str]:
    found: dict[str, str] = json.loads(example.context.split("\n", maxsplit=1)[1])
    return found


def test_the_value_of_a_key_is_asked_for_at_even_positions() -> None:
    shares = []
    for example in draw("kv_retrieval", 3000, limit=500, count=lambda text: text.count('"') * 10 + 10):
        [question] = example.questions
        pairs = pairs_of(example)
        [key] = re.findall(r'"([^"]+)"', question.text)
        assert (pairs[key],) == question.references
        assert len(set(pairs.values())) == len(pairs) > 60
        form = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
        assert all(re.fullmatch(form, text) for pair in pairs.items() for text in pair)
        shares.append(list(pairs).index(key) / len(pairs))
    assert sorted(shares) == pytest.approx([i / 500 for i in range(500)], abs=0.02)


def order_statistic(numbers: list[int], name: str) -> str:
    """What a person would answer, slowly."""
    if name == "median":
        for _ in range(len(numbers) // 2 - 1):
            numbers = sorted(numbers)[1:-1]
        low, high = sorted(numbers)
        return str((low + high) / 2)
    rank, _, end = name.rpartition(" ")
    for _ in range(["", "second", "third"].index(rank)):
        gone = max(numbers) if end == "largest" else min(numbers)
        numbers = [number for number in numbers if number != gone]
    return str(max(numbers) if end == "largest" else min(numbers))


def test_order_statistics_are_those_of_the_list() -> None:
    asked, ends = Counter(), set()
    for example in draw("math_find", 600, limit=140):
        [question] = example.questions
        numbers = ast.literal_eval(example.context.split("\n", maxsplit=1)[1])
        assert all(isinstance(number, int) and 0 <= number <= 99 for number in numbers)
        assert len(numbers) % 2 == 0
        name = re.fullmatch(r"\nWhat is the ([\w ]+) number of the list above\?( Equal .*)?", question.text).group(1)
        assert question.references == (order_statistic(numbers, name),)
        assert question.answer_prefix == f"The {name} number is:"
        asked[name] += 1
        ends.add((name, int(float(question.references[0]))))
    assert set(asked.values()) == {20}
    assert len(asked) == 7
    assert {number for name, number in ends if name == "largest"} <= set(range(70, 100))
    assert len({number for name, number in ends if name == "largest"}) > 8
    assert len({number for name, number in ends if name == "smallest"}) > 6


def test_a_median_lies_below_or_above_the_middle() -> None:
    found = [e.questions[0] for e in draw("math_find", 3000, limit=140)]
    medians = [float(question.references[0]) for question in found if "median" in question.text]
    assert len(medians) == 20
    assert min(medians) < 48 < 51 < max(medians)


def test_values_are_those_after_each_operation_without_the_first_operand() -> None:
    signs, operands = Counter(), []
    for example in draw("math_calc", 1500, limit=10):
        [question] = example.questions
        terms = example.context.split("\n")[1].split(" ")
        value, gold = int(terms[0]), []
        for sign, operand in zip(terms[1::2], terms[2::2], strict=True):
            assert 0 <= int(operand) <= 99
            value += {"+": 1, "-": -1}[sign] * int(operand)
            gold.append(str(value))
            signs[sign] += 1
            operands.append(int(operand))
        assert question.references == tuple(gold)
        assert len(gold) > 100
        assert all(0 <= int(one) <= 99 for one in gold)
        answer = f" {', '.join(gold)}"
        assert COUNTERS["signs"](answer) < question.max_new_tokens <= COUNTERS["signs"](answer) + 1
    assert signs["+"] / signs.total() == pytest.approx(0.5, abs=0.05)
    assert max(operands) > 90


def test_the_worked_values_of_the_instruction_leave_the_first_operand_out() -> None:
    [example] = draw("math_calc", limit=1)
    expression, values = re.search(r"Of ([\d +-]+) these values are ([\d, ]+):", example.context).groups()
    terms = expression.split(" ")
    running = [int(terms[0])]
    for sign, operand in zip(terms[1::2], terms[2::2], strict=True):
        running.append(running[-1] + int(sign + operand))
    assert values.split(", ") == [str(value) for value in running[1:]]


def called(context: str, name: str, x: int) -> tuple[int, int]:
    """The result of a call and how many functions it took, by following the text."""
    functions = dict(re.findall(r"^def (func_\d+)\(x\):\n    return (.+)$", context, re.MULTILINE))
    first, sign, constant = functions[name].split(" ")
    inner = re.fullmatch(r"(func_\d+)\(x\)", first)
    value, calls = called(context, inner.group(1), x) if inner else (x, 0)
    assert inner or first == "x"
    added = int(sign + constant)
    assert -12 <= added <= 17
    return value + added, calls + 1


def test_results_are_those_of_the_functions() -> None:
    depths, arguments, results = Counter(), set(), []
    for example in draw("code_run", 3000, limit=50):
        [question] = example.questions
        name, x = re.fullmatch(r"\nWhat is the result of (func_\d+)\((-?\d+)\)\?", question.text).groups()
        result, depth = called(example.context, name, int(x))
        assert question.references == (str(result),)
        depths[depth] += 1
        arguments.add(int(x))
        results.append(result)
        indices = [int(index) for index in re.findall(r"^def func_(\d+)", example.context, re.MULTILINE)]
        assert indices == sorted(set(indices))
        assert 1 <= indices[0] <= indices[-1] <= 2 * len(indices)
        leaves = example.context.count("return x")
        assert leaves in {len(indices) // depth, len(indices) // depth + 1}
        compile(example.context.split("\n", maxsplit=1)[1], "context", "exec")
    assert depths == dict.fromkeys((2, 4, 6, 8, 10), 10)
    assert min(arguments) < 0 < max(arguments)
    assert min(results) < 0
    assert arguments <= set(range(-10, 11))


@given(steps=st.integers(2, 700))
def test_a_sweep_takes_every_step_once_a_round(steps: int) -> None:
    assert sorted(swept(place, steps) for place in range(steps)) == list(range(steps))
    assert swept(steps + 1, steps) == swept(1, steps)


def test_without_a_limit_there_are_as_many_as_the_task_says() -> None:
    assert len(draw("kv_retrieval", 600, limit=None, num_examples=3)) == 3
    assert {subset: number for subset, (number, _) in SUBSETS.items()} == {
        "passkey": 590, "number_string": 590, "kv_retrieval": 500, "math_find": 350, "math_calc": 50, "code_run": 400,
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"task\.options\.num_examples=0: must be a whole number from 1"):
        draw("passkey", num_examples=0)
    with pytest.raises(ConfigError, match=r"task\.options\.depth: passkey has no such option; it has num_examples"):
        draw("passkey", depth=3)
    with pytest.raises(ConfigError, match=r"task\.subset=code_debug: is not generated, so task\.path or task\.dataset"):
        draw("code_debug")


def test_a_question_is_about_a_context_and_ends_where_the_answer_begins() -> None:
    for subset in SUBSETS:
        [example] = draw(subset, limit=1)
        [question] = example.questions
        assert isinstance(question, Question)
        assert question.text.startswith("\n")
        assert question.answer_prefix.endswith(":")
        assert not re.search(r"\d", question.answer_prefix)  # the first number of an answer is what is scored
