//! Attention against a plain reference, and what its results may depend on.

use proptest::prelude::*;

use super::*;
use crate::kv::{KvFormat, KvShape};
use crate::testing::{bits, checksum, numbers};

/// A sequence of one length, stored.
struct Sequence {
    store: KvStore,
    pages: Vec<u32>,
    len: usize,
}

const HEADS: usize = 2;

impl Sequence {
    /// Stores `len` positions. Pages are taken in the order of `stride`, and those and the slots
    /// that are not used hold `garbage`.
    fn new(shape: KvShape, len: usize, (stride, garbage): (usize, f32)) -> Self {
        let used = len.div_ceil(PAGE_LEN).max(1);
        let count = used + 3;
        let mut store = KvStore::new(shape, count).expect("a small store");
        let page = |index: usize| u32::try_from((index * stride + 1) % count).expect("few pages");
        let pages: Vec<_> = (0..used).map(page).collect();
        let key_garbage = vec![garbage; shape.kv_heads * shape.key_size];
        let value_garbage = vec![garbage; shape.kv_heads * shape.value_size];
        for page in 0..u32::try_from(count).expect("few pages") {
            for slot in 0..PAGE_LEN {
                store.write(page, slot, &key_garbage, &value_garbage);
            }
        }
        for position in 0..len {
            let seed = u32::try_from(position).expect("a short sequence");
            let keys = numbers(2 * seed, shape.kv_heads * shape.key_size);
            let values = numbers(2 * seed + 1, shape.kv_heads * shape.value_size);
            store.write(pages[position / PAGE_LEN], position % PAGE_LEN, &keys, &values);
        }
        Self { store, pages, len }
    }

    fn task(&self, softcap: Option<f32>) -> Attend<'_> {
        let shape = self.store.shape();
        let scale = 1.3 / f32::from(u16::try_from(shape.key_size).expect("small")).sqrt();
        Attend { store: &self.store, pages: &self.pages, head: HEADS - 1, scale, softcap }
    }

    fn attend(&self, isa: Isa, rows: &[f32], spans: &[Range<u32>]) -> Vec<f32> {
        self.attend_capped(isa, (rows, spans), None)
    }

    fn attend_capped(
        &self,
        isa: Isa,
        (rows, spans): (&[f32], &[Range<u32>]),
        softcap: Option<f32>,
    ) -> Vec<f32> {
        let mut out = vec![f32::NAN; spans.len() * self.store.shape().value_size];
        let mut scratch = Scratch::default();
        attend(isa, &self.task(softcap), Queries { rows, spans }, &mut out, &mut scratch);
        out
    }

    /// The definition, in double precision, on what is stored.
    fn reference(&self, query: &[f32], span: &Range<u32>, softcap: Option<f32>) -> Vec<f64> {
        let shape = self.store.shape();
        let task = self.task(softcap);
        let (mut sum, mut out) = (0.0, vec![0.0; shape.value_size]);
        for position in span.start as usize..span.end as usize {
            let mut keys = vec![0.0; shape.kv_heads * shape.key_size];
            let mut values = vec![0.0; shape.kv_heads * shape.value_size];
            let page = self.pages[position / PAGE_LEN];
            self.store.read(page, position % PAGE_LEN, &mut keys, &mut values);
            let key = &keys[task.head * shape.key_size..][..shape.key_size];
            let value = &values[task.head * shape.value_size..][..shape.value_size];
            let products = query.iter().zip(key).map(|(&q, &k)| f64::from(q) * f64::from(k));
            let mut score = products.sum::<f64>() * f64::from(task.scale);
            if let Some(cap) = softcap.map(f64::from) {
                score = cap * (score / cap).tanh();
            }
            let weight = score.exp();
            sum += weight;
            for (out, &value) in out.iter_mut().zip(value) {
                *out += weight * f64::from(value);
            }
        }
        out.into_iter().map(|out| if span.is_empty() { 0.0 } else { out / sum }).collect()
    }
}

fn any_format() -> impl Strategy<Value = KvFormat> {
    prop_oneof![Just(KvFormat::F32), Just(KvFormat::F16), Just(KvFormat::Q8)]
}

