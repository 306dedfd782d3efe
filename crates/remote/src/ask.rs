//! A request of the port as a request that a server understands, or the reason why it is none.

use commons_port::engine::{EngineRefusal, EngineRefusalCode, EngineRequest};
use commons_record::amount::Micro;
use commons_record::order::{PromptInput, Sampling};
use serde_json::{Map, Value, json};

use crate::kind::{Kind, Logprobs, PromptCount};

/// llama-server's adapters are numbers with a weight; one that is not named weighs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weighed {
    pub(crate) id: u32,
    pub(crate) is_on: bool,
}

/// To whom a request goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addressee<'a> {
    pub(crate) kind: Kind,
    /// The model, by the server's own name.
    pub(crate) model: &'a str,
    pub(crate) context_len: u32,
    pub(crate) weighed: &'a [Weighed],
}

/// A request that is ready to be sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ask {
    pub(crate) route: &'static str,
    pub(crate) body: Vec<u8>,
}

/// Puts a request into a server's words. What the server cannot do is refused and never left out.
pub(crate) fn ask(to: Addressee<'_>, request: &EngineRequest) -> Result<Ask, EngineRefusal> {
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    put("model", json!(to.model));
    put("stream", json!(true));
    let able = to.kind.abilities();
    let mut stream = json!({ "include_usage": true });
    if able.prompt_count == PromptCount::Usage {
        stream["continuous_usage_stats"] = json!(true);
    }
    put("stream_options", stream);
    if able.prompt_count == PromptCount::Timings {
        put("timings_per_token", json!(true));
    }
    if able.tells_ids {
        put("return_token_ids", json!(true));
    }
    if request.constraint.is_some() || request.tools.is_some() {
        // It would be the server's own grammar, which nobody here could hold it to.
        let what = "is asked for free answers only; leave out tools and the form of the answer";
        return Err(cannot(to.kind, what));
    }
    if request.stop.len() > able.stop_max {
        let what = format!("takes {} stop strings, and not {}", able.stop_max, request.stop.len());
        return Err(cannot(to.kind, &what));
    }
    if !request.stop.is_empty() {
        put("stop", json!(request.stop));
    }
    if let Some(seed) = request.seed {
        // All servers take a positive number of 31 bits.
        let word = u32::from_be_bytes([seed[0], seed[1], seed[2], seed[3]]);
        put("seed", json!(word >> 1));
    }
    if !to.weighed.is_empty() {
        let weight = |it: &Weighed| json!({ "id": it.id, "scale": u8::from(it.is_on) });
        put("lora", to.weighed.iter().map(weight).collect());
    }
    let route = prompt(&mut body, to, request)?;
    sample(&mut body, to.kind, &request.sampling)?;
    Ok(Ask { route, body: Value::Object(body).to_string().into_bytes() })
}

/// The prompt, and what has a name of its own on the prompt's route.
fn prompt(
    body: &mut Map<String, Value>,
    to: Addressee<'_>,
    request: &EngineRequest,
) -> Result<&'static str, EngineRefusal> {
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    let able = to.kind.abilities();
    let asks_logprobs = able.logprobs == Logprobs::Always || request.top_logprobs > 0;
    // llama-server tells nothing where 0 alternatives are asked for.
    let top = json!(request.top_logprobs.max(1));
    // An answer that may fill the context needs no bound, and servers refuse one that does.
    let tokens_max = request.completion_tokens_max;
    let tokens_max = (tokens_max < to.context_len).then_some(tokens_max);
    if let PromptInput::Chat(messages) = &request.input {
        let told = messages.iter().map(|it| json!({ "role": it.role, "content": it.content }));
        put("messages", told.collect());
        if let Some(max) = tokens_max {
            put("max_tokens", json!(max));
        }
        if asks_logprobs {
            put("logprobs", json!(true));
            put("top_logprobs", top);
        }
        return Ok("/v1/chat/completions");
    }
    let size = match &request.input {
        PromptInput::Tokens(_) if !able.has_token_prompts => {
            return Err(cannot(to.kind, "takes no prompt of token ids; send it as text"));
        }
        PromptInput::Tokens(tokens) => {
            put("prompt", json!(tokens));
            tokens.len()
        }
        PromptInput::Text(text) => {
            put("prompt", json!(text));
            text.len()
        }
        PromptInput::Chat(_) => 0, // Returned above.
    };
    // On this route no bound means sixteen tokens to most servers, and null means none to some.
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    let rest = to.context_len.saturating_sub(size).max(1);
    let bound = if able.takes_no_bound { None } else { Some(rest) };
    put("max_tokens", json!(tokens_max.or(bound)));
    if asks_logprobs {
        put("logprobs", top);
    }
    Ok("/v1/completions")
}

