//! Tests of the sampler: published vectors, a plain reference implementation, and laws.

use commons_record::Micro;
use commons_record::order::{LogitBias, Sampling};
use commons_record::seed::Seed32;
use proptest::collection::vec;
use proptest::prelude::*;

use super::noise::{NOISE_MAX, NoiseStream, noise_bound, noise_of_word};
use super::*;

/// The key of the vectors in `algorithms.md` 1.2 and of RFC 8439 2.3.2.
fn vector_seed() -> Seed32 {
    std::array::from_fn(|index| u8::try_from(index).unwrap())
}

fn micro(text: &str) -> Micro {
    text.parse().unwrap()
}

fn warm(temperature: &str) -> Sampling {
    Sampling { temperature: micro(temperature), ..Sampling::greedy() }
}

fn sampler(sampling: &Sampling) -> Sampler {
    Sampler::new(sampling, Some(vector_seed())).unwrap()
}

fn assert_near(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{found} is not {expected}");
}

#[test]
fn the_noise_matches_the_published_vectors() {
    let check = |position, id, word, uniform, noise| {
        let found = NoiseStream::new(&vector_seed(), position, 0).word(id);
        assert_eq!(found, word, "word of {id} at {position}");
        assert_near((f64::from(found >> 8) + 0.5) / 16_777_216.0, uniform, 1e-10);
        assert_near(super::noise(&vector_seed(), position, id), noise, 1e-9);
    };
    check(0, 0, 0x7d2b_fd39, 0.488_952_487_7, 0.334_787_717);
    check(0, 1, 0x6a19_c5d9, 0.414_455_741_6, 0.126_937_085);
    check(0, 15, 0x0c41_5b48, 0.047_872_275_1, -1.111_600_492);
    check(0, 16, 0x3142_b818, 0.192_424_327_1, -0.499_594_171);
    check(0, 151_935, 0xe620_c3d1, 0.898_937_434_0, 2.239_217_488);
    check(1, 0, 0x09fb_38d8, 0.038_989_573_7, -1.176_949_237);
    check(1, 151_935, 0x20c2_cd57, 0.127_972_453_8, -0.720_733_282);
}

#[test]
fn the_random_words_are_the_cipher_of_rfc_8439() {
    // Section 2.3.2: block 1 under the nonce 00000009 0000004a 00000000.
    let position = u64::from_le_bytes([0, 0, 0, 9, 0, 0, 0, 0x4a]);
    let expected = [
        0xe4e7_f110_u32,
        0x1559_3bd1,
        0x1fdd_0f50,
        0xc471_20a3,
        0xc7f4_d1c7,
        0x0368_c033,
        0x9aaa_2204,
        0x4e6c_d4c3,
        0x4664_82d2,
        0x09aa_9f07,
        0x05d7_c214,
        0xa202_8bd9,
        0xd19c_12b5,
        0xb94e_16de,
        0xe883_d0cb,
        0x4e3c_50a2,
    ];
    let mut stream = NoiseStream::new(&vector_seed(), position, 0);
    let found = (16..32).map(|id| stream.word(id)).collect::<Vec<_>>();
    assert_eq!(found, expected);
}

#[test]
fn a_word_does_not_depend_on_how_the_stream_is_read() {
    let mut dense = NoiseStream::new(&vector_seed(), 7, 151_936);
    let mut sparse = NoiseStream::new(&vector_seed(), 7, 0);
    for id in (0..3_000).chain([151_935, 5, u32::MAX, u32::MAX - 16, 0]) {
        assert_eq!(dense.word(id), sparse.word(id), "word of {id}");
    }
}

#[test]
fn the_noise_is_finite_and_below_its_bounds_for_the_extreme_words() {
    let edges = (0..32).flat_map(|bit| [1_u32 << bit, !(1_u32 << bit), u32::MAX << bit]);
    for word in edges.chain([0, 255, 256, u32::MAX, u32::MAX - 255, u32::MAX - 256]) {
        let noise = noise_of_word(word);
        assert!(noise.is_finite() && noise <= noise_bound(word), "word {word:x}");
        assert!(noise < NOISE_MAX, "word {word:x}");
    }
}

