"""llama.cpp through its C API: one measurement in one process, printed as JSON. Run by compare.py and startup.py.

No Python between tokens but the loop itself: `llama_decode` gets a fixed token, and nothing is sampled.
"""

import argparse
import ctypes
import json
import sys
import time

import llama_cpp
from llama_cpp import llama_cpp as C

QUIET = C.llama_log_callback(lambda level, text, data: None)


def load(args):
    C.llama_log_set(QUIET, ctypes.c_void_p())
    C.llama_backend_init()
    params = C.llama_model_default_params()
    params.n_gpu_layers = 0
    model = C.llama_model_load_from_file(args.model.encode(), params)
    if not model:
        sys.exit(f"llama.cpp cannot load {args.model}")
    context = C.llama_context_default_params()
    context.n_ctx = args.pp + args.tg + 1
    context.n_batch = max(512, args.pp)
    context.n_ubatch = 512
    context.n_threads = context.n_threads_batch = args.threads
    context.flash_attn_type = C.LLAMA_FLASH_ATTN_TYPE_ENABLED if args.flash else C.LLAMA_FLASH_ATTN_TYPE_DISABLED
    ctx = C.llama_init_from_model(model, context)
    if not ctx:
        sys.exit("llama.cpp cannot make a context")
    return model, ctx


def decode(ctx, array, count):
    status = C.llama_decode(ctx, C.llama_batch_get_one(array, count))
    if status != 0:
        sys.exit(f"llama_decode: {status}")


def one_pass(ctx, prompt, steps):
    """Seconds for the prompt, and for `steps` tokens after it."""
    C.llama_memory_clear(C.llama_get_memory(ctx), True)
    token = (C.llama_token * 1)(1)
    start = time.perf_counter()
    decode(ctx, prompt, len(prompt))
    C.llama_synchronize(ctx)
    middle = time.perf_counter()
    for _ in range(steps):
        decode(ctx, token, 1)
    C.llama_synchronize(ctx)
    return middle - start, time.perf_counter() - middle


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--pp", type=int, default=1)
    parser.add_argument("--tg", type=int, default=0)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--flash", action="store_true")
    parser.add_argument("--startup", action="store_true", help="time from loading to the first token's logits")
    args = parser.parse_args()

    start = time.perf_counter()
    model, ctx = load(args)
    vocab = C.llama_vocab_n_tokens(C.llama_model_get_vocab(model))
    # The synthetic prompt of `brick profile`.
    prompt = (C.llama_token * args.pp)(*((i * 7919 + 101) % vocab for i in range(args.pp)))
    if args.startup:
        one_pass(ctx, prompt, 0)
        result = {"first_token_s": time.perf_counter() - start}
    else:
        one_pass(ctx, prompt, args.tg)  # warm-up, as brick's
        prefill, generation = one_pass(ctx, prompt, args.tg)
        result = {"prefill": args.pp / prefill, "decode": args.tg / generation}
    system = C.llama_print_system_info().decode()
    print(json.dumps(result | {"version": llama_cpp.__version__, "system": system.strip(" |")}))


main()
