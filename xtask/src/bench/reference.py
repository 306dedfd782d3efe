"""One measurement of the reference, llama.cpp, in one process: one line of JSON on stdout.

`cargo xtask bench engine` starts it with the Python that has llama-cpp-python. It understands the
same arguments as `commons bench` and keeps the same conventions, so that both engines do the same
work:

* Token ids come from one generator (`token_ids`), whatever the vocabulary says about them.
* A prefill computes the logits of its last token, a decode step those of every row.
* After each step a token is picked for every row: the one with the highest logit.
* Whatever is timed was done once before, unless the measurement is about the first time.

Not here: repeating, comparing and tables (`engine.rs`).
"""

import argparse
import ctypes
import json
import os
import sys
import time

try:
    import llama_cpp as api
    import numpy
except ImportError as error:
    sys.exit(f"this Python has no reference ({error}): install llama-cpp-python for it, or name another")

# Prompts are cut into pieces of this size, as llama.cpp's own benchmark does.
PIECE = 512
# The reference makes room for a multiple of this many positions.
KV_BLOCK = 256
# Steps that are not timed: caches fill and threads start.
WARM_STEPS = 4
# Tokens of the prompt whose first answer is timed together with loading.
FIRST_PROMPT = 8
# Tokens that follow a prefix which is held already.
NEW_TOKENS = 16


def arguments():
    parser = argparse.ArgumentParser(description="Measure llama.cpp once")
    parser.add_argument("model")
    parser.add_argument("--json", action="store_true", help="accepted for symmetry")
    parser.add_argument("--only", choices=["prefill", "decode", "prefix", "load", "adapters"], required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=128, help="prompt tokens, or steps of a row")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--context", type=int, default=16, help="tokens of a row before decoding")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--adapters", help="folder of GGUF adapters, for `--only adapters`")
    parser.add_argument("--repack", choices=["on", "off"], default="on")
    parser.add_argument("--flash", choices=["auto", "on", "off"], default="auto")
    return parser.parse_args()


def token_ids(count, vocabulary, row):
    """The same ids in every engine: a linear congruential generator, its upper bits."""
    state, ids = row + 1, []
    for _ in range(count):
        state = (state * 1103515245 + 12345) % 2**31
        ids.append((state >> 8) % vocabulary)
    return ids


def memory():
    """Resident bytes now, and the most there ever were."""
    with open("/proc/self/status", encoding="ascii") as status:
        fields = dict(line.split(":", 1) for line in status)
    size = lambda name: int(fields[name].split()[0]) * 1024
    return {"resident": size("VmRSS"), "anonymous": size("RssAnon"), "peak": size("VmHWM")}


class Reference:
    """A loaded model with one context."""

    def __init__(self, args, context_tokens, rows):
        model = api.llama_model_default_params()
        model.use_extra_bufts = args.repack == "on"
        self.model = api.llama_model_load_from_file(os.fsencode(args.model), model)
        if not self.model:
            sys.exit(f"the reference cannot load {args.model}")
        context = api.llama_context_default_params()
        per_row = -(-context_tokens // KV_BLOCK) * KV_BLOCK
        context.n_ctx = per_row * rows
        context.n_batch = context.n_ubatch = PIECE
        context.n_seq_max = rows
        context.n_threads = context.n_threads_batch = args.threads
        context.flash_attn_type = {"auto": -1, "off": 0, "on": 1}[args.flash]
        self.context = api.llama_init_from_model(self.model, context)
        if not self.context:
            sys.exit("the reference cannot make a context")
        head_width = api.llama_model_n_embd(self.model) // api.llama_model_n_head(self.model)
        kv_width = head_width * api.llama_model_n_head_kv(self.model)
        layers = api.llama_model_n_layer(self.model)
        # Keys and values, two bytes a number.
        self.kv_bytes = per_row * rows * layers * kv_width * 2 * 2
        self.vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self.model))
        self.batch = api.llama_batch_init(max(PIECE, rows), 0, 1)

    def decode(self, entries):
        """Computes (id, position, row, wants logits) and waits for the result."""
        batch = self.batch
        batch.n_tokens = len(entries)
        for index, (token, position, row, wants) in enumerate(entries):
            batch.token[index] = token
            batch.pos[index] = position
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = row
            batch.logits[index] = wants
        code = api.llama_decode(self.context, batch)
        if code != 0:
            sys.exit(f"the reference refused a batch of {len(entries)}: {code}")
        api.llama_synchronize(self.context)

    def pick(self, index):
        """The token with the highest logit at this place of the last batch."""
        logits = api.llama_get_logits_ith(self.context, index)
        return int(numpy.argmax(numpy.ctypeslib.as_array(logits, shape=(self.vocabulary,))))

    def prefill(self, ids, row, start=0):
        """Computes a prompt piece by piece; the token picked after it."""
        for begin in range(0, len(ids), PIECE):
            piece = ids[begin : begin + PIECE]
            last = len(ids) - 1 - begin
            at = start + begin
            self.decode([(it, at + index, row, index == last) for index, it in enumerate(piece)])
        return self.pick(-1)

    def forget(self, start=0):
        """Drops what all rows hold from this position on."""
        api.llama_memory_seq_rm(api.llama_get_memory(self.context), -1, start, -1)


