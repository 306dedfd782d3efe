//! The same batches on candle and on our own kernels, and every row compared.

use std::path::Path;

use commons_engine::cache::{Cache, KvFormat, PAGE_LEN};
use commons_engine::forward::{ForwardError, LoadOptions, Segment, Transformer};
use commons_engine::noise::{Mix, bench};
use commons_engine::place::{Device, Place, choose};
use commons_engine::settings::ModelKind;
use commons_engine::team::Team;
use commons_engine::weights::Weights;
use commons_kernels::Isa;

use crate::{TOLERANCE, apart, families};

/// One transformer with pages.
struct Lab {
    transformer: Transformer,
    cache: Cache,
    team: Team,
}

/// Some tokens of a sequence: which sequence, from where to where.
type Piece = (usize, usize, usize);

impl Lab {
    fn open(path: &Path, device: Device, format: KvFormat) -> Self {
        let weights = Weights::open(path).expect("opens");
        let settings = weights.settings().clone();
        let options = LoadOptions { threads: 1, device, ..LoadOptions::default() };
        let (place, placement) = choose(device, 0).expect("is there");
        assert_eq!(matches!(place, Place::Cpu), placement.device == Device::Cpu);
        let transformer = Transformer::load_at(&place, &weights, settings, &options);
        let transformer = transformer.expect("loads");
        let cache = transformer.cache(format, PAGES_EACH * SEQUENCES).expect("has room");
        let team = Team::new(1, Isa::best()).expect("starts");
        Self { transformer, cache, team }
    }

    /// Computes a batch of pieces: the hidden rows and the logits of each token.
    fn step(&mut self, texts: &[Vec<u32>], pieces: &[Piece]) -> (Vec<f32>, Vec<f32>) {
        let pages: Vec<Vec<u32>> = (0..texts.len()).map(pages_of).collect();
        let segment = |&(text, start, end): &Piece| Segment {
            tokens: &texts[text][start..end],
            start,
            pages: &pages[text],
            positions_max: texts[text].len(),
            wanted: end - start,
            adapter: None,
        };
        let segments: Vec<_> = pieces.iter().map(segment).collect();
        let rows = self.transformer.forward(&mut self.team, &mut self.cache, &segments);
        let hidden = self.transformer.norm(self.team.isa(), &rows.expect("computes"));
        let logits = self.transformer.logits(&mut self.team, &hidden).expect("computes");
        (hidden, logits)
    }
}

const SEQUENCES: usize = 3;
const PAGES_EACH: usize = 3;

/// Pages that are neither in order nor side by side.
fn pages_of(sequence: usize) -> Vec<u32> {
    let all = SEQUENCES * PAGES_EACH;
    let page = |index| u32::try_from(all - 1 - (index * SEQUENCES + sequence)).expect("small");
    (0..PAGES_EACH).map(page).collect()
}

/// Computes the same batches on both and compares every row.
fn check(name: &str, path: &Path) {
    let mut ours = Lab::open(path, Device::Cpu, KvFormat::F32);
    let mut theirs = Lab::open(path, Device::Candle, KvFormat::F32);
    let settings = ours.transformer.settings().clone();
    let count = u32::try_from(settings.token_count).expect("small");
    let context = settings.context_len.min(PAGE_LEN * PAGES_EACH);
    // Longer than a page, about as long, and short.
    let lengths = [(PAGE_LEN + 9).min(context), 21.min(context), 6];
    let text = |(index, &len): (usize, &usize)| {
        let id = |at: usize| (u32::try_from(at * 7 + index * 13).expect("small") + 1) % count;
        (0..len).map(id).collect()
    };
    let texts: Vec<Vec<u32>> = lengths.iter().enumerate().map(text).collect();
    let [a, b, c] = lengths;
    let batches: &[Vec<Piece>] = match settings.kind {
        // A text goes through whole.
        ModelKind::Encoder => &[vec![(0, 0, a)], vec![(2, 0, c), (1, 0, b)]],
        // Prompts of unlike lengths, chunks beside single steps, then single steps alone.
        ModelKind::Decoder => &[
            vec![(0, 0, a - 5), (2, 0, 3)],
            vec![(2, 3, 4), (1, 0, b - 2), (0, a - 5, a - 2)],
            vec![(1, b - 2, b - 1), (0, a - 2, a - 1), (2, 4, 5)],
            vec![(0, a - 1, a), (1, b - 1, b), (2, 5, 6)],
        ],
    };
    for (index, pieces) in batches.iter().enumerate() {
        let (hidden, logits) = ours.step(&texts, pieces);
        let (found_hidden, found_logits) = theirs.step(&texts, pieces);
        let rows = apart(&found_hidden, &hidden);
        let logits = apart(&found_logits, &logits);
        eprintln!("{name}, batch {index}: rows {rows:e}, logits {logits:e}");
        assert!(
            rows <= TOLERANCE && logits <= TOLERANCE,
            "{name}, batch {index}: {rows}, {logits}"
        );
    }
}

