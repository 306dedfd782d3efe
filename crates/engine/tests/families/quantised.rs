//! Every stored form of weights through the engine, against the plain pass with the same numbers.
//!
//! Products with quantised weights round the activations to 8 bits first, by blocks. So there are
//! two plain passes to compare with: an exact one, and one that makes this rounding and no other.
//! With floats nothing is rounded, and both are the same.

use std::path::{Path, PathBuf};

use commons_engine::gguf::{Gguf, GgufWriter, TensorType};
use commons_engine::weights::Weights;
use commons_kernels::Isa;
use half::{bf16, f16};

use crate::computed::{How, WHOLE, apart, compute, load};
use crate::plain::Plain;
use crate::{Case, Golden, families, names_in, read};

/// Rounded activations move a logit by less than this part of the largest (the worst of all forms:
/// 0.023); a block that is read wrong moves it by about all of it.
const ROUNDING: f64 = 0.05;

/// Sums of floats in another order. The worst: 1.3e-6.
const TOLERANCE: f64 = 1e-5;

/// Some numbers of a row lie so close to one half of a step that f32 and f64 round them to different
/// sides, and each such flip moves what follows. So the mean distance from the rounding pass is
/// compared with that of the rounding pass from the exact one: all else is the same arithmetic.
/// Without a flip it is 1e-5 of that; the few flips there are made it 0.01 in the worst form.
const FLIPS: f64 = 0.1;

/// Logits of every position: the engine's, the exact ones, and those with rounded activations.
fn check(what: &str, path: &Path, tokens: &[u32], is_quantised: bool) {
    let weights = Weights::open(path).expect("opens");
    let wide = |plain: &Plain| -> Vec<f64> {
        plain.forward(tokens).iter().flat_map(|row| plain.logits(row)).collect()
    };
    let exact = wide(&Plain::load(&weights).expect("loads"));
    let emulated = wide(&Plain::load_rounding(&weights).expect("loads"));
    let how = How { isa: Isa::best(), threads: 2, ..WHOLE };
    let ours = compute(&load(path), how, &[tokens]).remove(0).logits;
    let ours: Vec<f64> = ours.into_iter().map(f64::from).collect();
    let (worst, worst_emulated) = (apart(&ours, &exact), apart(&emulated, &exact));
    let (flips, rounding) = (mean_apart(&ours, &emulated), mean_apart(&emulated, &exact));
    eprintln!(
        "{what}: largest distance from the exact logits {worst:.1e}, the emulation's \
         {worst_emulated:.1e}; mean distance from the emulation {flips:.1e}, the emulation's from \
         the exact logits {rounding:.1e}"
    );
    if is_quantised {
        assert!(worst < ROUNDING && worst_emulated < ROUNDING, "{what}: {worst}, {worst_emulated}");
        assert!(rounding > 0.0 && flips < FLIPS * rounding, "{what}: {flips} of {rounding}");
    } else {
        assert!(worst < TOLERANCE, "{what}: {worst}");
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand numbers")]
fn mean_apart(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>() / a.len() as f64
}

#[test]
fn every_quantised_form_computes_what_its_numbers_do_but_for_rounded_activations() {
    let folder = families().with_file_name("quantised");
    let names = names_in(&folder);
    let forms: Vec<_> = names.iter().filter_map(|name| name.strip_suffix(".gguf")).collect();
    assert_eq!(forms, ["Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0"]);
    for form in forms {
        let case: Case = read(&folder.join(format!("{form}.json")));
        check(form, &folder.join(format!("{form}.gguf")), &case.tokens, true);
    }
}

/// Real weights, through more layers: flips happen, and each moves what follows.
#[test]
fn real_quantised_weights_compute_what_their_numbers_do_but_for_rounded_activations() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures/models");
    let tokens: Vec<u32> = (0..40).map(|index| 3 + index * 7 % 500).collect();
    for name in ["stories260K-Q8_0", "stories260K-Q4_0"] {
        let path = root.join(format!("{name}.gguf"));
        if !path.exists() {
            eprintln!("SKIPPED: {} is absent", path.display());
            continue;
        }
        check(name, &path, &tokens, true);
    }
}

#[test]
fn every_form_of_floats_computes_what_its_numbers_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path: PathBuf = families().with_file_name("families-gguf").join("llama-llama3.gguf");
    let golden: Golden = read(&families().join("llama-llama3/golden.json"));
    for kind in [TensorType::F32, TensorType::F16, TensorType::BF16] {
        let narrow = folder.path().join(format!("{kind}.gguf"));
        std::fs::write(&narrow, narrowed(&path, kind).to_bytes()).expect("writes");
        check(kind.name(), &narrow, &golden.cases[0].tokens, false);
    }
}

/// The model with its matrices stored as another kind of floats.
fn narrowed(path: &Path, kind: TensorType) -> GgufWriter {
    let bytes = std::fs::read(path).expect("reads");
    let gguf = Gguf::parse(&bytes).expect("is one");
    let mut writer = GgufWriter::new();
    for (key, value) in gguf.metadata() {
        writer.set(key.clone(), value.clone());
    }
    for (name, info) in gguf.tensors() {
        assert_eq!(info.kind(), TensorType::F32);
        let kind = if info.dims().len() > 1 { kind } else { TensorType::F32 };
        let (words, _) = bytes[info.bytes()].as_chunks::<4>();
        let narrow = |&word: &[u8; 4]| {
            let number = f32::from_le_bytes(word);
            match kind {
                TensorType::F16 => f16::from_f32(number).to_le_bytes().to_vec(),
                TensorType::BF16 => bf16::from_f32(number).to_le_bytes().to_vec(),
                _ => word.to_vec(),
            }
        };
        let data = words.iter().flat_map(narrow).collect();
        writer.tensor(name.clone(), info.dims(), kind, data).expect("fits");
    }
    writer
}
