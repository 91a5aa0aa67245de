#!/usr/bin/env python3
"""Tiny models with seeded random weights, and what they compute: an independent forward pass in f64.

    python3 -m venv .venv && .venv/bin/pip install gguf==0.19.0 numpy==2.4.6
    .venv/bin/python synthetic.py             # writes synthetic/*.gguf and synthetic/*.json
    .venv/bin/python synthetic.py --check     # compares instead of writing
    python synthetic.py --oracle              # where llama-cpp-python is installed: llama.cpp must agree, too

Each model covers paths that the one real model of the suite does not take. Block bytes of K- and IQ-formats are random;
the Python package `gguf` decodes them, and what it decodes to are the weights. The forward pass below is complete
(rotary embedding, KV cache in f16, grouped heads, biases) and shares nothing with brick.
"""

import argparse
import hashlib
import json
import math
import pathlib
import re
import sys
import tempfile
import zlib

import gguf
import numpy as np
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as T
from gguf.quants import dequantize, quantize

VERSIONS = {"gguf": "0.19.0", "numpy": "2.4.6"}
SEED = 20240313  # one of the first whose greedy continuations vary
OUT = pathlib.Path(__file__).resolve().parent / "synthetic"
GREEDY = 20
LAYER_ROWS = 2
PROMPT = "The red brick wall, 12 rows. \u00e9t\u00e9 \U0001f9f1"
TEXTS = [PROMPT, "", "brick by brick", "  two spaces,\n\na new line\t9", "I'm the wall's END_of-it", "\u65e5\u672c <s><|im_end|> x"]

QWEN2_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# Corpus of the tokenizers; words are what merges may join.
CORPUS = "the wall the brick the row red bricks in rows a wall of bricks token by token there then they brick wall's end".split()


# ---------------------------------------------------------------------------------------------------------- models


def models():
    """Sizes, rotary embedding and storage types of every model. Types are per layer, in the order of `LAYER_MATRICES`."""
    spm = {
        "arch": "llama", "tokenizer": "spm", "layers": 2, "hidden": 96, "heads": 3, "kv_heads": 1, "head_dim": 32, "ffn": 128,
        "context": 128, "eps": 1e-5, "base": 10000.0, "dims": 32, "interleaved": True, "tied": True,
        "embd": T.Q5_0,
        "types": [[T.Q5_0, T.Q5_1, T.Q4_0, T.Q4_1, T.IQ4_NL, T.Q4_0, T.Q5_1], [T.IQ4_NL, T.Q4_1, T.Q5_0, T.Q4_0, T.Q5_1, T.IQ4_NL, T.Q4_1]],
    }  # fmt: skip
    qwen2 = {
        "arch": "qwen2", "tokenizer": "bpe", "eps": 1e-6, "base": 1e6, "interleaved": False, "bias": True, "context": 128,
    }  # fmt: skip
    return {
        # Rows of 256: every K-quant, with biases.
        "qwen2-tiny": qwen2 | {
            "layers": 2, "hidden": 256, "heads": 8, "kv_heads": 2, "head_dim": 32, "ffn": 256, "dims": 32, "tied": False,
            "embd": T.Q3_K, "output": T.Q5_K,
            "types": [[T.Q4_K, T.Q5_K, T.Q6_K, T.Q2_K, T.Q2_K, T.Q3_K, T.Q4_K], [T.Q2_K, T.Q8_0, T.Q5_K, T.Q3_K, T.Q2_K, T.Q3_K, T.Q2_K]],
        },
        # Half of each head is rotated; weights are floats, so that no activation is ever rounded to int8.
        "qwen2-partial": qwen2 | {
            "layers": 2, "hidden": 64, "heads": 2, "kv_heads": 1, "head_dim": 32, "ffn": 96, "dims": 16, "tied": True,
            "embd": T.F16,
            "types": [[T.F16, T.F16, T.BF16, T.F32, T.BF16, T.F16, T.BF16], [T.BF16, T.F32, T.F16, T.BF16, T.F16, T.BF16, T.F16]],
        },
        "spm-tiny": spm | {
            "ffn": 256, "embd": T.Q8_0,
            "types": [[T.Q5_0, T.Q5_1, T.Q4_0, T.Q4_1, T.IQ4_NL, T.Q4_0, T.IQ4_XS], [T.IQ4_NL, T.Q4_1, T.Q5_0, T.Q4_0, T.Q5_1, T.IQ4_NL, T.IQ4_XS]],
        },
        # Heads of 24 elements: no multiple of any vector width.
        "spm-linear": spm | {"heads": 4, "kv_heads": 2, "head_dim": 24, "dims": 24, "scaling": "linear", "factor": 2.0},
        # Heads together are wider than the residual stream.
        "spm-llama3": spm | {"heads": 4, "kv_heads": 2, "base": 500000.0, "freq_factors": (8.0, 1.0, 4.0, 64), "tied": False, "output": T.Q8_0},
        # All three ranges of yarn are inhabited: pairs 0 to 4 kept, a ramp, pairs from 8 on interpolated.
        "spm-yarn": spm | {
            "kv_heads": 3, "context": 2048, "scaling": "yarn", "factor": 4.0, "original_context": 512, "beta_fast": 8.0,
        },
    }  # fmt: skip


