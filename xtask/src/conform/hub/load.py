"""Loads a model with `transformers` from the hub at HF_ENDPOINT, and from FOLDER: both must say the same."""

import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

FOLDER, CACHE = Path(sys.argv[1]), Path(sys.argv[2])
NAME = "commons/stories"


def say(place, **options):
    tokenizer = AutoTokenizer.from_pretrained(place, **options)
    model = AutoModelForCausalLM.from_pretrained(place, **options)
    tokens = tokenizer("Once upon a time", return_tensors="pt")
    with torch.no_grad():
        answer = model.generate(**tokens, max_new_tokens=24, do_sample=False)
    return tokenizer.decode(answer[0])


print("version transformers", transformers.__version__)
AutoConfig.from_pretrained(NAME, cache_dir=CACHE)
print("ok config")
said = say(NAME, cache_dir=CACHE)
print("ok load")
assert len(said) > 40 and said == say(FOLDER / NAME), said
print("ok same_words")
try:
    AutoModelForCausalLM.from_pretrained("commons/none", cache_dir=CACHE)
except OSError:
    print("ok missing_model")
