#!/usr/bin/env python3
"""brick and llama.cpp in turn, over all weight formats and both models. See README.md.

The experiment `speed` is the matrix: prompt, generation, and the perplexity of both on the same text. The others ask one
question each, by the ratio of two figures of the same program.
"""

import argparse
import dataclasses
import os
import statistics
import sys
import time
from pathlib import Path

import common
import engines
import files
from engines import BRICK, LOAD, PEAK, Test

TEXT = engines.HERE / "text.txt"


@dataclasses.dataclass(frozen=True)
class Experiment:
    """`runs` are processes of each program: (threads or None for --threads, tests); a contrast divides one figure by another."""

    about: str
    runs: tuple
    models: tuple
    rounds: int = 6
    figures: tuple = ()  # shown; default: all tests
    contrasts: tuple = ()  # (figure, divided by figure)
    perplexity: bool = False


ALL = tuple(files.FILES)
BOTH = ("q4_1", "qwen")
PROMPT, GENERATION = Test("prefill", 512), Test("decode", 128)
LONG = Test("prefill", 4096)
ALONE, TOGETHER = Test("decode", 64), Test("decode", 64, sequences=8)
NEAR, FAR = Test("decode", 64, depth=128), Test("decode", 64, depth=4096)

EXPERIMENTS = {
    "speed": Experiment("prompt of 512 tokens, 128 tokens generated, and perplexity", ((None, (PROMPT, GENERATION)),), ALL,
                        rounds=8, perplexity=True),
    "sequences": Experiment("8 sequences generated together, and one", ((None, (ALONE, TOGETHER)),), BOTH,
                            contrasts=((TOGETHER.name, ALONE.name),)),
    "long-prompt": Experiment("a prompt of 4,096 tokens, and of 512", ((None, (PROMPT, LONG)),), ("q4_1",),
                              contrasts=((LONG.name, PROMPT.name),)),
    "depth": Experiment("generation after 4,096 tokens, and after 128", ((None, (NEAR, FAR)),), ("q4_1",),
                        contrasts=((FAR.name, NEAR.name),)),
    "threads": Experiment("two threads, and one", ((1, (PROMPT, GENERATION)), (2, (PROMPT, GENERATION))), BOTH,
                          contrasts=((f"{PROMPT.name}, 2 threads", f"{PROMPT.name}, 1 thread"),
                                     (f"{GENERATION.name}, 2 threads", f"{GENERATION.name}, 1 thread"))),
    "memory": Experiment("peak memory of a prompt of 512 and 32 tokens generated, by file size",
                         ((None, (PROMPT, Test("decode", 32))),), ALL, rounds=5, figures=(PEAK,)),
    "load": Experiment("opening a file, and one call with one token, page cache warm",
                       ((None, (Test("prefill", 1),)),), BOTH, rounds=8, figures=(LOAD,)),
}


def figures(experiment):
    if experiment.figures:
        return experiment.figures
    several = len(experiment.runs) > 1
    name = lambda test, threads: f"{test.name}, {threads} thread{'s' * (threads > 1)}" if several else test.name
    return tuple(name(t, threads) for threads, tests in experiment.runs for t in tests)


def one_arm(args, experiment, gguf, setting):
    """All figures of one program (brick without a setting); one process per number of threads."""
    result = {}
    for threads, tests in experiment.runs:
        t = threads or args.threads
        found = engines.llama(args, setting, gguf, tests, t) if setting else engines.brick(args, gguf, tests, t)
        suffix = f", {t} thread{'s' * (t > 1)}" if len(experiment.runs) > 1 else ""
        result |= {(k if k == "about" else k + suffix): v for k, v in found.items()}
    return result


