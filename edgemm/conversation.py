"""One chat of the store, run by one model: ask, answer again, edit, go on, branch; and nothing said is lost.

Each message is stored before the model sees it, and an answer while it streams. What a screen or a line mode shows are
the events that these methods yield; closing an iterator, or `stop`, ends an answer and keeps what has arrived. This
module knows no terminal.
"""

import secrets
import threading
import time
from collections.abc import Generator as Stream
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgemm import cite, context
from edgemm.answer import Begun, Ended, Events, Growing, Start, forked, resumed, tokens_of
from edgemm.attachments import Attachment, Kind, refuse_pictures
from edgemm.backends import Generator, Prompt, Sampling
from edgemm.chat_settings import ChatSettings, Policy
from edgemm.errors import EdgemmError, PromptTooLong, ResourceError, UsageError
from edgemm.events import Done, Note, Progress, Token, Work
from edgemm.kv import KvStore
from edgemm.prompt import Message
from edgemm.reasoning import Splitter
from edgemm.sessions import ChatInfo, Sessions, State, Turn, branch, leaf_below, siblings
from edgemm.words import clean

_TITLE = 48
_SUMMARY = Sampling(max_tokens=240, temperature=0.0)


@dataclass(frozen=True, slots=True)
class Facts:
    """What an answer is kept with, so that it can be made again: the model's name and the hashes of its files."""

    model: str
    sha256: str = ""
    template: str = ""
    backend: str = ""


