"""Chat templates: one user turn around context and question, split where the context ends, at a date of the run's."""

import re
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import takewhile
from typing import Any

from transformers.utils.chat_template_utils import _compile_jinja_template

from sahub.errors import ConfigError

WAY_OUT = "ask without one: protocol.template=none"
# What stands in our turn to find where it begins and ends: a letter, which no template escapes, strips or splits.
_ONE, _OTHER = "a", "b"
# How families mark a thought before the answer.
TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
)
_UNKNOWN = re.compile(r"[<\[◁]\|?[\w: ]*(?:think|thought|reason)[\w: ]*\|?[>\]▷]\s*$", re.IGNORECASE)
_SPEAKS = re.compile(r"enable_thinking|reasoning_effort|<\|channel\|>|" + "|".join(re.escape(tag) for tag, _ in TAGS))


@dataclass(frozen=True, kw_only=True, eq=False)
class Template:
    """The chat template of a tokenizer: what it makes of one user turn, up to where the answer begins.

    `date` is the day that the template is told it is. `thinking` false: a thought that it opens before the answer is
    closed, by the template where it can, else by its closing tag.
    """

    tokenizer: Any
    name: str  # of the model, for errors
    date: str  # YYYY-MM-DD
    thinking: bool = False

    def check(self) -> None:
        """Raise ConfigError, with the way out, where a user's turn does not come through as it is, once."""
        one, other = self._rendered(_ONE), self._rendered(_OTHER)
        before, tail = _shared(one, other), _shared(one[::-1], other[::-1])[::-1]
        if one == other:
            raise self._error("drops a user's turn: nothing of it is in the prompt")
        if (one, other) != (before + _ONE + tail, before + _OTHER + tail):
            raise self._error("repeats or changes a user's turn")

    def before(self, context: str) -> str:
        """What the model reads up to the end of the context.

        Raises ConfigError where the template does more to the text than to trim its beginning.
        """
        rendered = self._rendered(context + _ONE)
        for text in (context, context.lstrip()):
            if rendered == self._head + text + _ONE + self._tail:
                return self._head + text
        raise self._changed("context", self._head + context + _ONE + self._tail, rendered)

    def after(self, question: str) -> str:
        """What the model reads from the end of the context to the start of the answer. Raises as `before`."""
        rendered = self._rendered(_ONE + question)
        for text in (question, question.rstrip()):
            if rendered == self._head + _ONE + text + self._tail:
                return text + self._tail + self._closing
        raise self._changed("question", self._head + _ONE + question + self._tail, rendered)

    def _changed(self, what: str, wanted: str, rendered: str) -> ConfigError:
        at = len(_shared(wanted, rendered))
        there, here = (text[max(at - 10, 0) : at + 10] for text in (wanted, rendered))
        return self._error(f"changes the text of a {what}: {there!r} becomes {here!r}")

    @property
    def thought(self) -> str:
        """What becomes of a thought before the answer, for people."""
        if self._opened and not self._closing:
            return f"{self._opened}: answers begin with a thought, which is scored and takes of their tokens"
        if self._closing:
            return "opened by the template, closed by its tag before the answer"
        if self._closes:
            return "closed by the template before the answer"
        if _SPEAKS.search(self._source):
            return "not opened; the template knows thoughts, so the model may begin one by itself"
        return "not opened"

    @property
    def doubt(self) -> str | None:
        """Why answers may be thoughts although `protocol.thinking=off`; None where they cannot."""
        if self.thinking or not self._opened or self._closing:
            return None
        return (
            f"its template opens a thought ({self._unknown}) that neither enable_thinking=false nor a known tag closes"
        )

    @cached_property
    def _head(self) -> str:
        return _shared(self._rendered(_ONE), self._rendered(_OTHER))

    @cached_property
    def _tail(self) -> str:
        return self._rendered(_ONE).removeprefix(self._head + _ONE)

    @cached_property
    def _source(self) -> str:
        return str(self.tokenizer.get_chat_template())

    @property
    def _open_tags(self) -> list[tuple[str, str]]:
        """Tags that are open where the answer begins, with what closes them."""
        return [(tag, end) for tag, end in TAGS if self._tail.rfind(tag) > self._tail.rfind(end)]

    @property
    def _unknown(self) -> str:
        found = None if self._closes else _UNKNOWN.search(self._tail)
        return found[0].strip() if found else ""

    @property
    def _closes(self) -> bool:
        return any(end in self._tail for _, end in TAGS)

    @property
    def _opened(self) -> str:
        """How a thought is open where the answer begins, before we close it; empty where none is."""
        named = [tag for tag, _ in self._open_tags] or ([self._unknown] if self._unknown else [])
        return f"opened by {named[0]}" if named else ""

    @property
    def _closing(self) -> str:
        """What closes an open thought: nothing where thoughts are wanted, or where its tag is not known."""
        if self.thinking or not self._open_tags:
            return ""
        line = "" if self._tail.endswith("\n") else "\n"
        return f"{line}\n{self._open_tags[-1][1]}\n\n"

    def _rendered(self, content: str) -> str:
        """The prompt of one user turn. Raises ConfigError where the template refuses it.

        transformers' own call takes today's date, and no other: the template is rendered as there, with ours.
        """
        now = datetime.fromisoformat(self.date)
        try:
            text: str = _compile_jinja_template(self.tokenizer.get_chat_template()).render(
                messages=[{"role": "user", "content": content}],
                add_generation_prompt=True,
                tools=None,
                documents=None,
                strftime_now=lambda form: now.strftime(form),
                enable_thinking=self.thinking,
                thinking=self.thinking,
                **self.tokenizer.special_tokens_map,
            )
        except Exception as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise self._error(f"refuses a user's turn ({type(error).__name__}: {first})") from error
        return text

    def _error(self, what: str) -> ConfigError:
        return ConfigError(f"protocol.template=auto: the chat template of {self.name} {what}; {WAY_OUT}")


def _shared(one: str, other: str) -> str:
    """What both texts begin with."""
    return "".join(first for first, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
