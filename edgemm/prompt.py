"""Messages to prompt with the model's own chat template, which is untrusted code and is treated as such.

The Jinja template runs in an immutable sandbox, bounded in source, time, output and operand sizes. Control tokens
come from the template alone: in message texts they are broken up before rendering, so that no document and no user
can forge a turn. A text without control tokens is rendered exactly as the reference does.
It knows neither tokens nor models; the backend turns the pieces into ids.
"""

import contextlib
import datetime
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}
SECONDS = 1.0
_MAX_SOURCE = 64 << 10
_MAX_OPERAND = 1 << 20
_MEMORY = 512 << 20  # bytes that a rendering may add, where the system can limit it
_SEPARATORS = (*range(0xFDD0, 0xFDF0), *range(0xF0000, 0x110000))  # noncharacters, then private use
_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")  # training-only tags


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the prompt. `special`: texts of control tokens in it are control tokens."""

    text: str
    special: bool


@dataclass(frozen=True, slots=True)
class Rendered:
    """The prompt in pieces; `note` says why the model's own template was not used, and is empty otherwise."""

    pieces: tuple[Piece, ...]
    note: str = ""

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


class TemplateFailed(Exception):
    """The template raised, or passed a bound."""


def render(
    template: str, messages: Sequence[Message], specials: Sequence[str], bos: str = "", eos: str = ""
) -> Rendered:
    """The conversation up to the beginning of the assistant's next turn. Never raises for a bad template."""
    separator = _unused(messages, specials)
    safe = [{**m, "content": _break_up(m["content"], specials, separator)} for m in messages]
    text, note = _text(template, safe, specials, bos, eos)
    parts = text.split(separator) if separator else [text]
    single = {special for special in specials if len(special) == 1}
    return Rendered(tuple(Piece(part, part not in single) for part in parts if part), note)


def _text(template: str, messages: list[Message], specials: Sequence[str], bos: str, eos: str) -> tuple[str, str]:
    if not template:
        return _plain(messages, specials), "the model has no chat template: using a plain one"
    try:
        try:
            return _run(template, messages, bos, eos), ""
        except TemplateFailed:
            if not messages or messages[0]["role"] != "system":
                raise
            return _run(template, _without_system(messages), bos, eos), ""  # some templates know no system role
    except TemplateFailed as error:
        return _plain(messages, specials), f"the model's chat template {error}: using a plain one"


def _run(template: str, messages: list[Message], bos: str, eos: str) -> str:
    if len(template) > _MAX_SOURCE:
        raise TemplateFailed(f"has {len(template)} characters, more than {_MAX_SOURCE}")
    most = 4 * sum(len(m["content"]) for m in messages) + (64 << 10)
    with _memory_limit(), _deadline(SECONDS):
        try:
            compiled = _environment().from_string(_GENERATION.sub("", template))
            chunks = compiled.generate(
                messages=messages, add_generation_prompt=True, bos_token=bos, eos_token=eos, tools=None, documents=None
            )
            return _bounded(chunks, most)
        except TemplateFailed:
            raise
        except Exception as error:  # whatever untrusted code may raise
            raise TemplateFailed(f"failed ({type(error).__name__}: {str(error)[:120]})") from error


def _bounded(chunks: Iterator[str], most: int) -> str:
    parts, length = [], 0
    for chunk in chunks:
        length += len(chunk)
        if length > most:
            raise TemplateFailed(f"wrote more than {most} characters")
        parts.append(chunk)
    if not length:
        raise TemplateFailed("wrote nothing")
    return "".join(parts)


def _environment() -> Any:
    """The sandbox, with the names that chat templates expect."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(["*", "**", "%"])

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "*" and _size(left) * _size(right) > _MAX_OPERAND:
                raise TemplateFailed("multiplies to a huge value")
            if operator == "**" or (operator == "%" and isinstance(left, str)):
                raise TemplateFailed(f"uses the operator {operator}")
            return super().call_binop(context, operator, left, right)

    environment = Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    for name in ("center", "indent", "wordwrap", "format"):  # filters that make long texts out of short ones
        environment.filters.pop(name, None)
    return environment


def _size(value: Any) -> int:
    """How much a product with `value` grows: a number's magnitude, a sequence's length."""
    if isinstance(value, (int, float)):
        return max(1, abs(int(value)))
    return max(1, len(value)) if hasattr(value, "__len__") else 1


def _tojson(value: Any, indent: int | None = None, **_: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=min(indent, 8) if indent else None)


def _raise(message: str) -> None:
    raise TemplateFailed(f"refused the messages ({message[:120]})")


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise `TemplateFailed` in this thread's Python code after `seconds`. A trace function works on every system."""
    end = time.monotonic() + seconds

    def check(_frame: FrameType, _event: str, _argument: Any) -> Any:
        if time.monotonic() > end:
            raise TemplateFailed(f"takes longer than {seconds:g} s")
        return check

    before = sys.gettrace()
    sys.settrace(check)
    try:
        yield
    finally:
        sys.settrace(before)


@contextlib.contextmanager
def _memory_limit() -> Iterator[None]:
    """Let the address space grow by 512 MB at most (Linux; elsewhere the other bounds must do)."""
    if sys.platform != "linux":
        yield
        return
    import resource
    from pathlib import Path

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = [used + _MEMORY, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _unused(messages: Sequence[Message], specials: Sequence[str]) -> str:
    """A character of no message and no control token; it marks where a control token's text was broken up."""
    used = set().union(*(m["content"] for m in messages), *specials)
    return next(chr(c) for c in _SEPARATORS if chr(c) not in used)


def _break_up(content: str, specials: Sequence[str], separator: str) -> str:
    """Put `separator` into every control token's text, so that no part of `content` reads as one."""
    long = sorted({s for s in specials if len(s) > 1}, key=len, reverse=True)
    if long:
        pattern = re.compile("|".join(map(re.escape, long)))
        while (broken := pattern.sub(lambda m: m[0][0] + separator + m[0][1:], content)) != content:
            content = broken
    for single in {s for s in specials if len(s) == 1}:
        content = content.replace(single, separator + single + separator)
    return content


def _without_system(messages: list[Message]) -> list[Message]:
    """The system text put in front of the first question."""
    system, *rest = messages
    if not rest:
        return [{"role": "user", "content": system["content"]}]
    return [{**rest[0], "content": f"{system['content']}\n\n{rest[0]['content']}"}, *rest[1:]]


def _plain(messages: list[Message], specials: Sequence[str]) -> str:
    """ChatML where the vocabulary has it, else labelled lines."""
    if {"<|im_start|>", "<|im_end|>"} <= set(specials):
        turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages]
        return "".join(turns) + "<|im_start|>assistant\n"
    return "".join(f"{m['role'].capitalize()}: {m['content']}\n" for m in messages) + "Assistant:"
