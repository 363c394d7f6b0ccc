"""Contexts that come back: `python benchmarks/offload.py tokens=32768`, minutes on one core.

Two layers with the keys and values of Llama-3.1-8B (32 query and 8 KV heads of 128; random weights, a narrow MLP) and
room for one of two contexts. Each is asked in turn, densely and by quest, from disk and from host memory: prints how
often contexts were prefilled, whether answers were those of the first time, and what a return takes.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch
from arguments import given
from transformers import LlamaConfig, LlamaForCausalLM

import sahub
from sahub.engine.model import Model
from sahub.engine.session import Attention, Session
from sahub.models.supported import geometry

VOCABULARY, ROOM = 1000, 64
STACK = [{"name": "sink", "sink_size": 64}, {"name": "local", "window_size": 256}, {"name": "quest", "density": 0.05}]


def model_of(tokens: int) -> Model:
    """Random weights, drawn by a seed; no tokenizer: contexts are tokens."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=512, intermediate_size=512, num_hidden_layers=2, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, max_position_embeddings=tokens + ROOM, dtype=torch.float32,
    )  # fmt: skip
    hf = LlamaForCausalLM(config).eval()
    return Model(
        name="random", hf=hf, tokenizer=None, geometry=geometry(config), max_context_length=tokens + ROOM,
        stop_ids=frozenset(), template=None,
    )  # fmt: skip


def main(*arguments: str) -> None:
    """Print a line for each place."""
    tokens = int(given({"tokens": "32768"}, arguments)["tokens"])
    torch.set_num_threads(1)
    noise = torch.Generator().manual_seed(1)
    contexts = [tuple(torch.randint(VOCABULARY, (tokens,), generator=noise).tolist()) for _ in range(2)]
    ways = {"dense": Attention(), "quest": Attention(stack=sahub.build_stack(STACK), measure=0)}
    with tempfile.TemporaryDirectory() as folder:
        session = Session(model_of(tokens), prefix_bytes=1 << 20, offload="disk", folder=Path(folder))

        def asked(number: int) -> tuple[float, dict[str, list[int]]]:
            begin = time.thread_time()
            prefix = session.prefix(contexts[number], ROOM)
            took = time.thread_time() - begin
            answers = {
                name: session.generate(prefix, [7, 8, 9], way, max_new_tokens=16).ids for name, way in ways.items()
            }
            return took, answers

        first = [asked(number) for number in range(2)]
        made = session.model.counters.prefills
        took = sum(seconds for seconds, _ in first) / 2
        sys.stdout.write(f"{tokens} tokens: {made} prefills of {took:.1f} s each, {session_bytes(session):.0f} MiB\n")
        for place in ("disk", "host"):
            session._prefixes.offload = place
            rounds = [(number, *asked(number)) for number in (0, 1, 0, 1)]
            alike = all(answers == first[number][1] for number, _, answers in rounds)
            seconds = sum(took for _, took, _ in rounds[1:]) / 3  # the first of them comes from where it lay before
            sys.stdout.write(
                f"{place}: {session.model.counters.prefills - made} more prefills, answers "
                f"{'the same' if alike else 'OTHERS'}, {seconds:.2f} s to come back\n"
            )


def session_bytes(session: Session) -> float:
    """MiB of the context that is held."""
    [prefix] = session._prefixes._held.values()
    return prefix.nbytes / 2**20


if __name__ == "__main__":
    main(*sys.argv[1:])
