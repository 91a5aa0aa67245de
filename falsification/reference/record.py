#!/usr/bin/env python3
"""Records what an independent engine (llama.cpp) says about a GGUF file: token ids, greedy continuations, and the
log-probabilities of its most likely tokens at every position, teacher-forced. The golden files in `golden/` come from it.

    python3 -m venv .venv && .venv/bin/pip install llama-cpp-python==0.3.36     # builds llama.cpp, about 10 minutes
    .venv/bin/python record.py MODEL.gguf golden/NAME.json [--prompts id,id,...] [--greedy 48]

Nothing of brick takes part.
"""

import argparse
import hashlib
import json
import pathlib
import sys

import llama_cpp
import numpy as np

TOP = 12  # tokens recorded per position; the rest is one bucket


def sha256(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(1 << 20):
            h.update(chunk)
    return h.hexdigest()


def prompt_text(p, llm):
    if "messages" in p:
        import jinja2

        env = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
        template = env.from_string(llm.metadata["tokenizer.chat_template"])
        return template.render(messages=p["messages"], add_generation_prompt=True)
    if "repeat" in p:
        r = p["repeat"]
        return "".join(r["text"].replace("{i}", str(i + 1)) for i in range(r["count"])) + p["text"]
    return p["text"]


def log_softmax(x):
    x = x.astype(np.float64)
    m = x.max(axis=-1, keepdims=True)
    return x - m - np.log(np.exp(x - m).sum(axis=-1, keepdims=True))


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("model")
    a.add_argument("out")
    a.add_argument("--prompts", default="", help="ids of prompts.json, comma-separated (default: all)")
    a.add_argument("--greedy", type=int, default=48, help="greedy tokens per prompt")
    a.add_argument("--threads", type=int, default=2)
    args = a.parse_args()
    here = pathlib.Path(__file__).parent
    prompts = json.loads((here / "prompts.json").read_text())
    chosen = [x for x in args.prompts.split(",") if x]
    if chosen:
        prompts = [p for p in prompts if p["id"] in chosen]

    llm = llama_cpp.Llama(
        args.model, n_ctx=2048, n_batch=512, n_threads=args.threads, n_threads_batch=args.threads, logits_all=True, verbose=False
    )
    records = []
    for p in prompts:
        text = prompt_text(p, llm)
        ids = llm.tokenize(text.encode(), add_bos=True, special=True)
        llm.reset()
        llm.eval(ids)
        greedy = []
        while len(greedy) < args.greedy:
            token = int(np.argmax(llm.scores[llm.n_tokens - 1]))
            greedy.append(token)
            if llm_is_eog(llm, token):
                break
            llm.eval([token])
        # Teacher-forced over prompt and continuation, in one batch as a prompt.
        full = ids + greedy
        llm.reset()
        llm.eval(full)
        scores = log_softmax(np.array(llm.scores[: len(full)]))
        # Positions: all of short prompts, every eighth of long ones; the positions of the continuation always.
        step = 8 if len(ids) > 256 else 1
        positions = sorted(set(range(0, len(ids), step)) | set(range(len(ids) - 1, len(full))))
        top = []
        for i in positions:
            row = scores[i]
            best = np.argsort(-row, kind="stable")[:TOP]
            top.append([[int(t), round(float(row[t]), 5)] for t in best])
        records.append({
            "id": p["id"], "kind": p["kind"], "text": text, "prompt_ids": ids, "greedy_ids": greedy,
            "greedy_text": llm.detokenize(greedy, special=False).decode("utf-8", "replace"),
            "positions": positions, "top": top,
        })
        print(f"{p['id']}: {len(ids)} prompt ids, {len(greedy)} greedy, {len(positions)} positions", file=sys.stderr)

    out = {
        "provenance": {
            "engine": f"llama.cpp through llama-cpp-python {llama_cpp.__version__}",
            "system": llama_cpp.llama_print_system_info().decode(),
            "model_file": pathlib.Path(args.model).name,
            "model_bytes": pathlib.Path(args.model).stat().st_size,
            "model_sha256": sha256(args.model),
            "settings": "n_ctx 2048, n_batch 512, f16 KV cache, greedy = arg-max of raw logits",
            "top": TOP,
        },
        "records": records,
    }
    text = json.dumps(out, ensure_ascii=False, separators=(",", ":"))
    # One record per line: reviewable, and small in a diff.
    text = text.replace('"records":[', '"records":[\n').replace('},{"id"', '},\n{"id"') + "\n"
    pathlib.Path(args.out).write_text(text, encoding="utf-8")


def llm_is_eog(llm, token):
    vocab = llama_cpp.llama_model_get_vocab(llm.model)
    return bool(llama_cpp.llama_vocab_is_eog(vocab, token))


if __name__ == "__main__":
    main()