LAYER_MATRICES = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]


def matrices(m):
    """(name, rows, columns, type, gain) of every matrix. The standard deviation of weights is gain / sqrt(columns)."""
    h, q, kv, f = m["hidden"], m["heads"] * m["head_dim"], m["kv_heads"] * m["head_dim"], m["ffn"]
    shapes = {
        "attn_q": (q, h, 1.6), "attn_k": (kv, h, 1.6), "attn_v": (kv, h, 1.0), "attn_output": (h, q, 1.5),
        "ffn_gate": (f, h, 1.5), "ffn_up": (f, h, 1.0), "ffn_down": (h, f, 1.5),
    }  # fmt: skip
    # Rows of a tied table are inputs and outputs; the final norm makes up for either choice of scale.
    yield "token_embd.weight", m["vocab"], h, m["embd"], 2.0
    for i in range(m["layers"]):
        for name, t in zip(LAYER_MATRICES, m["types"][i], strict=True):
            rows, cols, gain = shapes[name]
            yield f"blk.{i}.{name}.weight", rows, cols, t, gain
    if not m["tied"]:
        yield "output.weight", m["vocab"], h, m["output"], 2.0


# Byte offset of the scale, and of the minimum where there is one, with the ratio that makes the mean zero.
SCALES = {
    T.Q2_K: (80, 82, 1.5), T.Q3_K: (108, None, 0), T.Q4_K: (0, 2, 7.5), T.Q5_K: (0, 2, 15.5), T.Q6_K: (208, None, 0),
    T.IQ4_NL: (0, None, 0), T.IQ4_XS: (0, None, 0),
}  # fmt: skip