#[test]
fn every_family_computes_what_our_own_kernels_compute() {
    let entries = std::fs::read_dir(families()).expect("is a folder");
    let mut names: Vec<_> = entries.map(|entry| entry.expect("reads").file_name()).collect();
    names.sort();
    assert!(names.len() >= 17, "{names:?}");
    for name in names {
        check(&name.to_string_lossy(), &families().join(&name));
    }
}

#[test]
fn floats_of_16_bits_compute_what_our_own_kernels_compute() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let shape = bench::Shape::named("small").expect("is known");
    let shape = bench::Shape { layers: 1, tokens: 512, ..shape };
    for mix in [Mix::F16, Mix::BF16] {
        let path = folder.path().join(mix.name());
        bench::write_bench_model(&path, (shape, mix), 1, |_, _| {}).expect("writes");
        check(mix.name(), &path);
    }
}

/// Both round keys and values to the nearest f16, and a sum in another order may lie on the other
/// side of a half: neither is nearer to what f32 gives, and none is as far as another rounding is.
#[test]
fn keys_and_values_of_16_bits_cost_as_much_as_on_our_own_kernels() {
    let compute = |device, format| {
        let mut lab = Lab::open(&families().join("llama"), device, format);
        let texts = [(0..60).map(|at| at * 7 % 50 + 1).collect::<Vec<u32>>()];
        lab.step(&texts, &[(0, 0, 60)]).1
    };
    let exact = compute(Device::Cpu, KvFormat::F32);
    let error = |device| apart(&compute(device, KvFormat::F16), &exact);
    let (theirs, ours) = (error(Device::Candle), error(Device::Cpu));
    eprintln!("16 bits: candle {theirs:e}, ours {ours:e}");
    assert!(theirs > TOLERANCE && theirs < 2.0 * ours && ours < 2.0 * theirs, "{theirs}, {ours}");
}

#[test]
fn pages_are_copied_on_a_device_as_on_the_processor() {
    let path = families().join("llama");
    let mut lab = Lab::open(&path, Device::Candle, KvFormat::F16);
    let texts = vec![(1..8).collect::<Vec<u32>>(); 2];
    let (_, whole) = lab.step(&texts, &[(0, 0, 7)]);
    // The other sequence gets the first five positions, and computes the rest itself.
    lab.cache.copy(pages_of(0)[0], pages_of(1)[0], 5).expect("copies");
    let (_, rest) = lab.step(&texts, &[(1, 5, 7)]);
    let apart = apart(&rest, &whole[whole.len() / 7 * 5..]);
    assert!(apart <= TOLERANCE, "{apart}");
}

#[test]
fn pages_of_another_place_are_refused() {
    let path = families().join("llama");
    let mut lab = Lab::open(&path, Device::Candle, KvFormat::F16);
    let settings = lab.transformer.settings().clone();
    let mut cache = Cache::new(&settings, KvFormat::F16, 1).expect("has room");
    let segment =
        Segment { tokens: &[1], start: 0, pages: &[0], positions_max: 1, wanted: 1, adapter: None };
    let refused = lab.transformer.forward(&mut lab.team, &mut cache, &[segment]);
    assert!(matches!(refused, Err(ForwardError::Elsewhere)), "{refused:?}");
}