#[test]
fn draws_and_margins_match_the_published_vectors() {
    let logits = [2.0, 1.5, 0.3, -1.0];
    let mut drawing = sampler(&warm("0.8"));
    let drawn = (0..4).map(|at| drawing.sample(at, &logits).unwrap().id).collect::<Vec<_>>();
    assert_eq!(drawn, [0, 1, 0, 1]);
    let mut judging = sampler(&warm("0.8"));
    let at_0 = judging.margin(0, &logits, 1).unwrap();
    assert_near(at_0.margin, 0.666_281, 5e-7);
    assert_near(at_0.score(), SCORE_MAX, 0.0);
    assert_near(judging.margin(2, &logits, 1).unwrap().margin, 0.901_826, 5e-7);
}

/// Pins every step together: any change to noise, order, rounding or ties shows here, and
/// would make honest providers look dishonest. The tokens come from a program of its own: the
/// `ChaCha20` of `algorithms/misc_vectors.py` under the definition in plain Python.
#[test]
fn a_long_draw_over_a_large_vocabulary_is_pinned() {
    let logits = (0..151_936_u32)
        .map(|id| f32::from(u16::try_from(id.wrapping_mul(2_654_435_761) >> 20).unwrap()) / 400.0)
        .collect::<Vec<_>>();
    let check = |sampling: &Sampling, expected: [u32; 4]| {
        let mut sampler = sampler(sampling).with_top(2).unwrap();
        sampler.observe_prompt(&[1, 2, 3]);
        let drawn = (0..4).map(|at| sampler.sample(at, &logits).unwrap().id).collect::<Vec<_>>();
        assert_eq!(drawn, expected, "{sampling:?}");
    };
    check(&warm("1"), [130_661, 86_246, 52_078, 4752]);
    check(&Sampling { top_k: 40, ..warm("0.7") }, [987, 81_790, 6765, 68_260]);
    check(
        &Sampling { top_p: micro("0.3"), min_p: micro("0.5"), ..warm("1.3") },
        [117_411, 86_246, 52_078, 44_915],
    );
    let bias = |token, bias| LogitBias { token, bias: micro(bias) };
    let penalised = Sampling {
        repetition_penalty: micro("1.3"),
        presence_penalty: micro("0.5"),
        frequency_penalty: micro("2"),
        logit_bias: vec![bias(7, "17"), bias(9, "17"), bias(11, "14")],
        ..warm("1")
    };
    check(&penalised, [9, 11, 7, 4752]);
}

/// The definition read literally: every candidate in a sorted list, nothing skipped.
fn reference(sampling: &Sampling, seen: &[(u32, u32)], position: u64, logits: &[f32]) -> Vec<f64> {
    let mut changed = logits.to_vec();
    for (id, logit) in changed.iter_mut().enumerate() {
        let id = u32::try_from(id).unwrap();
        let bias = sampling.logit_bias.iter().find(|it| it.token == id);
        let count = seen.iter().find(|it| it.0 == id).map(|it| it.1);
        let mut value = f64::from(*logit) + bias.map_or(0.0, |it| it.bias.to_f64());
        if let Some(count) = count {
            let repetition = sampling.repetition_penalty.to_f64();
            value = if value > 0.0 { value / repetition } else { value * repetition };
            value -= sampling.frequency_penalty.to_f64() * f64::from(count);
            value -= if count > 0 { sampling.presence_penalty.to_f64() } else { 0.0 };
        }
        #[expect(clippy::cast_possible_truncation, reason = "the definition rounds here")]
        let rounded = value as f32;
        *logit = rounded;
    }
    let temperature = sampling.temperature.to_f64();
    if sampling.temperature == Micro::ZERO {
        return changed.into_iter().map(f64::from).collect();
    }
    let mut order = (0..changed.len()).collect::<Vec<_>>();
    order.sort_by(|a, b| changed[*b].total_cmp(&changed[*a]).then(a.cmp(b)));
    if sampling.top_k > 0 {
        order.truncate(sampling.top_k as usize);
    }
    let max = f64::from(changed[order[0]]);
    let weight = |id: &usize| libm::exp((f64::from(changed[*id]) - max) / temperature);
    if sampling.top_p < Micro::ONE {
        let mut by_id = order.clone();
        by_id.sort_unstable();
        let enough = by_id.iter().map(weight).sum::<f64>() * sampling.top_p.to_f64();
        let mut sum = 0.0;
        let kept = order.iter().position(|id| {
            sum += weight(id);
            sum >= enough
        });
        order.truncate(kept.map_or(order.len(), |it| it + 1));
    }
    if sampling.min_p > Micro::ZERO {
        let least = max + temperature * libm::log(sampling.min_p.to_f64());
        order.retain(|id| f64::from(changed[*id]) >= least);
    }
    let mut perturbed = vec![f64::NEG_INFINITY; changed.len()];
    for id in order {
        let noise = super::noise(&vector_seed(), position, u32::try_from(id).unwrap());
        perturbed[id] = f64::from(changed[id]) + temperature * noise;
    }
    perturbed
}

