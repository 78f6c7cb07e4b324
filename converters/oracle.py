"""The checkpoint through transformers itself, where the extra `export` is installed; in a process of its own.

The converter never imports torch: `vectors` starts `python -m converters.oracle FOLDER`, which reads rows of token
ids as JSON from stdin and writes their last hidden states, pooled and normalized, as JSON to stdout. No code of the
checkpoint is run.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

from converters.checkpoint import Array, Checkpoint
from edgemm.errors import MissingExtra

_SECONDS = 600


def available() -> bool:
    return find_spec("torch") is not None and find_spec("transformers") is not None


def vectors(checkpoint: Checkpoint, rows: Sequence[Sequence[int]]) -> Array:
    """float32 (len(rows), hidden), as transformers computes them. Raises `MissingExtra` when it cannot."""
    request = {"rows": [list(row) for row in rows], "pooling": checkpoint.pooling, "normalize": checkpoint.normalize}
    command = [sys.executable, "-m", "converters.oracle", str(checkpoint.folder)]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, timeout=_SECONDS)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1][:200]
        raise MissingExtra(
            "transformers", f"cannot run the checkpoint ({reason})", "add --no-oracle to go on without it"
        )
    return np.array(json.loads(done.stdout), np.float32)


def _main(folder: str) -> None:
    import torch
    from transformers import AutoModel

    request = json.load(sys.stdin)
    model = AutoModel.from_pretrained(folder, local_files_only=True, trust_remote_code=False, use_safetensors=True)
    result = []
    with torch.inference_mode():
        for row in request["rows"]:
            hidden = model.eval()(input_ids=torch.tensor([row])).last_hidden_state[0]
            vector = hidden[0] if request["pooling"] == "cls" else hidden.mean(dim=0)
            result.append((vector / vector.norm() if request["normalize"] else vector).tolist())
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    _main(sys.argv[1])
