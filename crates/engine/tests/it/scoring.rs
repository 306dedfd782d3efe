//! What a model thinks of a given text: the same numbers that it had while it wrote it.

use commons_engine::LocalEngine;
use commons_port::engine::{
    Engine, EngineRefusalCode, EngineRequest, LoadedModel, Replay, ScoreRequest, Scores,
};
use commons_record::Micro;
use commons_record::order::{LogitBias, PromptInput, Sampling};
use commons_record::settlement::EndReason;
use futures::executor::block_on;

use crate::support::{Said, ask, caller, config, noise_engine, request, warm};

/// The token that ends an answer of the noise model.
const END: u32 = 2;

/// Judges an answer to a request, drawn as the request says.
fn judge(engine: &LocalEngine, request: &EngineRequest, prompt: &[u32], answer: &[u32]) -> Scores {
    let replay = Replay {
        sampling: request.sampling.clone(),
        seed: request.seed,
        constraint: request.constraint.clone(),
        tools: request.tools.clone(),
    };
    let score = ScoreRequest {
        model: request.model,
        adapter: None,
        caller: caller(2),
        input: PromptInput::Tokens([prompt, answer].concat()),
        from: u32::try_from(prompt.len()).expect("short"),
        top_logprobs: request.top_logprobs,
        replay: Some(replay),
    };
    block_on(engine.score(score)).expect("is judged")
}

fn margins(scores: &Scores) -> Vec<f64> {
    scores.scores.iter().map(|score| score.margin.expect("a replay was asked for")).collect()
}

/// A request whose answer ends by itself after some tokens, and the answer.
fn one_that_ends(engine: &LocalEngine, facts: &LoadedModel) -> (EngineRequest, Said) {
    let biased = |bias: i64| {
        let bias = Micro::from_millionths(bias * 1_000_000).expect("small");
        let request = warm(request(facts, "bace difo", 200), [3; 32]);
        let logit_bias = vec![LogitBias { token: END, bias }];
        let sampling = Sampling { logit_bias, ..request.sampling.clone() };
        EngineRequest { sampling, ..request }
    };
    let ends = |said: &Said| said.reason == Some(EndReason::Stop) && said.tokens.len() > 3;
    let all = (0..40).map(biased).map(|request| (request.clone(), ask(engine, request)));
    let mut found = all.filter(|(_, said)| ends(said));
    found.next().expect("some bias ends an answer after more than three tokens")
}

#[test]
fn scores_are_the_probabilities_that_were_reported_while_writing() {
    let (engine, facts) = noise_engine(config());
    for request in [request(&facts, "bace difo gu", 90), warm(request(&facts, "bace", 90), [4; 32])]
    {
        let request = EngineRequest { top_logprobs: 4, ..request };
        let said = ask(&engine, request.clone());
        let scores = judge(&engine, &request, &said.prompt, &said.ids());
        assert_eq!(
            scores.tokens,
            [said.prompt, said.tokens.iter().map(|it| it.id).collect()].concat()
        );
        assert_eq!(scores.scores.len(), said.tokens.len());
        for (score, token) in scores.scores.iter().zip(&said.tokens) {
            let judged = score.token.as_ref().expect("there is a token before it");
            let numbers =
                |it: &commons_port::engine::Token| (it.id, it.logprob_micro, it.top.clone());
            assert_eq!(numbers(judged), numbers(token));
        }
    }
}