fn any_shape() -> impl Strategy<Value = KvShape> {
    let usual = prop_oneof![Just(64_usize), Just(80), Just(96), Just(128), Just(256)];
    let size = prop_oneof![usual, 8_usize..100];
    (size.clone(), size, any_format()).prop_map(|(key_size, value_size, format)| KvShape {
        kv_heads: HEADS,
        key_size,
        value_size,
        format,
    })
}

fn any_spans(len: u32) -> impl Strategy<Value = Vec<Range<u32>>> {
    let causal = (1..=len, 1..41_u32)
        .prop_map(|(end, count)| (0..count).map(|i| 0..end.saturating_sub(i).max(1)).collect());
    let window = (1..=len, 1..41_u32, 1..300_u32).prop_map(move |(end, count, window)| {
        let ends = (0..count).map(move |i| (end + i).min(len));
        ends.map(|end| end.saturating_sub(window)..end).collect()
    });
    let any = proptest::collection::vec((0..=len, 0..=len), 1..12)
        .prop_map(|ends| ends.into_iter().map(|(a, b)| a.min(b)..a.max(b)).collect());
    prop_oneof![causal, window, any]
}

fn any_case() -> impl Strategy<Value = (KvShape, u32, Vec<Range<u32>>, Option<f32>)> {
    let softcap = prop_oneof![Just(None), Just(Some(5.0))];
    (any_shape(), 1..700_u32, softcap).prop_flat_map(|(shape, len, softcap)| {
        any_spans(len).prop_map(move |spans| (shape, len, spans, softcap))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However it is computed, a result is the same: on every instruction set, alone or in a tile,
    /// wherever the pages lie, and whatever else they hold.
    #[test]
    fn a_result_depends_on_its_query_and_its_positions_alone(
        (shape, len, spans, softcap) in any_case(),
    ) {
        let sequence = Sequence::new(shape, len as usize, (1, 0.0));
        let rows = numbers(7, spans.len() * shape.key_size);
        let expected = sequence.attend_capped(Isa::SCALAR, (&rows, &spans), softcap);
        let elsewhere = Sequence::new(shape, len as usize, (1, f32::NAN));
        for isa in Isa::available() {
            let got = elsewhere.attend_capped(isa, (&rows, &spans), softcap);
            prop_assert_eq!(bits(&got), bits(&expected), "{}", isa);
            let queries = rows.chunks_exact(shape.key_size).zip(&spans);
            for ((row, span), expected) in queries.zip(expected.chunks_exact(shape.value_size)) {
                let span = std::slice::from_ref(span);
                let alone = sequence.attend_capped(isa, (row, span), softcap);
                prop_assert_eq!(bits(&alone), bits(expected), "{} alone", isa);
            }
        }
    }

    /// The result is attention: within a stated bound of the definition in double precision.
    ///
    /// The bound is relative to values of at most one. Q8 adds the rounding of its scales, which the
    /// reference applies before the products and the kernel after.
    #[test]
    fn a_result_is_that_of_the_definition((shape, len, spans, softcap) in any_case()) {
        let sequence = Sequence::new(shape, len as usize, (1, 0.0));
        let rows = numbers(9, spans.len() * shape.key_size);
        let got = sequence.attend_capped(Isa::best(), (&rows, &spans), softcap);
        let queries = rows.chunks_exact(shape.key_size).zip(&spans);
        for ((row, span), got) in queries.zip(got.chunks_exact(shape.value_size)) {
            for (got, expected) in got.iter().zip(sequence.reference(row, span, softcap)) {
                let error = (f64::from(*got) - expected).abs();
                prop_assert!(error <= BOUND, "{} for {}, off by {}", got, expected, error);
            }
        }
    }
}

/// How far a result may be from the definition, where values are at most one.
const BOUND: f64 = 2e-6;

#[test]
fn pages_may_lie_anywhere() {
    for format in [KvFormat::F32, KvFormat::F16, KvFormat::Q8] {
        let shape = KvShape { kv_heads: HEADS, key_size: 64, value_size: 48, format };
        let rows = numbers(3, 64);
        // Ten pages in use and three not: strides without a common divisor visit each once.
        let results = [1, 2, 5, 12].map(|stride| {
            let sequence = Sequence::new(shape, 310, (stride, f32::INFINITY));
            bits(&sequence.attend(Isa::best(), &rows, std::slice::from_ref(&(3..310))))
        });
        assert!(results.iter().all(|result| *result == results[0]), "{format:?}");
    }
}

#[test]
fn a_prompt_in_chunks_gives_what_its_positions_give_one_by_one() {
    let shape = KvShape { kv_heads: HEADS, key_size: 80, value_size: 80, format: KvFormat::F16 };
    let sequence = Sequence::new(shape, 300, (1, 0.0));
    let rows = numbers(5, 300 * 80);
    let spans: Vec<_> = (0..300_u32).map(|position| 0..position + 1).collect();
    let whole = bits(&sequence.attend(Isa::best(), &rows, &spans));
    for chunk in [1, 7, 64, 129] {
        let chunks = rows.chunks(chunk * 80).zip(spans.chunks(chunk));
        let results: Vec<_> = chunks
            .flat_map(|(rows, spans)| bits(&sequence.attend(Isa::best(), rows, spans)))
            .collect();
        assert_eq!(results, whole, "in chunks of {chunk}");
    }
    assert_eq!(sequence.len, spans.len());
}

#[test]
fn scratch_memory_carries_nothing_from_one_call_to_the_next() {
    let shape = KvShape { kv_heads: HEADS, key_size: 32, value_size: 32, format: KvFormat::Q8 };
    let sequence = Sequence::new(shape, 520, (1, 0.0));
    let broken = vec![f32::NAN; 9 * 32];
    let rows = numbers(5, 3 * 32);
    let (many, few) = (vec![0..520; 9], vec![0..400, 300..520, 5..6]);
    let (mut scratch, mut out) = (Scratch::default(), vec![0.0; 9 * 32]);
    let queries = Queries { rows: &broken, spans: &many };
    attend(Isa::best(), &sequence.task(None), queries, &mut out, &mut scratch);
    assert!(out.iter().all(|number| number.is_nan()), "a broken query gives a broken result");
    let queries = Queries { rows: &rows, spans: &few };
    attend(Isa::best(), &sequence.task(None), queries, &mut out[..3 * 32], &mut scratch);
    assert_eq!(bits(&out[..3 * 32]), bits(&sequence.attend(Isa::best(), &rows, &few)));
}

#[test]
fn an_empty_span_takes_nothing() {
    let shape = KvShape { kv_heads: HEADS, key_size: 16, value_size: 24, format: KvFormat::F32 };
    let sequence = Sequence::new(shape, 40, (1, f32::NAN));
    let out = sequence.attend(Isa::best(), &numbers(1, 32), &[0..0, 40..40]);
    assert_eq!(out, vec![0.0; 48]);
}

#[test]
fn one_position_gives_its_value() {
    let shape = KvShape { kv_heads: HEADS, key_size: 16, value_size: 24, format: KvFormat::F32 };
    let sequence = Sequence::new(shape, 40, (1, f32::NAN));
    let out = sequence.attend(Isa::best(), &numbers(1, 16), std::slice::from_ref(&(35..36)));
    assert_eq!(out, numbers(2 * 35 + 1, HEADS * 24)[24..], "the second head's value");
}

#[test]
#[should_panic(expected = "position 33 is not in 1 pages")]
fn a_span_past_the_pages_is_refused() {
    let shape = KvShape { kv_heads: HEADS, key_size: 8, value_size: 8, format: KvFormat::F32 };
    let sequence = Sequence::new(shape, 32, (1, 0.0));
    sequence.attend(Isa::best(), &numbers(1, 8), std::slice::from_ref(&(0..33)));
}

/// A change of these numbers is a change of what every node computes: approve it or undo it.
#[test]
fn results_are_those_that_were_approved() {
    let formats = [KvFormat::F32, KvFormat::F16, KvFormat::Q8];
    let got = formats.map(|format| {
        let shape = KvShape { kv_heads: HEADS, key_size: 72, value_size: 72, format };
        let sequence = Sequence::new(shape, 600, (1, 0.0));
        let spans: Vec<_> = (0..9_u32).map(|query| 50 * query..592 + query).collect();
        let rows = numbers(11, 9 * 72);
        checksum(&sequence.attend_capped(Isa::best(), (&rows, &spans), Some(30.0)))
    });
    assert_eq!(got, [0xc272_6b5f_d51d_a09f, 0x5c25_9ade_c70d_2876, 0x48b1_5917_e8cd_31cd]);
}