class Conversation:
    """The chat `chat` of `sessions`, answered by `generator`; `kv` keeps its KV cache from one opening to the next.

    Its methods raise `UsageError` for what cannot be done, and what the store and the model raise. Only `stop` may be
    called while the events of another method are being read.
    """

    def __init__(
        self,
        sessions: Sessions,
        chat: int,
        generator: Generator,
        facts: Facts,
        kv: KvStore | None = None,
        find: cite.Find | None = None,
    ) -> None:
        """`find` searches the user's documents, for chats whose settings ask for it."""
        self._sessions, self._generator, self._facts, self._find = sessions, generator, facts, find
        self._kv = kv if generator.info.can_save else None
        self._is_saved = True  # the KV cache, as far as it is worth saving
        self._stopping = threading.Event()
        with suppress(ResourceError):  # a full disk is no reason not to open a chat
            sessions.recover(chat)
        self._revision = sessions.revision()
        self.info: ChatInfo = sessions.chat(chat)
        self.turns = sessions.turns(chat)
        self.problem = ""  # why the settings are not those that are stored
        self.settings = self._stored_settings()

    def _stored_settings(self) -> ChatSettings:
        """Damaged ones are no reason not to open a chat."""
        try:
            self.problem = ""
            return ChatSettings.from_json(self.info.settings)
        except UsageError as error:
            self.problem = f"the settings of this chat are damaged, so the defaults hold: {error}"
            return ChatSettings()

    # What there is

    @property
    def generator(self) -> Generator:
        return self._generator

    def branch(self) -> list[Turn]:
        """The open branch, from the first message to the last."""
        return branch(self.turns, self.info.leaf)

    def siblings(self, message: int) -> list[Turn]:
        """Other versions of a message, itself included."""
        return siblings(self.turns, message)

    def turn(self, message: int, role: str = "") -> Turn:
        """A message of any branch. Raises `UsageError`, also when it is not of that role."""
        turn = next((each for each in self.turns if each.id == message), None)
        if turn is None or (role and turn.role != role):
            kind = {"user": "question", "assistant": "answer"}.get(role, "message")
            raise UsageError(f"message {message}", f"is no {kind} of this chat", "choose another one")
        return turn

    def changed_elsewhere(self) -> bool:
        """Read the chat again if another window has written to it; whether it has. This one stays on its branch."""
        revision = self._sessions.revision()
        if revision == self._revision:
            return False
        before = self.info.title, self.info.settings, self.turns
        self._reload()
        self._revision = revision
        return before != (self.info.title, self.info.settings, self.turns)

    # What it would cost

    def plan(self, text: str, attached: Sequence[Attachment] = (), instead: int | None = None) -> context.Plan:
        """How a question would be sent, behind the branch or in the place of `instead`: exact tokens, what would go."""
        if instead is None:
            return self._plan(self.branch(), text, attached, self.settings.policy)
        old = self.turn(instead, "user")
        files = [*self._files(old), *attached]
        return self._plan(branch(self.turns, old.parent), text, files, self.settings.policy)

    def _plan(self, before: Sequence[Turn], text: str, attached: Sequence[Attachment], policy: Policy) -> context.Plan:
        question: Message = {"role": "user", "content": context.asked(text, attached)}
        return context.plan(self.settings.system, before, question, self._room, policy, self._count)

    @property
    def _room(self) -> int:
        return context.room(self._generator.info.context, self.settings.max_tokens)

    def _count(self, messages: Sequence[Message]) -> int:
        return len(self._generator.prompt(messages).tokens)

    # What can be done

    def send(self, text: str, attached: Sequence[Attachment] = (), policy: Policy | None = None) -> Events:
        """Ask behind the open branch; `policy` stands for that of the settings, this time.

        Raises `PromptTooLong` before anything is stored.
        """
        yield from self._ask(self.info.leaf, text, attached, policy)

    def edit(
        self, message: int, text: str, policy: Policy | None = None, attached: Sequence[Attachment] = ()
    ) -> Events:
        """Ask another question in the place of `message`, which stays as another branch, and so does its answer.

        The files of `message` go with it again, and then those `attached`.
        """
        old = self.turn(message, "user")
        yield from self._ask(old.parent, text, [*self._files(old), *attached], policy)

    def regenerate(self, message: int) -> Events:
        """Another answer beside `message`; given a question, another answer to it."""
        self._stopping.clear()
        turn = self.turn(message)
        yield from self._answer(turn if turn.role == "user" else self._question(turn), Start())

    def resume(self, message: int) -> Events:
        """Go on with an answer that was stopped or cut, by its very tokens if this model wrote it."""
        self._stopping.clear()
        self.turn(message, "assistant")
        with suppress(ResourceError):
            self._sessions.recover(self.info.id)
        self._reload()
        answer = self.turn(message, "assistant")
        if answer.state is State.STREAMING:
            why = "is being written in another window, or was until a moment ago"
            raise UsageError("this answer", why, "wait ten seconds")
        tokens = self._tokens(answer)
        if answer.text or tokens or not answer.reasoning:
            start = resumed(answer, tokens or self._generator.tokenize(answer.text))
            yield from self._answer(self._question(answer), start, answer)
        else:  # thoughts alone, of another model: there is nothing to go on with
            yield from self._answer(self._question(answer), Start())

    def rewrite(self, message: int, text: str) -> Turn:
        """The user's own version of an answer, as a branch beside it; `resume` goes on with it."""
        old = self.turn(message, "assistant")
        turn = self._sessions.add(self.info.id, old.parent, "assistant", text, details={"edited": True})
        self._reload(turn.id)
        return turn

    def fork(self, message: int, place: int, token: int) -> Events:
        """A branch beside the answer `message`: its tokens up to `place`, then `token` instead, then what follows."""
        self._stopping.clear()
        old = self.turn(message, "assistant")
        start = forked(old, place, token)
        if start is None:
            raise UsageError("branch", f"token {place} of this answer has no such alternative", "choose one of those")
        if not self._tokens(old):  # of another model: its text is what both have in common
            start = replace(start, tokens=self._generator.tokenize(start.text.shown()[0]), rows=[])
        yield from self._answer(self._question(old), start)

    def choose(self, message: int) -> None:
        """Open the branch that `message` is on, to its newest end."""
        leaf = leaf_below(self.turns, message)
        self._sessions.set_leaf(self.info.id, leaf)
        self._reload(leaf)

    def configure(self, settings: ChatSettings) -> None:
        self._sessions.set_settings(self.info.id, settings.to_json())
        self._reload()

    def rename(self, title: str) -> None:
        self._sessions.rename(self.info.id, title)
        self._reload()

    def stop(self) -> None:
        """End the running answer; what has arrived is kept. Safe from any thread."""
        self._stopping.set()
        self._generator.cancel()

    # The KV cache

    def restore(self) -> Iterator[Note]:
        """Take the KV cache from where `park` left it. Nothing is lost when that fails: the model reads again."""
        if self._kv is None or not self.turns:
            return
        started = time.perf_counter()
        try:
            tokens = self._generator.restore_state(self._kv.path(self.info.id))
        except EdgemmError as error:
            yield Note(f"what the model knew of this chat was not restored, so it reads it again: {error}")
            return
        if tokens:
            self._is_saved = True
            yield Note(f"resumed {tokens:,} tokens in {time.perf_counter() - started:.1f} s")

    def park(self) -> int:
        """Save the KV cache for the next opening, if it has grown; how many bytes. A full disk is no reason to fail."""
        if self._kv is None or self._is_saved:
            return 0
        try:
            size = self._generator.save_state(self._kv.path(self.info.id))
            self._kv.sweep()
            self._sessions.chat(self.info.id)
        except EdgemmError as error:
            if isinstance(error, UsageError):  # the chat was deleted meanwhile
                self._kv.forget(self.info.id)
            return 0
        self._is_saved = True
        return size

    # How an answer comes about

    def _ask(self, parent: int | None, text: str, attached: Sequence[Attachment], policy: Policy | None) -> Events:
        self._stopping.clear()
        refuse_pictures(attached, self._facts.model)
        files = list(attached)
        known = {turn.id for turn in self.turns}
        if self.changed_elsewhere() and any(turn.id not in known for turn in self.turns):
            yield Note("this chat has grown in another window: the new messages are another branch")
        before = branch(self.turns, parent)
        files += yield from self._quotes(before, text, files)
        plan = self._plan(before, text, files, policy or self.settings.policy)
        if not plan.fits:
            raise context.too_long(plan)
        details: dict[str, Any] = {context.ATTACHMENTS: [asdict(each) for each in files]} if files else {}
        if plan.dropped:
            details[context.KEY] = yield from self._cut(plan, before, context.asked(text, files))
        turn = self._sessions.add(self.info.id, parent, "user", text, details=details)
        self._reload(turn.id)
        if not self.info.title:
            self.rename(_title(" ".join([text, *(each.name for each in attached)])))
        yield from self._answer(turn, Start())

    def _quotes(self, before: Sequence[Turn], text: str, files: Sequence[Attachment]) -> Work[list[Attachment]]:
        """Passages of the user's documents, as many as fit without any other message being left out."""
        if not self.settings.docs or self._find is None:
            return []
        without = self._plan(before, text, files, Policy.DROP)

        def fits(quotes: Sequence[Attachment]) -> bool:
            plan = self._plan(before, text, [*files, *quotes], Policy.DROP)
            return plan.fits and plan.dropped == without.dropped

        return (yield from cite.search(self._find, self.settings.docs, text, fits))

    def _cut(self, plan: context.Plan, before: Sequence[Turn], question: str) -> Work[dict[str, Any]]:
        """What is kept with the first question before which turns are left out."""
        count = len(plan.dropped)
        sent, summary = context.kept(before)
        left_out = len(before) - len(sent) + count
        if plan.policy is not Policy.SUMMARISE:
            yield Note(f"the {count} oldest messages are left out from here on: the context is full")
            return context.cut(left_out, summary)
        yield Note(f"the {count} oldest messages are replaced by a summary: the context is full")
        rest: Sequence[Turn] = plan.dropped
        while rest:  # all at once, unless the answers have filled the context
            room = context.room(self._generator.info.context, _SUMMARY.max_tokens)
            asked, rest = context.to_summarise(self.settings.system, summary, rest, room, self._count)
            summary = yield from self._summary(asked)
        tokens = self._count(context.messages(self.settings.system, summary, sent[count:], question))
        if tokens > plan.room:
            raise context.no_summary(f"with it the question has {tokens:,} tokens, {plan.room:,} fit beside an answer")
        return context.cut(left_out, summary)

    def _summary(self, asked: list[Message]) -> Work[str]:
        text = Splitter()
        for event in self._events(self._generator.prompt(asked).tokens, _SUMMARY):
            if isinstance(event, Progress):
                yield event
            elif isinstance(event, Token):
                text.feed(event.text)
            elif event.reason == "cancelled":
                raise UsageError("question", "the summary was stopped, so nothing was sent", "send it again")
        text.finish()
        if not text.answer.strip() or text.inside:
            raise context.no_summary("the model wrote none")
        return text.answer.strip()

    def _answer(self, question: Turn, start: Start, answer: Turn | None = None) -> Events:
        """Stream what follows `start`: a new answer to `question`, or more of `answer`."""
        prompt = self._prompt(question, start)
        sampling = self.settings.sampling()
        if sampling.seed is None:
            sampling = replace(sampling, seed=secrets.randbits(32))
        details = {"sampling": asdict(sampling), "model": asdict(self._facts)}
        turn = self._stored(question, start, details) if answer is None else self._reopened(answer)
        growing = Growing(self._sessions, turn, details, start)
        try:
            with growing:
                self._reload(turn.id if answer is None else None)
                if prompt.note:
                    yield Note(prompt.note)
                yield Begun(question, self.turn(turn.id))
                yield from growing.grow(self._events(prompt.tokens, sampling))
        finally:
            self._reload()
        if growing.done is not None:
            yield Ended(self.turn(turn.id), growing.done)

    def _prompt(self, question: Turn, start: Start) -> Prompt:
        """What the model reads. Raises `PromptTooLong` where no token more would fit."""
        sent, summary = context.kept(branch(self.turns, question.id))
        messages = context.messages(self.settings.system, summary, sent)
        if start.tokens:  # the very tokens, and not what their text would be split into
            prompt = self._generator.continuation([*messages, {"role": "assistant", "content": ""}])
            prompt = replace(prompt, tokens=[*prompt.tokens, *start.tokens])
        else:
            prompt = self._generator.prompt(messages)
        tokens, room = len(prompt.tokens), self._generator.info.context - 1
        if tokens > room:
            why = f"has {tokens:,} tokens with the conversation before it, {room:,} fit"
            raise PromptTooLong("answer", why, "take a larger --ctx, or ask a new question")
        return prompt

    def _stored(self, question: Turn, start: Start, details: dict[str, Any]) -> Turn:
        turn = self._sessions.add(self.info.id, question.id, "assistant", "", state=State.STREAMING, details=details)
        if start.tokens:
            self._sessions.update(turn.id, *start.text.shown(), start.tokens)
        return turn

    def _reopened(self, answer: Turn) -> Turn:
        if answer.id not in {turn.id for turn in self.branch()}:
            self.choose(answer.id)
        self._sessions.reopen(answer.id)
        return answer

    def _events(self, tokens: Sequence[int], sampling: Sampling) -> Iterator[Progress | Token | Done]:
        """The model's events. It is told again of a `stop` that came before it was at work."""
        self._is_saved = False
        events = self._generator.generate(tokens, sampling)
        try:
            for event in events:
                if self._stopping.is_set():
                    self._generator.cancel()
                yield event
        finally:
            if isinstance(events, Stream):
                events.close()

    def _tokens(self, answer: Turn) -> list[int]:
        facts = self._facts
        return tokens_of(answer, facts.model, facts.sha256, self._generator.info.vocabulary)

    def _question(self, answer: Turn) -> Turn:
        if answer.parent is None:
            raise UsageError("this answer", "follows no question", "ask one")
        return self.turn(answer.parent, "user")

    def _files(self, question: Turn) -> list[Attachment]:
        """Those that the user attached; the documents are searched again for another question."""
        return [each for each in context.attachments(question) if each.kind is not Kind.QUOTE]

    def _reload(self, leaf: int | None = None) -> None:
        """Read the chat again. This window goes to `leaf`, or stays where it is, whatever another one has opened."""
        stay, settings = leaf or self.info.leaf, self.info.settings
        info = self._sessions.chat(self.info.id)
        self.turns = self._sessions.turns(self.info.id)
        self.info = replace(info, leaf=stay or info.leaf)
        if info.settings != settings:
            self.settings = self._stored_settings()


def _title(text: str) -> str:
    words = " ".join(clean(text).split())
    return words if len(words) <= _TITLE else words[: _TITLE - 1].rsplit(" ", 1)[0] + "…"