def measure(args, experiment, gguf):
    """Rounds over all arms, there and back again, so that nobody always follows the same."""
    choices = engines.settings(args, gguf, figures(experiment))
    arms = {s.name: s for s in choices} | {BRICK: None}
    one_arm(args, experiment, gguf, None)  # brick's pages into the cache; llama.cpp's choice of settings has done its part
    watch = common.Watch(max([args.threads] + [t or 0 for t, _ in experiment.runs]))
    rounds = []
    for i in range(args.rounds or experiment.rounds):
        order = list(arms) if i % 2 == 0 else list(arms)[::-1]
        rounds.append({name: watch(lambda: one_arm(args, experiment, gguf, arms[name])) for name in order})
        shown = "; ".join(f"{n} " + " ".join(f"{rounds[-1][n][f]:.4g}" for f in figures(experiment)) for n in arms)
        print(f"  round {i + 1}: {shown}; others {max(watch.shares[-len(arms):], default=0):.0%}", file=sys.stderr)
    return choices, rounds, watch


def evaluate(experiment, choices, rounds):
    """Llama.cpp's best setting counts, figure by figure and with hindsight: in its favour."""
    marks = {s.name: s.mark for s in choices}
    result = {"figures": {}, "contrasts": {}}
    for figure in figures(experiment):
        median = {name: statistics.median(r[name][figure] for r in rounds) for name in rounds[0]}
        better = min if figure in engines.LESS_IS_BETTER else max
        peer = better(marks, key=median.get)
        result["figures"][figure] = {
            "peer": peer, "setting": marks[peer], "medians": median,
            "ratio": common.ratio([(r[peer][figure], r[BRICK][figure]) for r in rounds])}
    for over, under in experiment.contrasts:
        peers = [result["figures"][f]["peer"] for f in (under, over)]
        result["contrasts"][f"{over} / {under}"] = {
            "llama.cpp": common.ratio([(r[peers[0]][under], r[peers[1]][over]) for r in rounds]),
            BRICK: common.ratio([(r[BRICK][under], r[BRICK][over]) for r in rounds])}
    return result


def number(x):
    return f"{x:.0f}" if x >= 1000 else f"{x:.1f}" if x >= 100 else f"{x:.2f}" if x >= 10 else f"{x:.3f}"


def spread(q):
    return f"{q['estimate']:.2f} [{q['low']:.2f}, {q['high']:.2f}]"


def table(results):
    """A row per file; `results` are pairs of title and what `evaluate` gave, with perplexities and others' share."""
    first = results[0][1]
    header = ["file"]
    for figure in first["figures"]:
        header += [f"{figure}: llama.cpp", BRICK, "ratio [95 %]"]
    for contrast in first["contrasts"]:
        header += [f"{contrast}: llama.cpp", BRICK]
    header += ["perplexity: llama.cpp", BRICK] if "perplexity" in first else []
    lines = ["| " + " | ".join(header + ["others' share"]) + " |", "| --- |" + " ---: |" * len(header)]
    for title, result in results:
        cells = [title]
        for q in result["figures"].values():
            cells += [f"{number(q['medians'][q['peer']])} {q['setting']}", number(q["medians"][BRICK]), spread(q["ratio"])]
        for q in result["contrasts"].values():
            cells += [spread(q["llama.cpp"]), spread(q[BRICK])]
        for p in result.get("perplexity", {}).values():
            cells.append(f"{p['perplexity']:.3f} ± {p['perplexity_standard_error']:.3f}")
        cells.append(result["others"])
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines + ["", f"llama.cpp's best setting of each figure: {engines.MARKS}."])


def one_model(args, experiment, name):
    gguf = files.path(name, args.brick, args.python)
    print(f"{files.title(name)} ({gguf.name})", file=sys.stderr)
    choices, rounds, watch = measure(args, experiment, gguf)
    result = evaluate(experiment, choices, rounds)
    if experiment.perplexity:
        prompt = result["figures"][figures(experiment)[0]]["peer"]
        setting = next(s for s in choices if s.name == prompt)
        found = engines.perplexities(args, gguf, setting, TEXT)
        result["perplexity"] = {who: found[who] for who in ("llama.cpp", BRICK)}
    result["others"] = watch.short()
    about = {"llama.cpp": rounds[0][choices[0].name]["about"], BRICK: rounds[0][BRICK]["about"]}
    plain = [{n: {k: v for k, v in r[n].items() if k != "about"} for n in r} for r in rounds]
    return {"file": gguf, "about": about, "result": result, "rounds": plain, "others_share": watch.shares,
            "quiet": watch.summary()}


