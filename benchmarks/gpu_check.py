"""What holds on a GPU: `python benchmarks/gpu_check.py`, at most 8 minutes; needs torch, transformers and safetensors.

Every method's step: whether it chooses the keys that it chooses on a CPU, how far its output lies from a slow way to
it, where it waits for the device, and its milliseconds beside the best way to attend to all of 32,768 and 131,072 keys.
Then a model of Llama-3.1-8B's geometry with random weights: forced trials, tokens a second, and memory.

`device=cpu lengths=2048 layers=2 context=1024 hidden=512` tries the script itself; `methods=` as decode_step.py has
them.
"""

import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from statistics import median
from typing import Any

import torch
import transformers
from arguments import given
from decode_step import OURS, Keys, prefilled, stack_of
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from sahub.attention.attend import attend
from sahub.attention.stack import Stack, StackState
from sahub.engine.contexts.prefill import prefill
from sahub.engine.contexts.prefix import Prefix
from sahub.engine.hook import Hook
from sahub.engine.routing import attached
from sahub.models.supported import geometry
from sahub.timing.clock import wait as wait_for
from sahub.timing.machine import machine, shown
from sahub.timing.step import PLAIN, sparse_step

SECONDS, RUNS, CHECKED = 450, 20, 4096
GIVEN = {
    "device": "cuda", "lengths": "32768,131072", "methods": ",".join(OURS), "context": "32768", "layers": "32",
    "hidden": "4096", "trials": "streaming_llm,quest,quest:max,pqcache,snapkv",
}  # fmt: skip


def main(*arguments: str) -> None:
    """Print the tables, what is known first."""
    begin, asked = time.monotonic(), given(GIVEN, arguments, {"methods": OURS})
    device = asked["device"]
    say(f"{shown(machine(torch.device(device)))}, transformers {transformers.__version__}")
    methods = asked["methods"].split(",")
    say(f"\nA step after {CHECKED:,} keys: choices as on a CPU, error of the output (relative), waits for the device")
    for method in methods:
        say(f"{method:24}{guarded(checked, method, device)}")
    for length in map(int, asked["lengths"].split(",")):
        keys = Keys(length, torch.bfloat16, device)
        dense = dense_steps(keys, device)
        said = ", ".join(f"{name} {taken:.3f}" for name, taken in dense.items())
        say(f"\nA step after {length:,} keys in bf16; dense, ms: {said}")
        say(f"{'':24}{'build ms':>10}{'step ms':>10}{'of the host':>13}{'x dense':>9}")
        for method in methods:
            late = time.monotonic() - begin > SECONDS * 0.7
            say(f"{method:24}{'no time left' if late else guarded(stepped, method, keys, min(dense.values()), device)}")
    say(guarded(whole_model, asked, device, begin + SECONDS))
    say(f"{time.monotonic() - begin:.0f} s")


