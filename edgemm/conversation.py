"""One chat of the store, run by one model: ask, answer again, edit, go on, branch; and nothing said is lost.

Each message is stored before the model sees it, and an answer at least every half second while it streams. What a
screen or a line mode shows are the events that these methods yield; closing an iterator, or `stop`, ends an answer and
keeps what has arrived. This module knows no terminal.
"""

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgemm import context
from edgemm.answer import TOKENS, Begun, Events, Growing
from edgemm.attachments import Attachment, Kind
from edgemm.backends import Generator, Prompt, Sampling
from edgemm.chat_settings import ChatSettings, Policy
from edgemm.errors import EdgemmError, PromptTooLong, UsageError
from edgemm.events import Done, Note, Progress, Token, Work
from edgemm.kv import KvStore
from edgemm.prompt import Message
from edgemm.reasoning import Splitter
from edgemm.sessions import ChatInfo, Sessions, State, Turn, branch, leaf_below, siblings

_TITLE = 48
_SUMMARISE = (
    "Summarise our conversation so far in at most 120 words: facts, names, numbers, decisions and open questions."
    " Write the summary alone."
)
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
        self, sessions: Sessions, chat: int, generator: Generator, facts: Facts, kv: KvStore | None = None
    ) -> None:
        self._sessions, self._generator, self._facts = sessions, generator, facts
        self._kv = kv if generator.info.can_save else None
        self._saved = 0  # tokens that were in the KV cache when it was last saved
        self._read = 0  # tokens that were last in it
        sessions.recover(chat)
        self.info: ChatInfo = sessions.chat(chat)
        self.problem = ""  # why the settings are not those that are stored
        self.settings = self._stored_settings()
        self.turns = sessions.turns(chat)
        self._revision = sessions.revision()

    def _stored_settings(self) -> ChatSettings:
        """Damaged ones are no reason not to open a chat."""
        try:
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

    def changed_elsewhere(self) -> bool:
        """Read the chat again if another window has written to it; whether it has."""
        revision = self._sessions.revision()
        if revision == self._revision:
            return False
        self._revision = revision
        before, leaf = len(self.turns), self.info.leaf
        self._reload()
        if leaf is not None:
            self.info = replace(self.info, leaf=leaf)  # this window stays on its branch
        return len(self.turns) != before

    # What it would cost

    def plan(self, text: str, attached: Sequence[Attachment] = (), instead: int | None = None) -> context.Plan:
        """How a question would be sent, behind the branch or in the place of `instead`: exact tokens, what would go."""
        before = self.branch() if instead is None else branch(self.turns, self.turn(instead, "user").parent)
        return self._plan(before, text, attached, self.settings.policy)

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
        return (yield from self._ask(self.info.leaf, text, self._readable(attached), policy))

    def edit(self, message: int, text: str, policy: Policy | None = None) -> Events:
        """Ask another question in the place of `message`, which stays as another branch, and so does its answer."""
        old = self.turn(message, "user")
        return (yield from self._ask(old.parent, text, context.attachments(old), policy))

    def regenerate(self, message: int) -> Events:
        """Another answer beside `message`; given a question, another answer to it."""
        turn = self.turn(message)
        question = turn if turn.role == "user" else self.turn(turn.parent or 0, "user")
        yield from self._answer(question)

    def resume(self, message: int) -> Events:
        """Go on with an answer that was stopped or cut."""
        answer = self.turn(message, "assistant")
        self._sessions.reopen(message)
        yield from self._answer(self.turn(answer.parent or 0, "user"), answer)

    def rewrite(self, message: int, text: str) -> Turn:
        """The user's own version of an answer, as a branch beside it; `resume` goes on with it."""
        old = self.turn(message, "assistant")
        turn = self._sessions.add(self.info.id, old.parent, "assistant", text, details={"edited": True})
        self._reload()
        return turn

    def fork(self, message: int, place: int, token: int) -> Events:
        """A branch beside the answer `message`: its tokens up to `place`, then `token` instead, then what follows."""
        old = self.turn(message, "assistant")
        rows = old.details.get(TOKENS, [])
        other = next((each for each in rows[place][3] if each[2] == token), None) if 0 <= place < len(rows) else None
        if other is None:
            raise UsageError("branch", f"token {place} of this answer has no such alternative", "choose one of those")
        kept = [*rows[:place], [token, other[0], other[1], rows[place][3]]]
        text = _split("".join(row[1] for row in kept))
        turn = self._sessions.add(self.info.id, old.parent, "assistant", text.answer, state=State.STREAMING)
        self._sessions.update(turn.id, text.answer, text.reasoning, [row[0] for row in kept])
        self._reload()
        start = replace(self.turn(turn.id), details={TOKENS: kept})
        yield from self._answer(self.turn(old.parent or 0, "user"), start)

    def choose(self, message: int) -> None:
        """Open the branch that `message` is on, to its newest end."""
        self._sessions.set_leaf(self.info.id, leaf_below(self.turns, message))
        self._reload()

    def configure(self, settings: ChatSettings) -> None:
        self._sessions.set_settings(self.info.id, settings.to_json())
        self.settings = settings
        self._reload()

    def rename(self, title: str) -> None:
        self._sessions.rename(self.info.id, title)
        self._reload()

    def stop(self) -> None:
        """End the running answer; what has arrived is kept. Safe from any thread."""
        self._generator.cancel()

    # The KV cache

    def restore(self) -> Iterator[Note]:
        """Take the KV cache from where `park` left it. Nothing is lost when that fails: the model reads again."""
        if self._kv is None or not self.turns:
            return
        started = time.perf_counter()
        path = self._kv.path(self.info.id)
        tokens = self._generator.restore_state(path)
        if tokens:
            self._saved = self._read = tokens
            yield Note(f"resumed {tokens:,} tokens in {time.perf_counter() - started:.1f} s")

    def park(self) -> int:
        """Save the KV cache for the next opening, if it has grown; how many bytes. A full disk is no reason to fail."""
        if self._kv is None or self._read == self._saved:
            return 0
        try:
            size = self._generator.save_state(self._kv.path(self.info.id))
            self._kv.sweep()
        except EdgemmError:
            return 0
        self._saved = self._read
        return size

    # How an answer comes about

    def _ask(
        self, parent: int | None, text: str, attached: Sequence[Attachment], policy: Policy | None = None
    ) -> Events:
        if self.changed_elsewhere():
            yield Note("this chat has grown in another window: the new messages are another branch")
        before = branch(self.turns, parent)
        plan = self._plan(before, text, attached, policy or self.settings.policy)
        if not plan.fits:
            raise _too_long(plan)
        details: dict[str, Any] = {context.ATTACHMENTS: [asdict(each) for each in attached]} if attached else {}
        if plan.dropped:
            details[context.KEY] = yield from self._cut(plan, before)
        turn = self._sessions.add(self.info.id, parent, "user", text, details=details)
        if not self.info.title:
            self._sessions.rename(self.info.id, _title(text))
        self._reload()
        yield from self._answer(turn)

    def _cut(self, plan: context.Plan, before: Sequence[Turn]) -> Work[dict[str, Any]]:
        """What is kept with the first question before which turns are left out."""
        count = len(plan.dropped)
        start = max(turn.id for turn in plan.dropped) + 1
        if plan.policy is not Policy.SUMMARISE:
            yield Note(f"the {count} oldest messages are left out from here on: the context is full")
            return {"start": start, "summary": ""}
        yield Note(f"the {count} oldest messages are replaced by a summary: the context is full")
        _, earlier = context.kept(before)
        asked = context.messages(self.settings.system, earlier, plan.dropped)
        prompt = self._generator.prompt([*asked, {"role": "user", "content": _SUMMARISE}])
        text = Splitter()
        for event in self._generator.generate(prompt.tokens, _SUMMARY):
            if isinstance(event, Progress):
                yield event
            elif isinstance(event, Token):
                text.feed(event.text)
            elif event.reason == "cancelled":
                raise UsageError("question", "the summary was stopped, so nothing was sent", "send it again")
        text.finish()
        return {"start": start, "summary": text.answer.strip()}

    def _answer(self, question: Turn, start: Turn | None = None) -> Events:
        """Stream an answer to `question`, or what follows `start`."""
        path = branch(self.turns, question.id)
        sent, summary = context.kept(path)
        prompt = self._prompt(context.messages(self.settings.system, summary, sent), start)
        sampling = self.settings.sampling()
        if sampling.seed is None:
            sampling = replace(sampling, seed=secrets.randbits(32))
        details = {"sampling": asdict(sampling), "model": asdict(self._facts)}
        answer = start or self._sessions.add(
            self.info.id, question.id, "assistant", "", state=State.STREAMING, details=details
        )
        self._reload()
        if prompt.note:
            yield Note(prompt.note)
        yield Begun(question, answer)
        events = self._generator.generate(prompt.tokens, sampling)
        yield from Growing(self._sessions, answer, details).run(events, self._ended)

    def _prompt(self, messages: list[Message], start: Turn | None) -> Prompt:
        if start is None:
            return self._generator.prompt(messages)
        if start.tokens:  # the very tokens, and not what their text would be split into
            prompt = self._generator.prompt(messages)
            return replace(prompt, tokens=[*prompt.tokens, *start.tokens])
        return self._generator.continuation([*messages, {"role": "assistant", "content": start.text}])

    def _ended(self, answer: int, done: Done) -> Turn:
        """An answer is stored: know it."""
        self._read = done.prompt_tokens + done.generated_tokens
        self._reload()
        return self.turn(answer)

    def _readable(self, attached: Sequence[Attachment]) -> Sequence[Attachment]:
        for each in attached:
            if each.kind is Kind.IMAGE:
                why = f"{self._facts.model} reads text alone"
                raise UsageError(each.name, f"it is a picture, and {why}", "ask `edgemm predict` about pictures")
        return attached

    def turn(self, message: int, role: str = "") -> Turn:
        """A message of any branch. Raises `UsageError`, also when it is not of that role."""
        turn = next((each for each in self.turns if each.id == message), None)
        if turn is None or (role and turn.role != role):
            raise UsageError(f"message {message}", f"is no {role or 'message'} of this chat", "choose another one")
        return turn

    def _reload(self) -> None:
        self.info = self._sessions.chat(self.info.id)
        self.turns = self._sessions.turns(self.info.id)


def _split(text: str) -> Splitter:
    found = Splitter()
    found.feed(text)
    return found


def _title(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _TITLE else words[: _TITLE - 1].rsplit(" ", 1)[0] + "…"


def _too_long(plan: context.Plan) -> PromptTooLong:
    why = f"has {plan.tokens:,} tokens with the conversation before it, {plan.room:,} fit beside an answer"
    if plan.dropped:
        return PromptTooLong("question", why, f"let the {len(plan.dropped)} oldest messages go, or take a larger --ctx")
    return PromptTooLong("question", why, "shorten it, or take a larger --ctx")