fn sample(
    body: &mut Map<String, Value>,
    kind: Kind,
    sampling: &Sampling,
) -> Result<(), EngineRefusal> {
    let able = kind.abilities();
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    put("temperature", json!(sampling.temperature.to_f64()));
    put("top_p", json!(sampling.top_p.to_f64()));
    put("presence_penalty", json!(sampling.presence_penalty.to_f64()));
    put("frequency_penalty", json!(sampling.frequency_penalty.to_f64()));
    match able.top_k_of_all {
        Some(all) if sampling.top_k == 0 => put("top_k", json!(all)),
        Some(_) => put("top_k", json!(sampling.top_k)),
        None if sampling.top_k == 0 => None,
        None => return Err(cannot(kind, "knows no `top_k`; leave it out")),
    };
    match able.has_min_p {
        true => put("min_p", json!(sampling.min_p.to_f64())),
        false if sampling.min_p == Micro::ZERO => None,
        false => return Err(cannot(kind, "knows no `min_p`; leave it out")),
    };
    match able.repetition {
        Some(name) => put(name, json!(sampling.repetition_penalty.to_f64())),
        None if sampling.repetition_penalty == Micro::ONE => None,
        None => return Err(cannot(kind, "knows no `repetition_penalty`; leave it out")),
    };
    if sampling.logit_bias.is_empty() {
        return Ok(());
    }
    if !able.has_logit_bias {
        return Err(cannot(kind, "knows no `logit_bias`; leave it out"));
    }
    let biases = sampling.logit_bias.iter();
    let biases = biases.map(|it| (it.token.to_string(), json!(it.bias.to_f64())));
    put("logit_bias", Value::Object(biases.collect()));
    Ok(())
}

fn cannot(kind: Kind, what: &str) -> EngineRefusal {
    let message = format!("the foreign engine {kind} {what}");
    EngineRefusal { code: EngineRefusalCode::Unsupported, message }
}

#[cfg(test)]
mod tests {
    use commons_port::engine::{Caller, Priority};
    use commons_record::order::{LogitBias, Message};
    use commons_record::{Hash, PublicKey};

    use super::*;

    fn request(input: PromptInput) -> EngineRequest {
        EngineRequest {
            model: Hash::from_bytes([1; 32]),
            adapter: None,
            caller: Caller {
                key: PublicKey::from_bytes([2; 32]),
                priority: Priority::Owner,
                shares_prefixes: false,
            },
            input,
            stop: Vec::new(),
            constraint: None,
            tools: None,
            sampling: Sampling::greedy(),
            seed: None,
            prompt_tokens_max: 100,
            completion_tokens_max: 5,
            top_logprobs: 0,
        }
    }

    fn chat() -> EngineRequest {
        let message = Message::new("user", "hi");
        request(PromptInput::Chat(vec![message]))
    }

    fn asked(kind: Kind, request: &EngineRequest) -> Result<Value, EngineRefusal> {
        let to = Addressee { kind, model: "m", context_len: 2048, weighed: &[] };
        let ask = ask(to, request)?;
        Ok(serde_json::from_slice(&ask.body).expect("is JSON"))
    }

    fn refused(kind: Kind, request: &EngineRequest, part: &str) {
        let refusal = asked(kind, request).expect_err(part);
        assert_eq!(refusal.code, EngineRefusalCode::Unsupported);
        assert!(refusal.message.contains(part), "{}", refusal.message);
    }

    #[test]
    fn the_published_api_is_sent_nothing_beyond_it() {
        let want = json!({
            "model": "m", "stream": true, "stream_options": { "include_usage": true },
            "max_tokens": 5, "messages": [{ "role": "user", "content": "hi" }],
            "temperature": 0.0, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
        });
        assert_eq!(asked(Kind::OpenAi, &chat()), Ok(want.clone()));
        assert_eq!(asked(Kind::Ollama, &chat()), Ok(want));
    }

