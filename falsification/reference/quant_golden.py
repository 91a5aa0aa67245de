#!/usr/bin/env python3
"""Golden files of the quantised formats, made by the Python package `gguf`.

    python3 -m venv .venv && .venv/bin/pip install gguf==0.19.0 numpy==2.4.6
    .venv/bin/python quant_golden.py                      # writes bricks/tests/data/quant/
    .venv/bin/python quant_golden.py --check              # compares instead of writing
    .venv/bin/python quant_golden.py --ggml libggml-base.so   # also compares everything with ggml's C code

Per format: `<dtype>.decode.bin` = all blocks, then all values gguf decodes them to;
`<dtype>.encode.bin` = all values, then all blocks gguf encodes them to. Little-endian, no header; `provenance.json`
names the cases in order.
"""

import argparse
import ctypes
import hashlib
import json
import pathlib
import platform
import sys

import gguf
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize, quantize

VERSIONS = {"gguf": "0.19.0", "numpy": "2.4.6"}
SEED = 20240217
OUT = pathlib.Path(__file__).resolve().parents[2] / "bricks" / "tests" / "data" / "quant"

# Byte offsets of the f16 fields (scale, and minimum where there is one) of each block format.
F16_FIELDS = {
    T.Q4_0: (0,), T.Q4_1: (0, 2), T.Q5_0: (0,), T.Q5_1: (0, 2), T.Q8_0: (0,),
    T.Q2_K: (80, 82), T.Q3_K: (108,), T.Q4_K: (0, 2), T.Q5_K: (0, 2), T.Q6_K: (208,),
    T.IQ4_NL: (0,), T.IQ4_XS: (0,),
}  # fmt: skip
FLOATS = (T.F32, T.F16, T.BF16)
ENCODED = (T.F32, T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q8_0)


def decode_cases(t, rng):
    """(names, blocks [n, block_bytes])"""
    _, size = GGML_QUANT_SIZES[t]
    names, blocks = [], []

    def case(name, fill, *scales):
        block = rng.integers(0, 256, size, dtype=np.uint8) if fill is None else np.full(size, fill, dtype=np.uint8)
        for at, bits in zip(F16_FIELDS[t], scales):
            block[at : at + 2] = np.frombuffer(np.uint16(bits).tobytes(), dtype=np.uint8)
        names.append(name)
        blocks.append(block)

    f16 = lambda x: int(np.float16(x).view(np.uint16))
    for i in range(3):
        case(f"random {i}", None, f16(rng.uniform(1e-3, 0.1)), f16(rng.uniform(-0.5, 0.5)))
    case("negative scale", None, f16(-0.0371), f16(-0.113))
    case("zero scale", None, 0x0000, 0x0000)
    case("negative zero scale", None, 0x8000, 0x8000)
    case("smallest subnormal scale", None, 0x0001, 0x8001)
    case("largest subnormal scale", None, 0x03FF, 0x03FF)
    case("largest scale", None, 0x7BFF, 0xFBFF)
    case("codes and sub-scales all ones", 0xFF, f16(0.0123), f16(0.0077))
    case("codes and sub-scales all zeros", 0x00, f16(0.0123), f16(0.0077))
    case("all bytes 0", 0x00)
    case("all bytes 255 (NaN scale)", 0xFF)
    case("infinite scale", None, 0x7C00, 0x0000)
    return names, np.stack(blocks)


def float_decode_cases(t, rng):
    if t == T.F32:
        bits = np.concatenate([[0, 0x80000000, 1, 0x80000001, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000],
                               rng.integers(0, 1 << 32, 56)]).astype(np.uint32)  # fmt: skip
    else:  # every exponent and sign of both formats, and a random part
        bits = np.concatenate([np.arange(0, 1 << 16, 1 << 7) + 3, [0, 0x8000, 1, 0x8001, 0x3FF, 0x400, 0x7BFF, 0x7C00,
                               0xFC00, 0x7E00, 0x7F7F, 0x7F80, 0xFF80, 0x7FC0], rng.integers(0, 1 << 16, 242)])  # fmt: skip
        bits = bits.astype(np.uint16)
    return [f"{bits.size} bit patterns"], bits.view(np.uint8).reshape(bits.size, -1)


