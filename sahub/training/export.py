"""Write the trained model as a folder that plain transformers loads."""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sahub.files.atomic import write_json
from sahub.training.tokenizer import BOS, EOS, PAD


def export(model: LlamaForCausalLM, tokenizer: Tokenizer, curve: list[dict[str, float]], folder: Path) -> None:
    """bf16 safetensors, tokenizer, generation settings and the training curve."""
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(
        bos_token_id=model.config.bos_token_id,
        eos_token_id=model.config.eos_token_id,
        pad_token_id=model.config.pad_token_id,
    )
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, model_max_length=8192
    ).save_pretrained(folder)
    write_json(folder / "training_curve.json", curve)
