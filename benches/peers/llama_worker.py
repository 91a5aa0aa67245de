"""llama.cpp through its C API: one measurement in one process, printed as JSON. Run by the scripts beside it.

No Python between tokens but the loop itself: `llama_decode` gets synthetic tokens, and nothing is sampled.
"""

import argparse
import ctypes
import hashlib
import json
import math
import resource
import sys
import time

import llama_cpp
from llama_cpp import llama_cpp as C

QUIET = C.llama_log_callback(lambda level, text, data: None)
WARM_UP_STEPS = 8  # of a generation, as in `brick bench`
BATCH = 512


def load_model(args):
    C.llama_log_set(QUIET, ctypes.c_void_p())
    C.llama_backend_init()
    params = C.llama_model_default_params()
    params.n_gpu_layers = 0
    params.use_extra_bufts = not args.no_repack
    params.load_mode = C.LLAMA_LOAD_MODE_NONE if args.no_mmap else C.LLAMA_LOAD_MODE_MMAP
    model = C.llama_model_load_from_file(args.model.encode(), params)
    if not model:
        sys.exit(f"llama.cpp cannot load {args.model}")
    return model


def new_context(model, args, positions, sequences=1, outputs=1):
    """A context in which each of `sequences` sequences may have `positions` positions."""
    params = C.llama_context_default_params()
    params.n_seq_max = sequences
    params.n_ctx = positions * sequences
    params.n_batch = params.n_ubatch = BATCH
    params.n_outputs_max = max(outputs, sequences)
    params.n_threads = params.n_threads_batch = args.threads
    params.flash_attn_type = C.LLAMA_FLASH_ATTN_TYPE_ENABLED if args.flash else C.LLAMA_FLASH_ATTN_TYPE_DISABLED
    ctx = C.llama_init_from_model(model, params)
    if not ctx:
        sys.exit("llama.cpp cannot make a context")
    return ctx


class Batch:
    """Rows of a call: tokens at positions of sequences."""

    def __init__(self):
        self.raw = C.llama_batch_init(BATCH, 0, 1)
        self.raw.n_tokens = 0
        self.first_s = None

    def push(self, token, position, sequence, wanted):
        n = self.raw.n_tokens
        self.raw.token[n], self.raw.pos[n], self.raw.n_seq_id[n] = token, position, 1
        self.raw.seq_id[n][0], self.raw.logits[n] = sequence, wanted
        self.raw.n_tokens = n + 1

    def decode(self, ctx):
        start = time.perf_counter()
        status = C.llama_decode(ctx, self.raw)
        if status != 0:
            sys.exit(f"llama_decode: {status}")
        if self.first_s is None:
            C.llama_synchronize(ctx)
            self.first_s = time.perf_counter() - start
        self.raw.n_tokens = 0


