#!/usr/bin/env python3
"""Writes reference tokenisations for pre-tokenizers that have no fixture of their own.

    scratch/bin/python make_tokens.py FOLDER_WITH_VOCABULARIES OUTPUT_FOLDER

Takes the GPT-2 vocabulary, lets the file name another pre-tokenizer, and asks llama.cpp (as in
make_golden.py) for the ids of the texts in the `.inp` file. One line of ids for each text.
"""

import pathlib
import struct
import sys
import tempfile

import llama_cpp

NAMES = ["smollm", "default"]
KEY = b"tokenizer.ggml.pre"


def renamed(data, name):
    """The file with another value for KEY: a text, so its type stays and its length changes."""
    at = data.index(KEY) + len(KEY) + 4
    (size,) = struct.unpack_from("<Q", data, at)
    return data[:at] + struct.pack("<Q", len(name)) + name.encode() + data[at + 8 + size :]


def main():
    vocabularies, output = map(pathlib.Path, sys.argv[1:3])
    source = vocabularies / "ggml-vocab-gpt-2.gguf"
    texts = pathlib.Path(str(source) + ".inp").read_bytes().split(b"\n__ggml_vocab_test__\n")
    for name in NAMES:
        with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
            file.write(renamed(source.read_bytes(), name))
            file.flush()
            llm = llama_cpp.Llama(model_path=file.name, vocab_only=True, verbose=False)
            lines = [llm.tokenize(text, add_bos=False, special=False) for text in texts]
        text = "".join(" ".join(map(str, line)) + "\n" for line in lines)
        (output / f"tokens-gpt-2-{name}.out").write_text(text)


if __name__ == "__main__":
    main()
