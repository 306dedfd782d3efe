#!/usr/bin/env python3
"""Turns the tiny models of `make_families.py` into GGUF, and asks llama.cpp what they compute.

    v/bin/pip install gguf safetensors numpy          # writes the files
    w/bin/pip install llama-cpp-python                 # asks llama.cpp
    v/bin/python make_gguf.py convert families gguf
    w/bin/python make_gguf.py ask gguf                 # writes gguf/NAME.json

The conversion follows the conventions of llama.cpp's own: names, rows of queries and keys permuted
for `llama` (a rotary pair is two neighbours), norms of gemma stored with one added, experts stacked,
queries, keys and values fused for phi3, rotary factors as tensors.

The formats: one llama model whose rows are long enough for every block, quantised by llama.cpp;
its logits as llama.cpp computes them (it rounds activations too), and as transformers computes them
from what gguf-py makes of the blocks (it rounds nothing):

    v/bin/python make_gguf.py base base
    w/bin/python make_gguf.py quantise base quantised
    v/bin/python make_gguf.py exact quantised
"""

import ctypes
import json
import math
import pathlib
import sys

SEED = 271828
GGUF_NAMES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3",
              "qwen3_moe": "qwen3moe", "gemma": "gemma", "gemma2": "gemma2",
              "gemma3_text": "gemma3", "phi3": "phi3", "bert": "bert"}
PARTS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.qkv_proj": "attn_qkv", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "mlp.gate_up_proj": "ffn_up", "mlp.gate": "ffn_gate_inp", "input_layernorm": "attn_norm",
    "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
    "attention.self.query": "attn_q", "attention.self.key": "attn_k",
    "attention.self.value": "attn_v", "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm", "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down", "output.LayerNorm": "layer_output_norm",
}
WHOLE = {
    "lm_head": "output", "model.embed_tokens": "token_embd", "model.norm": "output_norm",
    "embeddings.word_embeddings": "token_embd", "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types", "embeddings.LayerNorm": "token_embd_norm",
}
SKIPPED = ("pooler.",)


def ours(name, is_gemma_post):
    stem, end = name.rsplit(".", 1)
    if stem in WHOLE:
        return f"{WHOLE[stem]}.{end}"
    rest = name.removeprefix("model.layers.").removeprefix("encoder.layer.")
    layer, part = rest.split(".", 1)
    part = part.rsplit(".", 1)[0]
    if part == "post_attention_layernorm":
        part = "post_attention_norm" if is_gemma_post else "ffn_norm"
    return f"blk.{layer}.{PARTS.get(part, part)}.{end}"


def permuted(rows, heads):
    """The two halves of each head, interleaved: what transformers splits, ggml takes as pairs."""
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]) \
        .swapaxes(1, 2).reshape(rows.shape)


def tensors(folder, config):
    import numpy as np
    from safetensors.numpy import load_file

    kind, out, experts = config["model_type"], {}, {}
    is_gemma = kind.startswith("gemma")
    for name, value in load_file(folder / "model.safetensors").items():
        if name.startswith(SKIPPED):
            continue
        if ".mlp.experts." in name:
            layer, expert, part = name.split(".")[2], int(name.split(".")[5]), name.split(".")[6]
            part = {"gate_proj": "ffn_gate_exps", "up_proj": "ffn_up_exps", "down_proj": "ffn_down_exps"}[part]
            experts.setdefault(f"blk.{layer}.{part}.weight", {})[expert] = value
            continue
        new = ours(name, kind in ("gemma2", "gemma3_text"))
        if is_gemma and new.endswith("norm.weight"):
            value = value + 1
        if GGUF_NAMES[kind] == "llama" and ".attn_q." in new:
            value = permuted(value, config["num_attention_heads"])
        if GGUF_NAMES[kind] == "llama" and ".attn_k." in new:
            value = permuted(value, config["num_key_value_heads"])
        out[new] = value.astype(np.float32)
    for name, parts in experts.items():
        out[name] = np.stack([parts[index] for index in sorted(parts)])
    return out


