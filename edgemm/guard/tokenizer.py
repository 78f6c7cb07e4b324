"""tokenizer.json before the Rust parser sees it: valid JSON of a known kind, without padding and truncation.

Both sections may ask for absurd sizes (a pad length of 10^10 aborts the process), and both are the caller's
decision anyway.
"""

import json
from pathlib import Path
from typing import Any

from edgemm.errors import BadFile, Unsupported

_FIX = "convert or pull the model again"
_MAX_BYTES = 128 << 20
_KINDS = ("WordPiece", "BPE", "Unigram", "WordLevel")


def check_tokenizer_json(raw: bytes, path: Path) -> dict[str, Any]:
    """The parsed file without `padding` and `truncation`. Raises `BadFile` or `Unsupported`."""
    if len(raw) > _MAX_BYTES:
        raise BadFile(path, f"has {len(raw)} bytes, more than {_MAX_BYTES}", _FIX)
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadFile(path, f"not valid JSON ({error})", _FIX) from error
    model = content.get("model") if isinstance(content, dict) else None
    if not isinstance(model, dict):
        raise BadFile(path, "it has no section `model`", _FIX)
    kind = model.get("type") or ("BPE" if "merges" in model else None)
    if kind not in _KINDS:
        raise Unsupported(path, f"tokenizer model {str(kind)[:40]!r} is not known", f"known: {', '.join(_KINDS)}")
    return {**content, "padding": None, "truncation": None}
