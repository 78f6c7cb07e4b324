"""Does llama.cpp split text as tokenizer.json does? Tried on more than two thousand strings, never assumed.

Each meaning that a tokenizer.json may have for llama.cpp is written as a GGUF file without weights and loaded; the
first one that gives the ids of `tokenizers` on every probe is taken. When none does, the best is taken and the package
keeps tokenizer.json as its tokenizer of record. It knows no weights.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from converters.calibrate import CALIBRATION, HELD_OUT
from converters.gguf_file import Setting, Settings, header, setting
from converters.gguf_vocab import CONTROL, USER_DEFINED, Vocabulary
from edgemm.backends.worker import LoadOptions, Worker
from edgemm.errors import EdgemmError, Unsupported
from edgemm.tokenizer import FILE, Tokenizer

# llama.cpp knows two families by name: it drops the blanks behind Phi-3's control tokens and before ModernBERT's
# [MASK], and under the first name does not load other vocabularies. The model's own name comes first, then none.
_NAMES = ("{}", "", "{} (phi-3)", "{} (modern-bert)")
_FIRST = 200  # a wrong meaning is mostly seen on the first probes
_PIECES = (
    "a", "the cat", "Straße", "naïve", "Łódź", "Cửa Việt", "Türkiye", "привет", "мир", "你好", "世界",
    "日本語", "カタカナ", "한국어", "العربية", "שלום", "नमस्ते", "ไทย", "ελληνικά",
    "0", "7", "42", "123", "1234", "12345678", "3.14", "1,000",
    "½", "x²", "don't", "I'LL", "we've", "DON'T", "'s", "😀", "👩‍👩‍👧", "🇫🇷", "é", "Å", "…", "—", "“q”",
    "#tag", "@me",
    "a_b", "camelCase", "HTTPServer", "fn(x)", "a[i]", "{}", "=>", "!=", "//", "/*", "<b>", "&amp;", "\\n",
    "$5", "100%",
    "https://example.org/a?b=c", "foo.bar", "e-mail", "...", "!!!", "?", "aaaaaaaaaaaa", "ABC", "ﬁ", "１２", "Ω", "∑",
)  # fmt: skip
_GAPS = ("", " ", "  ", "   ", "\n", "\n\n", " \n", "\n ", "\t", "\r\n", "\u00a0", "\u3000", ".", ", ", "-", "'")


@dataclass(frozen=True, slots=True)
class Agreement:
    """`vocabulary` agrees with tokenizer.json on the share `share` of `probes` texts; `example` is one that differs.

    `plain`: only texts with control tokens differ, if any. `name` is the model's name under which it is so, see
    `_NAMES`; empty: it must have none.
    """

    vocabulary: Vocabulary
    share: float
    probes: int
    example: str = ""
    plain: bool = False
    name: str = ""

    @property
    def complete(self) -> bool:
        return self.share == 1.0


def probes(control: Sequence[str]) -> list[str]:
    """Texts in many languages and scripts, numbers, blanks, emoji, code and `control` tokens; more than 2,000."""
    texts = [*CALIBRATION, *HELD_OUT, *_PIECES, *(gap for gap in _GAPS if gap)]
    pairs = list(itertools.product(_PIECES, _GAPS, _PIECES))
    texts += [a + gap + b for a, gap, b in pairs[::37]]  # 37 shares no factor with the lengths: all parts come by
    texts += [gap + piece + gap for piece, gap in itertools.product(_PIECES[::3], _GAPS)]
    texts += [left + token + right for token in control[:40] for left, right in (("", ""), ("a ", " b"), ("x", "y"))]
    return list(dict.fromkeys(texts))


def best(vocabularies: Sequence[Vocabulary], tokenizer: Tokenizer, general: Settings, folder: Path) -> Agreement:
    """Try `vocabularies` in turn, with files in `folder`; `general` is the beginning of the header."""
    kinds = zip(vocabularies[0].tokens, vocabularies[0].types, strict=True)
    texts = probes([text for text, kind in kinds if kind in (CONTROL, USER_DEFINED)])
    expected = tokenizer.ids(texts)
    found: list[Agreement] = []
    for pattern in _NAMES:
        name = pattern.format(_name(general))
        settings = {key: value for key, value in general.items() if key != "general.name"}
        settings |= {"general.name": setting(name)} if name else {}
        last = found[-1:]
        tries = [last[0].vocabulary] if last else vocabularies
        tried = [replace(a, name=name) for a in _tried(tries, texts, expected, settings, folder / "vocabulary.gguf")]
        found = [max([*last, *tried], key=lambda a: a.share)] if last or tried else []
        if found and (found[0].complete or not found[0].plain):  # a name changes nothing in plain texts
            break
    if not found:
        raise Unsupported(FILE, "llama.cpp loads this vocabulary in none of its meanings", "use --to onnx-int8")
    return found[0]


def _name(general: Settings) -> str:
    item = general.get("general.name")
    return str(item.value) if isinstance(item, Setting) else ""


def _tried(
    vocabularies: Sequence[Vocabulary],
    texts: list[str],
    expected: list[list[int]],
    general: Settings,
    path: Path,
) -> Iterator[Agreement]:
    """Those that llama.cpp loads, up to the first that agrees on all plain texts."""
    for vocabulary in vocabularies:
        with suppress(EdgemmError):
            found = _try(vocabulary, texts, expected, general, path)
            yield found
            if found.plain:
                return


def _try(
    vocabulary: Vocabulary, texts: list[str], expected: list[list[int]], general: Settings, path: Path
) -> Agreement:
    """Raises what the worker raises when llama.cpp does not load it."""
    types: Settings = {"tokenizer.ggml.token_type_count": setting(1)}
    path.write_bytes(header(general | types | vocabulary.settings(), []))
    same, plain, plain_texts = 0, True, len(probes(()))
    example = ""
    try:
        with Worker(path, LoadOptions(vocabulary_only=True)) as worker:
            for at, (text, ids) in enumerate(zip(texts, expected, strict=True)):
                if worker.tokenize(text, add_special=True, parse_special=True) == ids:
                    same += 1
                else:
                    example = example or text
                    plain = plain and at >= plain_texts
                if at == _FIRST and same < _FIRST // 2:
                    break
    finally:
        path.unlink(missing_ok=True)
    return Agreement(vocabulary, same / len(texts), len(texts), example, plain)
