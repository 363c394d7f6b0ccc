"""Aggregation and execution: an order statistic of a list, the values of a running sum, the result of nested calls."""

from collections.abc import Callable
from itertools import pairwise
from random import Random
from statistics import median

from sahub.data.examples import TaskSpec
from sahub.data.fitting import Budget, Draft
from sahub.tasks.infinite_bench.generate_prompt import Prompt, fitted, question, swept

# What is asked of a list: its name, whether it is at the lower end, and its place among the distinct numbers there.
ORDERS = (
    ("largest", False, 1),
    ("second largest", False, 2),
    ("third largest", False, 3),
    ("smallest", True, 1),
    ("second smallest", True, 2),
    ("third smallest", True, 3),
    ("median", None, 0),
)
LARGEST = 99  # of the numbers of a list and of the values of a sum
CALLS = (2, 4, 6, 8, 10)

LIST = "Remember the numbers of the following list. Their order from small to large will be asked for."
SUM = (
    "Work out the following expression from left to right and remember the value after each operation. "
    "Of 7 + 5 - 4 + 1 these values are 12, 8, 9: as many as there are operations."
)
CODE = "The following Python functions call each other. The result of a call will be asked for."


def math_find(spec: TaskSpec, budget: Budget, place: int) -> Callable[[Random], Draft]:
    """Whole numbers from 0 to 99 as a Python list, cut at the end that is asked for; the seven questions in turn.

    There is an even number of them, so that the median is a decimal number, as in the released data.
    """
    name, low, rank = ORDERS[swept(place, len(ORDERS))]

    def draw(rng: Random) -> Draft:
        at_low_end = rng.random() < 0.5 if low is None else low
        first, last = (rng.randint(0, 19), LARGEST) if at_low_end else (0, rng.randint(79, LARGEST))
        numbers = rng.sample(range(first, last + 1), 4)  # so that there are three distinct ones

        def build(more: int) -> Prompt:
            while len(numbers) < 4 + 2 * more:
                numbers.append(rng.randint(first, last))
            held = numbers[: 4 + 2 * more]
            gold = median(held) if low is None else sorted(set(held), reverse=not low)[rank - 1]
            equal = "" if low is None else " Equal numbers count once."
            asked = question(
                spec, f"What is the {name} number of the list above?{equal}", f"The {name} number is:", [str(gold)]
            )
            return Prompt(f"{LIST}\n{held}", asked)

        return fitted(build, budget, "four numbers")

    return draw


def math_calc(spec: TaskSpec, budget: Budget, place: int) -> Callable[[Random], Draft]:
    """Additions and subtractions whose values stay within 0 and 99; all values but the first operand are asked for.

    The answer grows with the expression: it has the tokens of the values, at most the task's.
    """

    def draw(rng: Random) -> Draft:
        values = [rng.randint(0, LARGEST)]
        terms = [str(values[0])]

        def build(more: int) -> Prompt:
            while len(values) < 2 + more:
                sign, operand = _operation(rng, values[-1])
                terms.append(f"{sign} {operand}")
                values.append(values[-1] + (operand if sign == "+" else -operand))
            gold = [str(value) for value in values[1 : 2 + more]]
            tokens = min(spec.max_new_tokens, budget.count(f" {', '.join(gold)}") + 1)
            asked = question(
                spec,
                "What is the value of the expression above after each of its operations, in their order?",
                "The values after each operation are:",
                gold,
                max_new_tokens=tokens,
            )
            return Prompt(f"{SUM}\n{' '.join(terms[: 2 + more])}", asked)

        return fitted(build, budget, "two operands")

    return draw


def _operation(rng: Random, value: int) -> tuple[str, int]:
    """A sign and an operand; one that would leave the range is drawn once more, from those that do not."""
    sign, operand = rng.choice("+-"), rng.randint(0, LARGEST)
    most = LARGEST - value if sign == "+" else value
    return sign, operand if operand <= most else rng.randint(0, most)


def code_run(spec: TaskSpec, budget: Budget, place: int) -> Callable[[Random], Draft]:
    """Layers of functions, each calling one of the next layer, the last ones none; as many layers as calls."""
    calls = CALLS[swept(place, len(CALLS))]

    def draw(rng: Random) -> Draft:
        seed = rng.getrandbits(64)

        def build(more: int) -> Prompt:
            chance = Random(seed)
            names = chance.sample(range(1, 2 * (calls + more) + 1), calls + more)
            layers = [names[layer::calls] for layer in range(calls)]
            added = {name: chance.randint(-12, 17) for name in names}
            called = {name: chance.choice(below) for layer, below in pairwise(layers) for name in layer}
            first, x = chance.choice(layers[0]), chance.randint(-10, 10)
            text = "\n\n".join(_function(name, called.get(name), added[name]) for name in sorted(names))
            asked = question(
                spec,
                f"What is the result of func_{first}({x})?",
                "The result is:",
                [str(_result(first, x, called, added))],
            )
            return Prompt(f"{CODE}\n\n{text}\n", asked)

        return fitted(build, budget, f"{calls} functions")

    return draw


def _function(name: int, called: int | None, added: int) -> str:
    value = "x" if called is None else f"func_{called}(x)"
    return f"def func_{name}(x):\n    return {value} {'-' if added < 0 else '+'} {abs(added)}"


def _result(name: int | None, x: int, called: dict[int, int], added: dict[int, int]) -> int:
    while name is not None:
        x += added[name]
        name = called.get(name)
    return x
