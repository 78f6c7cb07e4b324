"""A JSON schema from outside to a grammar of llama.cpp, refused where it could hang or kill what follows it.

Size, depth and every number of repetitions are bounded before the converter sees the schema. JSON schema draft
2020-12 as far as llama-cpp-python converts it: bounds of numbers are not enforced. It knows no model.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from edgemm.errors import UsageError

_MAX_BYTES = 64 << 10
_MAX_DEPTH = 64
_MAX_REPEAT = 1000
_MAX_PROPERTIES = 256  # of one object: optional ones make rules by the square of their number
_MAX_GRAMMAR = 1 << 20
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength")
_REPEAT = re.compile(r"\{\s*(\d*)\s*(?:,\s*(\d*)\s*)?\}")
_ESCAPED = re.compile(r"\\(?:x..|u.{4}|U.{8}|.)", re.DOTALL)
_CLASS = re.compile(r"\[([^\]]*)\]")
_NUL = re.compile(r"\\u0000|\\x00|\\U0{8}|\x00")  # ends a grammar in its middle
_RANGE = re.compile(r"(.)-(.)", re.DOTALL)
_FIX = "mend it, or ask without one"


def grammar(text: str, convert: Callable[[str], str]) -> bytes:
    """A GBNF grammar by `convert` (llama-cpp-python's). Raises `UsageError`."""
    check(text)
    try:
        found = convert(text).encode()
    except Exception as error:  # it asserts, and looks up names that need not be there
        raise refused(f"cannot be converted ({type(error).__name__}: {str(error)[:120]})") from error
    if len(found) > _MAX_GRAMMAR:
        raise refused(f"becomes a grammar of {len(found)} bytes, more than {_MAX_GRAMMAR}")
    return found


def check(text: str) -> None:
    """Raise `UsageError` for a schema that is no JSON object, too large, too deep, or repeats too often."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > _MAX_BYTES:
        raise refused(f"has {size} bytes, more than {_MAX_BYTES}")
    if _NUL.search(text):
        raise refused("has a character of the value 0")
    try:
        schema = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise refused(f"is no JSON ({str(error)[:120]})") from error
    if not isinstance(schema, dict):
        raise refused("is no JSON object")
    for node in _nodes(schema):
        _check_node(node)


def refused(why: str) -> UsageError:
    return UsageError("schema", why, _FIX)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _nodes(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every object in `schema`."""
    level: list[Any] = [schema]
    for _ in range(_MAX_DEPTH):
        yield from (node for node in level if isinstance(node, dict))
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return
    raise refused(f"is nested deeper than {_MAX_DEPTH} levels")


def _check_node(node: dict[str, Any]) -> None:
    for key in _COUNTS:
        count = node.get(key, 0)
        is_property = isinstance(count, dict)
        if not is_property and (type(count) is not int or not 0 <= count <= _MAX_REPEAT):
            raise refused(f"has {key} {count!r:.40}, not a number from 0 to {_MAX_REPEAT}")
    if len(node) > _MAX_PROPERTIES:
        raise refused(f"has an object of {len(node)} keys, more than {_MAX_PROPERTIES}")
    if isinstance(pattern := node.get("pattern"), str):
        _check_pattern(pattern)


def _check_pattern(pattern: str) -> None:
    bare = _ESCAPED.sub("", pattern)
    for repeat in _REPEAT.finditer(bare):
        if max(int(number or 0) for number in repeat.groups(default="0")) > _MAX_REPEAT:
            raise refused(f"has a pattern that repeats {repeat[0][:40]}, more than {_MAX_REPEAT} times")
    for letters in _CLASS.findall(bare):
        if any(low > high for low, high in _RANGE.findall(letters)):
            raise refused(f"has a pattern with the empty range [{letters[:40]}]")
    if not _is_balanced(_REPEAT.sub("", _CLASS.sub("", bare))):
        raise refused("has a pattern whose brackets do not match, or are too deep")


def _is_balanced(pattern: str) -> bool:
    """A bracket that closes nothing would hold the converter in a loop without an end."""
    depth = 0
    for letter in pattern:
        depth += (letter == "(") - (letter == ")")
        if letter in "[]{}" or not 0 <= depth <= _MAX_DEPTH:
            return False
    return depth == 0
