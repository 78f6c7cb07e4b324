"""Messages (.eml) and mailboxes (.mbox): who wrote what to whom, as text. Attachments are not opened."""

import email
import email.policy
import re
from collections.abc import Iterator
from email.message import EmailMessage, MIMEPart

from edgemm.documents.parsers.html import read
from edgemm.documents.records import Document, Section, Unreadable

_MESSAGES = 20_000
# Begins each message of a mailbox, behind an empty line (RFC 4155); in its text such a line is quoted by ">".
_FROM = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\n\r\n))From [^\n]*\n")
_QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)
_HEADERS = ("From", "To", "Date", "Subject")


def mail(data: bytes, name: str) -> Document:
    is_box = name.lower().endswith(".mbox")
    parts = [_QUOTED.sub(rb"\1", part) for part in _FROM.split(data) if part.strip()] if is_box else [data]
    sections: list[Section] = []
    attached = 0
    for part in parts[:_MESSAGES]:
        message = _parsed(part)
        sections += _section(message)
        attached += sum(each.is_attachment() for each in _parts(message))
    if not sections:
        raise Unreadable("no message in it")
    title = sections[0].heading[0] if len(parts) == 1 else name.rsplit("/", 1)[-1]
    notes = [f"messages after {_MESSAGES:,} were left out"] if len(parts) > _MESSAGES else []
    notes += [f"attachments that were not opened: {attached:,}"] if attached else []
    return Document(title, tuple(sections), tuple(notes))


def _parsed(raw: bytes) -> EmailMessage:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def _parts(message: EmailMessage) -> Iterator[EmailMessage]:
    return (part for part in message.walk() if isinstance(part, EmailMessage))


def _section(message: EmailMessage) -> Iterator[Section]:
    heads = {key: value for key in _HEADERS if (value := _header(message, key))}
    text = "\n".join([*(f"{key}: {value}" for key, value in heads.items()), "", _body(message)]).strip()
    if text:
        yield Section(text, heading=(heads.get("Subject", "message")[:200],))


def _header(message: EmailMessage, key: str) -> str:
    """In one line; as it was sent where it breaks the rules so much that the library fails."""
    try:
        value = str(message[key] or "")
    except Exception:  # of many types
        value = next((str(raw) for name, raw in message.raw_items() if name.lower() == key.lower()), "")
    return " ".join(value.split())


def _body(message: EmailMessage) -> str:
    try:
        part = message.get_body(("plain", "html"))
    except Exception:  # broken headers of a part
        part = next((part for part in _parts(message) if part.get_content_maintype() == "text"), None)
    if part is None:
        return ""
    content = _content(part).replace("\r\n", "\n").replace("\r", "\n")
    if part.get_content_subtype() != "html":
        return content
    return "\n".join(section.text for section in read(content).sections)


def _content(part: MIMEPart) -> str:
    try:
        return str(part.get_content())
    except Exception:  # an unknown encoding, broken headers
        payload = part.get_payload(decode=True)
        return payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""
