"""Loads a GGUF file with `llama_cpp` from the hub at HF_ENDPOINT, and from FOLDER: both must say the same."""

import sys
from pathlib import Path

import llama_cpp
from llama_cpp import Llama

FOLDER, CACHE = Path(sys.argv[1]), Path(sys.argv[2])
NAME = "commons/gguf"


def say(model):
    return model("Once upon a time", max_tokens=24, temperature=0)["choices"][0]["text"]


print("version llama_cpp_python", llama_cpp.__version__)
said = say(Llama.from_pretrained(NAME, filename="*.gguf", cache_dir=CACHE, verbose=False))
print("ok load")
assert len(said) > 20 and said == say(Llama(str(FOLDER / NAME / "model-Q8_0.gguf"), verbose=False)), said
print("ok same_words")