#[test]
fn a_whole_text_is_judged_but_for_its_first_token() {
    let (engine, facts) = noise_engine(config());
    let tokens: Vec<u32> = (0..150).map(|index| 300 + index % 70).collect();
    let score = |from: u32| {
        let (input, model) = (PromptInput::Tokens(tokens.clone()), facts.model);
        let (adapter, replay, caller) = (None, None, caller(1));
        let request = ScoreRequest { model, adapter, caller, input, from, top_logprobs: 2, replay };
        block_on(engine.score(request)).expect("is judged")
    };
    let whole = score(0);
    assert_eq!((&whole.tokens, whole.scores.len()), (&tokens, tokens.len()));
    assert!(whole.scores[0].token.is_none(), "nothing is before the first");
    for (score, id) in whole.scores[1..].iter().zip(&tokens[1..]) {
        let token = score.token.as_ref().expect("is judged");
        assert!(token.id == *id && token.logprob_micro <= 0 && token.top.len() == 2, "{token:?}");
        assert_eq!(score.margin, None, "no replay was asked for");
    }
    // From anywhere, with what is before it out of the cache, the same.
    for from in [1, 2, 32, 33, 100, 149, 150] {
        let part = score(from);
        assert_eq!(part.scores, whole.scores[from as usize..], "from {from}");
        assert_eq!((&part.next, part.next_ends), (&whole.next, whole.next_ends), "from {from}");
    }
}

#[test]
fn an_honest_answer_has_no_margin_and_its_end_comes_next() {
    let (engine, facts) = noise_engine(config());
    let (request, said) = one_that_ends(&engine, &facts);
    let scores = judge(&engine, &request, &said.prompt, &said.ids());
    assert!(margins(&scores).iter().all(|&margin| margin == 0.0), "{:?}", margins(&scores));
    assert!(scores.next_ends, "{:?}", scores.next);
    assert_eq!(scores.next.token.map(|token| token.id), Some(END));
    // An answer that was cut does not end there, and what is next is what was cut off.
    let cut = said.ids().len() / 2;
    let scores = judge(&engine, &request, &said.prompt, &said.ids()[..cut]);
    assert!(!scores.next_ends);
    assert_eq!(scores.next.token.map(|token| token.id), Some(said.ids()[cut]));
}

#[test]
fn a_token_that_was_put_in_anothers_place_has_a_margin_there() {
    let (engine, facts) = noise_engine(config());
    let greedy = request(&facts, "bace difo", 20);
    let drawn = warm(greedy.clone(), [6; 32]);
    // With one candidate for each token, any other cannot be drawn at all.
    let sampling = Sampling { top_k: 1, ..drawn.sampling.clone() };
    let masked = EngineRequest { sampling, ..drawn.clone() };
    for (request, is_infinite) in [(greedy, false), (drawn, false), (masked, true)] {
        let said = ask(&engine, request.clone());
        let mut ids = said.ids();
        ids[7] = if ids[7] == 310 { 311 } else { 310 };
        let margins = margins(&judge(&engine, &request, &said.prompt, &ids));
        assert!(margins[..7].iter().all(|&margin| margin == 0.0), "{margins:?}");
        assert!(margins[7] > 0.0, "{margins:?}");
        assert_eq!(margins[7].is_infinite(), is_infinite, "{margins:?}");
    }
}

#[test]
fn texts_that_cannot_be_judged_are_refused_with_a_reason() {
    let (engine, facts) = noise_engine(config());
    let score = |ids: Vec<u32>, from: u32| {
        let (input, model) = (PromptInput::Tokens(ids), facts.model);
        let (adapter, replay, caller) = (None, None, caller(1));
        let request = ScoreRequest { model, adapter, caller, input, from, top_logprobs: 0, replay };
        block_on(engine.score(request)).expect_err("is refused")
    };
    for (ids, from, code, wanted) in [
        (vec![], 0, EngineRefusalCode::InvalidPrompt, "empty"),
        (vec![300, 301], 3, EngineRefusalCode::InvalidPrompt, "token 3 is asked for"),
        (vec![99_999], 0, EngineRefusalCode::InvalidPrompt, "99999"),
        (vec![300; 3_000], 0, EngineRefusalCode::TooLong, "3000 tokens"),
    ] {
        let refusal = score(ids, from);
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(refusal.message.contains(wanted), "{refusal}");
    }
}
