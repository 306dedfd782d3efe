//! The forward pass alone: what it refuses, and that any way to cut texts into batches is one.

use commons_engine::Model;
use commons_engine::cache::{Cache, KvFormat, PAGE_LEN};
use commons_engine::forward::{ForwardError, Segment};
use commons_engine::noise::write_noise_model;
use commons_engine::team::Team;
use commons_kernels::Isa;
use proptest::prelude::*;

fn model() -> Model {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("noise.gguf");
    write_noise_model(&path, 7).expect("writes");
    Model::load(&path).expect("loads")
}

fn segment<'a>(tokens: &'a [u32], start: usize, pages: &'a [u32]) -> Segment<'a> {
    Segment {
        tokens,
        start,
        pages,
        positions_max: start + tokens.len(),
        wanted: tokens.len(),
        adapter: None,
    }
}

/// A batch, and what is said of it.
type Refused<'a> = (&'a [Segment<'a>], &'a dyn Fn(&ForwardError) -> bool);

#[test]
fn a_batch_that_cannot_be_computed_is_refused_by_name_and_changes_nothing() {
    let model = model();
    let transformer = model.transformer();
    let mut team = Team::new(1, Isa::best()).expect("a thread");
    let mut cache = Cache::new(transformer.settings(), KvFormat::F16, 80).expect("room");
    let all: Vec<u32> = (0..80).collect();
    let mut run = |segments: &[Segment<'_>]| transformer.forward(&mut team, &mut cache, segments);
    let sound = [segment(&[300, 301], 0, &all)];
    let before = run(&sound).expect("computes");
    let unknown =
        |error: &ForwardError| matches!(error, ForwardError::UnknownToken { id: 9_999, .. });
    let full = |error: &ForwardError| {
        matches!(error, ForwardError::ContextFull { position: 2_048, context_len: 2_048 })
    };
    let short =
        |error: &ForwardError| matches!(error, ForwardError::NoPage { position: 32, held: 32 });
    let none =
        |error: &ForwardError| matches!(error, ForwardError::NoPage { position: 0, held: 0 });
    let empty = |error: &ForwardError| matches!(error, ForwardError::Empty);
    let cases: [Refused<'_>; 7] = [
        (&[], &empty),
        (&[segment(&[], 0, &all)], &empty),
        (&[segment(&[300, 9_999], 0, &all)], &unknown),
        (&[segment(&[300], 2_048, &all)], &full),
        (&[segment(&[300, 300], 31, &all[..1])], &short),
        (&[segment(&[300], 0, &[])], &none),
        // A page that does not exist holds nothing, and the sound segment before it is not computed.
        (&[sound[0].clone(), segment(&[300], 0, &[80])], &none),
    ];
    for (index, (segments, is_it)) in cases.into_iter().enumerate() {
        let error = run(segments).expect_err("is refused");
        assert!(is_it(&error), "case {index}: {error:?}");
    }
    assert_eq!(run(&sound).expect("computes"), before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Texts of any length, cut anywhere, side by side in any company, on any number of threads.
    #[test]
    fn any_way_to_cut_texts_into_batches_gives_the_same_bits(
        texts in prop::collection::vec(prop::collection::vec(3u32..474, 1..90), 1..5),
        cuts in prop::collection::vec(1usize..40, 1..12),
        threads in 1usize..4,
        isa in prop::sample::select(Isa::available()),
    ) {
        let model = model();
        let transformer = model.transformer();
        let width = transformer.settings().width;
        let room = |count| Cache::new(transformer.settings(), KvFormat::F16, count).expect("room");
        let mut single = Team::new(1, Isa::SCALAR).expect("a thread");
        let mut team = Team::new(threads, isa).expect("threads");
        // Page `n` of text `t` is number `n * texts + t`: neighbours belong to different texts.
        let per_text = 90usize.div_ceil(PAGE_LEN);
        let count = u32::try_from(texts.len()).expect("few");
        let pages: Vec<Vec<u32>> = (0..count)
            .map(|text| (0..).take(per_text).map(|page: u32| page * count + text).collect())
            .collect();
        let mut cache = room(per_text * texts.len());
        let (mut starts, mut found) = (vec![0; texts.len()], vec![Vec::new(); texts.len()]);
        let mut cuts = cuts.into_iter().cycle();
        while starts.iter().zip(&texts).any(|(&start, text)| start < text.len()) {
            let (mut segments, mut whose) = (Vec::new(), Vec::new());
            for (index, text) in texts.iter().enumerate() {
                let end = text.len().min(starts[index] + cuts.next().expect("endless"));
                if starts[index] < end {
                    segments.push(segment(&text[starts[index]..end], starts[index], &pages[index]));
                    whose.push(index);
                }
                starts[index] = end;
            }
            let rows = transformer.forward(&mut team, &mut cache, &segments).expect("computes");
            let mut rows = rows.chunks_exact(width);
            for (index, segment) in whose.into_iter().zip(&segments) {
                found[index].extend(rows.by_ref().take(segment.wanted).flatten().map(|it| it.to_bits()));
            }
        }
        for (index, text) in texts.iter().enumerate() {
            let mut cache = room(per_text);
            let alone: Vec<u32> = (0..).take(per_text).collect();
            let rows = transformer.forward(&mut single, &mut cache, &[segment(text, 0, &alone)]);
            let alone: Vec<u32> = rows.expect("computes").into_iter().map(f32::to_bits).collect();
            prop_assert!(found[index] == alone, "text {index} of {} tokens", text.len());
        }
    }
}
