#!/usr/bin/env python3
"""Puts llama.cpp's test vocabularies into a directory.

    python3 vocab_fetch.py DIRECTORY

They come from the source distribution of the package `llama-cpp-python`, fetched with pip, and are checked against
`models/tests/data/tokenizer/vocabs.sha256`. What is already there and right is left alone, so that a second call is
cheap. Needs Python 3.8 and pip, and the network the first time only.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "llama-cpp-python"
VERSION = "0.3.36"
FOLDER = "/vendor/llama.cpp/models/"
MANIFEST = Path(__file__).resolve().parents[2] / "models/tests/data/tokenizer/vocabs.sha256"


def manifest():
    """Checksum by file name."""
    lines = MANIFEST.read_text(encoding="utf-8").splitlines()
    return {name: digest for digest, name in (line.split() for line in lines if line)}


def sha256(path):
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def missing(directory, wanted):
    return {n for n, d in wanted.items() if not (directory / n).is_file() or sha256(directory / n) != d}


def download(folder):
    """The source distribution's path. pip's own output goes to stderr, where it explains failures."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", PACKAGE]
    subprocess.run([*command, "--dest", folder, f"{PACKAGE}=={VERSION}"], check=True, stdout=sys.stderr)
    (archive,) = Path(folder).glob("*.tar.gz")
    return archive


def unpack(archive, directory, wanted, names):
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            folder, _, name = member.name.rpartition("/")
            if name not in names or not f"{folder}/".endswith(FOLDER) or not member.isfile():
                continue
            data = tar.extractfile(member).read()
            found = hashlib.sha256(data).hexdigest()
            if found != wanted[name]:
                raise SystemExit(f"{name}: expected SHA-256 {wanted[name]}, found {found}")
            # Renamed into place: another process may be reading or writing the same directory.
            with tempfile.NamedTemporaryFile(dir=directory, delete=False) as file:
                file.write(data)
            os.replace(file.name, directory / name)


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    wanted = manifest()
    names = missing(directory, wanted)
    if names:
        with tempfile.TemporaryDirectory() as folder:
            unpack(download(folder), directory, wanted, names)
        names = missing(directory, wanted)
    if names:
        raise SystemExit(f"not in {PACKAGE} {VERSION}: {', '.join(sorted(names))}")


if __name__ == "__main__":
    main()
