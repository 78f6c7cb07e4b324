"""What of a conversation goes to the model: everything, or what is left when it no longer fits, as the user chose.

Nothing is ever left out in silence: a `Plan` says what would be, before anything is sent. Which turns were left out is
kept with the question from which on they were, so that the beginning of the prompt stays the same from turn to turn and
the KV cache is of use. It counts tokens by a function that is given to it; it knows no model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgemm.attachments import Attachment, Kind, quoted
from edgemm.chat_settings import Policy
from edgemm.prompt import Message
from edgemm.sessions import Turn

ATTACHMENTS = "attachments"  # in a question's details, each as a dictionary
KEY = "context"  # in a question's details: {"start": id of the first message that is sent, "summary": text}
_KEPT = 0.75  # of the room is filled again after turns were dropped, so that the next question needs no other cut
_SUMMARY_ROOM = 0.5
Count = Callable[[Sequence[Message]], int]


@dataclass(frozen=True, slots=True)
class Plan:
    """A question before it is sent: `tokens` of the prompt, of which the context has `room`.

    `dropped` are the turns that would be left out to make it fit, and `policy` says what to do about them. It does not
    fit when they must not be, or when the question alone is too long.
    """

    tokens: int
    room: int
    policy: Policy
    dropped: tuple[Turn, ...] = ()

    @property
    def fits(self) -> bool:
        return self.tokens <= self.room and (not self.dropped or self.policy is not Policy.REFUSE)


def room(context: int, max_tokens: int) -> int:
    """Tokens of a context that a prompt may fill: a quarter at most is kept for the answer."""
    return max(1, context - max(1, min(max_tokens, context // 4)))


def plan(system: str, turns: Sequence[Turn], question: Message, room: int, policy: Policy, count: Count) -> Plan:
    """How `question` would be sent behind the branch `turns`."""
    sent, summary = kept(turns)

    def tokens(first: int) -> int:
        return count([*messages(system, summary, sent[first:]), question])

    whole = tokens(0)
    if whole <= room:
        return Plan(whole, room, policy)
    target = room * (_SUMMARY_ROOM if policy is Policy.SUMMARISE else _KEPT)
    starts = [*[i for i, turn in enumerate(sent) if turn.role == "user"][1:], len(sent)]
    low, high = 0, len(starts) - 1
    while low < high:  # the fewest turns that have to go
        middle = (low + high) // 2
        low, high = (low, middle) if tokens(starts[middle]) <= target else (middle + 1, high)
    first = starts[low] if sent else 0
    left = tokens(first) if policy is not Policy.REFUSE else whole
    return Plan(left, room, policy, tuple(sent[:first]))


def kept(turns: Sequence[Turn]) -> tuple[list[Turn], str]:
    """The turns of a branch that are still sent, and the summary that stands for those before them."""
    for turn in reversed(turns):
        match turn.details.get(KEY):  # an imported chat may hold anything
            case {"start": int(start), "summary": str(summary)}:
                return [each for each in turns if each.id >= start], summary
    return list(turns), ""


def messages(system: str, summary: str, turns: Sequence[Turn]) -> list[Message]:
    """Turns as a chat template takes them: roles alternate, reasoning and empty answers are left out."""
    head = "\n\n".join(part for part in (system, f"Earlier in this conversation: {summary}" if summary else "") if part)
    found: list[Message] = [{"role": "system", "content": head}] if head else []
    for turn in turns:
        text = content(turn)
        if turn.role == "user" and found and found[-1]["role"] == "user":  # the answer between them never came
            found[-1] = {"role": "user", "content": f"{found[-1]['content']}\n\n{text}"}
        elif text or turn.role == "user":
            found.append({"role": turn.role, "content": text})
    return found


def content(turn: Turn) -> str:
    """What a turn says to the model: its attachments as quotes, then its text."""
    return asked(turn.text, attachments(turn))


def attachments(turn: Turn) -> list[Attachment]:
    """The files that were sent with a question, as its details hold them; what is damaged is left out."""
    found = turn.details.get(ATTACHMENTS)
    return [each for row in (found if isinstance(found, list) else []) if (each := _attachment(row)) is not None]


def _attachment(row: object) -> Attachment | None:
    match row:
        case {"name": str(name), "kind": "text", "text": str(text), "bytes": int(size), "sha256": str(digest)}:
            return Attachment(name, Kind.TEXT, text, size, digest)
    return None


def asked(text: str, attached: Sequence[Attachment]) -> str:
    return "\n\n".join([*map(quoted, attached), text]) if attached else text
