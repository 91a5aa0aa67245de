"""The model files of the comparison, made here from the two that brick downloads. Standard library only.

llama.cpp makes them, with its own mix of types, from SmolLM2's Q4_1: what matters is that both programs read the same file.
The values are therefore those of Q4_1 at best, and the perplexities of the finer types close to its own.
"""

import json
from pathlib import Path

import common

FOLDER = common.REPOSITORY / "target" / "peers"
SMOL, QWEN = "smollm2:135m", "qwen2.5-coder:1.5b"
# Name in tables -> (model brick knows, type to make of it or None for the file itself).
FILES = {
    "q4_0": (SMOL, "Q4_0"),
    "q4_1": (SMOL, None),
    "q4_k_m": (SMOL, "Q4_K_M"),
    "q6_k": (SMOL, "Q6_K"),
    "q8_0": (SMOL, "Q8_0"),
    "f16": (SMOL, "F16"),
    "bf16": (SMOL, "BF16"),
    "qwen": (QWEN, None),
}


def title(name):
    model, dtype = FILES.get(name, (None, None))
    if model is None:
        return Path(name).name
    label = {SMOL: "SmolLM2 135M", QWEN: "Qwen2.5-Coder 1.5B"}[model]
    return f"{label} {dtype or {SMOL: 'Q4_1', QWEN: 'Q4_K_M'}[model]}"


def path(name, brick, python):
    """The file of a name in FILES, made if it is not there yet; other names are models brick knows, or paths."""
    if name not in FILES:
        return common.model_file(brick, name)
    model, dtype = FILES[name]
    source = common.model_file(brick, model)
    if dtype is None:
        return source
    target = FOLDER / f"{model.replace(':', '-')}.{dtype}.gguf"
    stamp = target.with_suffix(".json")  # which source the file was made from
    made = {"source": source.name, "bytes": source.stat().st_size, "type": dtype}
    if not (target.exists() and stamp.exists() and json.loads(stamp.read_text()) == made):
        FOLDER.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(".partial")
        common.run([python, Path(__file__).with_name("llama_quantize.py"), source, partial, dtype])
        partial.replace(target)
        stamp.write_text(json.dumps(made) + "\n")
    return target
