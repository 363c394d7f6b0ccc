"""What a worker would hold, by a rule of the cell alone."""

import pytest

from sahub.attention.call import Geometry
from sahub.config.cell import compose_cell
from sahub.run import memory
from sahub.run.memory import longest, memory_of

TOKEN = 2 * 4 * 4 * 32 * 4  # bytes of the packaged model: keys and values, layers, KV heads, channels, fp32


def cell(*overrides, builder="quest"):
    names = ["model=embedded", "task=ruler/vt", f"builder={builder}", "objective=sparsity_10", "compute=inline"]
    return compose_cell([*names, "phases=[validate]", "validate.max_context_length=1024", *overrides])


@pytest.mark.parametrize(
    ("contexts", "cap", "held"), [(1, 4096, 1), (3, 4096, 3), (300, 64, 64 * 2**20 / 1024 / TOKEN)]
)
def test_contexts_are_held_as_far_as_there_is_room(contexts, cap, held):
    found = memory_of(cell(f"validate.max_requests={contexts}", f"compute.prefix_mib={cap}"))
    assert found.contexts == held * 1024 * TOKEN
    assert found.together == found.weights + found.contexts + found.work


def test_as_many_contexts_as_the_task_has():
    known = memory_of(cell("validate.max_requests=null", "task.options.num_examples=2"))
    assert known.contexts == 2 * 1024 * TOKEN


def test_the_context_in_use_is_held_whatever_it_takes():
    assert memory_of(cell("validate.max_requests=9", "compute.prefix_mib=1")).contexts == 1024 * TOKEN


def test_contexts_of_all_phases_are_held_and_those_that_decide():
    search = ["search.max_context_length=512", "search.max_requests=6", "search.decide=4"]
    both = cell("phases=[search,validate]", *search, "validate.max_requests=2")
    assert memory_of(both).contexts == (10 * 512 + 2 * 1024) * TOKEN


def test_a_second_context_passes_beside_what_the_first_left():
    def long(*overrides):
        lengths = ["model.max_context_length=8192", "validate.max_context_length=8192"]
        return memory_of(cell("validate.max_requests=2", "model.device=cuda", *lengths, *overrides))

    at_once = (9 * 256 + 4 * 512) * 4  # bytes of a token while it passes
    assert long("model.dtype=float32").work > memory._LOOPS + at_once * 8192


def test_on_a_cpu_a_context_passes_in_pieces():
    def of(builder, *overrides):
        return memory_of(cell("validate.max_requests=2", *overrides, builder=builder)).work

    longer = of("streaming_llm", "model.max_context_length=8192", "validate.max_context_length=8192")
    assert longer == of("streaming_llm")  # of a cell of 1,024 tokens: no index, and no longer pass


def test_a_trace_counts_where_stacks_are_replayed():
    one, two, replays = "validate.max_requests=1", "validate.max_requests=2", "objective.measure=mass_lost"
    trace = memory._SEEN * 1024 * TOKEN
    bare = memory_of(cell(one, builder="streaming_llm")).work
    assert memory_of(cell(one, replays, builder="streaming_llm")).work - bare == trace
    assert memory_of(cell(two, replays, builder="streaming_llm")).work - bare == 2 * trace
    small = cell(one, replays, "protocol.trace_mib=1", builder="streaming_llm")
    assert memory_of(small).work - bare == memory._SEEN * 2**20
    large = cell(
        one, replays, "validate.max_context_length=2000000", "model.max_context_length=2000000",
        "protocol.trace_mib=100000", builder="streaming_llm",
    )  # fmt: skip
    assert memory_of(large).work > 2_000_000 * TOKEN  # the one in use is held whatever it takes
    search = ["phases=[search]", "search.max_context_length=1024", "objective.measure=attention_error"]
    forced, replayed = (memory_of(cell(*search, f"search.fidelity={name}")).work for name in ("teacher", "replay"))
    assert replayed > forced
    search[0] = "phases=[search,validate]"
    assert memory_of(cell(*search, "search.fidelity=replay", "validate.max_requests=64")).work <= replayed
    assert forced > memory_of(cell()).work  # a set of indexes for each stack of a batch


def test_an_index_and_the_type_of_numbers_count():
    dense = memory_of(cell(builder="streaming_llm")).work
    quest = memory_of(cell("builder.stages.quest.page_size=16", "builder.stages.quest.label_bits=16")).work
    pages = 2.25 * 1024 / 16  # the context's, and a copy that grows by a quarter
    assert quest - dense == pages * TOKEN  # two bounds
    narrow = memory_of(cell("model.dtype=bfloat16"))
    assert narrow.contexts == memory_of(cell()).contexts / 2
    assert narrow.weights == memory_of(cell()).weights / 2


def test_bounds_in_16_bits_count_where_contexts_are_long_enough_for_them():
    shape = Geometry(num_layers=1, num_heads=32, num_kv_heads=8, head_dim=128)
    quest = cell("builder.stages.quest.page_size=16", "builder.stages.quest.label_bits=16")
    page = 2 * 128 * 8  # numbers: two bounds of each KV head
    stack = memory._stack(quest, shape)
    assert memory._index_bytes(stack, shape, 4, 1024) == 4 * page / 16
    assert memory._index_bytes(stack, shape, 4, 8192) == (4 * page + 2 * page + 8 * 8) / 16  # with low and step


def test_no_context_is_longer_than_the_model_reads():
    asked = cell("validate.max_context_length=1000000")
    assert longest(asked, asked.settings.validate) < 1000000


def test_a_point_that_the_model_cannot_have_is_not_counted():
    free = "builder.search.pqcache.pq_group_factor.choices"  # 32 channels are no multiple of 5

    def of(*choices):
        return memory_of(cell("phases=[search]", f"{free}=[{','.join(map(str, choices))}]", builder="pqcache")).work

    assert of(2, 5) > memory._LOOPS
