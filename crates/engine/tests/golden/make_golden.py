#!/usr/bin/env python3
"""Writes the greedy golden files: with llama.cpp, and with exact arithmetic (`exact.py`).

    python3 -m venv scratch && scratch/bin/pip install llama-cpp-python==0.3.36
    scratch/bin/python make_golden.py FOLDER_WITH_MODELS OUTPUT_FOLDER

llama.cpp runs on one thread, CPU only, with an f32 KV cache and no flash attention, so that the
only thing that differs from plain arithmetic is what it does with quantised weights: it rounds
the activations to Q8_0 before a product with Q8_0 or Q4_0, and to f16 before one with F16.
For each of its tokens the golden file has the two largest logits as llama.cpp computed them and
as exact arithmetic does, without and with that one rounding to Q8_0, so that a near tie can be
told from an error; and it has the greedy continuation that exact arithmetic itself chooses.
"""

import json
import pathlib
import sys

import llama_cpp
import numpy

import exact

MODELS = ["stories260K", "stories260K-F16", "stories260K-Q8_0", "stories260K-Q4_0"]
PROMPTS = ["Once upon a time", "Lily and Tom went to the park. They"]
TOKENS_MAX = 256


def last_logits(llm):
    """The logits after the newest token, as a copy."""
    pointer = llama_cpp.llama_get_logits_ith(llm.ctx, -1)
    return numpy.ctypeslib.as_array(pointer, shape=(llm.n_vocab(),)).copy()


def push_all(model, ids):
    for token in ids:
        logits = model.push(token)
    return logits


def greedy(llm, model, rounding, prompt):
    """Takes llama.cpp's largest logit until the end of the text or TOKENS_MAX."""
    prompt_ids = llm.tokenize(prompt.encode(), add_bos=True, special=False)
    llm.reset()
    llm.eval(prompt_ids)
    model.reset()
    rounding.reset()
    exact_logits, rounded = push_all(model, prompt_ids), push_all(rounding, prompt_ids)
    steps = []
    for _ in range(TOKENS_MAX):
        logits = last_logits(llm)
        first, second = map(int, numpy.argsort(-logits, kind="stable")[:2])
        number = lambda value: round(float(value), 6)
        steps.append(
            {
                "id": first,
                "logit": number(logits[first]),
                "exact": number(exact_logits[first]),
                "rounded": number(rounded[first]),
                "second_id": second,
                "second_logit": number(logits[second]),
                "second_exact": number(exact_logits[second]),
                "second_rounded": number(rounded[second]),
            }
        )
        if first == llm.token_eos():
            break
        llm.eval([first])
        exact_logits, rounded = model.push(first), rounding.push(first)
    ids = [step["id"] for step in steps if step["id"] != llm.token_eos()]
    # Detokenised after the prompt, so that the leading space of the first piece is kept.
    text = llm.detokenize(ids, prev_tokens=prompt_ids).decode()
    chosen = exact_greedy(model, prompt_ids, llm.token_eos())
    return {"prompt": prompt, "prompt_ids": prompt_ids, "text": text, "exact_ids": chosen, "steps": steps}


def exact_greedy(model, prompt_ids, eos):
    model.reset()
    logits = push_all(model, prompt_ids)
    ids = []
    while len(ids) < TOKENS_MAX:
        ids.append(int(numpy.argmax(logits)))
        if ids[-1] == eos:
            break
        logits = model.push(ids[-1])
    return ids


def main():
    models, output = map(pathlib.Path, sys.argv[1:3])
    for name in MODELS:
        path = models / f"{name}.gguf"
        llm = llama_cpp.Llama(
            model_path=str(path),
            n_ctx=512, n_threads=1, n_threads_batch=1, n_gpu_layers=0,
            type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32,
            flash_attn=False, verbose=False,
        )
        model, rounding = exact.Exact(path), exact.Exact(path, rounds=True)
        made = {
            "tool": f"llama-cpp-python {llama_cpp.__version__} (its bundled llama.cpp), CPU build from source; "
            f"numpy {numpy.__version__} for what is called exact",
            "command": "python make_golden.py FOLDER_WITH_MODELS OUTPUT_FOLDER",
            "settings": "greedy, n_threads=1, KV cache f32, flash attention off, BOS added",
            "model": path.name,
        }
        cases = [greedy(llm, model, rounding, prompt) for prompt in PROMPTS]
        write(output / f"greedy-{name}.json", made, cases)


def write(path, made, cases):
    """One step a line: short to read, and a difference shows where it is."""
    lines = ["{", f' "made": {json.dumps(made, indent=2)},', ' "cases": [']
    for index, case in enumerate(cases):
        steps = case.pop("steps")
        lines.append("  " + json.dumps(case, ensure_ascii=False)[:-1] + ', "steps": [')
        lines += ["   " + json.dumps(step) + ("," if step is not steps[-1] else "") for step in steps]
        lines.append("  ]}" + ("," if index + 1 < len(cases) else ""))
    path.write_text("\n".join(lines + [" ]", "}", ""]))


if __name__ == "__main__":
    main()