def random_matrix(rng, rows, cols, t, std):
    """Bytes of a matrix whose values have about this standard deviation."""
    if t not in SCALES:
        # Rows differ in scale, as those of real matrices do.
        x = rng.normal(0, std, (rows, cols)) * rng.uniform(0.5, 1.5, (rows, 1))
        return quantize(x.astype(np.float32), t)
    length, size = GGML_QUANT_SIZES[t]
    scale, minimum, ratio = SCALES[t]
    blocks = rng.integers(0, 256, (rows * cols // length, size), dtype=np.uint8)

    def put(at, value):
        blocks[:, at : at + 2] = np.asarray(value, dtype=np.float16).reshape(-1, 1).view(np.uint8)

    def fill(d):
        put(scale, d)
        if minimum is not None:
            put(minimum, ratio * d)

    d = np.full(len(blocks), 2.0**-8)
    fill(d)
    unit = float(f"{dequantize(blocks, t).std() / 2.0**-8:.3g}")  # rounded: the sum depends on numpy's vector width
    fill(std / unit * rng.uniform(0.5, 1.5, len(blocks)) * rng.choice([1.0, 1.0, -1.0], len(blocks)))
    return blocks.reshape(rows, -1)


def freq_factors(m):
    """Divisors of llama-3 scaling, as converters write them to `rope_freqs.weight`."""
    factor, low, high, context = m["freq_factors"]
    out = []
    for i in range(m["dims"] // 2):
        wavelength = 2 * math.pi * m["base"] ** (2 * i / m["dims"])
        if wavelength < context / high:
            out.append(1.0)
        elif wavelength > context / low:
            out.append(factor)
        else:
            smooth = (context / wavelength - low) / (high - low)
            out.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(out, dtype=np.float32)


def tensors(name, m):
    """{name: (data, type)}"""
    out = {}

    def rng(tensor):
        return np.random.default_rng([SEED, zlib.crc32(f"{name}/{tensor}".encode())])

    def vector(tensor, n, mean, std):
        out[tensor] = (rng(tensor).normal(mean, std, n).astype(np.float32), T.F32)

    for tensor, rows, cols, t, gain in matrices(m):
        out[tensor] = (random_matrix(rng(tensor), rows, cols, t, gain / math.sqrt(cols)), t)
    for i in range(m["layers"]):
        vector(f"blk.{i}.attn_norm.weight", m["hidden"], 1.0, 0.2)
        vector(f"blk.{i}.ffn_norm.weight", m["hidden"], 1.0, 0.2)
        if m.get("bias"):
            vector(f"blk.{i}.attn_q.bias", m["heads"] * m["head_dim"], 0.1, 0.7)
            vector(f"blk.{i}.attn_k.bias", m["kv_heads"] * m["head_dim"], -0.1, 0.7)
            vector(f"blk.{i}.attn_v.bias", m["kv_heads"] * m["head_dim"], 0.2, 0.7)
    vector("output_norm.weight", m["hidden"], 1.0, 0.2)
    if "freq_factors" in m:
        out["rope_freqs.weight"] = (freq_factors(m), T.F32)
    return out


# ------------------------------------------------------------------------------------------------------ tokenizers


def byte_alphabet():
    """The printable characters that stand for bytes in GPT-2 vocabularies."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {}, 0
    for b in range(256):
        if b in printable:
            table[b] = chr(b)
        else:
            table[b] = chr(256 + extra)
            extra += 1
    return table


def train(words, count):
    """Joins the most frequent pair `count` times; of equally frequent ones the first in order of characters."""
    words, merges = [list(w) for w in words], []
    for _ in range(count):
        pairs = {}
        for w in words:
            for pair in zip(w, w[1:]):
                pairs[pair] = pairs.get(pair, 0) + 1
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        for w in words:
            i = 0
            while i + 1 < len(w):
                if (w[i], w[i + 1]) == best:
                    w[i : i + 2] = [best[0] + best[1]]
                i += 1
    return merges


def split_special(text, specials):
    """Fragments of text, and special tokens as (token,)."""
    if not specials:
        return [text] if text else []
    parts = re.split("(" + "|".join(map(re.escape, specials)) + ")", text)
    return [(p,) if p in specials else p for p in parts if p]


class Bpe:
    """Byte-level BPE with the pre-tokenizer of qwen2 (for texts without marks and exotic digits, which `re` calls words)."""

    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    split = re.compile(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|(?:[^\r\n\w]|_)?[^\W\d_]+|\d| ?(?:[^\s\w]|_)+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )

    def __init__(self):
        self.alphabet = byte_alphabet()
        space = self.alphabet[32]
        merges = train([w for i, w in enumerate(CORPUS)] + [space + w for w in CORPUS], 31)
        self.merges = [" ".join(p) for p in merges]
        self.rank = {p: i for i, p in enumerate(merges)}
        self.tokens = [self.alphabet[b] for b in range(256)] + [a + b for a, b in merges] + self.specials
        self.ids = {t: i for i, t in enumerate(self.tokens)}

    def write(self, w):
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre("qwen2")
        w.add_token_list(self.tokens)
        w.add_token_types([3 if t in self.specials else 1 for t in self.tokens])
        w.add_token_merges(self.merges)
        w.add_eos_token_id(self.ids["<|im_end|>"])
        w.add_pad_token_id(self.ids["<|endoftext|>"])
        w.add_bos_token_id(self.ids["<|endoftext|>"])
        w.add_add_bos_token(False)
        w.add_chat_template(QWEN2_TEMPLATE)

    def encode(self, text):
        out = []
        for part in split_special(text, self.specials):
            if isinstance(part, tuple):
                out.append(self.ids[part[0]])
                continue
            for word in self.split.findall(part):
                s = [self.alphabet[b] for b in word.encode()]
                while len(s) > 1:
                    rank, i = min((self.rank.get(p, len(self.rank)), i) for i, p in enumerate(zip(s, s[1:])))
                    if rank == len(self.rank):
                        break
                    s[i : i + 2] = [s[i] + s[i + 1]]
                out += [self.ids[t] for t in s]
        return out


class Spm:
    """SentencePiece BPE: the pair whose union scores highest merges first; what has no piece becomes bytes."""

    specials = ["<unk>", "<s>", "</s>"]

    def __init__(self):
        merges = train(["\u2581" + w for w in CORPUS], 29)
        pieces = [a + b for a, b in merges]
        letters = ["\u2581", *"abcdefghijklmnopqrstuvwxyz.,'T12"]
        self.tokens = [*self.specials, *(f"<0x{b:02X}>" for b in range(256)), *pieces, *letters]
        self.scores = [0.0] * 259 + [-float(i) for i in range(len(pieces) + len(letters))]
        self.types = [2, 3, 3] + [6] * 256 + [1] * (len(pieces) + len(letters))
        self.ids = {t: i for i, t in enumerate(self.tokens)}

    def write(self, w):
        w.add_tokenizer_model("llama")
        w.add_tokenizer_pre("default")
        w.add_token_list(self.tokens)
        w.add_token_scores(self.scores)
        w.add_token_types(self.types)
        w.add_bos_token_id(1)
        w.add_eos_token_id(2)
        w.add_unk_token_id(0)
        w.add_add_bos_token(True)
        w.add_add_eos_token(False)
        w.add_add_space_prefix(True)

    def encode(self, text):
        out, after_special = [1], True
        for part in split_special(text, self.specials):
            if isinstance(part, tuple):
                out.append(self.ids[part[0]])
                after_special = True
                continue
            s = list(((" " if after_special else "") + part).replace(" ", "\u2581"))
            after_special = False
            while len(s) > 1:
                found = [(-self.scores[self.ids[a + b]], i) for i, (a, b) in enumerate(zip(s, s[1:])) if a + b in self.ids]
                if not found:
                    break
                _, i = min(found)
                s[i : i + 2] = [s[i] + s[i + 1]]
            for t in s:
                out += [self.ids[t]] if t in self.ids else [3 + b for b in t.encode()]
        return out


# ---------------------------------------------------------------------------------------------------- forward pass


def rotation(m, factors):
    """(radians per position of each pair, magnitude of the rotated values)"""
    dims, base = m["dims"], m["base"]
    freq = base ** (-2 * np.arange(dims // 2) / dims)
    magnitude = 1.0
    if m.get("scaling") == "linear":
        freq = freq / m["factor"]
    elif m.get("scaling") == "yarn":

        def pair(turns):
            return dims * math.log(m["original_context"] / (turns * 2 * math.pi)) / (2 * math.log(base))

        low, high = max(0, math.floor(pair(m["beta_fast"]))), min(dims - 1, math.ceil(pair(1.0)))
        ramp = np.clip((np.arange(dims // 2) - low) / max(0.001, high - low), 0, 1)
        freq = freq / m["factor"] * ramp + freq * (1 - ramp)
        magnitude = 1 + 0.1 * math.log(m["factor"])
    if factors is not None:
        freq = freq / factors
    return freq, magnitude


def rotate(x, m, factors):
    """x: [positions, heads, head_dim]"""
    freq, magnitude = rotation(m, factors)
    angle = np.arange(len(x))[:, None, None] * freq
    cos, sin = np.cos(angle) * magnitude, np.sin(angle) * magnitude
    half = m["dims"] // 2
    first, second = (slice(0, m["dims"], 2), slice(1, m["dims"], 2)) if m["interleaved"] else (slice(0, half), slice(half, m["dims"]))
    out = x.copy()
    out[..., first] = x[..., first] * cos - x[..., second] * sin
    out[..., second] = x[..., first] * sin + x[..., second] * cos
    return out


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * weight


def forward(m, w, ids, trace=None):
    """Logits [positions, vocab] in f64. Keys and values are rounded to f16, because the cache is f16.

    `trace`, a list, gets what each layer's feed-forward network adds to the stream.
    """
    n, heads, kv_heads, dim = len(ids), m["heads"], m["kv_heads"], m["head_dim"]
    eps, factors = float(np.float32(m["eps"])), w.get("rope_freqs.weight")
    x = w["token_embd.weight"][ids]
    future = np.triu(np.full((n, n), -np.inf), 1)
    for i in range(m["layers"]):
        layer = lambda suffix: w[f"blk.{i}.{suffix}"]
        project = lambda y, part: y @ layer(f"attn_{part}.weight").T + (layer(f"attn_{part}.bias") if m.get("bias") else 0)
        y = rms_norm(x, layer("attn_norm.weight"), eps)
        q = rotate(project(y, "q").reshape(n, heads, dim), m, factors)
        k = rotate(project(y, "k").reshape(n, kv_heads, dim), m, factors).astype(np.float16).astype(np.float64)
        v = project(y, "v").reshape(n, kv_heads, dim).astype(np.float16).astype(np.float64)
        out = np.empty((n, heads, dim))
        for h in range(heads):
            g = h * kv_heads // heads
            scores = q[:, h] @ k[:, g].T / math.sqrt(dim) + future
            p = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[:, h] = p / p.sum(axis=1, keepdims=True) @ v[:, g]
        x = x + out.reshape(n, -1) @ layer("attn_output.weight").T
        y = rms_norm(x, layer("ffn_norm.weight"), eps)
        gate, up = y @ layer("ffn_gate.weight").T, y @ layer("ffn_up.weight").T
        down = (gate / (1 + np.exp(-gate)) * up) @ layer("ffn_down.weight").T
        if trace is not None:
            trace.append(down)
        x = x + down
    head = w["token_embd.weight"] if m["tied"] else w["output.weight"]
    return rms_norm(x, w["output_norm.weight"], eps) @ head.T


# ----------------------------------------------------------------------------------------------------------- files


def write_gguf(path, name, m, tokenizer, data):
    w = gguf.GGUFWriter(path, m["arch"])
    w.add_name(name)
    w.add_description("random weights for tests")
    w.add_context_length(m["context"])
    w.add_embedding_length(m["hidden"])
    w.add_block_count(m["layers"])
    w.add_feed_forward_length(m["ffn"])
    w.add_head_count(m["heads"])
    w.add_head_count_kv(m["kv_heads"])
    w.add_key_length(m["head_dim"])
    w.add_value_length(m["head_dim"])
    w.add_layer_norm_rms_eps(m["eps"])
    w.add_rope_freq_base(m["base"])
    w.add_rope_dimension_count(m["dims"])
    if m["arch"] == "llama":
        w.add_vocab_size(m["vocab"])
    if "scaling" in m:
        w.add_rope_scaling_type(gguf.RopeScalingType(m["scaling"]))
        w.add_rope_scaling_factor(m["factor"])
    if "original_context" in m:
        w.add_rope_scaling_orig_ctx_len(m["original_context"])
    if "beta_fast" in m:
        w.add_float32(f"{m['arch']}.rope.scaling.yarn_beta_fast", m["beta_fast"])
    tokenizer.write(w)
    for tensor, (bytes_, t) in data.items():
        w.add_tensor(tensor, bytes_, raw_dtype=t)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def decoded(data):
    """Weights in f64, exactly what the file says."""
    return {name: np.asarray(dequantize(x, t), dtype=np.float64) for name, (x, t) in data.items()}


def golden(name, m, tokenizer, data, file):
    w = decoded(data)
    prompt = tokenizer.encode(PROMPT)
    ids, margins = list(prompt), []
    while len(ids) < len(prompt) + GREEDY:
        row = forward(m, w, ids)[-1]
        best, second = np.sort(row)[::-1][:2]
        ids.append(int(np.argmax(row)))
        margins.append(round(float(best - second), 6))
    trace = []
    logits = forward(m, w, ids, trace)
    assert np.isfinite(logits).all()
    used = {}
    for x, t in data.values():
        used[t.name] = used.get(t.name, 0) + 1
    spec = {k: v for k, v in m.items() if not isinstance(v, (T, list))}
    return {
        "provenance": {
            "script": "falsification/reference/synthetic.py", "command": "python synthetic.py", "versions": VERSIONS, "seed": SEED,
            "arithmetic": "f64; weights as decoded by gguf; keys (rotated) and values rounded to f16; positions from 0",
            "file": f"{name}.gguf", "file_bytes": len(file), "file_sha256": hashlib.sha256(file).hexdigest(), "types": used,
            "spec": spec,
        },
        "tokenize": [{"text": t, "ids": tokenizer.encode(t)} for t in TEXTS],
        "prompt": PROMPT,
        "prompt_ids": prompt,
        "greedy_ids": ids[len(prompt) :],
        "greedy_margins": margins,
        # What the feed-forward network of layer 0 adds to the stream, at the first positions.
        "ffn_out_0": [[float(f"{x:.5f}") for x in row] for row in trace[0][:LAYER_ROWS]],
        "logits": [[float(f"{x:.5f}") for x in row] for row in logits],
    }  # fmt: skip


def render(g):
    """One position per line."""
    logits = g.pop("logits")
    head = json.dumps(g, ensure_ascii=False, indent=1)
    head = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda x: "[" + re.sub(r"\s+", " ", x[1]) + "]", head)
    rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in logits)
    return head[:-2] + ',\n "logits": [\n' + rows + "\n ]\n}\n"


def build():
    """{file name: bytes}"""
    files = {}
    with tempfile.TemporaryDirectory() as d:
        for name, m in models().items():
            tokenizer = {"bpe": Bpe, "spm": Spm}[m["tokenizer"]]()
            m = m | {"vocab": len(tokenizer.tokens)}
            data = tensors(name, m)
            path = pathlib.Path(d) / f"{name}.gguf"
            write_gguf(path, name, m, tokenizer, data)
            files[f"{name}.gguf"] = path.read_bytes()
            files[f"{name}.json"] = render(golden(name, m, tokenizer, data, files[f"{name}.gguf"])).encode()
    return files


def oracle():
    """llama.cpp on the same weights in F32, and on the files as they are; prints the differences and judges the former.

    llama.cpp rounds queries and attention weights to f16 as well, hence differences of some thousandths.
    """
    import llama_cpp

    bad = []
    for name, m in models().items():
        if m["dims"] != m["head_dim"]:
            print(f"{name}: left out, llama.cpp rotates whole heads only in {m['arch']} models")
            continue
        tokenizer = {"bpe": Bpe, "spm": Spm}[m["tokenizer"]]()
        m = m | {"vocab": len(tokenizer.tokens)}
        data = tensors(name, m)
        w = decoded(data)
        ids = json.loads((OUT / f"{name}.json").read_text())
        ids = ids["prompt_ids"] + ids["greedy_ids"]
        expected = forward(m, w, ids)
        found = []
        with tempfile.TemporaryDirectory() as d:
            wide = pathlib.Path(d) / "f32.gguf"
            write_gguf(wide, name, m, tokenizer, {n: (x.astype(np.float32), T.F32) for n, x in w.items()})
            for path in (wide, OUT / f"{name}.gguf"):
                # For llama models it does not read this key of the file.
                yarn = {"yarn_beta_fast": m["beta_fast"]} if "beta_fast" in m else {}
                llm = llama_cpp.Llama(str(path), n_ctx=m["context"], n_threads=1, logits_all=True, verbose=False, **yarn)
                llm.eval(ids)
                diff = np.array(llm.scores[: len(ids)], dtype=np.float64) - expected
                found += [np.sqrt((diff**2).mean()) / expected.std(), np.abs(diff).max() / expected.std()]
                for t in TEXTS:
                    theirs = llm.tokenize(t.encode(), add_bos=True, special=True)
                    if theirs != tokenizer.encode(t):
                        bad.append(f"{name}: {t!r}: {theirs} {tokenizer.encode(t)}")
        print("{}: mean (largest) difference / deviation: F32 {:.2e} ({:.2e}), as stored {:.2e} ({:.2e})".format(name, *found))
        if not found[0] < 2e-3:
            bad.append(name)
    return bad


def same(path, data):
    """Equal bytes; for logits, which depend on the order in which a machine's numpy adds, equal but for the last digit."""
    if not path.is_file():
        return False
    committed = path.read_bytes()
    if committed == data or path.suffix != ".json":
        return committed == data
    a, b = json.loads(committed), json.loads(data)
    for key, digit in [("logits", 1e-5), ("ffn_out_0", 1e-5), ("greedy_margins", 1e-6)]:
        x, y = (np.array(g.pop(key)) for g in (a, b))
        if x.shape != y.shape or np.abs(x - y).max() > 2.5 * digit:
            return False
    return a == b


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--check", action="store_true", help="compare with the committed files instead of writing them")
    args.add_argument("--oracle", action="store_true", help="compare with llama.cpp (needs llama-cpp-python)")
    args = args.parse_args()
    if args.oracle:
        bad = oracle()
        sys.exit(f"differ: {bad}" if bad else 0)

    from importlib.metadata import version

    found = {name: version(name) for name in VERSIONS}
    if found != VERSIONS:
        sys.exit(f"expected {VERSIONS}, found {found}")
    files = build()
    if args.check:
        stale = [n for n, data in files.items() if not same(OUT / n, data)]
        sys.exit(f"differ: {stale}" if stale else 0)
    OUT.mkdir(exist_ok=True)
    for n, data in files.items():
        (OUT / n).write_bytes(data)
        print(f"{n}: {len(data)} bytes")
    print(f"{sum(map(len, files.values()))} bytes in all")


if __name__ == "__main__":
    main()