class Runner:
    """A context for all tests, as in `brick bench`."""

    def __init__(self, args, model, tests):
        self.vocab = C.llama_vocab_n_tokens(C.llama_model_get_vocab(model))
        self.sequences = max(t["sequences"] for t in tests)
        # In steps of 256 positions: what llama.cpp rounds a sequence's share to.
        positions = -(-max(t["depth"] + t["tokens"] for t in tests) // 256) * 256
        self.ctx = new_context(model, args, positions, self.sequences)
        self.batch = Batch()

    def token(self, position):
        return (position * 7919 + 101) % self.vocab  # as `brick bench`

    def rewind(self, length):
        memory = C.llama_get_memory(self.ctx)
        for sequence in range(self.sequences):
            C.llama_memory_seq_rm(memory, sequence, length, -1)

    def prefill(self, sequences, start, tokens):
        for sequence in range(sequences):
            for position in range(start, start + tokens):
                self.batch.push(self.token(position), position, sequence, position + 1 == start + tokens)
                if self.batch.raw.n_tokens == BATCH:
                    self.batch.decode(self.ctx)
        if self.batch.raw.n_tokens:
            self.batch.decode(self.ctx)

    def generate(self, sequences, start, steps):
        for position in range(start, start + steps):
            for sequence in range(sequences):
                self.batch.push(self.token(position), position, sequence, True)
            self.batch.decode(self.ctx)

    def measure(self, test, repeat):
        """Tokens per second of all sequences together, by repetition."""
        run = self.prefill if test["kind"] == "prefill" else self.generate
        sequences, depth, tokens = test["sequences"], test["depth"], test["tokens"]
        self.rewind(0)
        if depth:
            self.prefill(sequences, 0, depth)
        samples = []
        for repetition in range(repeat + 1):
            n = tokens if repetition or test["kind"] == "prefill" else min(tokens, WARM_UP_STEPS)
            C.llama_synchronize(self.ctx)
            start = time.perf_counter()
            run(sequences, depth, n)
            C.llama_synchronize(self.ctx)
            if repetition:
                samples.append(n * sequences / (time.perf_counter() - start))
            self.rewind(depth)
        return samples


def bench(args):
    tests = json.loads(args.tests)
    start = time.perf_counter()
    model = load_model(args)
    runner = Runner(args, model, tests)
    load = time.perf_counter() - start
    rows = [test | {"tok_s": runner.measure(test, args.repeat)} for test in tests]
    return {"load_ms": 1e3 * load, "first_forward_ms": 1e3 * runner.batch.first_s, "rows": rows}


def startup(args):
    """From loading to the first token's logits."""
    start = time.perf_counter()
    model = load_model(args)
    loaded = time.perf_counter()
    ctx = new_context(model, args, 256)
    batch = Batch()
    batch.push(101, 0, 0, True)
    batch.decode(ctx)
    C.llama_synchronize(ctx)
    return {"load_ms": 1e3 * (loaded - start), "first_token_s": time.perf_counter() - start}


def tokenize(vocab, text):
    """Special tokens spelled in the text are text; BOS if the model wants it."""
    room = len(text) + 16
    tokens = (C.llama_token * room)()
    n = C.llama_tokenize(vocab, text, len(text), tokens, room, True, False)
    if n < 0:
        sys.exit(f"llama_tokenize: {n}")
    return tokens[:n]


def perplexity(args):
    """The method of llama.cpp's tool `llama-perplexity`, whose loop this is."""
    model = load_model(args)
    vocab = C.llama_model_get_vocab(model)
    with open(args.perplexity, "rb") as file:
        tokens = tokenize(vocab, file.read())
    n_ctx, n_vocab = args.ctx, C.llama_vocab_n_tokens(vocab)
    first = n_ctx // 2
    ctx = new_context(model, args, n_ctx, outputs=min(n_ctx, BATCH))
    batch, nlls = Batch(), []
    for start in range(0, len(tokens) // n_ctx * n_ctx, n_ctx):
        C.llama_memory_clear(C.llama_get_memory(ctx), True)
        chunk = tokens[start:start + n_ctx]
        for begin in range(0, n_ctx, BATCH):
            end = min(begin + BATCH, n_ctx)
            for i in range(begin, end):
                bos = i == 0 and C.llama_vocab_get_add_bos(vocab)
                batch.push(C.llama_vocab_bos(vocab) if bos else chunk[i], i, 0, i >= first)
            batch.decode(ctx)
            for i in range(max(begin, first), min(end, n_ctx - 1)):
                nlls.append(nll(C.llama_get_logits_ith(ctx, i - begin), n_vocab, chunk[i + 1]))
    mean = sum(nlls) / len(nlls)
    variance = sum((x - mean) ** 2 for x in nlls) / len(nlls)
    value = math.exp(mean)
    return {"perplexity": value, "perplexity_standard_error": value * math.sqrt(variance / (len(nlls) - 1)),
            "predicted_tokens": len(nlls), "text_tokens": len(tokens), "ids_sha256": digest(tokens)}


def nll(pointer, n_vocab, token):
    import numpy  # comes with llama-cpp-python
    logits = numpy.ctypeslib.as_array(pointer, shape=(n_vocab,)).astype(numpy.float64)
    top = logits.max()
    return float(math.log(numpy.exp(logits - top).sum()) - (logits[token] - top))


def digest(ids):
    return hashlib.sha256(" ".join(map(str, ids)).encode()).hexdigest()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--flash", action="store_true", help="flash attention")
    parser.add_argument("--no-repack", action="store_true", help="weights as in the file: no AMX, no interleaved layouts")
    parser.add_argument("--no-mmap", action="store_true")
    parser.add_argument("--tests", help="JSON: a list of {kind, tokens, depth, sequences}")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--startup", action="store_true", help="time from loading to the first token's logits")
    parser.add_argument("--perplexity", metavar="FILE", help="of this text")
    parser.add_argument("--ctx", type=int, default=512, help="with --perplexity")
    args = parser.parse_args()
    if args.startup:
        result = startup(args)
    elif args.perplexity:
        result = perplexity(args)
    else:
        result = bench(args)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    system = C.llama_print_system_info().decode().strip(" |")
    print(json.dumps(result | {"version": llama_cpp.__version__, "system": system, "peak_bytes": peak}))


main()