fn any_sampling(vocabulary: u32) -> impl Strategy<Value = Sampling> {
    let between = |low: i64, high: i64| {
        (low..=high).prop_map(|it| Micro::from_millionths(it * 10_000).unwrap())
    };
    let bias = proptest::collection::btree_map(0..vocabulary, between(-10_000, 10_000), 0..4);
    let temperature = prop_oneof![1 => Just(Micro::ZERO), 4 => between(1, 200)];
    let masks = (
        prop_oneof![Just(0), 1..400_u32],
        prop_oneof![Just(Micro::ONE), between(1, 100)],
        prop_oneof![Just(Micro::ZERO), between(0, 100)],
    );
    let repetition = prop_oneof![Just(Micro::ONE), between(1, 1_000)];
    (temperature, masks, repetition, between(-200, 200), between(-200, 200), bias).prop_map(
        |(temperature, (top_k, top_p, min_p), repetition_penalty, presence, frequency, bias)| {
            Sampling {
                temperature,
                top_k,
                top_p,
                min_p,
                repetition_penalty,
                presence_penalty: presence,
                frequency_penalty: frequency,
                logit_bias: bias
                    .into_iter()
                    .map(|(token, bias)| LogitBias { token, bias })
                    .collect(),
            }
        },
    )
}

/// Logits with many equals and some impossible tokens; at least one is possible.
fn any_logits() -> impl Strategy<Value = Vec<f32>> {
    let logit = prop_oneof![
        6 => -20.0..20.0_f32,
        3 => (-8..8_i8).prop_map(f32::from),
        1 => Just(f32::NEG_INFINITY),
    ];
    (vec(logit, 8..600), 0..8_usize).prop_map(|(mut logits, at)| {
        logits[at] = 1.0;
        logits
    })
}

