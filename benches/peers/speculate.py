#!/usr/bin/env python3
"""Decoding with and without speculation, in turn: tokens per second and their ratio. See README.md."""

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

import common

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "prompts" / "inventory.py"
PROMPTS = {
    "edit": lambda: "Rename the attribute `quantity` to `stock` everywhere in this file. Answer with the whole changed file "
                    f"and nothing else.\n\n```python\n{SOURCE.read_text()}```\n",
    # Nothing to look up: what speculation costs where it does not help.
    "essay": lambda: "Write an essay about how the invention of the printing press changed the spread of knowledge in Europe.",
}


def answer(args, prompt, mode):
    out = common.run([args.brick, "run", args.model, "--json", "-t", args.threads, "-n", args.tokens, "--speculate", mode,
                      "--temperature", args.temperature, "--seed", 1, prompt])
    return json.loads(out)


def measure(args, prompt):
    arms = ("off", args.mode)
    rounds, watch, ids = [], common.Watch(args.threads), None
    for i in range(args.rounds):
        order = arms if i % 2 == 0 else arms[::-1]
        reports = {mode: watch(lambda mode=mode: answer(args, prompt, mode)) for mode in order}
        for mode, report in reports.items():
            ids = ids or report["generated_ids"]
            if report["generated_ids"] != ids:
                raise SystemExit(f"round {i + 1}: --speculate {mode} gave another answer; it must never")
        rounds.append({mode: r["timings"]["decode_tok_s"] for mode, r in reports.items()} | {"speculation": reports[args.mode]["speculation"]})
        shown = ", ".join(f"{mode} {rounds[-1][mode]:.1f}" for mode in arms)
        print(f"round {i + 1}/{args.rounds}: {shown} tok/s, {rounds[-1]['speculation']}", file=sys.stderr)
    return rounds, watch, len(ids)


def table(args, rounds, tokens):
    q = common.ratio([(r["off"], r[args.mode]) for r in rounds])
    median = lambda pick: statistics.median(map(pick, rounds))
    total = lambda key: median(lambda r: r["speculation"][key] or 0)
    lines = [f"| prompt | tokens | off tok/s | {args.mode} tok/s | drafted | accepted | tokens per forward | {args.mode} / off | 95 % interval | rounds |",
             "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- | ---: |",
             f"| {args.prompt} | {tokens} | {median(lambda r: r['off']):.1f} | {median(lambda r: r[args.mode]):.1f} | {total('drafted'):.0f} "
             f"| {total('accepted'):.0f} | {total('tokens_per_forward'):.2f} | {q['estimate']:.3f} | {q['low']:.3f} – {q['high']:.3f} | {q['pairs']} |"]
    return q, "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a name brick knows, or a path")
    parser.add_argument("--prompt", choices=PROMPTS, default="edit", help="edit repeats a file with changes, essay repeats nothing")
    parser.add_argument("--mode", default="auto", help="what --speculate is compared with off: auto, or a number of tokens")
    parser.add_argument("--tokens", type=int, default=512, help="tokens generated at most")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--brick", type=Path, default=common.BRICK)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--nice", type=int, default=0, help="added to the niceness of both sides")
    parser.add_argument("--no-record", action="store_true", help="do not write to benches/runs")
    args = parser.parse_args()
    if args.rounds < 2 or args.tokens < 2 or args.mode == "off":
        parser.error("expected at least 2 rounds, at least 2 tokens, and a --mode other than off")
    common.set_nice(args.nice)
    gguf = common.model_file(args.brick, args.model)
    rounds, watch, tokens = measure(args, PROMPTS[args.prompt]())
    q, text = table(args, rounds, tokens)
    print(text)
    print(watch.summary())
    if not args.no_record:
        options = (f"--prompt {args.prompt} --mode {args.mode} --tokens {args.tokens} --temperature {args.temperature} "
                   f"--rounds {args.rounds} --threads {args.threads} --nice {args.nice}")
        folder = common.record({
            "title": f"speculation, {args.prompt}: {gguf.name}, {args.threads} threads",
            "command": f"benches/peers/speculate.py {Path(args.model).name} {options}",
            "model": {"file": gguf.name, "bytes": gguf.stat().st_size, "sha256": common.sha256(gguf)},
            "programs": {"brick": common.brick_build(args.brick)},
            "settings": {"threads": args.threads, "tokens": tokens, "temperature": args.temperature, "nice": args.nice},
            "quiet": watch.summary(),
            "others_share": watch.shares,
            "result": {f"{args.mode} / off": q},
            "rounds": rounds,
        }, text)
        print(f"recorded in {folder.relative_to(common.REPOSITORY)}", file=sys.stderr)


if __name__ == "__main__":
    main()
