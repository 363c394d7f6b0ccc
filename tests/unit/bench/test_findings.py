"""From where a builder is faster than dense, how rows are named, and what is refused before a model is loaded."""

import pytest

from sahub.bench import bench
from sahub.bench.findings import crossover
from sahub.bench.run import _sides
from sahub.config.cell import compose_cell
from sahub.errors import ConfigError
from sahub.timing.measure import Measured
from sahub.timing.step import Parts


def measured(length, against_dense, name="quest"):
    return Measured(
        name=name, length=length, parts=Parts(), step=1.0, against_dense=against_dense, density=0.1, kv_density=0.1,
        aux_bits=0.0, bytes_read=1.0, build_seconds=0.0, peak_bytes=None, text_tokens=length,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("points", "keys", "said"),
    [
        ([(512, 0.5), (2048, 2.0)], 1024.0, "faster than dense from about 1,024 keys"),
        ([(2048, 2.0), (512, 0.5)], 1024.0, "faster than dense from about 1,024 keys"),
        ([(512, 0.5), (1024, 1.0), (2048, 2.0)], 1024.0, "faster than dense from about 1,024 keys"),
        ([(512, 1.5), (1024, 0.5), (4096, 2.0)], 2048.0, "faster than dense from about 2,048 keys"),
        ([(512, 0.5), (2048, 0.9)], None, "not faster than dense up to 2,048 keys"),
        ([(512, 1.5), (2048, 0.9)], None, "not faster than dense up to 2,048 keys"),
        ([(512, 1.5), (2048, 3.0)], 512, "faster than dense from 512 keys or fewer"),
        ([(512, 0.5)], None, "not faster than dense up to 512 keys"),
        ([(512, 1.0)], 512, "faster than dense from 512 keys or fewer"),
    ],
)
def test_the_crossover_lies_behind_the_last_length_that_is_slower(points, keys, said):
    found = crossover([measured(*point) for point in points])
    assert found.keys == (None if keys is None else pytest.approx(keys))
    assert found.text == said


def test_cells_of_one_model_share_a_table_and_rows_say_what_differs():
    lines = [
        ["builder=quest", "objective=sparsity_5"],
        ["builder=quest", "objective=sparsity_10"],
        ["builder=quest", "objective=sparsity_5", "builder.stages.quest.page_size=32"],
        ["builder=snapkv", "protocol.dense_layers=[0]"],
        ["builder=dense"],
    ]
    sides = list(_sides([compose_cell([*line, "bench.rounds=3"], command="bench") for line in lines]))
    assert [list(side.cells) for side in sides] == [
        [
            "quest objective=sparsity_5", "quest objective=sparsity_10",
            "quest objective=sparsity_5 quest.page_size=32", "dense",
        ],
        ["snapkv"],
    ]  # fmt: skip
    assert [list(side.stacks) for side in sides] == [list(sides[0].cells)[:3], ["snapkv"]]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            ["bench.lengths=[128,65536]"],
            "bench.lengths=65536: longer than the 2,048 tokens that the model reads; model.max_context_length raises",
        ),
        (["builder.stages.quest.page_size=0"], "builder.stages.quest.page_size=0: must be"),
        (["protocol.dense_layers=[9]"], "protocol.dense_layers=[9]: must be in 0..3"),
    ],
)
def test_what_cannot_be_measured_is_said_before_a_model_is_loaded(typed, said, tmp_path, monkeypatch):
    monkeypatch.setattr("sahub.bench.run.load", None)
    with pytest.raises(ConfigError) as error:
        bench([compose_cell(typed, command="bench")], tmp_path)
    assert str(error.value).startswith(said)


def test_a_dry_run_says_what_would_be_measured(tmp_path, capsys):
    lines = [["builder=quest"], ["builder=tova"]]
    cells = [compose_cell([*line, "bench.lengths=[64,128]", "dry_run=true"], command="bench") for line in lines]
    bench(cells, tmp_path)
    assert capsys.readouterr().out == "embedded: dense, quest, tova at 64, 128 tokens\n"
    assert not list(tmp_path.iterdir())


def ends(*exceptions):
    """In place of measuring: what was measured of each length, or an exception in its place."""
    left = list(exceptions)

    def measure(model, lengths, stacks, **settings):
        if (problem := left.pop(0)) is not None:
            raise problem
        return [measured(lengths[0], one, name=name) for name, one in (("dense", 1.0), ("quest", 2.0))]

    return measure


def test_a_length_that_comes_twice_is_measured_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sahub.bench.run.measured", ends(None, None))
    bench([compose_cell(["bench.lengths=[64,128,64]"], command="bench")], tmp_path)
    assert capsys.readouterr().out.count("quest ") == 2


def test_a_picture_that_cannot_be_written_costs_no_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sahub.bench.run.measured", ends(None))
    (tmp_path / "bench.png").mkdir()
    with pytest.raises(OSError, match=r"bench\.png"):
        bench([compose_cell(["bench.lengths=[64]"], command="bench")], tmp_path)
    assert "faster than dense from 64 keys or fewer" in capsys.readouterr().out
