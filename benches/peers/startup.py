#!/usr/bin/env python3
"""Process start to first token, and peak memory, with a warm page cache. See README.md."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import common
from engines import HERE, VENV_PYTHON, Setting


def first_token(args):
    """Seconds from before the process is made to the first byte of its answer, and to its end; peak memory in bytes."""
    return answer(args, 1)


def answer(args, tokens):
    command = [args.brick, "run", args.model, "--raw", "Hello", "-n", str(tokens), "-t", str(args.threads)]
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    first = child.stdout.read(1)
    at_first = time.perf_counter() - start
    child.stdout.read()
    # Not Popen.wait: the usage of this very child is wanted. The kernel counts in KiB, and from before the child's exec,
    # so a figure below this script's own few MiB would say nothing.
    _, status, usage = os.wait4(child.pid, 0)
    end = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in (0, 4) or not first:
        raise SystemExit(f"brick run failed with {child.returncode}")
    return {"first_byte_s": at_first, "exit_s": end, "peak_bytes": usage.ru_maxrss * 1024}


def llama(args, repack):
    worker = [args.python, HERE / "llama_worker.py", args.gguf, "--startup", "--threads", args.threads]
    return json.loads(common.run(worker + Setting(False, repack).flags))["first_token_s"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a name brick knows, or a path")
    parser.add_argument("--python", type=Path, default=VENV_PYTHON, help="Python that has llama-cpp-python [default: .venv's]")
    parser.add_argument("--brick", type=Path, default=common.BRICK)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--nice", type=int, default=0, help="added to the niceness of both sides")
    parser.add_argument("--no-record", action="store_true", help="do not write to benches/runs")
    args = parser.parse_args()
    if args.rounds < 5:
        parser.error("at least 5 rounds: fewer say nothing about the spread")
    common.set_nice(args.nice)
    args.gguf = common.model_file(args.brick, args.model)
    size = args.gguf.stat().st_size
    peer = args.python.exists()

    first_token(args)  # the file into the page cache
    rounds, watch = [], common.Watch(args.threads)
    for i in range(args.rounds):
        # Repacking makes llama.cpp faster later and slower to start: the better one counts.
        arms = {"brick": lambda: first_token(args)}
        arms |= {"llama.cpp": lambda: llama(args, True), "llama.cpp, weights as in the file": lambda: llama(args, False)} if peer else {}
        order = list(arms) if i % 2 == 0 else list(arms)[::-1]
        rounds.append({name: watch(arms[name]) for name in order})
    long = [answer(args, 100)["peak_bytes"] for _ in range(3)]

    ms = lambda values: common.interval([1e3 * v for v in values])
    show = lambda q, digits: f"{q['estimate']:.{digits}f} | {q['low']:.{digits}f} – {q['high']:.{digits}f} | {q['pairs']}"
    rows = {"process start to first token, ms": ms([r["brick"]["first_byte_s"] for r in rounds]),
            "process start to exit after one token, ms": ms([r["brick"]["exit_s"] for r in rounds])}
    if peer:
        best = min((n for n in rounds[0] if n != "brick"), key=lambda n: statistics.median(r[n] for r in rounds))
        rows[f"{best}: load to first token, without process start, ms"] = ms([r[best] for r in rounds])
        rows[f"brick start to first token / {best} load to first token"] = common.ratio(
            [(r[best], r["brick"]["first_byte_s"]) for r in rounds])
    lines = ["| what | median | 95 % interval | n |", "| --- | ---: | --- | ---: |"]
    lines += [f"| {what} | {show(q, 3 if ' / ' in what else 1)} |" for what, q in rows.items()]
    peak = statistics.median(long)
    lines.append(f"| peak memory of a 100-token answer / file size | {peak / size:.3f} | {min(long) / size:.3f} – {max(long) / size:.3f} (range) | {len(long)} |")
    table = "\n".join(lines)
    print(table)
    print(watch.summary())
    if not args.no_record:
        folder = common.record({
            "title": f"start and memory: {args.gguf.name}, {args.threads} threads",
            "command": f"benches/peers/startup.py {Path(args.model).name} --rounds {args.rounds} --threads {args.threads} --nice {args.nice}",
            "model": {"file": args.gguf.name, "bytes": size, "sha256": common.sha256(args.gguf)},
            "programs": {"brick": common.brick_build(args.brick)},
            "settings": {"threads": args.threads, "nice": args.nice, "page_cache": "warm"},
            "quiet": watch.summary(),
            "others_share": watch.shares,
            "result": rows,
            "rounds": rounds,
            "peak_bytes_of_100_tokens": long,
        }, table)
        print(f"recorded in {folder.relative_to(common.REPOSITORY)}", file=sys.stderr)


if __name__ == "__main__":
    main()
