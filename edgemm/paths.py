"""Where models, chats and caches live, and which names may become paths.

    <store>/<name>/            a package (package.py)
    <store>/.checkpoints/NAME/ a downloaded Hugging Face checkpoint, not converted yet
    <store>/.partial/          downloads and packages that are being written

Everything lies below one folder, so that finishing a download or a conversion is a rename on one disk.
Chats and caches are not models and have folders of their own.
The store is $EDGEMM_HOME, else `quantized/` of the checkout that edgemm runs from, else the user's data folder.
"""

import re
from pathlib import Path

from edgemm.errors import BadName
from edgemm.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # reserved on Windows
_MAX_NAME = 96


def store() -> Path:
    """The folder that holds every package. It need not exist yet."""
    home = Settings.from_environment().home
    return home if home else _checkout_store() or _user_store()


def checkpoints() -> Path:
    return store() / ".checkpoints"


def partial() -> Path:
    return store() / ".partial"


def data() -> Path:
    """The folder of what the user made: chats, settings, seen speeds. It need not exist yet."""
    home = Settings.from_environment().home
    return home / ".data" if home else _user_data() / "data"


def cache() -> Path:
    """The folder of what can be made again at any time, so that deleting it loses nothing. It need not exist yet."""
    from platformdirs import user_cache_path

    home = Settings.from_environment().home
    return home / ".cache" if home else user_cache_path("edgemm", appauthor=False)


def check_name(name: str) -> str:
    """Return `name` if it is safe as one folder name on every system, else raise `BadName`."""
    if len(name) > _MAX_NAME or not _NAME.fullmatch(name) or _DEVICES.fullmatch(name):
        shown = name if len(name) <= _MAX_NAME else name[:_MAX_NAME] + "…"
        raise BadName(
            f"model name {shown!r}",
            f"a name is 1 to {_MAX_NAME} letters, digits, '-', '_' and single '.', and starts with a letter or digit",
            "choose another name",
        )
    return name


def _checkout_store() -> Path | None:
    folder = Path(__file__).resolve().parent.parent / "quantized"
    return folder if (folder / "README.md").is_file() else None


def _user_store() -> Path:
    return _user_data() / "models"


def _user_data() -> Path:
    from platformdirs import user_data_path

    return user_data_path("edgemm", appauthor=False)
