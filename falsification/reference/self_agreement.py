#!/usr/bin/env python3
"""How well llama.cpp agrees with itself: the same file, run in other ways than those the golden file was recorded in.

    .venv/bin/python self_agreement.py MODEL.gguf golden/NAME.json golden/NAME-self.json      # .venv as for record.py

With int8 activations no two ways of running a model give the same logits: a difference in the last bit of one sum moves
activations across rounding steps, and some layers later all of them are rounded differently. This file says how much that is,
so that tests of brick ask for as much agreement as there is.
"""

import json
import pathlib
import sys

import llama_cpp
import numpy as np

WAYS = {"token by token": {"n_batch": 1, "n_ubatch": 1}, "flash attention": {"n_batch": 512, "flash_attn": True}}


def log_softmax(x):
    x = x.astype(np.float64)
    m = x.max(axis=-1, keepdims=True)
    return x - m - np.log(np.exp(x - m).sum(axis=-1, keepdims=True))


def main():
    model, golden_path, out = sys.argv[1:]
    golden = json.loads(pathlib.Path(golden_path).read_text())
    ways = {}
    for way, options in WAYS.items():
        llm = llama_cpp.Llama(model, n_ctx=2048, n_threads=2, n_threads_batch=2, logits_all=True, verbose=False, **options)
        positions, kl, margins = 0, 0.0, []
        for r in golden["records"]:
            if len(r["prompt_ids"]) > 256:
                continue
            ids = r["prompt_ids"] + r["greedy_ids"]
            llm.reset()
            llm.eval(ids)
            scores = log_softmax(np.array(llm.scores[: len(ids)]))
            for p, top in zip(r["positions"], r["top"], strict=True):
                row = scores[p]
                positions += 1
                found = int(row.argmax())
                if found != top[0][0]:
                    margins.append(round(top[0][1] - dict(map(tuple, top)).get(found, -99.0), 5))
                ours = np.array([row[t] for t, _ in top])
                theirs = np.array([x for _, x in top])
                kl += (np.exp(theirs) * (theirs - ours)).sum()
                rest, our_rest = 1 - np.exp(theirs).sum(), 1 - np.exp(ours).sum()
                if rest > 1e-6:
                    kl += rest * np.log(rest / max(our_rest, 1e-12))
        ways[way] = {
            "options": options, "positions": positions, "same_top": positions - len(margins),
            "mean_kl_nats": round(kl / positions, 6), "margins_of_flips_nats": sorted(margins),
        }  # fmt: skip
    result = {
        "provenance": {
            "script": "falsification/reference/self_agreement.py", "engine": f"llama.cpp through llama-cpp-python {llama_cpp.__version__}",
            "golden": pathlib.Path(golden_path).name, "model_sha256": golden["provenance"]["model_sha256"], "left_out": "prompts of more than 256 tokens",
        },
        "ways": ways,
    }  # fmt: skip
    text = json.dumps(result, indent=1)
    pathlib.Path(out).write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
