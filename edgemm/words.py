"""Text as a full-text index of SQLite wants it, and queries that any text is: words, phrases, scripts without spaces.

It knows no table and no screen. What `spaced` does is part of every index that was built with it.
"""

import re

# Thai and Lao, Burmese, Khmer, Chinese and Japanese, Korean: a word may begin anywhere in a run of letters.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
TOKENIZER = "unicode61 remove_diacritics 2"
STEMMER = f"porter {TOKENIZER}"  # finds "converting" by "converted"; of English, and hardly in the way of others
_LETTER = re.compile(f"[{UNSPACED}]")
_RUN = re.compile(f"[{UNSPACED}]+|[^{UNSPACED}]+")
_WORD = re.compile(r"[^\W_]")
_WORDS = re.compile(r"[^\W_]+")
_JOINED = re.compile(r"\b[A-Za-z0-9]*(?:[a-z0-9][A-Z]|[A-Z]{2}[a-z])[A-Za-z0-9]*\b")
_JOINT = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_CONTROL = re.compile(r"[\x00-\x20\x7f]+")
_MAX_WORDS, _MAX_CHARACTERS = 32, 1000  # of a query; the rest would hardly narrow it
_WHOLE = 3  # letters of an unspaced run that are taken for one word


def spaced(text: str) -> str:
    """`text` with each letter of an unspaced script as a word, so that any run of them can be found as a phrase."""
    return text if text.isascii() else _LETTER.sub(r" \g<0> ", text)


def unjoined(text: str) -> str:
    """`text` with the parts of each word that is joined by capitals behind it: "readFile read File"."""
    return _JOINED.sub(lambda word: f"{word[0]} {_JOINT.sub(' ', word[0])}", text)


def clean(text: str) -> str:
    """`text` without lone surrogates, which no UTF-8 file can hold: they become "?"."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def terms(query: str) -> list[str]:
    """What stands between blanks in `query`; empty for a query without a visible character."""
    return _CONTROL.sub(" ", clean(query[:_MAX_CHARACTERS])).split()[:_MAX_WORDS]


def has_word(term: str) -> bool:
    """Whether a full-text index holds anything of it: it is not made of signs alone."""
    return bool(_WORD.search(term))


def phrase(term: str) -> str:
    """`term` as a string of FTS5's query language: its words one after the other, and no operator."""
    return '"{}"'.format(spaced(term.replace('"', " ")))


def phrases(query: str) -> list[str]:
    """Each word of `query` once, as a phrase: names made of several words as these, and as they are where capitals join
    them; a long run of an unspaced script as its overlapping pairs of letters.
    """
    found = [phrase(part) for word in _WORDS.findall(unjoined(" ".join(terms(query)))) for part in _parts(word)]
    return list(dict.fromkeys(found))[:_MAX_WORDS]


def _parts(word: str) -> list[str]:
    found = []
    for run in _RUN.findall(word):
        pairs = len(run) > _WHOLE and _LETTER.match(run)
        found += [run[i : i + 2] for i in range(len(run) - 1)] if pairs else [run]
    return found
