"""A run with a model in which some layers are sparse."""

import json

from commands import TINY
from commands import sahub as run
from families import tiny


def test_a_run_says_in_how_many_layers_it_is_sparse(tokenizer, tmp_path) -> None:
    tiny("gemma2").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    task = ["task=ruler/niah_single_1", *(one for one in TINY if one.startswith("validate."))]
    model = ["model=hf", f"model.path={tmp_path / 'model'}", "compute=inline", "builder=oracle_topk"]
    done = run("validate", *model, *task, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "sparse in 2 of 4 layers" in done.stdout
    [cell] = json.loads((tmp_path / "run" / "benchmark_summary.json").read_text("utf-8"))["cells"]
    assert cell["validation"]["layers"] == {"sparse": 2, "all": 4}