proptest! {
    /// Skipping, partial sorts and penalties change nothing about the definition.
    #[test]
    fn the_sampler_equals_its_definition(
        sampling in any_sampling(8),
        logits in any_logits(),
        prompt in vec(0..8_u32, 0..6),
        answer in vec(0..8_u32, 0..6),
        position in any::<u64>(),
    ) {
        let mut sampler = sampler(&sampling);
        sampler.observe_prompt(&prompt);
        for token in &answer {
            sampler.observe(*token);
        }
        let mut seen = (0..8_u32).filter(|id| prompt.contains(id) || answer.contains(id))
            .map(|id| (id, u32::try_from(answer.iter().filter(|it| **it == id).count()).unwrap()))
            .collect::<Vec<_>>();
        seen.dedup();
        let perturbed = reference(&sampling, &seen, position, &logits);
        let best = perturbed.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let first = perturbed.iter().position(|z| *z >= best).unwrap();
        for (token, z) in (0_u32..).zip(&perturbed).step_by(7) {
            let replayed = sampler.clone().margin(position, &logits, token).unwrap();
            prop_assert_eq!(replayed.predicted as usize, first);
            prop_assert_eq!(replayed.margin.to_bits(), (best - z).to_bits());
        }
        let mut guessing = sampler.clone();
        prop_assert_eq!(guessing.pick(position, &logits).unwrap() as usize, first);
        prop_assert_eq!(sampler.sample(position, &logits).unwrap().id as usize, first);
        // What was picked counts as what was drawn.
        let next = |mut it: Sampler| it.sample(position, &logits).unwrap();
        prop_assert_eq!(next(guessing), next(sampler));
    }

    /// An honest provider's tokens have margin 0 all along, and nothing lies above the best.
    #[test]
    fn an_auditor_with_equal_logits_finds_no_margin(
        sampling in any_sampling(8),
        positions in vec(any_logits(), 1..5),
    ) {
        let (mut provider, mut auditor) = (sampler(&sampling), sampler(&sampling));
        for (position, logits) in (0_u64..).zip(&positions) {
            let drawn = provider.sample(position, logits).unwrap();
            for token in 0..8 {
                prop_assert!(auditor.clone().margin(position, logits, token).unwrap().margin >= 0.0);
            }
            let replayed = auditor.margin(position, logits, drawn.id).unwrap();
            prop_assert_eq!(replayed.margin.to_bits(), 0.0_f64.to_bits());
            prop_assert_eq!(replayed.predicted, drawn.id);
            prop_assert_eq!(replayed.logprob_micro, drawn.logprob_micro);
        }
    }

    /// However narrow the masks are, the likeliest token stays in, so a draw always exists.
    #[test]
    fn masks_never_exclude_the_likeliest(sampling in any_sampling(8), logits in any_logits()) {
        let mask = Masks::new(&sampling).of(&logits, sampling.temperature.to_f64().max(1e-6));
        prop_assert!(mask.contains(argmax(&logits)));
    }

    /// Whatever bits a broken model or a hostile engine produces, there is a draw or a refusal.
    #[test]
    fn no_logits_make_the_sampler_panic(
        bits in vec(any::<u32>(), 0..64),
        sampling in any_sampling(64),
        token in any::<u32>(),
    ) {
        let logits = bits.into_iter().map(f32::from_bits).collect::<Vec<_>>();
        let mut sampler = sampler(&sampling).with_top(20).unwrap();
        sampler.observe_prompt(&[0, 1, u32::MAX]);
        let judged = sampler.clone().margin(0, &logits, token);
        let again = sampler.clone().sample(0, &logits);
        let drawn = sampler.sample(0, &logits);
        prop_assert_eq!(&drawn, &again);
        prop_assert_eq!(drawn.is_ok(), judged.is_ok());
        if let Ok(drawn) = drawn {
            prop_assert!(logits[drawn.id as usize].is_finite());
            prop_assert!(!judged.unwrap().margin.is_nan());
        }
    }

    /// The bounds that allow a token to be skipped are bounds.
    #[test]
    fn the_noise_is_within_its_bounds(word in any::<u32>()) {
        prop_assert!(noise_of_word(word) <= noise_bound(word));
        prop_assert!(noise_of_word(word) < NOISE_MAX);
    }
}

#[test]
fn frequencies_follow_the_softmax() {
    const DRAWS: u32 = 20_000;
    let logits = [1.0_f32, 0.5, 0.0, -0.5, 2.0, -1.5, 0.25, 1.0];
    let mut sampler = sampler(&warm("0.9"));
    let mut counts = [0_u32; 8];
    for position in 0..u64::from(DRAWS) {
        counts[sampler.sample(position, &logits).unwrap().id as usize] += 1;
    }
    let weights = logits.map(|it| libm::exp(f64::from(it) / 0.9));
    let total = weights.iter().sum::<f64>();
    let distance = counts
        .iter()
        .zip(weights)
        .map(|(count, weight)| {
            let expected = f64::from(DRAWS) * weight / total;
            (f64::from(*count) - expected).powi(2) / expected
        })
        .sum::<f64>();
    // Chi-square with 7 degrees of freedom exceeds this once in 1000 seeds; this seed is fixed.
    assert!(distance < 24.32, "chi-square {distance}, counts {counts:?}");
}