def encode_cases(t, rng):
    """(names, values [n, 32])"""
    names, rows = [], []

    def case(name, x):
        x = np.asarray(x, dtype=np.float32)
        names.append(name)
        rows.append(np.resize(x, 32).astype(np.float32))

    for i in range(8):
        case(f"normal {i}", rng.normal(0, 0.02 * 10**(i % 4), 32))
    for i in range(4):
        case(f"uniform {i}", rng.uniform(-1, 1, 32))
        case(f"positive {i}", rng.uniform(0.5, 3, 32))
        case(f"heavy tail {i}", rng.standard_cauchy(32))
        case(f"random sign and exponent {i}", rng.choice([-1, 1], 32) * 2.0 ** rng.uniform(-20, 15, 32))
    case("zeros", 0.0)
    case("constant", 0.7)
    case("negative constant", -0.7)
    case("one hot", [0] * 17 + [3.5] + [0] * 14)
    case("negative one hot", [0] * 5 + [-3.5] + [0] * 26)
    case("largest magnitude twice, positive first", [1, 8, -8, 3, -2.5])
    case("largest magnitude twice, negative first", [1, -8, 8, 3, -2.5])
    # Ties of the codes: the scale is exactly 1 (or -1) and values lie half way between codes.
    case("ties, Q8_0", np.concatenate([[127], np.arange(31) - 15.5]))
    case("ties, Q8_0, negative", np.concatenate([[-127], 15.5 - np.arange(31) * 4]))
    case("ties, Q4_0", np.concatenate([[-8], np.arange(-7.5, 8, 0.5)]))
    case("ties, Q4_0, negative scale", np.concatenate([[8], np.arange(-7.5, 8, 0.5)]))
    case("ties, Q4_1", np.concatenate([[0, 15], np.arange(0, 15, 0.5)]))
    case("ties, Q4_1, shifted", np.concatenate([[0, 15], np.arange(0, 15, 0.5)]) - 4.25)
    # Ties of the scale itself: d lies half way between two f16 (both parities).
    for k in (0, 1):
        d = (2048 + 2 * k + 1) / 2048 / 2
        case(f"scale tie {k}, Q8_0", np.concatenate([[127 * d], rng.uniform(-60, 60, 31)]))
        case(f"scale tie {k}, Q4_0", np.concatenate([[-8 * d], rng.uniform(-4, 4, 31)]))
        case(f"scale tie {k}, Q4_1", np.concatenate([[0, 15 * d], rng.uniform(0, 7, 30)]))
    case("scale at the end of f16", np.concatenate([[65504 * 127], rng.uniform(-6e4, 6e4, 31)]))
    case("scale overflows f16", rng.normal(0, 1e30, 32))
    case("largest f32", np.concatenate([[3.4028234e38], rng.uniform(0, 3e38, 31)]))
    case("scale subnormal in f16", rng.normal(0, 3e-6, 32))
    case("scale underflows f16", rng.normal(0, 1e-12, 32))
    case("tiny", rng.normal(0, 1e-30, 32))
    return names, np.stack(rows)


def float_encode_cases(t, rng):
    bits = np.array([0, 0x80000000, 1, 0x80000001, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0x7F800000, 0xFF800000,
                     0x7FC00000, 0xFFC00000, 0x7FD54000,                   # quiet NaNs
                     0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001, 0x7F7F8000,   # bf16 ties and overflow
                     0x3F801000, 0x3F803000, 0x3F800FFF, 0x3F801001,              # f16 ties
                     0x477FE000, 0x477FEFFF, 0x477FF000, 0x477FF001, 0xC77FF000,  # f16 overflow at 65520
                     0x33800000, 0x33000000, 0x33000001, 0x33C00000, 0x387FC000, 0x387FE000, 0xB3400000],  # f16 subnormals
                    dtype=np.uint32)  # fmt: skip
    wide = rng.integers(0, 1 << 32, 256, dtype=np.uint64).astype(np.uint32)
    if t == T.BF16:  # signalling NaNs: gguf quietens them, as we do; numpy's own f16 conversion depends on the processor
        bits = np.concatenate([bits, np.array([0x7F800001, 0xFF812345], dtype=np.uint32)])
    nan = (wide & 0x7FFFFFFF) > 0x7F800000
    wide[nan] |= 0x00400000
    near_one = rng.normal(0, 1, 128).astype(np.float32).view(np.uint32)
    small = (2.0 ** rng.uniform(-26, -13, 96)).astype(np.float32).view(np.uint32)
    values = np.concatenate([bits, wide, near_one, small]).view(np.float32)
    return [f"{values.size} values"], values.reshape(-1, 1)


