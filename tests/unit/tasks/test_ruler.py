"""Generated tasks: fitted to a length, answerable in one way, repeatable, in the layouts of the wording."""

import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import yaml

from sahub.data import vocabulary
from sahub.data.examples import Example, Question, TaskSpec, split_of
from sahub.data.loading import load_examples, missing
from sahub.errors import ConfigError, DataError, MissingFiles
from sahub.scores import score
from sahub.tasks.ruler import load

FOLDER = Path(__file__).parents[3] / "conf" / "task" / "ruler"
SUBSETS = sorted(file.stem for file in FOLDER.glob("*.yaml") if not file.stem.startswith("qa"))
NEEDLES = [subset for subset in SUBSETS if subset.startswith("niah")]
ESSAYS = [
    subset for subset in NEEDLES if subset not in {"niah_single_1", "niah_multikey_2", "niah_multikey_3"}
]  # haystacks of prose
NEEDLE = re.compile(r"The secret (number|code) for ([\w-]+) is: ([\w-]+)\.")
SIGNS = re.compile(r"\w+|[^\w\s]|\n")
MERGING = re.compile(r" ?[A-Za-z]+|\d| ?[^\w\s]+\n*|\s+")  # a full stop and its line end are one token


def count_signs(text: str) -> int:
    """Words, signs and line ends."""
    return len(SIGNS.findall(text))


@cache
def packaged():
    """The tokenizer of the packaged model."""
    from sahub.training.tokenizer import build

    return build()


COUNTERS: dict[str, Callable[[str], int]] = {
    "packaged": lambda text: len(packaged().encode(text).ids),
    "bytes": lambda text: len(text.encode()),
    "words": lambda text: len(text.split()),
    "merging": lambda text: len(MERGING.findall(text)),
}


def spec(subset: str, **options) -> TaskSpec:
    values = yaml.safe_load((FOLDER / f"{subset}.yaml").read_text(encoding="utf-8"))
    return TaskSpec(**{**values, "options": {**values["options"], "num_examples": 3, **options}})


def draw(
    subset: str,
    length: int,
    *,
    split: str = "validate",
    limit: int | None = 3,
    seed: int = 0,
    count: Callable[[str], int] = count_signs,
    **options,
) -> list[Example]:
    return load_examples(
        spec(subset, **options), split=split, limit=limit, length=length, count_tokens=count, seed=seed
    )


def tail(question: Question) -> str:
    return f"{question.text}\n{question.answer_prefix}"


def used(example: Example, count: Callable[[str], int]) -> int:
    """Tokens of the longest prompt and its answer, context and question tokenised apart or together."""
    apart = max(count(example.context) + count(tail(q)) + q.max_new_tokens for q in example.questions)
    together = max(count(example.context + tail(q)) + q.max_new_tokens for q in example.questions)
    return max(apart, together)


def test_every_synthetic_task_has_a_file() -> None:
    singles = {f"niah_single_{i}" for i in (1, 2, 3)} | {f"niah_multikey_{i}" for i in (1, 2, 3)}
    assert set(SUBSETS) == singles | {"niah_multivalue", "niah_multiquery", "vt", "cwe", "fwe"}
    budgets = {"vt": 30, "cwe": 120, "fwe": 50}
    assert {subset: spec(subset).max_new_tokens for subset in SUBSETS} == dict.fromkeys(NEEDLES, 128) | budgets


@pytest.mark.parametrize(("length", "draws"), [(1024, 20), (4096, 8), (32768, 2)])
@pytest.mark.parametrize("counter", sorted(COUNTERS))
@pytest.mark.parametrize("subset", SUBSETS)
def test_prompts_fill_their_length_to_3_percent_and_never_exceed_it(
    subset: str, counter: str, length: int, draws: int
) -> None:
    count = COUNTERS[counter]
    examples = load(spec(subset), split="validate", limit=draws, length=length, count_tokens=count, seed=0)
    fills = [used(example, count) / length for example in examples]
    assert len(fills) == draws
    assert max(fills) <= 1
    assert sum(fill >= 0.97 for fill in fills) >= 0.95 * draws


@pytest.mark.parametrize("subset", SUBSETS)
def test_every_gold_answer_stands_in_the_context_and_scores(subset: str) -> None:
    for example in draw(subset, 1500):
        for question in example.questions:
            assert all(gold in example.context for gold in question.references)
            assert len(set(question.references)) == len(question.references)
            assert score(f"ruler/{subset}", " ".join(question.references), question.references) == 1.0


