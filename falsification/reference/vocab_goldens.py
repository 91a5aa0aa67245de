#!/usr/bin/env python3
"""Writes how llama.cpp tokenizes awkward texts, as the reference for `models/tests/tokenizer_vocabs.rs`.

    python3 vocab_goldens.py VOCAB_DIRECTORY > models/tests/data/tokenizer/llama_cpp.json

Needs the package `llama-cpp-python` (0.3.36 wrote the committed file) and the vocabularies from `vocab_fetch.py`.
"""

import json
import sys
from pathlib import Path

import llama_cpp

VOCABS = (
    "command-r deepseek-coder deepseek-llm falcon gpt-2 gpt-neox llama-bpe llama-spm mpt phi-3 qwen2 qwen35 refact "
    "starcoder baichuan"
).split()

TEXTS = [
    "",
    "The capital of France is",
    "Once upon a time",
    " leading, trailing ",
    "  two  three   four    \n\n\n  tabs\t\t\tmixed \t \n \t\r\n end\r",
    "\u00a0no\u00a0break \u2003em\u2003\u3000ideographic\u3000\u200bzero\u200b\x85next",
    "\x00\x01\x1f\x7f\u0080\u009f control \x00\x00",
    "I'm you're HE'LL 'Twas o'clock 's'S 'd't ''' rock'n'roll",
    "1 12 123 1234 12345 3.14159 1,000,000 0x1F 1e-9 ½ ⅷ ² ٣٤٥ १२३ 𝟘𝟙 一二三",
    "!?.,;: --- ... ==> <= += ** // /* */ \\n `code` $x^2$ ~|~ @#%& “quotes” «g» ¿¡ § ¶ † • €£¥",
    "fn main() {\n    let x: u32 = 0xFF; // comment\n\tprintln!(\"{x:?}\");\n}\n",
    "naïve café ÅNGSTRÖM straße ﬁ ǅ İstanbul ıI ŒUVRE e\u0301\u0327 o\u0302 Z\u0351\u036b\u0343",
    "Привет мир ЁЖ Ελληνικά ὀδός עברית שלום العربية مَرْحَبًا हिन्दी क्षत्रिय ไทย ไม่ 한국어 조선말 日本語 カタカナ ﾊﾝｶｸ 中文，測試。！",
    "👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 👍🏽 🇩🇪🇫🇷 ☃️ 🫠 e\u20dd 1️⃣",
    "\U0001f984\U0010ffff\ufffd\ufeff\ue000\U000e0001\U000e0041 \u2028\u2029",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "                                                                 x",
    "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\nx",
    "!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!",
    "000000000000000000000000000000000000000000000000000000000000000001",
    "𐐀𐐨 𞤀𞤢 ꭰ ᲀ Ა ꟼ ʼn ſ ẞ K Å Ω ℌ 𝔸𝒷 ⓐ ㏂ 🅰",
    "ᄀ가 각힣 ퟿ 龥龦 ࠀ 〇 々 ー ・ 、。〃 ～ ！",
    "<|im_start|>user\n hi there<|im_end|>\n<|im_start|>assistant\n",
    "<s> a </s>b<s></s>  <unk>x<pad>",
    "<|endoftext|>\n\n<|endoftext|> x <|end|>\n y <|user|>  z",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>",
    "<｜begin▁of▁sentence｜>x<｜end▁of▁sentence｜> <｜fim▁hole｜>▁y",
    "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|USER_TOKEN|>hi<|END_OF_TURN_TOKEN|>",
    "<fim_prefix>def f():<fim_suffix>\n<fim_middle>  <filename>a.py <0x0A> <0x41> [PAD1] ▁▁a",
]


def main():
    directory = Path(sys.argv[1])
    vocabs = {}
    for name in VOCABS:
        model = llama_cpp.Llama(str(directory / f"ggml-vocab-{name}.gguf"), vocab_only=True, verbose=False)
        vocabs[name] = {
            "plain": [model.tokenize(text.encode(), add_bos=False, special=False) for text in TEXTS],
            "special": [model.tokenize(text.encode(), add_bos=True, special=True) for text in TEXTS],
            "ends": [id for id in range(model.n_vocab()) if llama_cpp.llama_vocab_is_eog(model._model.vocab, id)],
        }
    source = f"llama-cpp-python {llama_cpp.__version__}, written by falsification/reference/vocab_goldens.py"
    parts = [f'"source": {json.dumps(source)}', f'"texts": {json.dumps(TEXTS, indent=1)}']
    for name, golden in vocabs.items():
        lists = ",\n  ".join(f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in golden.items())
        parts.append(f"{json.dumps(name)}: {{\n  {lists}\n}}")
    print("{\n" + ",\n".join(parts) + "\n}")


if __name__ == "__main__":
    main()
