"""Rewrites a GGUF file in another type with llama.cpp's own quantiser. Run by files.py."""

import ctypes
import sys

from llama_cpp import llama_cpp as C

QUIET = C.llama_log_callback(lambda level, text, data: None)


def main():
    source, target, dtype = sys.argv[1:]
    C.llama_log_set(QUIET, ctypes.c_void_p())
    C.llama_backend_init()
    params = C.llama_model_quantize_default_params()
    params.ftype = getattr(C, f"LLAMA_FTYPE_MOSTLY_{dtype}")
    params.allow_requantize = True
    status = C.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params))
    if status != 0:
        sys.exit(f"llama_model_quantize of {source} to {dtype}: {status}")


main()
