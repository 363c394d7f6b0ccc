"""Which of transformers' causal language models can be made sparse: every configuration as it comes, counted by reason.

    python benchmarks/check_models.py [--layers]

With --layers also the layers of an empty copy of each supported model are looked for (minutes).
"""

import re
import sys
import warnings
from collections import Counter, defaultdict

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, logging
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from sahub.engine.routing import attention_modules
from sahub.errors import UnsupportedModel
from sahub.models.supported import check_supported, geometry


def verdict(name: str, layers: bool) -> tuple[str, str]:
    """supported, refused, crashed or invalid; and how many of its layers are sparse, or why none is."""
    try:
        config = CONFIG_MAPPING[name]()
    except Exception as error:  # noqa: BLE001
        return "invalid", f"transformers itself has no default for it: {error}"
    try:
        check_supported(config, name)
        if layers:
            with torch.device("meta"):
                attention_modules(AutoModelForCausalLM.from_config(config))
    except UnsupportedModel as error:
        return "refused", str(error).partition("): ")[2] or str(error)
    except Exception as error:  # noqa: BLE001
        return "crashed", f"{type(error).__name__}: {error}"
    shape = geometry(config)
    return "supported", f"sparse in {len(shape.layers)} of {shape.num_layers} layers"


def main() -> None:
    """Print the counts, and the reasons with the models that have them."""
    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        state, why = verdict(name, "--layers" in sys.argv)
        found[state, why if state == "crashed" else re.sub(r"\d+", "N", why)].append(f"{name}: {why}")
    print(dict(Counter(state for (state, _), names in found.items() for _ in names)))  # noqa: T201
    for (state, _), names in sorted(found.items()):
        lines = names if state != "supported" else [", ".join(name.partition(":")[0] for name in names)]
        print(f"\n{state}", *lines, sep="\n  ")  # noqa: T201


if __name__ == "__main__":
    main()
