#!/usr/bin/env python3
"""Writes published chat templates with what Python's Jinja renders from them, for `models/tests/chat_templates.rs`.

    python3 vocab_chat_goldens.py SDIST NAME=MODEL.gguf... > models/tests/data/chat/templates.json

SDIST is the source distribution of `llama-cpp-python` (0.3.36; `pip download --no-deps --no-binary`), which carries
published templates as files and in a test. Templates of further models are read from GGUF files. Needs `jinja2` (3.1.6
wrote the committed file); the setting is that of `apply_chat_template` in `transformers` 4.5x.
"""

import datetime
import json
import re
import struct
import sys
import tarfile

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

FILES = """Qwen-Qwen2.5-7B-Instruct meta-llama-Llama-3.1-8B-Instruct meta-llama-Llama-3.2-3B-Instruct Qwen-Qwen3-0.6B
mistralai-Mistral-Nemo-Instruct-2407 microsoft-Phi-3.5-mini-instruct google-gemma-2-2b-it HuggingFaceTB-SmolLM3-3B
deepseek-ai-DeepSeek-R1-Distill-Qwen-32B""".split()

IN_TEST = [
    "teknium/OpenHermes-2.5-Mistral-7B",
    "mistralai/Mistral-7B-Instruct-v0.2 (NOTE: Old pre-v1 without a system prompt)",
    "google/gemma-7b-it",
    "openchat/openchat-3.5-0106",
    "deepseek-ai/deepseek-coder-33b-instruct",
    "eachadea/vicuna-13b-1.1",
    "CohereForAI/c4ai-command-r-plus",
    "Llama-3",
    "Phi-3-mini",
    "Phi-3-small",
    "Phi-3-medium",
    "DeepSeek-V2",
    "bofenghuang/vigogne-2-70b-chat",
]

NOW = datetime.datetime(2024, 7, 26, 9, 5, 3, tzinfo=datetime.timezone.utc)


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


CONVERSATIONS = {
    "question": turns(("user", "What is 2 + 2?")),
    "chat": turns(
        ("system", "You are a helpful assistant."),
        ("user", "Hello"),
        ("assistant", "Hi there"),
        ("user", "Who are you?"),
    ),
    "answered": turns(("user", "Hello"), ("assistant", "Hi there")),
    "spaces": turns(("system", " \n s \n"), ("user", "\n <b>&\"'\\ é 👩\u200d👧 \t{{ x }} \n\n"), ("assistant", " y ")),
    "thoughts": turns(("user", "a"), ("assistant", "<think>\nno\n</think>\n\nyes"), ("user", "b")),
    "two users": turns(("user", "a"), ("user", "b")),
    "assistant first": turns(("assistant", "a"), ("user", "b")),
    "unknown role": turns(("user", "a"), ("narrator", "b")),
    "empty": [],
}


class Generation(jinja2.ext.Extension):
    """`{% generation %}`: renders what is inside."""

    tags = {"generation"}

    def parse(self, parser):
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_inside"), [], [], body).set_lineno(lineno)

    def _inside(self, caller):
        return caller()


class Refused(Exception):
    pass


def raise_exception(message):
    raise Refused(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    extensions = [Generation, jinja2.ext.loopcontrols]
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


def render(template, conversation, add, bos, eos):
    try:
        return {"prompt": template.render(
            messages=conversation, tools=None, documents=None, add_generation_prompt=add, bos_token=bos, eos_token=eos
        )}
    except Refused as refused:
        return {"refused": str(refused)}
    except jinja2.exceptions.UndefinedError:
        return {"fails": True}


def from_sdist(path):
    found = {}
    with tarfile.open(path) as tar:
        for member in tar:
            name = member.name.rpartition("/")[2]
            if name.endswith(".jinja") and name[: -len(".jinja")] in FILES:
                found[name[: -len(".jinja")]] = tar.extractfile(member).read().decode()
            elif name == "test-chat-template.cpp":
                text = tar.extractfile(member).read().decode()
                for case in text.split("/* .name= */")[1:]:
                    name = json.loads(re.match(r'\s*("(?:[^"\\]|\\.)*")', case)[1])
                    source = re.search(r'/\* \.template_str= \*/\s*("(?:[^"\\]|\\.)*"),', case)
                    if name in IN_TEST and source:
                        found[name] = json.loads(source[1])
    missing = set(FILES + IN_TEST) - set(found)
    if missing:
        raise SystemExit(f"not in {path}: {missing}")
    return found


def from_gguf(path):
    """The template, found by its key: a string's type, length and bytes follow it."""
    with open(path, "rb") as file:
        data = file.read(32 << 20)
    key = b"tokenizer.chat_template"
    at = data.index(struct.pack("<Q", len(key)) + key + struct.pack("<I", 8)) + 8 + len(key) + 4
    (length,) = struct.unpack_from("<Q", data, at)
    return data[at + 8 : at + 8 + length].decode()


def main():
    templates = from_sdist(sys.argv[1])
    for argument in sys.argv[2:]:
        name, path = argument.split("=", 1)
        templates[name] = from_gguf(path)
    env = environment()
    cases = []
    for name in sorted(templates):
        template = env.from_string(templates[name])
        results = {
            f"{title}{', open' if add else ''}": render(template, conversation, add, "<s>", "</s>")
            for title, conversation in CONVERSATIONS.items()
            for add in (False, True)
        }
        cases.append({"name": name, "template": templates[name], "results": results})
    source = f"jinja2 {jinja2.__version__}, written by falsification/reference/vocab_chat_goldens.py"
    golden = {"source": source, "now": int(NOW.timestamp()), "conversations": CONVERSATIONS, "templates": cases}
    print(json.dumps(golden, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
