//! The golden cases through the engine's own forward pass, in every way to put a batch together.
//!
//! * Keys and values of 32 bits: what transformers computed, as near as the plain pass comes.
//! * Keys and values of 16 bits, the default: as near as eleven significant bits allow.
//! * A prompt at once, in chunks, token by token; alone and beside others, with their pages mixed
//!   up; any number of threads; any instruction set: the same bits.

use std::path::Path;
use std::sync::Arc;

use commons_engine::adapter::Adapter;
use commons_engine::cache::{KvFormat, PAGE_LEN};
use commons_engine::forward::{LoadOptions, Segment, Transformer};
use commons_engine::settings::ModelKind;
use commons_engine::team::Team;
use commons_engine::weights::Weights;
use commons_kernels::Isa;

use crate::{Golden, families, fixtures, names_in, read};

/// Of the largest logit, with keys and values of 32 bits. The worst of all families: 3.3e-6; the
/// record has seven digits.
const TOLERANCE: f64 = 1e-5;

/// The same with 16 bits: each key and value is off by up to 1/2048 of itself. The worst: 1.7e-3.
const TOLERANCE_F16: f64 = 3e-3;

/// How something is computed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    pub(crate) isa: Isa,
    pub(crate) threads: usize,
    pub(crate) format: KvFormat,
    /// Tokens of a text that are computed at once. The second text of a batch has one more, the
    /// third two, so that the batch is ragged.
    pub(crate) chunk_len: usize,
}

/// Everything at once, by plain code.
pub(crate) const WHOLE: How =
    How { isa: Isa::SCALAR, threads: 1, format: KvFormat::F32, chunk_len: 1 << 16 };

/// What came of a text: the row behind each token, and its logits.
#[derive(Clone, Debug)]
pub(crate) struct Computed {
    pub(crate) rows: Vec<f32>,
    pub(crate) logits: Vec<f32>,
}

impl Computed {
    pub(crate) fn bits(&self) -> (Vec<u32>, Vec<u32>) {
        let bits = |numbers: &[f32]| numbers.iter().map(|number| number.to_bits()).collect();
        (bits(&self.rows), bits(&self.logits))
    }
}

/// Computes texts side by side.
pub(crate) fn compute(model: &Transformer, how: How, texts: &[&[u32]]) -> Vec<Computed> {
    compute_adapted(model, how, texts, &vec![None; texts.len()])
}

/// The same, each text with the adapter of its place.
pub(crate) fn compute_adapted(
    model: &Transformer,
    how: How,
    texts: &[&[u32]],
    adapters: &[Option<&Arc<Adapter>>],
) -> Vec<Computed> {
    let mut team = Team::new(how.threads, how.isa).expect("threads");
    let pages = scattered(texts);
    let count = pages.iter().map(Vec::len).sum();
    let mut cache = model.cache(how.format, count).expect("room");
    let mut rows = vec![Vec::new(); texts.len()];
    let mut starts = vec![0; texts.len()];
    loop {
        let (mut segments, mut whose) = (Vec::new(), Vec::new());
        for (index, (text, start)) in texts.iter().zip(&mut starts).enumerate() {
            let end = text.len().min(*start + how.chunk_len + index);
            let (tokens, positions_max) = (&text[*start..end], text.len());
            if !tokens.is_empty() {
                let (pages, wanted) = (&pages[index], tokens.len());
                segments.push(Segment {
                    tokens,
                    start: *start,
                    pages,
                    positions_max,
                    wanted,
                    adapter: adapters[index],
                });
                whose.push(index);
            }
            *start = end;
        }
        if segments.is_empty() {
            break;
        }
        let made = model.forward(&mut team, &mut cache, &segments).expect("computes");
        let mut made = made.chunks_exact(model.settings().width);
        for (index, segment) in whose.into_iter().zip(segments) {
            rows[index].extend(made.by_ref().take(segment.wanted).flatten());
        }
    }
    let finish = |rows: Vec<f32>| {
        let rows = model.norm(how.isa, &rows);
        let logits = model.logits(&mut team, &rows).expect("computes");
        Computed { rows, logits }
    };
    rows.into_iter().map(finish).collect()
}

/// Pages for each text, of which none lies beside its neighbours.
fn scattered(texts: &[&[u32]]) -> Vec<Vec<u32>> {
    let needed: Vec<usize> = texts.iter().map(|text| text.len().div_ceil(PAGE_LEN)).collect();
    let mut numbers: Vec<u32> = (0..).take(needed.iter().sum()).collect();
    numbers.sort_by_key(|number| number.wrapping_add(1).wrapping_mul(0x9e37_79b1));
    let mut take = |count: &usize| numbers.drain(..*count).collect();
    needed.iter().map(&mut take).collect()
}

