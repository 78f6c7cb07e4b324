"""The command `ask`: one question to the user's own documents, answered with citations. It is one library call.

Nothing heavy is imported before it runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from edgemm import plain, terminal
from edgemm.catalog import CHAT_MODEL
from edgemm.cite import ALL, QUOTES
from edgemm.cli_chat import ChatModel, Context, Json, MaxTokens, Penalty, Seed, Temperature, Threads, prepare
from edgemm.cli_index import Names, Rerank, Since, Types, Until, Within, narrowed, opened, require_folders
from edgemm.errors import Cancelled, UsageError
from edgemm.events import Note, Progress

if TYPE_CHECKING:
    from edgemm.answer import Ended
    from edgemm.attachments import Attachment
    from edgemm.chat_settings import ChatSettings
    from edgemm.conversation import Conversation

# What the passages say matters, in their own words: a larger penalty costs right answers and right citations.
_TEMPERATURE, _PENALTY, _LONGEST = 0.1, 1.03, 160
Quotes = Annotated[int, typer.Option(min=1, max=50, help="Passages that the model reads, at most.")]


def ask(
    question: Annotated[list[str], typer.Argument(help="What you want to know from your documents.")],
    folders: Within = None,
    types: Types = None,
    names: Names = None,
    since: Since = "",
    until: Until = "",
    quotes: Quotes = QUOTES,
    rerank: Rerank = "",
    model: ChatModel = CHAT_MODEL,
    max_tokens: MaxTokens = _LONGEST,
    temperature: Temperature = _TEMPERATURE,
    repetition_penalty: Penalty = _PENALTY,
    seed: Seed = None,
    ctx: Context = 0,
    threads: Threads = 0,
    as_json: Json = False,
) -> None:
    """Answer a question from the indexed documents, and name the passages that the answer comes from."""
    from edgemm.chat_settings import ChatSettings

    text = " ".join(question)
    with opened() as library:
        require_folders(library, "ask")
        filters = narrowed(folders, types, names, since, until)
        passages = library.quotes(text, quotes, rerank=rerank, **filters)
        for note in library.notes:
            terminal.note(note)
    if not passages:
        raise UsageError("ask", "nothing in your documents was found for this", "ask it in other words")
    prepare(model)
    settings = ChatSettings(
        max_tokens=max_tokens, temperature=temperature, repetition_penalty=repetition_penalty, seed=seed, docs=ALL
    )
    with _conversation(model, settings, ctx, threads, passages) as chat:
        ended = _answer(chat, text, quiet=as_json)
        if ended is not None:
            _show_sources(chat, ended, as_json=as_json)
    if ended is None or ended.done.reason == "cancelled":
        raise Cancelled("ask", "stopped", "what was answered so far is above")


@contextmanager
def _conversation(
    model: str, settings: "ChatSettings", ctx: int, threads: int, passages: "list[Attachment]"
) -> "Iterator[Conversation]":
    """A chat that is not kept."""
    from edgemm.conversation import Conversation, Facts
    from edgemm.models import ChatOptions, open_generator
    from edgemm.sessions import Sessions

    sessions = Sessions()
    chat = sessions.create(model, settings=settings.to_json()).id
    generator = open_generator(model, ChatOptions(ctx, threads))
    try:
        yield Conversation(sessions, chat, generator, Facts(model), find=lambda _docs, _question: passages)
    finally:
        generator.close()
        sessions.close()


def _answer(chat: "Conversation", text: str, *, quiet: bool) -> "Ended | None":
    """Stream the answer to stdout, unless it is to be `quiet`; Ctrl-C ends it and keeps what was said."""
    from edgemm.answer import Ended, Grown
    from edgemm.talk.show import Answer

    answer, ended = Answer(), None
    with plain.stopping(chat.stop), terminal.ProgressBar() as bar:
        for event in chat.send(text):
            if isinstance(event, Progress):
                bar.show(event)
                continue
            bar.close()
            if isinstance(event, Note):
                terminal.note(event.text)
            elif isinstance(event, Grown) and not quiet:
                answer.grow(event)
            elif isinstance(event, Ended):
                ended = event
    answer.end()
    return ended


def _show_sources(chat: "Conversation", ended: "Ended", *, as_json: bool) -> None:
    from edgemm import cite, context

    question = next(turn for turn in chat.branch() if turn.role == "user")
    found = cite.sources(ended.answer.text, context.attachments(question))
    if not as_json:
        print("\n" + terminal.safe("\n".join(cite.lines(found))))
        return
    sources = [
        {"number": each.quote.number, "path": each.quote.path, "place": each.quote.place, "cited_by": each.by}
        | {"state": each.state, "text": each.quote.text}
        for each in found
    ]
    terminal.print_json({"answer": ended.answer.text, "sources": sources, "figures": asdict(ended.done)})
