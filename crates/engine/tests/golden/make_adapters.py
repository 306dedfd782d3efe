#!/usr/bin/env python3
"""Makes adapters of the tiny models, and what PEFT computes with them.

    python3 -m venv v && v/bin/pip install torch transformers peft safetensors
    v/bin/python make_adapters.py families adapters

Numbers are random, from a seed. Each folder of `adapters/` is `BASE-METHOD`: a PEFT folder for the
base of that name, with `golden.json` beside it: for each case the token ids and the logits behind
some positions, computed by PEFT in f32 on the CPU, without merging.
"""

import json
import pathlib
import sys

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

from make_families import SEED, case

LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FUSED = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
ATTENTION = LLAMA[:4]

# Base, name of the method, modules, and what else the configuration says.
ADAPTERS = [
    ("llama", "lora", LLAMA, dict(r=4, lora_alpha=6)),
    ("llama", "rslora", LLAMA, dict(r=9, lora_alpha=3, use_rslora=True)),
    ("llama", "dora", LLAMA, dict(r=4, lora_alpha=8, use_dora=True)),
    ("llama", "rsdora", ["q_proj", "down_proj"],
     dict(r=5, lora_alpha=2, use_rslora=True, use_dora=True)),
    ("llama", "patterns", LLAMA,
     dict(r=4, lora_alpha=6, rank_pattern={"v_proj": 17, "0.mlp.up_proj": 1},
          alpha_pattern={"o_proj": 1})),
    ("llama-biased", "dora", LLAMA, dict(r=3, lora_alpha=3, use_dora=True)),
    ("qwen2", "dora", LLAMA, dict(r=4, lora_alpha=4, use_dora=True)),
    ("qwen3", "rslora", LLAMA, dict(r=8, lora_alpha=4, use_rslora=True)),
    ("qwen3moe", "lora", ATTENTION, dict(r=4, lora_alpha=4)),
    ("mistral", "lora", LLAMA, dict(r=2, lora_alpha=4)),
    ("smollm2", "lora", ["q_proj", "v_proj"], dict(r=4, lora_alpha=4)),
    ("gemma2", "dora", LLAMA, dict(r=4, lora_alpha=4, use_dora=True)),
    ("gemma3", "lora", LLAMA, dict(r=4, lora_alpha=4)),
    ("phi3", "lora", FUSED, dict(r=4, lora_alpha=4)),
    ("phi3", "dora", FUSED, dict(r=4, lora_alpha=4, use_dora=True)),
]


def main(families, target):
    for base, method, modules, more in ADAPTERS:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            families / base, dtype=torch.float32, attn_implementation="eager").eval()
        config = peft.LoraConfig(target_modules=modules, lora_dropout=0.0, bias="none",
                                 task_type="CAUSAL_LM", **more)
        model = peft.get_peft_model(model, config)
        folder = target / f"{base}-{method}"
        model.save_pretrained(folder)
        fill(folder / "adapter_model.safetensors")
        (folder / "README.md").unlink(missing_ok=True)
        plain = json.loads((folder / "adapter_config.json").read_text())
        # The path of the base on the machine that made it means nothing elsewhere.
        plain["base_model_name_or_path"] = base
        plain["target_modules"].sort()
        (folder / "adapter_config.json").write_text(json.dumps(plain, indent=1) + "\n")
        base_model = transformers.AutoModelForCausalLM.from_pretrained(
            families / base, dtype=torch.float32, attn_implementation="eager").eval()
        model = peft.PeftModel.from_pretrained(base_model, folder).eval()
        cases = [case(model, length, SEED + length) for length in (20, 40)]
        golden = {"reference": f"peft {peft.__version__}, transformers {transformers.__version__}, "
                               f"torch {torch.__version__}", "seed": SEED, "cases": cases}
        (folder / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
        print(folder.name)


def fill(path):
    """Random numbers: what a pair adds is about as large as what it is added to."""
    random = torch.Generator().manual_seed(SEED)
    tensors = load_file(path)
    for name in sorted(tensors):
        draw = torch.randn(tensors[name].shape, generator=random)
        if "magnitude" in name:
            tensors[name] = (tensors[name] * (1.0 + 0.3 * draw)).contiguous()
        else:
            tensors[name] = draw / tensors[name].shape[-1] ** 0.5
    save_file(tensors, path, metadata={"format": "pt"})


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