def rotary(writer, config, out):
    """Rotary settings: keys of the file, or tensors that divide the frequencies."""
    import numpy as np

    rope = config.get("rope_parameters")
    if rope is None:
        return
    local, rope = rope.get("sliding_attention"), rope.get("full_attention", rope)
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    turned = int(size * rope.get("partial_rotary_factor", 1.0))
    writer.add_rope_dimension_count(turned)
    writer.add_rope_freq_base(rope["rope_theta"])
    if local:
        writer.add_float32(f"{writer.arch}.rope.freq_base_swa", local["rope_theta"])
    kind, original = rope["rope_type"], rope.get("original_max_position_embeddings")
    context = config["max_position_embeddings"]
    if kind in ("linear", "yarn"):
        writer.add_string(f"{writer.arch}.rope.scaling.type", kind)
        writer.add_float32(f"{writer.arch}.rope.scaling.factor", rope["factor"])
    if kind == "yarn":
        writer.add_uint32(f"{writer.arch}.rope.scaling.original_context_length", original)
        writer.add_float32(f"{writer.arch}.rope.scaling.yarn_beta_fast", rope["beta_fast"])
        writer.add_float32(f"{writer.arch}.rope.scaling.yarn_beta_slow", rope["beta_slow"])
    if kind == "longrope":
        writer.add_uint32(f"{writer.arch}.rope.scaling.original_context_length", original)
        factor = math.sqrt(1 + math.log(context / original) / math.log(original))
        writer.add_float32(f"{writer.arch}.rope.scaling.attn_factor", factor)
        out["rope_factors_long.weight"] = np.array(rope["long_factor"], np.float32)
        out["rope_factors_short.weight"] = np.array(rope["short_factor"], np.float32)
    if kind == "llama3":
        factors = []
        for index in range(turned // 2):
            turns = original * rope["rope_theta"] ** (-2 * index / turned) / (2 * math.pi)
            low, high = rope["low_freq_factor"], rope["high_freq_factor"]
            share = min(max((turns - low) / (high - low), 0.0), 1.0)
            factors.append(1 / ((1 - share) / rope["factor"] + share))
        out["rope_freqs.weight"] = np.array(factors, np.float32)


def vocabulary(writer, count):
    """llama.cpp loads no model without one: control tokens, bytes as far as they go."""
    words = ["<unk>", "<s>", "</s>"] + [f"\u2581w{index}" for index in range(3, count)]
    kinds = [2, 3, 3] + [1] * (count - 3)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * count)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)


def convert(source, target):
    import gguf

    target.mkdir(parents=True, exist_ok=True)
    for folder in sorted(source.iterdir()):
        config = json.loads((folder / "config.json").read_text())
        kind = config["model_type"]
        writer = gguf.GGUFWriter(target / f"{folder.name}.gguf", GGUF_NAMES[kind])
        out = tensors(folder, config)
        writer.add_context_length(config["max_position_embeddings"])
        writer.add_embedding_length(config["hidden_size"])
        writer.add_block_count(config["num_hidden_layers"])
        writer.add_feed_forward_length(config["intermediate_size"])
        heads = config["num_attention_heads"]
        writer.add_head_count(heads)
        writer.add_head_count_kv(config.get("num_key_value_heads", heads))
        if config.get("head_dim"):
            writer.add_key_length(config["head_dim"])
            writer.add_value_length(config["head_dim"])
        if kind == "bert":
            writer.add_layer_norm_eps(config["layer_norm_eps"])
            writer.add_causal_attention(False)
            writer.add_pooling_type(gguf.PoolingType.MEAN)
            writer.add_token_type_count(config["type_vocab_size"])
        else:
            writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        if config.get("sliding_window") and config.get("use_sliding_window", True):
            writer.add_sliding_window(config["sliding_window"])
        for key in ("attn_logit_softcapping", "final_logit_softcapping"):
            if config.get(key):
                writer.add_float32(f"{writer.arch}.{key}", config[key])
        if kind in ("gemma2", "gemma3_text"):
            # Not a key of llama.cpp's: it knows the published sizes by heart.
            writer.add_float32(f"{writer.arch}.attention.scale", config["query_pre_attn_scalar"] ** -0.5)
        if kind == "qwen3_moe":
            writer.add_expert_count(config["num_local_experts"])
            writer.add_expert_used_count(config["num_experts_per_tok"])
            writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
            writer.add_expert_weights_norm(config["norm_topk_prob"])
        rotary(writer, config, out)
        vocabulary(writer, config["vocab_size"])
        for name, value in out.items():
            writer.add_tensor(name, value)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def logits(path, tokens, positions):
    """What llama.cpp computes, on one thread, all tokens in one batch."""
    import llama_cpp

    model = llama_cpp.Llama(str(path), n_ctx=128, n_batch=128, n_ubatch=128, n_threads=1,
                            n_threads_batch=1, logits_all=True, verbose=False, n_gpu_layers=0,
                            flash_attn=False, type_k=0, type_v=0,
                            # These two are the caller's in llama.cpp, whatever the file says.
                            yarn_beta_fast=4.0, yarn_beta_slow=0.5)
    model.reset()
    model.eval(tokens)
    return {str(at): [float(f"{value:.7g}") for value in model.scores[at]] for at in positions}


