"""Training sequences: the tasks' own layouts at many lengths, and repeated random segments."""

from dataclasses import dataclass
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from sahub.training.documents import any_kind
from sahub.training.tokenizer import BOS, EOS, special_id

ASIDE = 0.1  # weight of the tokens that are not answers, on the share of them that is looked at
LOOKED_AT = 0.15


@dataclass(frozen=True)
class Batch:
    """`ids` int64 [B, T] and `weights` fp32 [B, T]: what predicting ids[:, t] counts."""

    ids: Tensor
    weights: Tensor
    answers: Tensor  # bool [B, T]


class Data:
    """Seeded batches: the same (seed, step) gives the same batch."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self.tokenizer, self.seed = tokenizer, seed
        self.bos, self.eos = special_id(tokenizer, BOS), special_id(tokenizer, EOS)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text without special tokens."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def batch(self, step: int, size: int, length: int, repeats: float) -> Batch:
        """`size` sequences of `length` tokens, a share `repeats` of them repeated random segments."""
        rng = Random(f"{self.seed}/{step}")
        rows = [
            self._repeat(rng, length) if rng.random() < repeats else self._documents(rng, length) for _ in range(size)
        ]
        ids, answers = (torch.tensor(column) for column in zip(*rows, strict=True))
        chosen = torch.rand(ids.shape, generator=torch.Generator().manual_seed(step)) < LOOKED_AT
        weights = torch.where(answers, 1.0, ASIDE * chosen)
        weights[:, 0] = 0
        return Batch(ids, weights, answers)

    def _repeat(self, rng: Random, length: int) -> tuple[list[int], list[bool]]:
        ids, answers = [self.bos], [False]
        while len(ids) < length:
            segment = [rng.randrange(3, self.tokenizer.get_vocab_size()) for _ in range(rng.randint(8, length // 2))]
            ids += segment + segment
            answers += [False] * (len(segment) + 4) + [True] * (len(segment) - 4)
        return ids[:length], answers[:length]

    def _documents(self, rng: Random, length: int) -> tuple[list[int], list[bool]]:
        ids: list[int] = []
        answers: list[bool] = []
        while len(ids) < length:
            left = max(96, length - len(ids))
            room = int(left * rng.choice((0.4, 0.6, 0.8, 0.93)))
            text, asked = any_kind(rng, room)(rng, room, lambda t: len(self.encode(t)))
            end, context = len(ids) + left, [self.bos, *self.encode(text)]
            ids += context
            answers += [False] * len(context)
            for prompt, reply in asked:
                if len(ids) >= end:
                    break
                question, answer = self.encode(prompt), [*self.encode(reply), self.eos]
                ids += question + answer
                answers += [False] * len(question) + [True] * len(answer)
        return ids[:length], answers[:length]