    #[test]
    fn a_servers_own_defaults_are_overridden_where_it_has_the_field() {
        let check = |kind: Kind, top_k: i32, repetition: &str| {
            let body = asked(kind, &chat()).expect("is a request");
            let got = (&body["top_k"], &body["min_p"], &body[repetition]);
            assert_eq!(got, (&json!(top_k), &json!(0.0), &json!(1.0)), "{kind}");
        };
        check(Kind::Vllm, -1, "repetition_penalty");
        check(Kind::Sglang, -1, "repetition_penalty");
        check(Kind::LlamaServer, 0, "repeat_penalty");
        check(Kind::LlamaCppPython, 0, "repeat_penalty");
    }

    #[test]
    fn what_a_server_cannot_do_is_refused_and_not_left_out() {
        let with = |change: fn(&mut EngineRequest)| {
            let mut it = chat();
            change(&mut it);
            it
        };
        refused(Kind::OpenAi, &with(|it| it.sampling.top_k = 40), "top_k");
        refused(Kind::Ollama, &with(|it| it.sampling.min_p = Micro::ONE), "min_p");
        refused(
            Kind::OpenAi,
            &with(|it| it.sampling.repetition_penalty = Micro::ZERO),
            "repetition_penalty",
        );
        refused(Kind::OpenAi, &with(|it| it.stop = vec!["x".into(); 5]), "stop strings");
        let bias = |it: &mut EngineRequest| {
            it.sampling.logit_bias = vec![LogitBias { token: 7, bias: Micro::ONE }];
        };
        refused(Kind::Ollama, &with(bias), "logit_bias");
        let body = asked(Kind::OpenAi, &with(bias)).expect("is a request");
        assert_eq!(body["logit_bias"], json!({ "7": 1.0 }));
        let tokens = request(PromptInput::Tokens(vec![1, 2]));
        refused(Kind::LlamaCppPython, &tokens, "token ids");
        refused(Kind::Ollama, &tokens, "token ids");
        assert_eq!(asked(Kind::Vllm, &tokens).expect("is a request")["prompt"], json!([1, 2]));
    }

    #[test]
    fn a_seed_that_is_known_is_sent_as_a_number_that_all_take() {
        let mut it = chat();
        it.seed = Some([0xff; 32]);
        assert_eq!(asked(Kind::OpenAi, &it).expect("is a request")["seed"], json!(i32::MAX));
    }

    #[test]
    fn an_answer_as_long_as_the_context_is_not_bounded_again() {
        let mut it = chat();
        it.completion_tokens_max = 2048;
        assert!(asked(Kind::OpenAi, &it).expect("is a request").get("max_tokens").is_none());
    }

    #[test]
    fn a_text_whose_answer_may_fill_the_context_is_not_cut_after_sixteen_tokens() {
        let mut it = request(PromptInput::Text("Once".into()));
        it.completion_tokens_max = 2048;
        let check = |kind: Kind, want: Value| {
            assert_eq!(asked(kind, &it).expect("is a request")["max_tokens"], want, "{kind}");
        };
        check(Kind::Vllm, Value::Null);
        check(Kind::LlamaCppPython, Value::Null);
        check(Kind::Ollama, Value::Null);
        check(Kind::OpenAi, json!(2044));
        check(Kind::Sglang, json!(2044));
    }

    #[test]
    fn every_adapter_of_llama_server_is_weighed() {
        let weighed = [Weighed { id: 0, is_on: false }, Weighed { id: 1, is_on: true }];
        let to =
            Addressee { kind: Kind::LlamaServer, model: "m", context_len: 9, weighed: &weighed };
        let body: Value =
            serde_json::from_slice(&ask(to, &chat()).expect("is a request").body).expect("is JSON");
        assert_eq!(body["lora"], json!([{ "id": 0, "scale": 0 }, { "id": 1, "scale": 1 }]));
    }

    #[test]
    fn logprobs_are_asked_for_where_they_cost_little_or_are_wanted() {
        let check = |kind: Kind, top: u8, want: Value| {
            let mut it = chat();
            it.top_logprobs = top;
            assert_eq!(asked(kind, &it).expect("is a request")["top_logprobs"], want, "{kind}");
        };
        check(Kind::Vllm, 0, json!(1));
        check(Kind::LlamaServer, 3, json!(3));
        check(Kind::OpenAi, 0, Value::Null);
        check(Kind::OpenAi, 2, json!(2));
    }
}
