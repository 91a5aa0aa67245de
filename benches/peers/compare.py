#!/usr/bin/env python3
"""brick and llama.cpp in turn, on one model: tokens per second of prompt and generation, and their ratio. See README.md."""

import argparse
import os
import shlex
import subprocess
import venv
from pathlib import Path

import engines
import matrix
from engines import Test

LLAMA = "llama-cpp-python==0.3.36"


def set_up():
    venv.create(engines.VENV_PYTHON.parents[1], with_pip=True)
    flags = f"{os.environ.get('CXXFLAGS', '')} -include {shlex.quote(str(engines.HERE / 'amx_gcc12.h'))}".strip()
    env = os.environ | {"CMAKE_ARGS": "-DGGML_NATIVE=ON", "CXXFLAGS": flags}
    # A wheel that pip has kept may have been built for another machine, or without the flags.
    subprocess.run([engines.VENV_PYTHON, "-m", "pip", "install", "--no-cache-dir", "--no-binary", "llama-cpp-python", LLAMA],
                   env=env, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", help="a name brick knows, or a path")
    parser.add_argument("--setup", action="store_true", help=f"make .venv here and build {LLAMA} for this machine; then exit")
    parser.add_argument("--pp", type=int, default=512, help="tokens of the prompt")
    parser.add_argument("--tg", type=int, default=64, help="tokens generated")
    parser.add_argument("--depth", type=int, default=0, help="tokens in the context before")
    parser.add_argument("--rounds", type=int, default=10)
    matrix.add_options(parser)
    args = parser.parse_args()
    if args.setup:
        return set_up()
    if not args.model or args.pp < 1 or args.tg < 1 or args.depth < 0:
        parser.error("expected a model, and at least one token each of --pp and --tg")
    matrix.check_options(parser, args)
    tests = (Test("prefill", args.pp, args.depth), Test("decode", args.tg, args.depth))
    experiment = matrix.Experiment("one model", ((None, tests),), (args.model,), rounds=args.rounds)
    name = Path(args.model).name
    options = (f"--pp {args.pp} --tg {args.tg} --depth {args.depth} --rounds {args.rounds} --threads {args.threads} "
               f"--repeat {args.repeat} --nice {args.nice}")
    matrix.run(args, f"brick and llama.cpp: {name}, {args.threads} threads", f"benches/peers/compare.py {name} {options}",
               experiment, experiment.models)


if __name__ == "__main__":
    main()