def say(line: str) -> None:
    """Print at once: what ends early has said what it knows."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def guarded(work: Callable[..., str], *arguments: Any) -> str:
    """A line of a table, or what went wrong and where: the other lines are still wanted."""
    try:
        return work(*arguments)
    except Exception as error:  # noqa: BLE001 (a check that fails is a finding)
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"FAILED: {type(error).__name__}: {str(error).splitlines()[0][:120]} ({place(frame)})"


def place(frame: traceback.FrameSummary) -> str:
    """File and line."""
    return f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}"


# ------------------------------------------------------------------------------------------------ every method's step
def checked(method: str, device: str) -> str:
    """Choices as on a CPU, errors of fp32 and bf16, and where a step waits."""
    stack, here, there = stack_of(method), Keys(CHECKED, torch.float32), Keys(CHECKED, torch.float32, device)
    end = CHECKED + 33
    wanted = chosen(*fed(stack, here, end))
    state, call = fed(stack, there, end)
    found = chosen(state, call)
    alike = float((wanted & found.cpu()).sum() / (wanted | found.cpu()).sum())
    errors = []
    for dtype in (torch.float32, torch.bfloat16):
        q, k, v = (part.to(dtype) for part in call)
        selection = state.select(*call)
        exact = attend(*(part.double() for part in (q, k, v)), selection, backend="reference")
        errors.append(float((attend(q, k, v, selection).double() - exact).norm() / exact.norm()))
    waits = waits_of(stack, there, end + 1, state) if device.startswith("cuda") else "not looked at"
    return f"{alike:10.4f} alike, {errors[0]:.1e} fp32, {errors[1]:.1e} bf16; {waits}"


def fed(stack: Stack, keys: Keys, end: int) -> tuple[StackState, tuple[Tensor, Tensor, Tensor]]:
    """A state that has taken the key of the last row of `end`, and the call of that row."""
    state = prefilled(stack, keys)
    call = keys.call(end - 1, end)
    state.append(call[1][:, :, end - 1 :], call[2][:, :, end - 1 :])
    return state, call


def chosen(state: StackState, call: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Which keys each head keeps, bool [1, h, 1, k]."""
    selection = state.select(*call)
    return selection.dense_log_weight(slice(0, 1), -torch.inf) > -torch.inf


def waits_of(stack: Stack, keys: Keys, end: int, state: StackState) -> str:
    """Where a step makes the host wait for the device."""
    found: dict[str, None] = {}

    def note(message: Warning | str, *_: Any, **__: Any) -> None:
        frames = [frame for frame in traceback.extract_stack() if "/sahub/" in frame.filename]
        if "called a synchronizing" in str(message):
            found[place(frames[-1]) if frames else "here"] = None

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            sparse_step(state, keys.inputs(end), time.perf_counter)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return "never waits" if not found else "waits at " + ", ".join(found)


def stepped(method: str, keys: Keys, best: float, device: str) -> str:
    """Milliseconds of building an index, of a step, and of the host to ask for it, and how many times as fast."""
    stack = stack_of(method)
    begin = time.perf_counter()
    state = prefilled(stack, keys)
    wait(device)
    build = (time.perf_counter() - begin) * 1e3
    ends = iter(range(keys.length + 33, keys.length + 127))

    def work() -> None:
        end = next(ends)
        sparse_step(state, keys.inputs(end), time.perf_counter)

    host: list[float] = []
    step = milliseconds(work, device, host)
    return f"{build:10.1f}{step:10.3f}{median(host):13.3f}{best / step:9.2f}"


def dense_steps(keys: Keys, device: str) -> dict[str, float]:
    """Milliseconds of each way to attend to everything."""
    call = keys.inputs(keys.length)
    q, k, v = call.query, call.key, call.value
    ways: dict[str, Callable[[], Any]] = {name: lambda way=way: way(call) for name, way in PLAIN.items()}
    ways["SDPA, enable_gqa"] = lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    if find_spec("flash_attn"):
        from flash_attn import flash_attn_with_kvcache

        swapped = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        ways["flash decode"] = lambda: flash_attn_with_kvcache(*swapped)
    return {name: milliseconds(way, device) for name, way in ways.items()}


def milliseconds(work: Callable[[], Any], device: str, host: list[float] | None = None) -> float:
    """Median of some runs after some more, by the device's clock; `host` takes the host's own."""
    for _ in range(3):
        work()
    wait(device)
    found = []
    for _ in range(RUNS):
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if device.startswith("cuda") else []
        begin = time.perf_counter()
        for mark in marks[:1]:
            mark.record()
        work()
        for mark in marks[1:]:
            mark.record()
        asked = (time.perf_counter() - begin) * 1e3
        wait(device)
        found.append(marks[0].elapsed_time(marks[1]) if marks else asked)
        if host is not None:
            host.append(asked)
    return median(found)


def wait(device: str) -> None:
    """Until the device has done what it was asked for."""
    wait_for(torch.device(device))


