"""Messages (.eml) and mailboxes (.mbox): who wrote what to whom, as text. Attachments are not opened."""

import email
import email.policy
import re
from collections.abc import Iterator
from email.message import EmailMessage

from edgemm.documents.parsers.html import read
from edgemm.documents.records import Document, Section, Unreadable

_MESSAGES = 20_000
_FROM = re.compile(rb"^From .*\r?\n", re.MULTILINE)  # begins each message of a mailbox (RFC 4155)
_HEADERS = ("From", "To", "Date", "Subject")


def mail(data: bytes, name: str) -> Document:
    parts = _FROM.split(data)[1:] if name.lower().endswith(".mbox") else [data]
    sections = [section for raw in parts[:_MESSAGES] for section in _message(raw)]
    if not sections:
        raise Unreadable("no message in it")
    title = sections[0].heading[0] if len(parts) == 1 and sections[0].heading else name.rsplit("/", 1)[-1]
    notes = (f"messages after {_MESSAGES:,} were left out",) if len(parts) > _MESSAGES else ()
    return Document(title, tuple(sections), notes)


def _message(raw: bytes) -> Iterator[Section]:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    heads = [f"{key}: {' '.join(str(message[key]).split())}" for key in _HEADERS if message[key]]
    text = "\n".join([*heads, "", _body(message)]).strip()
    if text:
        yield Section(text, heading=(str(message["Subject"] or "message")[:200],))


def _body(message: EmailMessage) -> str:
    part = message.get_body(("plain", "html"))
    if part is None:
        return ""
    try:
        content = str(part.get_content())
    except (LookupError, ValueError, AttributeError):  # an unknown encoding
        content = (part.get_payload(decode=True) or b"").decode("utf-8", "replace")  # type: ignore[union-attr]
    if part.get_content_subtype() != "html":
        return content
    return "\n".join(section.text for section in read(content).sections)
