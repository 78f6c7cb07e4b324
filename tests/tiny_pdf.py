"""PDF files of a few lines, written by hand (ISO 32000-1): one page for each text."""

# The standard security handler; no password gives these two, so every password is wrong.
_LOCK = f"<< /Filter /Standard /V 1 /R 2 /P -4 /O <{'41' * 32}> /U <{'42' * 32}> >>"


def write(pages: list[str], title: str = "") -> bytes:
    """Each text on a page of its own, in Helvetica; ASCII without parentheses."""
    return _file(pages, f"/Info {len(pages) * 2 + 4} 0 R", f"<< /Title ({title}) >>")


def encrypted() -> bytes:
    """A file that asks for a password."""
    return _file(["secret"], f"/Encrypt {_LOCK} /ID [<{'43' * 16}> <{'43' * 16}>]")


def _file(pages: list[str], trailer: str, information: str = "<< >>") -> bytes:
    count = len(pages)
    kids = " ".join(f"{3 + 2 * i} 0 R" for i in range(count))
    font = f"{3 + 2 * count} 0 R"
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {count} >>"]
    for i, text in enumerate(pages):
        lines = "".join(f"({line}) Tj 0 -14 Td " for line in text.split("\n"))
        stream = f"BT /F1 12 Tf 50 750 Td {lines}ET" if text else ""
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents {4 + 2 * i} 0 R"
            f" /Resources << /Font << /F1 {font} >> >> >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    objects.append("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    objects.append(information)
    body, places = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n{each}\nendobj\n".encode()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    end = f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R {trailer} >>\nstartxref\n{len(body)}\n%%EOF\n"
    return body + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{end}".encode()