#[test]
fn masks_keep_what_their_settings_say() {
    let logits = [2.0, 1.0, 2.0, 0.0, f32::NEG_INFINITY, 3.0];
    let check = |top_k: u32, top_p: &str, min_p: &str, expected: &[u32]| {
        let sampling = Sampling { top_k, top_p: micro(top_p), min_p: micro(min_p), ..warm("1") };
        let mask = Masks::new(&sampling).of(&logits, 1.0);
        let kept = (0..6).filter(|id| mask.contains(*id) && logits[*id as usize].is_finite());
        assert_eq!(kept.collect::<Vec<_>>(), expected, "{top_k} {top_p} {min_p}");
    };
    check(0, "1", "0", &[0, 1, 2, 3, 5]);
    check(1, "1", "0", &[5]);
    check(2, "1", "0", &[0, 5]); // Of equal logits the lower id stays.
    check(3, "1", "0", &[0, 2, 5]);
    check(100, "1", "0", &[0, 1, 2, 3, 5]);
    // Probabilities: 5 has 0.5103, 0 and 2 have 0.1877, 1 has 0.0691, 3 has 0.0254... of 1.
    check(0, "0.000001", "0", &[5]);
    check(0, "0.5", "0", &[5]);
    check(0, "0.6", "0", &[0, 5]);
    check(0, "0.9", "0", &[0, 2, 5]);
    check(0, "0.99", "0", &[0, 1, 2, 3, 5]);
    check(2, "0.7", "0", &[5]); // Top-p counts within top-k: 0.731 of it is token 5.
    check(0, "1", "0.3", &[0, 2, 5]);
    check(0, "1", "0.1", &[0, 1, 2, 5]);
    check(0, "1", "1", &[5]);
    check(0, "0.6", "0.9", &[5]); // Min-p comes last.
}

#[test]
fn equal_values_are_ordered_by_id_in_every_step() {
    let check = |sampling: &Sampling, logits: &[f32], expected: &[u32]| {
        let mask = Masks::new(sampling).of(logits, 1.0);
        assert_eq!(mask, Mask::Ids(expected.to_vec()), "{logits:?}");
    };
    let top_k = Sampling { top_k: 1, ..warm("1") };
    check(&top_k, &[-1.0, 0.0, 0.0], &[1]);
    check(&top_k, &[-0.0, 0.0], &[0]); // The two zeros are equal.
    // The first two hold exactly the half that is asked for.
    let top_p = Sampling { top_p: micro("0.5"), ..warm("1") };
    check(&top_p, &[0.0, -0.0, 0.0, 0.0], &[0, 1]);
    // Beside such logits the noise is lost in rounding: the draw itself is a tie.
    let drawn = sampler(&warm("1")).sample(0, &[1.0, 1e20, 1e20, 1e20]).unwrap();
    assert_eq!(drawn.id, 1);
}

#[test]
fn penalties_and_biases_change_what_they_should() {
    let logits = [2.0, -1.0, 0.5, 1.0];
    let check = |sampling: &Sampling, expected: [f32; 4]| {
        let mut penalties = Penalties::new(sampling);
        penalties.observe_prompt(&[0, 1]);
        for token in [1, 2, 2] {
            penalties.observe(token);
        }
        let mut changed = logits;
        penalties.apply(&mut changed);
        assert_eq!(changed.map(f32::to_bits), expected.map(f32::to_bits), "{changed:?}");
    };
    let off = Sampling::greedy();
    check(&off, logits);
    // Prompt and answer; a positive logit is divided and a negative one multiplied.
    let repetition = Sampling { repetition_penalty: micro("2"), ..off.clone() };
    check(&repetition, [1.0, -2.0, 0.25, 1.0]);
    // The answer alone: token 0 is only in the prompt.
    let presence = Sampling { presence_penalty: micro("0.5"), ..off.clone() };
    check(&presence, [2.0, -1.5, 0.0, 1.0]);
    let frequency = Sampling { frequency_penalty: micro("0.5"), ..off.clone() };
    check(&frequency, [2.0, -1.5, -0.5, 1.0]);
    let encouraged = Sampling { frequency_penalty: micro("-1"), ..off.clone() };
    check(&encouraged, [2.0, 0.0, 2.5, 1.0]);
    let logit_bias =
        vec![LogitBias { token: 1, bias: micro("3") }, LogitBias { token: 3, bias: micro("-100") }];
    check(&Sampling { logit_bias: logit_bias.clone(), ..off }, [2.0, 2.0, 0.5, -99.0]);
    // The bias comes first: it makes token 1 positive, so the penalty divides it.
    check(&Sampling { logit_bias, ..repetition }, [1.0, 1.0, 0.25, -99.0]);
}

