#!/usr/bin/env python3
"""Makes the tiny models of every family, and what transformers computes with them.

    python3 -m venv v && v/bin/pip install torch transformers safetensors numpy
    v/bin/python make_families.py families

Weights are random, from a seed. Each folder of `families/` becomes a Hugging Face model
(`config.json`, `model.safetensors`) with `golden.json` beside it: for each case the token ids, and
the logits behind some positions, or for an encoder the mean of the last rows. Arithmetic is f32, on
the CPU, with plain ("eager") attention.

Sizes are the smallest at which a mistake shows: several layers where layers alternate, windows
shorter than the sequence, scaled rotary positions beyond those of training, key heads fewer than
query heads, head sizes that are not width / heads.
"""

import json
import pathlib
import sys

import torch
import transformers

SEED = 271828
TOKENS = 64
CASE_LEN = 40

SMALL = dict(
    vocab_size=TOKENS, hidden_size=32, intermediate_size=40, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
    bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=False,
    initializer_range=0.02, use_cache=False,
)
# Rotary variants need few weights: what they test is the angle of each pair.
ROTARY = dict(SMALL, hidden_size=16, intermediate_size=16, num_attention_heads=1, num_key_value_heads=1)
GEMMA = dict(SMALL, hidden_size=24, head_dim=16, num_attention_heads=2, num_key_value_heads=1,
             intermediate_size=32, tie_word_embeddings=True, hidden_activation="gelu_pytorch_tanh")

LONG = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 24,
        "short_factor": [1.0, 1.1, 1.2, 1.4, 1.5, 1.7], "long_factor": [1.0, 1.5, 2.5, 4.0, 6.0, 9.0]}


def rope(kind, **more):
    return {"rope_type": kind, "rope_theta": 10000.0, **more}


def families():
    """(name, class, config) of every model."""
    t = transformers
    llama, llama_config = t.LlamaForCausalLM, t.LlamaConfig
    yield "llama", llama, llama_config(**SMALL, rope_parameters=rope("default"))
    yield "llama-linear", llama, llama_config(**ROTARY, rope_parameters=rope("linear", factor=4.0))
    yield "llama-llama3", llama, llama_config(**ROTARY, rope_parameters=rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
        original_max_position_embeddings=16))
    yield "llama-yarn", llama, llama_config(**ROTARY, rope_parameters=rope(
        "yarn", factor=4.0, beta_fast=4.0, beta_slow=0.5, original_max_position_embeddings=32))
    tied = dict(SMALL, tie_word_embeddings=True, num_attention_heads=3, num_key_value_heads=1,
                hidden_size=24)
    yield "smollm2", llama, llama_config(**tied, rope_parameters=rope("default", rope_theta=100000.0))
    biased = dict(SMALL, attention_bias=True, mlp_bias=True, num_hidden_layers=1)
    yield "llama-biased", llama, llama_config(**biased, rope_parameters=rope("default"))
    yield "mistral", t.MistralForCausalLM, t.MistralConfig(
        **SMALL, head_dim=8, sliding_window=9, rope_parameters=rope("default"))
    yield "qwen2", t.Qwen2ForCausalLM, t.Qwen2Config(
        **dict(SMALL, num_hidden_layers=3), use_sliding_window=True, sliding_window=8,
        max_window_layers=2, rope_parameters=rope("default", rope_theta=1000000.0))
    yield "qwen3", t.Qwen3ForCausalLM, t.Qwen3Config(
        **SMALL, head_dim=16, rope_parameters=rope("default", rope_theta=1000000.0))
    for name, normed in (("qwen3moe", True), ("qwen3moe-raw", False)):
        layers = 2 if normed else 1
        yield name, t.Qwen3MoeForCausalLM, t.Qwen3MoeConfig(
            **dict(SMALL, num_hidden_layers=layers), head_dim=8, num_experts=5,
            num_experts_per_tok=2, moe_intermediate_size=12, norm_topk_prob=normed,
            rope_parameters=rope("default"))
    yield "gemma", t.GemmaForCausalLM, t.GemmaConfig(
        **{k: v for k, v in GEMMA.items() if k != "hidden_activation"},
        hidden_act="gelu_pytorch_tanh", rope_parameters=rope("default"))
    yield "gemma2", t.Gemma2ForCausalLM, t.Gemma2Config(
        **dict(GEMMA, num_hidden_layers=4), sliding_window=8, query_pre_attn_scalar=20,
        attn_logit_softcapping=2.0, final_logit_softcapping=3.0, rope_parameters=rope("default"))
    yield "gemma3", t.Gemma3ForCausalLM, t.Gemma3TextConfig(
        **dict(GEMMA, num_hidden_layers=7), sliding_window=8, query_pre_attn_scalar=20,
        rope_parameters={
            "sliding_attention": rope("default"),
            "full_attention": rope("linear", factor=8.0) | {"rope_theta": 1000000.0}})
    yield "phi3", t.Phi3ForCausalLM, t.Phi3Config(
        **dict(SMALL, num_hidden_layers=1), sliding_window=11, rope_parameters=rope("default"))
    yield "phi3-longrope", t.Phi3ForCausalLM, t.Phi3Config(
        **dict(ROTARY, hidden_size=16), original_max_position_embeddings=24, sliding_window=None,
        rope_parameters=LONG | {"partial_rotary_factor": 0.75})
    yield "bert", t.BertModel, t.BertConfig(
        vocab_size=TOKENS, hidden_size=24, num_hidden_layers=2, num_attention_heads=3,
        intermediate_size=32, max_position_embeddings=48, type_vocab_size=2)


def fill(model, seed):
    """Random weights: large enough that each part of a layer matters."""
    random = torch.Generator().manual_seed(seed)
    is_gemma = model.config.model_type.startswith("gemma")
    for name, weight in sorted(model.named_parameters()):
        draw = torch.randn(weight.shape, generator=random)
        if weight.dim() > 1:
            scale = 1.0 if "embed" in name else 1.3 / weight.shape[-1] ** 0.5
            weight.data = draw * scale
        elif name.endswith("bias"):
            weight.data = draw * 0.3
        else:
            weight.data = draw * 0.2 + (0.0 if is_gemma else 1.0)
    model.tie_weights()


def case(model, length, seed):
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, TOKENS, (1, length), generator=random)
    with torch.no_grad():
        out = model(input_ids=ids)
    tokens = ids[0].tolist()
    if not hasattr(out, "logits"):
        return {"tokens": tokens, "mean": rounded(out.last_hidden_state[0].mean(0))}
    positions = sorted({0, 1, length // 3, length // 2, length - 2, length - 1})
    logits = {str(at): rounded(out.logits[0, at]) for at in positions}
    return {"tokens": tokens, "logits": logits}


def rounded(row):
    return [float(f"{value:.7g}") for value in row.tolist()]


def main(folder):
    for name, kind, config in families():
        config._attn_implementation = "eager"
        torch.manual_seed(SEED)
        model = kind(config).float().eval()
        fill(model, SEED)
        target = folder / name
        model.save_pretrained(target)
        (target / "generation_config.json").unlink(missing_ok=True)
        cases = [case(model, length, SEED + length) for length in (20, CASE_LEN)]
        golden = {"reference": f"transformers {transformers.__version__}, torch {torch.__version__}",
                  "seed": SEED, "cases": cases}
        (target / "golden.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
        print(name, sum(p.numel() for p in model.parameters()))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