def ask(folder, golden_of=None):
    import llama_cpp

    for path in sorted(folder.glob("*.gguf")):
        golden = json.loads((golden_of / path.stem / "golden.json").read_text())
        for case in golden["cases"]:
            worst = 0.0
            if "logits" not in case:
                continue
            found = logits(path, case["tokens"], [int(at) for at in case["logits"]])
            for at, row in case["logits"].items():
                scale = max(1.0, max(abs(value) for value in row))
                worst = max(worst, max(abs(a - b) for a, b in zip(row, found[at])) / scale)
            print(f"{path.stem} ({len(case['tokens'])} tokens): llama.cpp {llama_cpp.__version__} differs by {worst:.2e}", flush=True)


FORMATS = {"Q4_0": 2, "Q4_1": 3, "Q5_0": 8, "Q5_1": 9, "Q8_0": 7, "Q4_K": 14, "Q5_K": 16,
           "Q6_K": 18}
CASE = [1, 17, 42, 9, 63, 30, 5, 28, 51, 12, 36, 44, 8, 23, 60, 19]
BASE = dict(vocab_size=64, hidden_size=256, intermediate_size=64, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=1, head_dim=32, max_position_embeddings=128,
            tie_word_embeddings=False, rms_norm_eps=1e-6, use_cache=False)


def base(folder):
    """The model that is quantised, as a Hugging Face folder and as GGUF beside it."""
    import torch
    import transformers
    from make_families import fill

    rope = {"rope_type": "default", "rope_theta": 10000.0}
    config = transformers.LlamaConfig(**BASE, rope_parameters=rope)
    model = transformers.LlamaForCausalLM(config).float()
    fill(model, SEED)
    model.save_pretrained(folder / "hf" / "model")
    convert(folder / "hf", folder)


def quantise(folder, target):
    """Every format, by llama.cpp's own quantisation, with its logits."""
    import llama_cpp

    target.mkdir(parents=True, exist_ok=True)
    for name, kind in FORMATS.items():
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype, params.nthread, params.pure = kind, 1, True
        # Without an opinion of its own llama.cpp gives the output matrix more bits.
        path = target / f"{name}.gguf"
        done = llama_cpp.llama_model_quantize(
            str(folder / "model.gguf").encode(), str(path).encode(), ctypes.byref(params))
        assert done == 0, (name, done)
        found = logits(path, CASE, [0, 1, 7, len(CASE) - 1])
        golden = {"llama_cpp": llama_cpp.__version__, "tokens": CASE, "by_llama_cpp": found}
        path.with_suffix(".json").write_text(json.dumps(golden))


def exact(target):
    """The same in f32 arithmetic from dequantised weights."""
    import gguf
    import torch
    import transformers

    rope = {"rope_type": "default", "rope_theta": 10000.0}
    for path in sorted(target.glob("*.gguf")):
        config = transformers.LlamaConfig(**BASE, rope_parameters=rope)
        config._attn_implementation = "eager"
        model = transformers.LlamaForCausalLM(config).float().eval()
        names = {ours(name, False): name for name, _ in model.named_parameters()}
        state = {}
        for tensor in gguf.GGUFReader(path).tensors:
            value = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            for part, heads in ((".attn_q.", 2), (".attn_k.", 1)):
                if part in tensor.name:
                    size = value.shape[0] // heads
                    value = value.reshape(heads, size // 2, 2, -1).swapaxes(1, 2).reshape(value.shape)
            state[names[tensor.name]] = torch.tensor(value.copy())
        model.load_state_dict(state)
        golden = json.loads(path.with_suffix(".json").read_text())
        with torch.no_grad():
            out = model(input_ids=torch.tensor([golden["tokens"]])).logits[0]
        golden["logits"] = {
            at: [float(f"{value:.7g}") for value in out[int(at)].tolist()]
            for at in golden["by_llama_cpp"]}
        golden["types"] = sorted({tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors})
        path.with_suffix(".json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
        apart = max(abs(a - b) for at in golden["logits"]
                    for a, b in zip(golden["logits"][at], golden["by_llama_cpp"][at]))
        print(path.stem, golden["types"], f"llama.cpp differs by {apart:.3g}", path.stat().st_size)


if __name__ == "__main__":
    command, *paths = sys.argv[1:]
    commands = {"convert": convert, "ask": ask, "base": base, "quantise": quantise, "exact": exact}
    commands[command](*map(pathlib.Path, paths))
