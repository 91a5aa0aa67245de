#!/usr/bin/env python3
"""brick and llama.cpp in turn: tokens per second of prompt and generation, and their ratio. See README.md."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import venv
from pathlib import Path

import common

HERE = Path(__file__).resolve().parent
VENV_PYTHON = HERE / ".venv" / "bin" / "python"
LLAMA = "llama-cpp-python==0.3.36"
PHASES = ("prefill", "decode")


def set_up():
    venv.create(VENV_PYTHON.parents[1], with_pip=True)
    env = os.environ | {"CMAKE_ARGS": "-DGGML_NATIVE=ON"}
    subprocess.run([VENV_PYTHON, "-m", "pip", "install", "--no-binary", "llama-cpp-python", LLAMA], env=env, check=True)


def brick(args):
    out = common.run([args.brick, "profile", args.model, "--pp", args.pp, "--tg", args.tg, "--repeat", 1, "-t", args.threads,
                      "--json", "--budget-policy", "off"])
    profile = json.loads(out)
    if profile["build"]["debug_assertions"]:
        raise SystemExit("this brick has debug assertions: build it with --release")
    # Forward calls only, as on the other side; the recorder runs, at its cost to brick.
    speeds = {p["phase"]: p["derived"]["tokens_per_s"] for p in profile["phases"]}
    return {phase: speeds[phase] for phase in PHASES} | {"backend": profile["run"]["backend"]}


def llama(args, flash):
    flags = ["--flash"] if flash else []
    return json.loads(common.run([args.python, HERE / "llama_worker.py", args.gguf, "--pp", args.pp, "--tg", args.tg,
                                  "--threads", args.threads, *flags]))


def measure(args):
    arms = {"llama.cpp": lambda: llama(args, False), "llama.cpp flash": lambda: llama(args, True), "brick": lambda: brick(args)}
    for arm in arms.values():  # file into the page cache, machine limits into brick's
        arm()
    rounds, watch = [], common.Watch(args.threads)
    for i in range(args.rounds):
        # There and back again: ABBA for three.
        order = list(arms) if i % 2 == 0 else list(arms)[::-1]
        rounds.append({name: watch(arms[name]) for name in order})
        shown = ", ".join(f"{n} {r['prefill']:.0f}/{r['decode']:.1f}" for n, r in sorted(rounds[-1].items()))
        print(f"round {i + 1}/{args.rounds}: {shown} tok/s prefill/decode, others {max(watch.shares[-3:], default=0):.0%}", file=sys.stderr)
    return rounds, watch


def evaluate(rounds):
    result = {}
    for phase in PHASES:
        median = {name: statistics.median(r[name][phase] for r in rounds) for name in rounds[0]}
        # Llama.cpp's better setting, phase by phase and with hindsight: in its favour.
        peer = max((n for n in median if n != "brick"), key=median.get)
        result[phase] = {"peer": peer, "medians": median,
                         "ratio": common.ratio([(r[peer][phase], r["brick"][phase]) for r in rounds])}
    return result


def table(result):
    lines = ["| phase | llama.cpp tok/s | flash attention | brick tok/s | brick / llama.cpp | 95 % interval | rounds |",
             "| --- | ---: | --- | ---: | ---: | --- | ---: |"]
    for phase, r in result.items():
        q, m = r["ratio"], r["medians"]
        lines.append(f"| {phase} | {m[r['peer']]:.1f} | {'on' if 'flash' in r['peer'] else 'off'} | {m['brick']:.1f} "
                     f"| {q['estimate']:.3f} | {q['low']:.3f} – {q['high']:.3f} | {q['pairs']} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", help="a name brick knows, or a path")
    parser.add_argument("--setup", action="store_true", help=f"make .venv here and build {LLAMA} for this machine; then exit")
    parser.add_argument("--python", type=Path, default=VENV_PYTHON, help="Python that has llama-cpp-python [default: .venv's]")
    parser.add_argument("--brick", type=Path, default=common.BRICK)
    parser.add_argument("--pp", type=int, default=512, help="tokens of the prompt")
    parser.add_argument("--tg", type=int, default=64, help="tokens generated")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--nice", type=int, default=0, help="added to the niceness of both sides")
    parser.add_argument("--no-record", action="store_true", help="do not write to benches/runs")
    args = parser.parse_args()
    if args.setup:
        return set_up()
    if not args.model or args.rounds < 5 or args.pp < 1 or args.tg < 1:
        parser.error("expected a model, at least 5 rounds, and at least one token each of --pp and --tg")
    if not args.python.exists():
        parser.error(f"{args.python} does not exist; run --setup, or give --python")
    common.set_nice(args.nice)
    args.gguf = common.model_file(args.brick, args.model)
    rounds, watch = measure(args)
    result = evaluate(rounds)
    print(table(result))
    print(watch.summary())
    if not args.no_record:
        peer = rounds[0]["llama.cpp"]
        options = f"--pp {args.pp} --tg {args.tg} --rounds {args.rounds} --threads {args.threads} --nice {args.nice}"
        folder = common.record({
            "title": f"brick and llama.cpp: {args.gguf.name}, {args.threads} threads",
            "command": f"benches/peers/compare.py {Path(args.model).name} {options}",
            "model": {"file": args.gguf.name, "bytes": args.gguf.stat().st_size, "sha256": common.sha256(args.gguf)},
            "programs": {"brick": common.brick_build(args.brick) | {"backend": rounds[0]["brick"]["backend"]},
                         "llama.cpp": {"package": f"llama-cpp-python {peer['version']}", "built": "GGML_NATIVE=ON", "system": peer["system"]}},
            "settings": {"threads": args.threads, "prompt_tokens": args.pp, "generated_tokens": args.tg, "nice": args.nice},
            "quiet": watch.summary(),
            "others_share": watch.shares,
            "result": result,
            "rounds": [{n: {p: r[n][p] for p in PHASES} for n in r} for r in rounds],
        }, table(result))
        print(f"recorded in {folder.relative_to(common.REPOSITORY)}", file=sys.stderr)


if __name__ == "__main__":
    main()