#[test]
fn a_penalty_keeps_finite_logits_finite() {
    let strong = Sampling { repetition_penalty: micro("10"), ..Sampling::greedy() };
    let mut sampler = sampler(&strong);
    sampler.observe_prompt(&[0, 1]);
    let drawn = sampler.sample(0, &[f32::MIN, f32::MIN, f32::NEG_INFINITY]).unwrap();
    assert_eq!(drawn.id, 0);
}

#[test]
fn greedy_takes_the_lowest_of_the_likeliest_and_needs_no_seed() {
    let mut sampler = Sampler::new(&Sampling::greedy(), None).unwrap();
    assert_eq!(sampler.sample(0, &[1.0, 4.0, -3.0, 4.0]).unwrap().id, 1);
    let replayed = sampler.margin(1, &[1.0, 4.0, -3.0, 4.0], 0).unwrap();
    assert_near(replayed.margin, 3.0, 0.0);
    assert_eq!(replayed.predicted, 1);
    let mut seeded = self::sampler(&Sampling { top_k: 2, ..Sampling::greedy() });
    assert_eq!(seeded.sample(9, &[1.0, 4.0, -3.0, 4.0]).unwrap().id, 1);
}

#[test]
fn a_token_that_could_not_be_drawn_has_no_finite_margin() {
    let mut sampler = sampler(&Sampling { top_k: 2, ..warm("1") });
    let logits = [3.0, 2.0, 1.0, f32::NEG_INFINITY];
    for token in [2, 3, 4, u32::MAX] {
        let replayed = sampler.margin(0, &logits, token).unwrap();
        assert!(replayed.margin.is_infinite(), "token {token}");
        assert_near(replayed.score(), SCORE_MAX, 0.0);
    }
}

#[test]
fn log_probabilities_are_of_the_raw_distribution() {
    let logit_bias = vec![LogitBias { token: 3, bias: micro("100") }];
    let biased = Sampling { logit_bias, top_k: 1, ..warm("2") };
    let mut sampler = sampler(&biased).with_top(3).unwrap();
    let drawn = sampler.sample(0, &[1.0, 0.0, 1.0, 0.0]).unwrap();
    // 1 / (2e + 2) is e^-2.0064, e / (2e + 2) is e^-1.0064.
    let expected = Drawn {
        id: 3,
        logprob_micro: -2_006_409,
        top: vec![(0, -1_006_409), (2, -1_006_409), (1, -2_006_409)],
    };
    assert_eq!(drawn, expected);
    let certain = sampler.sample(1, &[0.0, f32::NEG_INFINITY, -3e38, f32::NEG_INFINITY]).unwrap();
    assert_eq!(certain.logprob_micro, 0);
    assert_eq!(certain.top, [(0, 0), (2, i32::MIN)]);
}

#[test]
fn logits_that_mean_nothing_are_refused_by_name() {
    let check = |logits: &[f32], expected: &SampleError| {
        let before = sampler(&warm("1"));
        let mut after = before.clone();
        assert_eq!(after.sample(0, logits).unwrap_err(), *expected);
        assert_eq!(after.margin(0, logits, 0).unwrap_err(), *expected);
        let good = [1.0, 2.0];
        assert_eq!(before.clone().sample(0, &good), after.sample(0, &good));
    };
    check(&[], &SampleError::Empty);
    check(&[0.0, f32::NAN], &SampleError::NotANumber { id: 1 });
    check(&[f32::NEG_INFINITY, -f32::NAN, f32::INFINITY], &SampleError::NotANumber { id: 1 });
    check(&[0.0, 1.0, f32::INFINITY], &SampleError::Infinite { id: 2 });
    check(&[f32::NEG_INFINITY; 3], &SampleError::NothingPossible);
    let count = VOCABULARY_MAX + 1;
    check(&vec![0.0; count], &SampleError::TooMany { count });
}

