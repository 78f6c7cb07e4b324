"""Ready-made system prompts: the rows that come along, and the user's own from a JSON file.

The file is a list of objects with `name`, `system` and, if wanted, `about` and `temperature`. A damaged file or row
is reported and the others are used; nothing here writes the file, and nothing knows a chat.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from edgemm import paths
from edgemm.chat_settings import LIMITS
from edgemm.errors import BadFile

MAX_BYTES = 1 << 20
_MAX_NAME, _MAX_ABOUT = 40, 120  # characters
_KEYS = {"name", "system", "about", "temperature"}


@dataclass(frozen=True, slots=True)
class Persona:
    """A system prompt with a name. `temperature` None: the chat's own stays."""

    name: str
    about: str
    system: str
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class Personas:
    """All `rows`, by name unique, and in `problems` one line for each that could not be read."""

    rows: tuple[Persona, ...]
    problems: tuple[str, ...] = ()


ROWS = (
    Persona("Plain", "no system prompt", ""),
    Persona("Brief", "short answers", "Answer in as few words as possible. Do not repeat the question."),
    Persona(
        "Explainer",
        "step by step, with an example",
        "Explain clearly and step by step for someone who is new to the subject. Give one short example.",
    ),
    Persona(
        "Editor",
        "corrects a text",
        "Correct the spelling, grammar and style of the text. Keep its meaning, tone and language. "
        "Give only the corrected text.",
        0.0,
    ),
    Persona(
        "Translator",
        "into English",
        "Translate the text into English. Keep names, numbers and formatting. Give only the translation.",
        0.0,
    ),
    Persona(
        "Summariser",
        "the main points",
        "Summarise the text in at most five short points. Use only what the text says.",
        0.0,
    ),
    Persona(
        "Programmer",
        "code with few words",
        "You are a careful programmer. Answer with working code and a short explanation. Say what you assume.",
        0.2,
    ),
    Persona(
        "Reader",
        "answers from the given text alone",
        "Answer only from the text that is given. Quote the passage that you use. "
        "If the answer is not in the text, say so.",
        0.0,
    ),
)


def default_path() -> Path:
    """Where the user's own personas are looked for."""
    return paths.data() / "personas.json"


def load(path: Path | None = None) -> Personas:
    """The rows that come along and those of the file at `path`, which need not exist. The user's win by name."""
    path = path or default_path()
    try:
        values = _values(path)
    except BadFile as error:
        return Personas(ROWS, (str(error),))
    found, problems = {row.name.casefold(): row for row in ROWS}, []
    for number, value in enumerate(values, 1):
        if reason := _fault(value):
            problems.append(str(BadFile(path, f"persona {number} {reason}", "mend it; the others are used")))
            continue
        row = _row(value)
        found[row.name.casefold()] = row
    return Personas(tuple(found.values()), tuple(problems))


def _values(path: Path) -> list[object]:
    try:
        size = path.stat().st_size
        if not path.is_file() or size > MAX_BYTES:
            raise BadFile(path, f"is no file of at most {MAX_BYTES:,} bytes", "make it shorter")
        values = json.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BadFile(path, error.strerror or str(error), "check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise BadFile(path, f"is not JSON ({error})", "mend it, or delete it") from error
    if not isinstance(values, list):
        raise BadFile(path, "is not a list of personas", 'write [{"name": "...", "system": "..."}]')
    return values


def _fault(value: object) -> str:
    """Why `value` is no persona; empty: it is one."""
    if not isinstance(value, dict) or not {"name", "system"} <= set(value):
        return "is no object with a name and a system prompt"
    if unknown := sorted(set(value) - _KEYS):
        return f"has the unknown key {unknown[0]!r}"
    texts = {key: value.get(key, "") for key in ("name", "about", "system")}
    if not all(isinstance(text, str) for text in texts.values()):
        return "has a name, an about or a system prompt that is no text"
    if not 0 < len(texts["name"].strip()) <= _MAX_NAME or len(texts["about"]) > _MAX_ABOUT:
        return f"needs a name of 1 to {_MAX_NAME} and an about of at most {_MAX_ABOUT} characters"
    limit, temperature = LIMITS["temperature"], value.get("temperature")
    if temperature is None or (type(temperature) in (int, float) and limit.low <= temperature <= limit.high):
        return ""
    return f"has a temperature that is not {limit}"


def _row(value: object) -> Persona:
    assert isinstance(value, dict)
    about, temperature = value.get("about", ""), value.get("temperature")
    return Persona(value["name"].strip(), about, value["system"], temperature)
