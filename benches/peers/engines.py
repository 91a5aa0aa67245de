"""Both programs behind one face: a list of tests goes in, a figure per test comes out. Standard library only."""

import dataclasses
import json
import os
import statistics
from pathlib import Path

import common

HERE = Path(__file__).resolve().parent
VENV_PYTHON = HERE / ".venv" / "bin" / "python"
BRICK = "brick"
# Figures of which less is better; all others are tokens per second.
# Loading ends with the first forward call: who puts work off until then should gain nothing by it.
LOAD, PEAK = "load and first call, ms", "peak memory / file"
LESS_IS_BETTER = {LOAD, PEAK}


@dataclasses.dataclass(frozen=True)
class Test:
    """What is measured in one process, as in `brick bench`."""

    kind: str  # prefill or decode
    tokens: int
    depth: int = 0
    sequences: int = 1

    @property
    def name(self):
        depth = f" @ {self.depth}" if self.depth else ""
        together = f" x{self.sequences}" if self.sequences > 1 else ""
        return f"{'pp' if self.kind == 'prefill' else 'tg'}{self.tokens}{depth}{together}"


@dataclasses.dataclass(frozen=True)
class Setting:
    """Of llama.cpp. Repacked weights are AMX tiles or interleaved rows, whichever the build has for a type."""

    flash: bool
    repack: bool
    mapped: bool = True

    @property
    def name(self):
        return f"llama.cpp {self.mark}"

    @property
    def mark(self):
        return ("F" if self.flash else "") + ("R" if self.repack else "") + ("" if self.mapped else "C") or "–"

    @property
    def flags(self):
        chosen = {"--flash": self.flash, "--no-repack": not self.repack, "--no-mmap": not self.mapped}
        return [flag for flag, on in chosen.items() if on]


def without_amx(args):
    """Environments of both programs in which neither uses AMX: {} and {} unless --without-amx. Makes `no_amx.so` if need be."""
    if not getattr(args, "without_amx", False):
        return {}, {}
    source, library = HERE / "no_amx.c", common.REPOSITORY / "target" / "peers" / "no_amx.so"
    if not library.exists() or library.stat().st_mtime < source.stat().st_mtime:
        library.parent.mkdir(parents=True, exist_ok=True)
        common.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"])
    return {"BRICK_SIMD": "avx512"}, {"LD_PRELOAD": str(library)}


MARKS = "F: flash attention, R: repacked weights, C: file read, not mapped, –: none of them"


def brick(args, gguf, tests, threads):
    flags = []
    for flag, kind in (("--pp", "prefill"), ("--tg", "decode")):
        values = sorted({t.tokens for t in tests if t.kind == kind})
        flags += [flag, ",".join(map(str, values)) or "0"]
    for flag, field in (("--depth", "depth"), ("--sequences", "sequences")):
        flags += [flag, ",".join(str(v) for v in sorted({getattr(t, field) for t in tests}))]
    out, peak = common.run_and_watch([args.brick, "bench", gguf, *flags, "--repeat", args.repeat, "-t", threads, "--json"],
                                    env=os.environ | without_amx(args)[0])
    report = json.loads(out)
    if report["build"]["debug_assertions"]:
        raise SystemExit("this brick has debug assertions: build it with --release")
    result = {row["test"]: statistics.median(row["tok_s"]) for row in report["rows"]}
    if set(result) != {t.name for t in tests}:
        raise SystemExit(f"brick bench measured {sorted(result)}, expected {sorted(t.name for t in tests)}")
    engine = report["engines"][0]
    load = report["load_ms"] + engine["setup_ms"] + engine["first_forward_ms"]
    return result | {LOAD: load, PEAK: peak / gguf.stat().st_size, "about": report["backend"]}


def llama(args, setting, gguf, tests, threads):
    documents = json.dumps([dataclasses.asdict(t) for t in tests])
    out = common.run([args.python, HERE / "llama_worker.py", gguf, "--threads", threads, "--repeat", args.repeat,
                      "--tests", documents, *setting.flags], env=os.environ | without_amx(args)[1])
    report = json.loads(out)
    result = {t.name: statistics.median(row["tok_s"]) for t, row in zip(tests, report["rows"])}
    return result | {LOAD: report["load_ms"] + report["first_forward_ms"], PEAK: report["peak_bytes"] / gguf.stat().st_size,
                     "about": report["version"] + ", " + report["system"]}


def settings(args, gguf, figures):
    """The settings of llama.cpp that may be its best for this file.

    For speed, with and without flash attention, and whichever form of weights is within 10 % of the better one, in prompt or
    generation, by the better of two tries; a map changes no speed. For memory and load, all forms and ways to read the file.
    """
    if LESS_IS_BETTER.issuperset(figures):
        return [Setting(False, repack, mapped) for repack in (True, False) for mapped in (True, False)]
    tests = [Test("prefill", 256), Test("decode", 32)]
    best = {}
    for turn in ((True, False), (False, True)):
        for repack in turn:
            found = llama(args, Setting(False, repack), gguf, tests, args.threads)
            for test in tests:
                key = repack, test.name
                best[key] = max(best.get(key, 0.0), found[test.name])
    near = lambda repack, name: best[repack, name] >= 0.9 * best[not repack, name]
    forms = [repack for repack in (True, False) if any(near(repack, t.name) for t in tests)]
    return [Setting(flash, repack) for repack in forms for flash in (False, True)]


def perplexities(args, gguf, setting, text):
    """Of both programs, on the same tokens, by the same method."""
    ours = json.loads(common.run([args.brick, "perplexity", gguf, "--file", text, "-t", args.threads, "--json"],
                                 env=os.environ | without_amx(args)[0]))
    theirs = json.loads(common.run([args.python, HERE / "llama_worker.py", gguf, "--threads", args.threads,
                                    "--perplexity", text, *setting.flags],
                                   env=os.environ | without_amx(args)[1]))
    with open(text, "rb") as file:
        ids = common.run([args.brick, "tokenize", gguf, "--ids", "--bos", "--no-special"], stdin=file)
    if common.text_sha256(ids.strip()) != theirs["ids_sha256"]:
        raise SystemExit(f"{gguf.name}: the two programs cut {text} into different tokens")
    counts = [(r["text_tokens"], r["predicted_tokens"]) for r in (ours, theirs)]
    if counts[0] != counts[1]:
        raise SystemExit(f"{gguf.name}: tokens of the text and predicted ones are {counts[0]} and {counts[1]}")
    keys = ("perplexity", "perplexity_standard_error", "predicted_tokens")
    return {BRICK: {k: ours[k] for k in keys}, "llama.cpp": {k: theirs[k] for k in keys} | {"setting": setting.mark}}