# ------------------------------------------------------------------------------------------------------- a whole model
@torch.inference_mode()
def whole_model(asked: dict[str, str], device: str, until: float) -> str:
    """Forced trials and decoding on a prefilled context, random weights."""
    layers, hidden, length = int(asked["layers"]), int(asked["hidden"]), int(asked["context"])
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=hidden * 7 // 2, num_hidden_layers=layers,
        num_attention_heads=hidden // 128, num_key_value_heads=hidden // 512,
        vocab_size=128_256, max_position_embeddings=131_072, rope_theta=5e5,
    )  # fmt: skip
    kind = "flash_attention_2" if find_spec("flash_attn") else "sdpa"
    with torch.device(device):
        hf = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16, attn_implementation=kind).eval()
    say(f"\n{hf.num_parameters() / 1e9:.1f} billion random weights, {layers} layers, bf16, prefill by {kind}")
    ids = torch.randint(config.vocab_size, (1, length + 96), generator=torch.Generator().manual_seed(0)).to(device)
    seconds, prefix = timed(lambda: prefill(hf, ids[:, :length], room=128), device)
    say(f"prefill of {length:,} tokens: {seconds:.2f} s, {prefix.nbytes / 2**30:.2f} GiB of keys and values")
    say(f"{'':24}{'index s':>9}{'forced s':>10}{'trials/s':>10}{'ms a token':>12}{'peak GiB':>10}")
    for method in ["dense", *asked["trials"].split(",")]:
        late = time.monotonic() > until
        say(f"{method:24}{'no time left' if late else guarded(trial, hf, prefix, ids[:, length:], method, device)}")
    return f"weights {hf.get_memory_footprint() / 2**30:.2f} GiB"


def trial(hf: Any, prefix: Prefix, ids: Tensor, method: str, device: str) -> str:
    """Index, a forced answer (64 tokens of question, 32 of answer), and milliseconds of a decoded token."""
    stack = None if method == "dense" else stack_of(method)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    prefix.drop_state()
    first, _ = timed(lambda: forced(hf, prefix, ids, stack), device)
    again = median(timed(lambda: forced(hf, prefix, ids, stack), device)[0] for _ in range(3))
    with asked(hf, prefix, stack) as hook:
        passed(hf, prefix, ids[:, :64], hook, "question")
        tokens = [
            timed(lambda i=i: passed(hf, prefix, ids[:, i : i + 1], hook, "decode"), device)[0] for i in range(64, 80)
        ]
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.startswith("cuda") else 0.0
    return f"{max(0.0, first - again):9.2f}{again:10.3f}{1 / again:10.2f}{median(tokens[3:]) * 1e3:12.1f}{peak:10.2f}"


def forced(hf: Any, prefix: Prefix, ids: Tensor, stack: Stack | None) -> None:
    """A question and its answer in one chunk."""
    with asked(hf, prefix, stack) as hook:
        logits = passed(hf, prefix, ids, hook, "question")
        if not bool(logits.isfinite().all()):
            raise ArithmeticError("logits that are not finite")
        if hook:
            hook.verify({"question": 1})


@contextmanager
def asked(hf: Any, prefix: Prefix, stack: Stack | None) -> Iterator[Hook | None]:
    """A request after a rewound prefix."""
    prefix.rewind()
    hook = None if stack is None else Hook(stack=stack, geometry=geometry(hf.config), measure=0)
    with hook.after(prefix) if hook else nullcontext(), attached(hf, hook) if hook else nullcontext():
        yield hook


def passed(hf: Any, prefix: Prefix, ids: Tensor, hook: Hook | None, phase: str) -> Tensor:
    """Logits of the last 32 rows, or of one."""
    if hook:
        hook.phase = phase
    keep = min(32, ids.shape[1])
    return hf(input_ids=ids, past_key_values=prefix.cache, use_cache=True, logits_to_keep=keep).logits


def timed(work: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    wait(device)
    begin = time.perf_counter()
    made = work()
    wait(device)
    return time.perf_counter() - begin, made


if __name__ == "__main__":
    main(*sys.argv[1:])
