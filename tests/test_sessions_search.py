"""Finding messages: words, accents, scripts without spaces, signs, and queries that want to be a program."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemm.sessions import Sessions, State
from edgemm.snippets import MARK, UNMARK

TEXTS = (
    "The KV cache keeps keys and values.",
    "Ein Café in Köln; naïve façade, ΆΛΦΑ",
    "東京都の天気は晴れです。カフェへ行く",
    "C++ and f(x) = 50% of a_b\\c -> 🚀 launch",
    'He said "hello, world" NEAR the sea AND left',
    "한국어로 대화합니다",
    "สวัสดีครับ ผมชื่อ edgemm",
)


def filled() -> Sessions:
    sessions = Sessions()
    chat = sessions.create("m", title="weather").id
    for text in TEXTS:
        sessions.add(chat, None, "user", text)
    return sessions


SHARED = filled()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("cache", [0]),
        ("CACHE keys", [0]),
        ("cach", [0]),  # the last word may be unfinished
        ("cach keys", []),  # the others may not
        ("cafe", [1]),
        ("CAFÉ köl", [1]),
        ("naive facade", [1]),
        ("άλφα", [1]),
        ("東京", [2]),
        ("京", [2]),
        ("京都の天", [2]),
        ("都京", []),
        ("カフェ", [2]),
        ("か", []),
        ("대화", [5]),
        ("สวัสดี", [6]),
        ("c++", [3]),
        ("50%", [3]),
        ("%", [3]),
        ("_", [3]),
        ("\\", [3]),
        ("->", [3]),
        ("🚀", [3]),
        ("🚀 launch", [3]),
        ('"hello, world"', [4]),
        ("hello-world", [4]),
        ("near AND left", [4]),
        ("nowhere OR cache", []),
        ("and", [4, 3, 0]),  # newest first
        ("", []),
        (" \n\0 ", []),
    ],
)
def test_words_find_their_messages(query: str, found: list[int]) -> None:
    assert [hit.message - 1 for hit in SHARED.search(query)] == found


HOSTILE = [
    '"',
    '""" OR 1',
    "text:cache",
    "{text reasoning}: cache",
    "NEAR(a b, 2)",
    "^cache",
    "cache*",
    "* AND NOT (",
    "'; DROP TABLE chat; --",
    "a" * 100_000,
    "a " * 50_000,
    "% " * 50_000,
    "\0cache\0",
    "\ud800",
    "(" * 500,
    "\x02\x03",
    "words MATCH 'x'",
    "-cache",
    "\\",
    "[a-z]+(",
]


@pytest.mark.parametrize("query", HOSTILE, ids=lambda query: ascii(query[:20]))
def test_any_query_is_text(query: str) -> None:
    assert isinstance(SHARED.search(query), list)
    assert len(SHARED.chats()) == 1


@given(st.text(max_size=60))
def test_no_query_is_an_error(query: str) -> None:
    SHARED.search(query)


@given(st.text(min_size=1, max_size=40).filter(lambda text: any(c.isalnum() for c in text)))
def test_a_plain_word_of_a_text_finds_it(text: str) -> None:
    word = next(part for part in text.split() or ["x"] if part)
    with Sessions() as sessions:
        sessions.add(sessions.create("m").id, None, "user", f"zebra {text}")
        assert sessions.search("zebr")
        if word.isascii() and word.isalnum():
            assert sessions.search(word)


def test_the_match_is_marked() -> None:
    [hit] = SHARED.search("keys val")
    assert hit.snippet == "The KV cache keeps \x02keys\x03 and \x02val\x03ues."
    assert (hit.title, hit.role) == ("weather", "user")
    assert SHARED.search("京都")[0].snippet.startswith("東\x02京都\x03の")
    assert "\x02Café\x03" in SHARED.search("cafe")[0].snippet
    assert "\x02->\x03" in SHARED.search("->")[0].snippet


def test_a_snippet_is_one_short_line_with_nothing_but_its_own_marks() -> None:
    with Sessions() as sessions:
        chat = sessions.create("m").id
        text = "\x02fake\x03 " + "far away " * 100 + "\n\n  needle \x1b[2J\x00" + " behind" * 100
        message = sessions.add(chat, None, "assistant", "nothing here")
        sessions.finish(message.id, State.DONE, "nothing here", reasoning=text)
        [hit] = sessions.search("needle")
        assert len(hit.snippet) < 160
        assert hit.snippet.count(MARK) == hit.snippet.count(UNMARK) == 1
        assert hit.snippet[0] == hit.snippet[-1] == "…"
        assert hit.snippet.isprintable() is False  # by the marks alone
        assert hit.snippet.replace(MARK, "").replace(UNMARK, "").isprintable()


def test_the_index_follows_what_is_finished_edited_and_deleted() -> None:
    with Sessions() as sessions:
        chat = sessions.create("m").id
        answer = sessions.add(chat, None, "assistant", "", state=State.STREAMING)
        sessions.update(answer.id, "half a walrus")
        assert sessions.search("walrus") == []
        sessions.finish(answer.id, State.DONE, "a whole walrus")
        assert len(sessions.search("walrus")) == 1
        sessions.finish(answer.id, State.DONE, "a narwhal")
        assert sessions.search("walrus") == []
        assert len(sessions.search("narwhal")) == 1
        sessions.delete(chat)
        assert sessions.search("narwhal") == []


def test_the_newest_of_many_are_shown() -> None:
    with Sessions() as sessions:
        chat = sessions.create("m").id
        ids = [sessions.add(chat, None, "user", f"heron {i}").id for i in range(30)]
        assert [hit.message for hit in sessions.search("heron", limit=4)] == ids[:-5:-1]
