"""JSON schemas from outside: what could hang or kill llama.cpp is refused, and a good one shapes the answer."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_gguf

from edgemm.backends import Sampling
from edgemm.backends.schema import check
from edgemm.backends.worker import Worker
from edgemm.errors import UsageError
from edgemm.events import Done, Token

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer"},
        "hobbies": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 3},
    },
    "required": ["name", "age", "hobbies"],
}
DEEP = '{"type": "array", "items": ' * 70 + "{}" + "}" * 70
WIDE = json.dumps({"properties": {f"k{i}": {} for i in range(400)}})
BAD = [
    ("{", "is no JSON"),
    ("[]", "is no JSON object"),
    ('{"const": NaN}', "NaN is no number"),
    (json.dumps({"description": "x" * 70_000}), "70019 bytes, more than 65536"),
    (DEEP, "deeper than 64"),
    ('{"a":' * 10_000 + "1" + "}" * 10_000, "is no JSON|deeper|recursion"),
    (WIDE, "400 keys, more than 256"),
    ('{"type": "array", "items": {"type": "string"}, "minItems": 1000000000}', "minItems 1000000000"),
    ('{"type": "string", "maxLength": 1e9}', "maxLength 1000000000.0"),
    ('{"type": "string", "minLength": -5}', "minLength -5"),
    ('{"type": "string", "minLength": true}', "minLength True"),
    ('{"type": "string", "pattern": "^a{1,99999}$"}', "more than 1000 times"),
    ('{"type": "string", "pattern": "^a]$"}', "brackets"),
    ('{"type": "string", "pattern": "^(((a$"}', "brackets"),
    ('{"type": "string", "pattern": "^' + "(" * 90 + "a" + ")" * 90 + '$"}', "brackets"),
    ('{"type": "string", "pattern": "^[z-a]$"}', "empty range"),
    (r'{"const": "\u0000"}', "value 0"),
]
UNCONVERTIBLE = [
    ('{"type": "nothing"}', "Unrecognized schema"),
    ('{"$ref": "https://example.com/schema.json"}', "not allowed"),
    ('{"$ref": "#/nowhere"}', "Error resolving ref"),
    ('{"type": {}}', "TypeError"),
    ('{"type": "array", "items": 5}', "AttributeError"),
    ('{"type": "string", "pattern": "^(?<=x)*$"}', "Unsupported pattern"),
    (r'{"type": "string", "pattern": "^\ud800$"}', "surrogates"),
    ('{"enum": []}', "llama.cpp refuses"),
    (r'{"type": "string", "pattern": "^\\x$"}', "llama.cpp refuses"),
]


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with Worker(tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf")) as worker:
        yield worker


def answer(worker: Worker, prompt: list[int], sampling: Sampling) -> tuple[str, Done]:
    *events, done = worker.generate(prompt, sampling)
    assert isinstance(done, Done)
    return "".join(e.text for e in events if isinstance(e, Token)), done


@pytest.mark.parametrize(("schema", "why"), BAD)
def test_a_schema_that_could_do_harm_is_refused(schema: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        check(schema)


@pytest.mark.parametrize(("schema", "why"), BAD + UNCONVERTIBLE)
def test_a_refused_schema_leaves_the_child_alive(worker: Worker, schema: str, why: str) -> None:
    child = worker._child
    with pytest.raises(UsageError, match=why):
        list(worker.generate([5, 6, 7], Sampling(max_tokens=4, schema=schema)))
    assert worker._child is child
    assert answer(worker, [5, 6, 7], Sampling(max_tokens=4))[1].generated_tokens


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": r"^[a-z]{3}-\[[0-9]\]$"},
        {"type": "object", "properties": {"minItems": {"type": "integer"}, "pattern": {"type": "string"}}},
        {"type": "array", "items": {"type": "string", "minLength": 1000}, "maxItems": 1000},
    ],
)
def test_a_harmless_schema_passes(schema: dict[str, object]) -> None:
    check(json.dumps(schema))


@pytest.mark.parametrize("draft", [0, 8])
def test_even_a_model_of_noise_follows_a_schema(worker: Worker, draft: int) -> None:
    schema = json.dumps({"type": "array", "items": {"enum": ["on", "off"]}, "minItems": 3, "maxItems": 3})
    sampling = Sampling(max_tokens=80, temperature=1.0, seed=3, schema=schema, draft=draft)
    text, done = answer(worker, [5, 6, 7], sampling)
    assert done.reason == "stop"
    assert len(json.loads(text)) == 3
    assert set(json.loads(text)) <= {"on", "off"}


@pytest.mark.starter
def test_smollm2_describes_a_person_by_a_schema(smollm2: Path) -> None:
    with Worker(smollm2) as worker:
        prompt = worker.prompt([{"role": "user", "content": "Ada is 36. Describe her, with her hobbies."}]).tokens
        text, done = answer(worker, prompt, Sampling(max_tokens=200, temperature=0, schema=json.dumps(PERSON)))
    person = json.loads(text)
    assert done.reason == "stop"
    assert set(person) == {"name", "age", "hobbies"}
    assert isinstance(person["age"], int)
