//! Quantised weights: candle and our own kernels differ, and why by so much.
//!
//! Both round a row to signed bytes before they multiply it, in blocks with a scale each, and the
//! scales differ: ours is `largest / 127` in f32 (`activations.rs` of the kernels); candle's on the
//! processor is the same rounded to f16 for blocks of 32, and `largest / -128` with the sign of the
//! largest for blocks of 256. So each makes errors of its own, of up to half of nearly the same
//! step. Two things follow, and are checked for every stored form:
//!
//! * With the very same numbers stored as f32 nothing is rounded, and candle is exact.
//! * Stored quantised, candle is as far from exact as we are.

use std::path::Path;

use commons_engine::cache::{KvFormat, PAGE_LEN};
use commons_engine::forward::{LoadOptions, Segment, Transformer};
use commons_engine::gguf::{Gguf, GgufWriter, TensorType};
use commons_engine::place::{Device, choose};
use commons_engine::team::Team;
use commons_engine::weights::Weights;
use commons_kernels::Isa;

use crate::blocks::widen;
use crate::plain::Plain;
use crate::{TOLERANCE, apart, families};

/// How far apart the two mean errors may be: their steps differ by 127 to 128, and a mean of a few
/// thousand logits that all go back to a few rounded rows is good to a few tenths. Nothing else than
/// rounding activations to 8 bits makes errors between one half and twice of that.
const SAME_ORDER: f64 = 2.0;

#[derive(serde::Deserialize)]
struct Case {
    tokens: Vec<u32>,
}

/// The logits of every position.
fn compute(path: &Path, device: Device, tokens: &[u32]) -> Vec<f32> {
    let weights = Weights::open(path).expect("opens");
    let (place, _) = choose(device, 0).expect("is there");
    let options = LoadOptions { threads: 1, device, ..LoadOptions::default() };
    let settings = weights.settings().clone();
    let model = Transformer::load_at(&place, &weights, settings, &options).expect("loads");
    let mut team = Team::new(1, Isa::best()).expect("starts");
    let pages: Vec<u32> = (0..).take(tokens.len().div_ceil(PAGE_LEN)).collect();
    let mut cache = model.cache(KvFormat::F32, pages.len()).expect("has room");
    let (wanted, positions_max) = (tokens.len(), tokens.len());
    let segment = Segment { tokens, start: 0, pages: &pages, positions_max, wanted, adapter: None };
    let rows = model.forward(&mut team, &mut cache, &[segment]).expect("computes");
    let rows = model.norm(team.isa(), &rows);
    model.logits(&mut team, &rows).expect("computes")
}

/// The model with every number as f32.
fn widened(path: &Path) -> GgufWriter {
    let bytes = std::fs::read(path).expect("reads");
    let gguf = Gguf::parse(&bytes).expect("is one");
    let mut writer = GgufWriter::new();
    for (key, value) in gguf.metadata() {
        writer.set(key.clone(), value.clone());
    }
    for (name, info) in gguf.tensors() {
        #[expect(clippy::cast_possible_truncation, reason = "a number of every form fits f32")]
        let narrow = |number: f64| (number as f32).to_le_bytes();
        let data = widen(info.kind(), &bytes[info.bytes()]).into_iter().flat_map(narrow).collect();
        writer.tensor(name.clone(), info.dims(), TensorType::F32, data).expect("fits");
    }
    writer
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand numbers")]
fn mean_apart(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>() / a.len() as f64
}

fn check(form: &str, folder: &Path) {
    let path = folder.join(format!("{form}.gguf"));
    let case = std::fs::read(folder.join(format!("{form}.json"))).expect("reads");
    let Case { tokens } = serde_json::from_slice(&case).expect("is a case");
    let plain = Plain::load(&Weights::open(&path).expect("opens")).expect("loads");
    #[expect(clippy::cast_possible_truncation, reason = "compared with logits of f32")]
    let exact: Vec<f32> = plain
        .forward(&tokens)
        .iter()
        .flat_map(|row| plain.logits(row))
        .map(|logit| logit as f32)
        .collect();
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let wide = scratch.path().join("wide.gguf");
    std::fs::write(&wide, widened(&path).to_bytes()).expect("writes");
    let unrounded = apart(&compute(&wide, Device::Candle, &tokens), &exact);
    let theirs = compute(&path, Device::Candle, &tokens);
    let ours = compute(&path, Device::Cpu, &tokens);
    let (their_error, our_error) = (mean_apart(&theirs, &exact), mean_apart(&ours, &exact));
    let (between, ratio) = (mean_apart(&theirs, &ours), their_error / our_error);
    eprintln!(
        "{form}: candle with f32 {unrounded:.1e}; mean errors: candle {their_error:.2e}, ours \
         {our_error:.2e} (ratio {ratio:.2}), between them {between:.2e}"
    );
    assert!(unrounded <= TOLERANCE, "{form}: {unrounded}");
    assert!(our_error > 0.0, "{form}");
    assert!(ratio < SAME_ORDER && ratio > 1.0 / SAME_ORDER, "{form}: {ratio}");
}

#[test]
fn every_quantised_form_is_as_far_from_exact_as_our_own_rounding_and_exact_without_it() {
    let folder = families().with_file_name("quantised");
    for form in ["Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0"] {
        check(form, &folder);
    }
}