@pytest.mark.parametrize("subset", SUBSETS)
def test_seeds_repeat_and_differ(subset: str) -> None:
    examples = draw(subset, 1024)
    assert examples == draw(subset, 1024)
    assert {e.id for e in examples}.isdisjoint(e.id for e in draw(subset, 1024, seed=1))
    assert draw(subset, 1024, limit=5)[:3] == examples


@pytest.mark.parametrize("subset", SUBSETS)
def test_splits_share_no_context(subset: str) -> None:
    search, validate = (draw(subset, 1024, split=split, limit=4) for split in ("search", "validate"))
    assert {split_of(example.context) for example in search} == {"search"}
    assert {split_of(example.context) for example in validate} == {"validate"}


@pytest.mark.parametrize("subset", NEEDLES)
def test_asked_keys_stand_with_exactly_their_values(subset: str) -> None:
    keys, values = {"niah_multivalue": (1, 4), "niah_multiquery": (4, 1)}.get(subset, (1, 1))
    for example in draw(subset, 2048):
        [question] = example.questions
        kind, names = re.fullmatch(
            r"\nWhat (?:is the|are all the) secret (number|code)s? for ([\w, -]+) in the text above\?", question.text
        ).groups()
        asked = re.split(r", and |, | and ", names)
        assert len(asked) == keys
        assert len(question.references) == keys * values
        held = {name: [v for _, key, v in NEEDLE.findall(example.context) if key == name] for name in asked}
        assert {name: len(found) for name, found in held.items()} == dict.fromkeys(asked, values)
        assert sorted(v for found in held.values() for v in found) == sorted(question.references)
        assert {found[0] for found in NEEDLE.findall(example.context)} == {kind}
        several = keys * values > 1
        assert question.text == vocabulary.question(*asked, kind=kind, several=several)
        assert question.answer_prefix == vocabulary.answer_prefix(*asked, kind=kind, several=several)
        form = r"\d{7}" if kind == "number" else r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
        assert all(re.fullmatch(form, value) for value in question.references)
        opening, haystack = example.context.split("\n", maxsplit=1)
        assert opening == vocabulary.instruction(kind)
        assert haystack


def test_haystacks_are_lines_of_noise_prose_or_other_needles() -> None:
    single = {line for line in vocabulary.sentences(vocabulary.NOISE)}
    for example in draw("niah_single_1", 2048):
        lines = [line for line in example.context.splitlines()[1:] if not NEEDLE.fullmatch(line)]
        assert set(lines) <= {vocabulary.NOISE, *single}
        assert lines.count(vocabulary.NOISE) > 0.9 * len(lines) - 4
    for subset in ("niah_multikey_2", "niah_multikey_3"):
        for example in draw(subset, 2048):
            lines = example.context.splitlines()[1:]
            pairs = [NEEDLE.fullmatch(line) for line in lines if line not in single]
            assert all(pairs)
            assert len({pair.group(3) for pair in pairs if pair}) == len(pairs)
    prose = set(vocabulary.sentences(vocabulary.essay()))
    for subset in ESSAYS:
        for example in draw(subset, 2048):
            found = vocabulary.sentences(example.context.split("\n", maxsplit=1)[1])
            needles = [i for i, sentence in enumerate(found) if NEEDLE.fullmatch(sentence)]
            assert len(needles) == {"niah_single_2": 1, "niah_single_3": 1}.get(subset, 4)
            assert set(found) - {found[i] for i in needles} <= prose | single


@pytest.mark.parametrize("subset", ["niah_single_1", "niah_single_2", "niah_multikey_2", "niah_multivalue"])
def test_needles_lie_at_all_depths(subset: str) -> None:
    places = []
    for example in draw(subset, 1024, limit=24):
        found = [example.context.index(f"is: {gold}.") for gold in example.questions[0].references]
        assert len(set(found)) == len(found)
        places += [place / len(example.context) for place in found]
    assert min(places) < 0.2
    assert max(places) > 0.8


def test_several_questions_about_one_context() -> None:
    for subset in ("niah_multikey_1", "niah_multikey_2", "niah_multikey_3"):
        [example, *_] = draw(subset, 1500, questions=4)
        assert len({question.text for question in example.questions}) == 4
        assert all(f"{q.answer_prefix[4:]} {q.references[0]}." in example.context for q in example.questions)
    for subset, why in {
        "niah_single_1": "niah_single_1 hides one needle, so it has one question",
        "niah_single_3": "niah_single_3 hides one needle, so it has one question",
        "niah_multikey_1": "niah_multikey_1 hides four keys, so it has at most four questions",
        "niah_multivalue": "niah_multivalue hides the values of one key, so it has one question",
        "niah_multiquery": "niah_multiquery asks for all its keys in one question",
    }.items():
        with pytest.raises(ConfigError, match=rf"task\.options\.questions=5: {why}"):
            draw(subset, 1024, questions=5)
    for wrong in (0, 1001, "many", True):
        with pytest.raises(ConfigError, match=rf"task\.options\.questions={wrong}: must be a whole number from 1 to"):
            draw("niah_multikey_2", 1024, questions=wrong)