#[test]
fn a_bias_on_a_token_that_does_not_exist_is_refused() {
    let logit_bias = vec![LogitBias { token: 2, bias: Micro::ONE }];
    let mut sampler = sampler(&Sampling { logit_bias, ..warm("1") });
    let expected = SampleError::UnknownBiasToken { token: 2, count: 2 };
    assert_eq!(sampler.check_vocabulary(2).unwrap_err(), expected);
    assert_eq!(sampler.sample(0, &[0.0, 1.0]).unwrap_err(), expected);
    sampler.check_vocabulary(3).unwrap();
}

#[test]
fn settings_that_make_no_sampler_are_refused() {
    let no_seed = Sampler::new(&warm("0.000001"), None);
    assert!(matches!(no_seed, Err(SamplerError::NoSeed)));
    let wrong = Sampling { top_p: Micro::ZERO, ..warm("1") };
    let invalid = Sampler::new(&wrong, Some(vector_seed()));
    assert!(matches!(invalid, Err(SamplerError::Invalid { .. })));
    let many = sampler(&warm("1")).with_top(21);
    assert!(matches!(many, Err(SamplerError::TooManyAlternatives { count: 21 })));
}

/// The words of a set of ids.
fn words(ids: &[u32], count: usize) -> Vec<u32> {
    let mut words = vec![0; count.div_ceil(32)];
    for &id in ids {
        words[id as usize / 32] |= 1 << (id % 32);
    }
    words
}

proptest! {
    /// A constraint is the same as a model that thinks the other tokens impossible, but for what
    /// is reported of the raw logits.
    #[test]
    fn what_is_not_allowed_is_never_drawn_and_changes_nothing_else(
        logits in vec(-8.0_f32..8.0, 1..200),
        chosen in vec(any::<prop::sample::Index>(), 1..20),
        temperature in prop_oneof![Just("0"), Just("0.7"), Just("2")],
        top_k in 0_u32..40,
        top_p in prop_oneof![Just("1"), Just("0.5")],
    ) {
        let ids: Vec<u32> =
            chosen.iter().map(|it| u32::try_from(it.index(logits.len())).unwrap()).collect();
        let words = words(&ids, logits.len());
        let allowed = Allowed::new(&words);
        let settings = Sampling { top_k, top_p: micro(top_p), ..warm(temperature) };
        let cut: Vec<f32> = (0_u32..)
            .zip(&logits)
            .map(|(id, &it)| if ids.contains(&id) { it } else { f32::NEG_INFINITY })
            .collect();
        let drawn = sampler(&settings).sample_within(3, &logits, Some(allowed)).unwrap();
        let want = sampler(&settings).sample(3, &cut).unwrap();
        prop_assert_eq!(drawn.id, want.id);
        prop_assert!(allowed.contains(drawn.id));
        let free = sampler(&settings).judge(3, &logits, drawn.id).unwrap().0;
        prop_assert_eq!(drawn.logprob_micro, free.logprob_micro, "the raw logits'");
        for token in 0..u32::try_from(logits.len()).unwrap() {
            let mut judge = sampler(&settings);
            let (judged, _) = judge.judge_within(3, &logits, token, Some(allowed)).unwrap();
            prop_assert_eq!(judged.predicted, drawn.id);
            prop_assert_eq!(judged.margin <= 0.0, token == drawn.id);
            prop_assert!(allowed.contains(token) || judged.margin.is_infinite());
        }
    }
}

#[test]
fn a_bias_brings_back_no_token_that_is_not_allowed() {
    let bias = LogitBias { token: 1, bias: micro("100") };
    let settings = Sampling { logit_bias: vec![bias], ..Sampling::greedy() };
    let logits = [0.0, 0.0, 1.0];
    let within = |words: &[u32]| {
        let allowed = Some(Allowed::new(words));
        sampler(&settings).sample_within(0, &logits, allowed).map(|drawn| drawn.id)
    };
    assert_eq!(within(&[0b111]), Ok(1));
    assert_eq!(within(&[0b101]), Ok(2));
    assert_eq!(within(&[0b000]), Err(SampleError::NothingAllowed));
    assert_eq!(within(&[]), Err(SampleError::NothingAllowed), "what has no bit is not allowed");
}