def build():
    """{file name: (bytes, case names)}"""
    files = {}
    for t in sorted({*F16_FIELDS, *FLOATS}):
        rng = np.random.default_rng([SEED, int(t), 0])
        names, blocks = (float_decode_cases if t in FLOATS else decode_cases)(t, rng)
        with np.errstate(all="ignore"):
            values = dequantize(np.ascontiguousarray(blocks), t).astype(np.float32)
        files[f"{t.name.lower()}.decode.bin"] = (blocks.tobytes() + values.tobytes(), names)
    for t in ENCODED:
        rng = np.random.default_rng([SEED, int(t), 1])
        names, values = (float_encode_cases if t in FLOATS else encode_cases)(t, rng)
        with np.errstate(all="ignore"):
            blocks = quantize(values, t)
        files[f"{t.name.lower()}.encode.bin"] = (values.tobytes() + blocks.tobytes(), names)
    return files


def compare_with_ggml(path, files):
    """ggml's C code against the same cases, bit by bit; NaNs equal each other."""
    lib = ctypes.CDLL(path)
    bad = 0
    for name, (data, _) in files.items():
        dtype, direction, _ = name.split(".")
        t = next(t for t in T if t.name.lower() == dtype)
        if t in FLOATS:
            continue
        suffix = dtype.replace("_k", "_K") if dtype.endswith("_k") else dtype
        length, size = GGML_QUANT_SIZES[t]
        n = len(data) // (size + 4 * length)
        if direction == "decode":
            fn, source, expected = f"dequantize_row_{suffix}", data[: n * size], data[n * size :]
        else:
            fn, source, expected = f"quantize_row_{suffix}_ref", data[: n * length * 4], data[n * length * 4 :]
        found = ctypes.create_string_buffer(len(expected))
        getattr(lib, fn)(ctypes.create_string_buffer(source, len(source)), found, ctypes.c_int64(n * length))
        if direction == "decode":
            a, b = (np.frombuffer(x, dtype=np.float32) for x in (expected, found.raw[: len(expected)]))
            differ = (a.view(np.uint32) != b.view(np.uint32)) & ~(np.isnan(a) & np.isnan(b))
            where = sorted(set((np.flatnonzero(differ) // length).tolist()))
        else:
            a, b = (np.frombuffer(x, dtype=np.uint8) for x in (expected, found.raw[: len(expected)]))
            differ = a != b
            where = sorted(set((np.flatnonzero(differ) // size).tolist()))
        print(f"{fn}: {n} blocks, {int(differ.sum())} differences", where or "")
        bad += int(differ.sum())
    return bad


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--check", action="store_true", help="compare with the committed files instead of writing them")
    args.add_argument("--ggml", metavar="LIB", help="libggml-base, to compare with ggml's C code as well")
    args = args.parse_args()

    from importlib.metadata import version

    found = {name: version(name) for name in VERSIONS}
    if found != VERSIONS:
        sys.exit(f"expected {VERSIONS}, found {found}")
    assert sys.byteorder == "little", "the files are little-endian"
    files = build()
    if args.ggml and compare_with_ggml(args.ggml, files):
        sys.exit("gguf and ggml differ")
    provenance = {
        "command": "python quant_golden.py",
        "script": "falsification/reference/quant_golden.py",
        "versions": VERSIONS,
        "seed": SEED,
        "files": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "cases": cases}
            for name, (data, cases) in sorted(files.items())
        },
    }
    outputs = {name: data for name, (data, _) in files.items()}
    outputs["provenance.json"] = (json.dumps(provenance, indent=1) + "\n").encode()
    if args.check:
        stale = [name for name, data in outputs.items() if not (OUT / name).is_file() or (OUT / name).read_bytes() != data]
        sys.exit(f"differ: {stale}" if stale else 0)
    OUT.mkdir(parents=True, exist_ok=True)
    for name, data in outputs.items():
        (OUT / name).write_bytes(data)
    print(f"{len(outputs)} files, {sum(map(len, outputs.values()))} bytes, Python {platform.python_version()}")


if __name__ == "__main__":
    main()