def run(args, title, command, experiment, models):
    """Measures, prints, records."""
    start, done = time.monotonic(), []
    for name in models:
        done.append((files.title(name), one_model(args, experiment, name)))
    text = table([(title, d["result"]) for title, d in done])
    print(text)
    quiet = "; ".join(f"{t}: {d['quiet']}" for t, d in done)
    print(f"{time.monotonic() - start:.0f} s; {quiet}", file=sys.stderr)
    if args.no_record:
        return
    about = done[0][1]["about"]
    folder = common.record({
        "title": title,
        "command": command,
        "models": [{"file": d["file"].name, "bytes": d["file"].stat().st_size, "sha256": common.sha256(d["file"])}
                   for _, d in done],
        "programs": {"brick": common.brick_build(args.brick) | {"backend": about[BRICK]},
                     "llama.cpp": {"package": "llama-cpp-python " + about["llama.cpp"], "built": "GGML_NATIVE=ON"}},
        "settings": {"threads": args.threads, "rounds": args.rounds or experiment.rounds, "repeat": args.repeat,
                     "nice": args.nice},
        "quiet": quiet,
        "results": {t: {k: d[k] for k in ("result", "rounds", "others_share")} for t, d in done},
    }, text)
    print(f"recorded in {folder.relative_to(common.REPOSITORY)}", file=sys.stderr)


def add_options(parser):
    parser.add_argument("--python", type=Path, default=engines.VENV_PYTHON,
                        help="Python that has llama-cpp-python [default: .venv's]")
    parser.add_argument("--brick", type=Path, default=common.BRICK)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeat", type=int, default=1, help="repetitions of a test in each process, after its warm-up")
    parser.add_argument("--nice", type=int, default=0, help="added to the niceness of both sides")
    parser.add_argument("--no-record", action="store_true", help="do not write to benches/runs")


def check_options(parser, args):
    if args.rounds is not None and args.rounds < 5:
        parser.error("at least 5 rounds: fewer say nothing about the spread")
    if not args.python.exists():
        parser.error(f"{args.python} does not exist; run compare.py --setup, or give --python")
    if not args.brick.exists():
        parser.error(f"{args.brick} does not exist; cargo build --release -p brick, or give --brick")
    common.set_nice(args.nice)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=EXPERIMENTS, nargs="?", default="speed", metavar="EXPERIMENT",
                        help="; ".join(f"{k}: {e.about}" for k, e in EXPERIMENTS.items()) + " [default: speed]")
    parser.add_argument("--models", metavar="NAME,…", help=f"of {', '.join(ALL)}, names brick knows, or paths")
    parser.add_argument("--without-amx", action="store_true", help="neither program uses AMX: both as on a processor that has none")
    parser.add_argument("--rounds", type=int, help="[default: " + ", ".join(f"{k} {e.rounds}" for k, e in EXPERIMENTS.items()) + "]")
    add_options(parser)
    args = parser.parse_args()
    check_options(parser, args)
    experiment = EXPERIMENTS[args.experiment]
    models = args.models.split(",") if args.models else experiment.models
    chosen = f" --models {','.join(Path(m).name for m in models)}" if args.models else ""
    command = (f"benches/peers/matrix.py {args.experiment}{chosen} --rounds {args.rounds or experiment.rounds} "
               f"--threads {args.threads} --repeat {args.repeat} --nice {args.nice}{' --without-amx' * args.without_amx}")
    without = ", both without AMX" if args.without_amx else ""
    run(args, f"brick and llama.cpp: {experiment.about}, {args.threads} threads{without}", command, experiment, models)


if __name__ == "__main__":
    main()