pub(crate) fn load(path: &Path) -> Transformer {
    let weights =
        Weights::open(path).unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
    let settings = weights.settings().clone();
    let loaded = Transformer::load(&weights, settings, &LoadOptions::default());
    loaded.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The largest distance from what was recorded, as a part of the largest number there.
fn distance(model: &Transformer, golden: &Golden, how: How) -> f64 {
    let (width, count) = (model.settings().width, model.settings().token_count);
    let mut worst: f64 = 0.0;
    for case in &golden.cases {
        let computed = compute(model, how, &[&case.tokens]).remove(0);
        let wide = |row: &[f32]| row.iter().map(|&number| f64::from(number)).collect::<Vec<_>>();
        for (&at, wanted) in &case.logits {
            worst = worst.max(apart(&wide(&computed.logits[at * count..][..count]), wanted));
        }
        if let Some(wanted) = &case.mean {
            let rows: Vec<_> = computed.rows.chunks_exact(width).map(wide).collect();
            worst = worst.max(apart(&crate::plain::mean(&rows), wanted));
        }
        assert!(!case.logits.is_empty() || case.mean.is_some(), "nothing is recorded");
    }
    worst
}

pub(crate) fn apart(found: &[f64], wanted: &[f64]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let largest = wanted.iter().fold(1.0, |most: f64, value| most.max(value.abs()));
    let distances = found.iter().zip(wanted).map(|(found, wanted)| (found - wanted).abs());
    distances.fold(0.0, f64::max) / largest
}

/// Compares with the record, with keys and values in each format that a text is served in.
fn check(name: &str, model: &Transformer, golden: &Golden) {
    for (format, tolerance) in [(KvFormat::F32, TOLERANCE), (KvFormat::F16, TOLERANCE_F16)] {
        let worst = distance(model, golden, How { isa: Isa::best(), format, ..WHOLE });
        eprintln!("{name}, {format:?}: {worst:.1e} of the largest logit");
        assert!(worst < tolerance, "{name}, {format:?}: {worst}");
    }
}

/// Every way to compute these texts gives the bits of each text alone.
fn check_ways(name: &str, model: &Transformer, texts: &[&[u32]]) {
    // The tokens of an encoder see each other: its texts are computed whole.
    let chunk_lens: &[usize] = match model.settings().kind {
        ModelKind::Decoder => &[WHOLE.chunk_len, 7, 1],
        ModelKind::Encoder => &[WHOLE.chunk_len],
    };
    for format in [KvFormat::F32, KvFormat::F16, KvFormat::Q8] {
        let alone = |text| compute(model, How { format, ..WHOLE }, &[text]).remove(0).bits();
        let alone: Vec<_> = texts.iter().map(|&text| alone(text)).collect();
        for isa in Isa::available() {
            for threads in 1..=3 {
                for &chunk_len in chunk_lens {
                    let how = How { isa, threads, format, chunk_len };
                    let together = compute(model, how, texts);
                    for ((computed, alone), text) in together.iter().zip(&alone).zip(texts) {
                        let is_equal = computed.bits() == *alone;
                        assert!(is_equal, "{name}: {} tokens, {how:?}", text.len());
                    }
                }
            }
        }
    }
}

#[test]
fn every_family_computes_with_the_engine_what_transformers_computes() {
    for name in names_in(&families()) {
        let folder = families().join(&name);
        check(&name, &load(&folder), &read(&folder.join("golden.json")));
    }
    for (folder, golden) in fixtures() {
        check(&folder.display().to_string(), &load(&folder), &golden);
    }
}

/// Where a GGUF file says things in its own way: pairs that turn together lie side by side, rotary
/// factors are tensors, weights of norms are larger by one.
#[test]
fn every_family_out_of_a_gguf_file_computes_with_the_engine_the_same() {
    let folder = families().with_file_name("families-gguf");
    for name in names_in(&folder) {
        let family = name.strip_suffix(".gguf").expect("is a GGUF file");
        let golden = read(&families().join(family).join("golden.json"));
        check(&name, &load(&folder.join(&name)), &golden);
    }
}

#[test]
fn threads_chunks_neighbours_pages_and_instruction_sets_change_no_bit_of_any_family() {
    for name in names_in(&families()) {
        let folder = families().join(&name);
        let golden: Golden = read(&folder.join("golden.json"));
        let longest = golden.cases.iter().map(|case| &case.tokens[..]).max_by_key(|it| it.len());
        let longest = longest.expect("some case");
        let half = longest.len() / 2;
        let texts =
            [longest, &golden.cases[0].tokens, &longest[..1], &longest[half..], &longest[2..9]];
        check_ways(&name, &load(&folder), &texts);
    }
}
