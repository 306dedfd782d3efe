//! Text as it comes out: whole characters, and nothing of a stop string.

use commons_engine::gguf::Gguf;
use commons_engine::noise::noise_model;
use commons_engine::tokenizer::Tokenizer;
use commons_port::engine::{EngineRequest, LoadedModel};
use commons_record::Micro;
use commons_record::order::{LogitBias, Sampling};
use commons_record::settlement::EndReason;

use crate::support::{ask, config, noise_engine, request, warm};

/// Tokens of single bytes begin here, that of byte 0 first.
const BYTES: u32 = 3;

/// An answer of these bytes alone, in a random order.
fn bytes_only(facts: &LoadedModel, bytes: &[u8], seed: u8, count: u32) -> EngineRequest {
    let bias = Micro::from_millionths(100_000_000).expect("small");
    let mut logit_bias: Vec<LogitBias> =
        bytes.iter().map(|&byte| LogitBias { token: BYTES + u32::from(byte), bias }).collect();
    logit_bias.sort_by_key(|it| it.token);
    let request = warm(request(facts, "bace", count), [seed; 32]);
    let temperature = Micro::from_millionths(2_000_000).expect("small");
    let sampling = Sampling { temperature, logit_bias, ..request.sampling.clone() };
    EngineRequest { sampling, ..request }
}

#[test]
fn a_character_comes_out_whole_or_as_the_sign_for_what_is_none() {
    let (engine, facts) = noise_engine(config());
    let mut whole = 0;
    for (character, seed) in [("€", 1), ("é", 2), ("é", 3), ("🦙", 4), ("aé", 5)] {
        let said = ask(&engine, bytes_only(&facts, character.as_bytes(), seed, 200));
        let bytes: Vec<u8> =
            said.ids().iter().map(|id| u8::try_from(id - BYTES).expect("a byte")).collect();
        assert_eq!(said.text, String::from_utf8_lossy(&bytes), "{character}");
        whole += said.text.matches(character).count();
        // Each piece is text by itself, and what is said early is never taken back.
        let pieces: String = said.tokens.iter().map(|token| token.text.as_str()).collect();
        assert!(said.text.starts_with(&pieces), "{character}");
    }
    assert!(whole > 10, "only {whole} characters came up");
}

#[test]
fn a_stop_string_is_found_wherever_tokens_cut_it() {
    let (engine, facts) = noise_engine(config());
    let wanted = ask(&engine, warm(request(&facts, "bace", 60), [8; 32]));
    let tokens: Vec<&str> = wanted.tokens.iter().map(|token| token.text.as_str()).collect();
    let mut found = 0;
    for at in 1..20 {
        // The end of one token and the beginning of the next, of which no part stands alone.
        let (Some(last), Some(first)) = (tokens[at].chars().last(), tokens[at + 1].chars().next())
        else {
            continue;
        };
        let stop = format!("{last}{first}");
        let request = EngineRequest {
            stop: vec![stop.clone()],
            ..warm(request(&facts, "bace", 60), [8; 32])
        };
        let said = ask(&engine, request);
        assert_eq!(said.reason, Some(EndReason::StopString), "{stop:?}");
        let before = wanted.text.find(&stop).expect("is in it");
        assert_eq!(said.text, wanted.text[..before], "{stop:?}");
        found += 1;
    }
    assert!(found > 5, "only {found} borders of text");
}

#[test]
fn a_stop_string_of_many_bytes_is_found_byte_by_byte() {
    let (engine, facts) = noise_engine(config());
    let request = bytes_only(&facts, "é".as_bytes(), 6, 300);
    let wanted = ask(&engine, request.clone()).text;
    let stop = "éé";
    let said = ask(&engine, EngineRequest { stop: vec![stop.into()], ..request });
    assert_eq!(said.reason, Some(EndReason::StopString));
    assert_eq!(said.text, wanted[..wanted.find(stop).expect("comes up")]);
}

/// The longest text that may begin a stop string is held back, and given out at the end.
#[test]
fn text_that_only_looked_like_a_stop_string_is_not_lost() {
    let (engine, facts) = noise_engine(config());
    let wanted = ask(&engine, request(&facts, "bace difo", 30));
    let tail: String =
        wanted.text.chars().rev().take(6).collect::<Vec<_>>().into_iter().rev().collect();
    let stop = vec![format!("{tail} that never comes")];
    let said = ask(&engine, EngineRequest { stop, ..request(&facts, "bace difo", 30) });
    assert_eq!((said.text, said.reason), (wanted.text, Some(EndReason::Length)));
}

#[test]
fn the_text_of_an_answer_is_what_its_tokens_decode_to() {
    let (engine, facts) = noise_engine(config());
    let bytes = noise_model(7).expect("builds").to_bytes();
    let tokenizer = Tokenizer::from_gguf(&Gguf::parse(&bytes).expect("reads")).expect("reads");
    let said = ask(&engine, warm(request(&facts, "bace", 120), [2; 32]));
    let pieces: Vec<u8> =
        said.ids().iter().flat_map(|&id| tokenizer.piece(id).expect("is one")).copied().collect();
    assert_eq!(said.text, String::from_utf8_lossy(&pieces));
}