def measure_prefill(args):
    engine = Reference(args, args.tokens, 1)
    ids = token_ids(args.tokens, engine.vocabulary, 0)
    seconds = []
    for round_index in range(args.rounds + 1):
        engine.forget()
        begin = time.perf_counter()
        engine.prefill(ids, 0)
        if round_index > 0:
            seconds.append(time.perf_counter() - begin)
    return engine, {"seconds": seconds, "tokens_timed": args.tokens}


def measure_decode(args):
    per_row = args.context + WARM_STEPS + args.tokens
    engine = Reference(args, per_row, args.rows)
    rows, seconds = range(args.rows), []
    for _ in range(args.rounds):
        engine.forget()
        prompts = [token_ids(args.context, engine.vocabulary, row) for row in rows]
        picked = [engine.prefill(prompts[row], row) for row in rows]
        for step in range(WARM_STEPS + args.tokens):
            if step == WARM_STEPS:
                begin = time.perf_counter()
            engine.decode([(picked[row], args.context + step, row, True) for row in rows])
            picked = [engine.pick(row) for row in rows]
        seconds.append(time.perf_counter() - begin)
    return engine, {"seconds": seconds, "tokens_timed": args.tokens * args.rows}


def measure_prefix(args):
    """A prompt comes again with another end: the time to its first token, without what it shares."""
    engine = Reference(args, args.tokens + NEW_TOKENS, 1)
    shared = token_ids(args.tokens, engine.vocabulary, 0)
    end = token_ids(NEW_TOKENS, engine.vocabulary, 1)
    begin = time.perf_counter()
    engine.prefill(shared + end, 0)
    cold = time.perf_counter() - begin
    seconds = []
    for _ in range(args.rounds):
        begin = time.perf_counter()
        engine.forget(start=args.tokens)
        engine.prefill(end, 0, start=args.tokens)
        seconds.append(time.perf_counter() - begin)
    return engine, {"seconds": seconds, "tokens_timed": NEW_TOKENS, "cold_s": cold}


def measure_adapters(args):
    """Answers with an adapter each, one after the other: different ones share no batch."""
    engine = Reference(args, args.context + WARM_STEPS + args.tokens, 1)
    files = sorted(os.path.join(args.adapters, name) for name in os.listdir(args.adapters))
    adapters = [api.llama_adapter_lora_init(engine.model, os.fsencode(path)) for path in files]
    if not all(adapters):
        sys.exit("the reference cannot load an adapter")
    seconds = []
    for _ in range(args.rounds):
        elapsed = 0.0
        for row, adapter in enumerate(adapters):
            chosen = (api.llama_adapter_lora_p_ctypes * 1)(adapter)
            if api.llama_set_adapters_lora(engine.context, chosen, 1, (ctypes.c_float * 1)(1.0)):
                sys.exit("the reference cannot set an adapter")
            engine.forget()
            picked = engine.prefill(token_ids(args.context, engine.vocabulary, row), 0)
            for step in range(WARM_STEPS + args.tokens):
                if step == WARM_STEPS:
                    begin = time.perf_counter()
                engine.decode([(picked, args.context + step, 0, True)])
                picked = engine.pick(0)
            elapsed += time.perf_counter() - begin
        seconds.append(elapsed)
    return engine, {"seconds": seconds, "tokens_timed": args.tokens * len(adapters)}


def measure_load(args):
    """Loading until the first token, then what a long prompt and a few steps make of the memory."""
    begin = time.perf_counter()
    engine = Reference(args, args.tokens, 1)
    load = time.perf_counter() - begin
    loaded = memory()
    engine.prefill(token_ids(FIRST_PROMPT, engine.vocabulary, 0), 0)
    first = time.perf_counter() - begin
    engine.forget()
    engine.prefill(token_ids(args.tokens, engine.vocabulary, 0), 0)
    return engine, {
        "seconds": [first],
        "tokens_timed": FIRST_PROMPT,
        "load_s": load,
        "loaded_bytes": loaded["resident"],
        "loaded_anonymous_bytes": loaded["anonymous"],
    }


def main():
    args = arguments()
    silent = api.llama_log_callback(lambda level, text, data: None)
    api.llama_log_set(silent, ctypes.c_void_p(0))
    api.llama_backend_init()
    before = memory()["resident"]
    measures = {
        "prefill": measure_prefill,
        "decode": measure_decode,
        "prefix": measure_prefix,
        "load": measure_load,
        "adapters": measure_adapters,
    }
    engine, result = measures[args.only](args)
    result |= {
        "schema": 1,
        "engine": f"llama.cpp of llama-cpp-python {api.__version__}",
        "only": args.only,
        "threads": args.threads,
        "rows": args.rows,
        "before_bytes": before,
        "peak_bytes": memory()["peak"],
        "file_bytes": os.path.getsize(args.model),
        "kv_bytes": engine.kv_bytes,
    }
    print(json.dumps(result), flush=True)
    # The reference frees its buffers at exit in an order that Python cannot know.
    os._exit(0)


main()