def holders(text: str, letters: int) -> dict[str, list[str]]:
    """What value ends in which variables, by running the statements; all their names have so many letters."""
    values: dict[str, str] = {}
    for verb, source, name in re.findall(r"^(Write|Copy) (\w+) to (\w+)\.$", text, re.MULTILINE):
        assert re.fullmatch(f"[A-Z]{{{letters}}}", name)
        assert name not in values
        values[name] = source if verb == "Write" else values[source]
    return {value: [name for name in values if values[name] == value] for value in values.values()}


@pytest.mark.parametrize(("chains", "hops"), [(1, 4), (3, 4), (1, 2)])
def test_the_statements_give_the_value_to_exactly_the_gold_variables(chains: int, hops: int) -> None:
    noise = {vocabulary.NOISE, *vocabulary.sentences(vocabulary.NOISE)}
    for example in draw("vt", 2048, num_chains=chains, num_hops=hops):
        [question] = example.questions
        opening, worked, text = re.fullmatch(r"([^\n]+)\n(.*?)\n\n(.*)", example.context, re.DOTALL).groups()
        assert opening == vocabulary.VARIABLES
        held = holders(text, letters=5)
        assert [len(names) for names in held.values()] == [hops + 1] * chains
        [asked] = [value for value, names in held.items() if tuple(names) == question.references]
        assert question.text == vocabulary.variables_question(asked, hops + 1)
        assert question.answer_prefix == vocabulary.variables_prefix(asked, hops + 1)
        assert all(line in noise or line.startswith(("Write ", "Copy ")) for line in text.split("\n"))
        *lines, shown_question, shown_answer = worked.split("\n")
        [(value, names)] = holders("\n".join(lines), letters=3).items()
        assert value not in held
        assert len(names) == hops + 1
        assert f"\n{shown_question}" == vocabulary.variables_question(value, hops + 1)
        assert shown_answer == f"{vocabulary.variables_prefix(value, hops + 1)} {' '.join(names)}"


def counts_of(numbered: str) -> Counter[str]:
    entries = re.findall(r"(\d+)\. (\S+)", numbered)
    assert [int(number) for number, _ in entries] == list(range(1, len(entries) + 1))
    assert numbered == vocabulary.numbered([word for _, word in entries])
    return Counter(word for _, word in entries)


@pytest.mark.parametrize(
    ("length", "often", "rarely", "shown"),
    [(1100, 6, 1, (3, 1, 20)), (4095, 30, 3, (10, 3, 40)), (20000, 30, 3, (10, 3, 40))],
)
def test_common_words_stand_as_often_as_they_claim(
    length: int, often: int, rarely: int, shown: tuple[int, int, int]
) -> None:
    for example in draw("cwe", length, count=COUNTERS["packaged"]):
        [question] = example.questions
        opening, worked, asked, answer, empty, text = example.context.split("\n")
        assert (opening, empty, f"\n{asked}") == (vocabulary.WORDS, "", vocabulary.words_question(10))
        assert question.text == vocabulary.words_question(10)
        assert question.answer_prefix == vocabulary.words_prefix(10)
        counts = counts_of(text)
        gold = set(question.references)
        assert len(gold) == 10
        assert {word: count for word, count in counts.items() if count == often} == dict.fromkeys(gold, often)
        assert {count for word, count in counts.items() if word not in gold} == {rarely}
        assert not [word for word in counts for one in gold if one in word and one != word]
        seen = counts_of(worked)
        assert Counter(seen.values()) == {shown[0]: 10, shown[1]: shown[2] - 10}
        assert gold.isdisjoint(seen)
        listed = counts_of(answer.removeprefix(f"{vocabulary.words_prefix(10)} "))
        assert set(listed) == {word for word, count in seen.items() if count == shown[0]}
        compound = {"-" in word for word in [*counts, *seen]}
        assert compound == {length > 16000}


def test_a_list_without_room_for_a_worked_example_has_none() -> None:
    [example] = draw("cwe", 450, count=COUNTERS["packaged"], limit=1)
    assert example.context.count("\n") == 1
    with pytest.raises(DataError, match="400000 tokens need more than the 16124 distinct words"):
        draw("cwe", 400_000, count=lambda text: len(text.split()), limit=1)


@pytest.mark.parametrize("length", [600, 4096])
def test_frequent_words_are_the_three_most_frequent_but_dots(length: int) -> None:
    for example in draw("fwe", length):
        [question] = example.questions
        opening, text = example.context.split("\n")
        assert opening == vocabulary.MADE_UP
        assert (question.text, question.answer_prefix) == (vocabulary.made_up_question(3), vocabulary.made_up_prefix(3))
        (dots, most), *ranked = Counter(text.split(" ")).most_common()
        assert dots == vocabulary.DOTS
        assert tuple(word for word, _ in ranked[:3]) == question.references
        counts = [most, *(count for _, count in ranked[:4])]
        assert counts == sorted(set(counts), reverse=True)
        assert all(re.fullmatch("[a-z]{6}", word) for word, _ in ranked)
        assert counts == pytest.approx([most / rank**2 for rank in range(1, 6)], abs=1)


def test_made_up_words_without_one_answer_are_an_error() -> None:
    with pytest.raises(
        DataError, match=r"task=ruler/fwe: in 130 tokens the most frequent words stand \d+, .* one answer"
    ):
        draw("fwe", 130)


@pytest.mark.parametrize("subset", SUBSETS)
def test_a_length_that_cannot_be_met_is_an_error(subset: str) -> None:
    for length in (1, 90):
        with pytest.raises(DataError, match=rf"{length} tokens cannot hold the instruction"):
            draw(subset, length)


def test_without_a_limit_the_task_says_how_many() -> None:
    assert len(draw("niah_single_1", 400, limit=None)) == 3
    with pytest.raises(ConfigError, match=r"task\.options\.num_examples=0: must be a whole number"):
        draw("niah_single_1", 400, limit=None, num_examples=0)


def test_an_option_that_a_task_does_not_read_is_an_error() -> None:
    with pytest.raises(
        ConfigError, match=r"task\.options\.essay: niah_single_1 has no such option; it has num_examples"
    ):
        missing(spec("niah_single_1", essay="novel.txt"))
    with pytest.raises(ConfigError, match=r"task\.options\.num_hops=0: must be a whole number from 1"):
        missing(spec("vt", num_hops=0))
    with pytest.raises(ConfigError, match="niah_single_4: not a generated RULER task; choices: niah_single_1"):
        missing(TaskSpec(benchmark="ruler", subset="niah_single_4", metric="string_match_all", max_new_tokens=1))


@pytest.mark.parametrize("subset", ESSAYS)
def test_the_essay_may_be_a_file_of_the_user(subset: str, tmp_path: Path) -> None:
    file = tmp_path / "story.txt"
    file.write_text("\ufeffThe whale  sang\nall night. Nobody heard it!\n\nWas it\tthere?", encoding="utf-8")
    for example in draw(subset, 1024, essay=str(file)):
        found = vocabulary.sentences(example.context.split("\n", maxsplit=1)[1])
        prose = [sentence for sentence in found if not NEEDLE.fullmatch(sentence)]
        assert {"The whale sang all night.", "Nobody heard it!", "Was it there?"} <= set(prose)
        assert 0.97 * 1024 <= used(example, count_signs) <= 1024


def test_text_without_full_stops_or_spaces_is_an_essay_too(tmp_path: Path) -> None:
    file = tmp_path / "story.txt"
    for text in ("word " * 5000, "\u96e8" * 20000):
        file.write_text(text, encoding="utf-8")
        for counter in ("bytes", "packaged"):
            [example] = draw("niah_single_2", 4096, essay=str(file), limit=1, count=COUNTERS[counter])
            assert 0.97 * 4096 <= used(example, COUNTERS[counter]) <= 4096
            assert example.context.count(text.strip()[:100]) > 1


def test_an_essay_that_cannot_be_read_is_named_before_anything_is_loaded(tmp_path: Path) -> None:
    absent = spec("niah_multiquery", essay=str(tmp_path / "absent.txt"))
    advice = "give the path of a text in UTF-8, or null for the built-in one"
    assert missing(absent) == f"task.options.essay={tmp_path / 'absent.txt'}: no such file; {advice}"
    with pytest.raises(MissingFiles, match="no such file; give the path"):
        load_examples(absent, split="search", limit=1, length=1024, count_tokens=count_signs)
    for name, content, why in (("empty", b" \n", "an empty file"), ("latin", b"caf\xe9 noir", r"not UTF-8 \(byte 3\)")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"^task\.options\.essay=\S+{name}: {why}; give the path of a text.*one$"):
            missing(spec("niah_single_2", essay=str(tmp_path / name)))
    with pytest.raises(DataError, match="cannot be read"):
        missing(spec("niah_single_2", essay=str(tmp_path)))
    with pytest.raises(ConfigError, match=r"task\.options\.essay=3: must be the path of a text"):
        missing(spec("niah_single_2", essay=3))
