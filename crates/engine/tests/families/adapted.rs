//! Adapters of every kind on bases of every family that has them, against what PEFT computed.
//!
//! The adapters are the project's own (`golden/make_adapters.py`).

use std::sync::Arc;

use commons_engine::adapter::Adapter;
use commons_engine::cache::KvFormat;
use commons_engine::forward::Transformer;
use commons_engine::weights::Weights;
use commons_kernels::Isa;

use crate::computed::{How, WHOLE, compute_adapted, load};
use crate::{Golden, compare, families, names_in, read};

/// A base, an adapter of it, and what PEFT computed.
struct Lab {
    name: String,
    base: Transformer,
    adapter: Arc<Adapter>,
    golden: Golden,
}

fn labs() -> Vec<Lab> {
    let folder = families().with_file_name("adapters");
    let lab = |name: String| {
        let (base, _) = name.rsplit_once('-').expect("BASE-METHOD");
        let (path, base) = (folder.join(&name), families().join(base));
        let weights = Weights::open(&base).expect("opens");
        let adapter = Adapter::load(&path, &weights).unwrap_or_else(|it| panic!("{name}: {it}"));
        let (base, golden) = (load(&base), read(&path.join("golden.json")));
        Lab { name, base, adapter: Arc::new(adapter), golden }
    };
    names_in(&folder).into_iter().map(lab).collect()
}

#[test]
fn every_kind_of_adapter_computes_what_peft_computes() {
    let labs = labs();
    assert!(labs.len() >= 15, "{}", labs.len());
    for lab in labs {
        let count = lab.base.settings().token_count;
        for case in &lab.golden.cases {
            let all = compute_adapted(&lab.base, WHOLE, &[&case.tokens], &[Some(&lab.adapter)]);
            for (&at, wanted) in &case.logits {
                let logits = &all[0].logits[at * count..][..count];
                let found: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
                compare(&format!("{}, position {at}", lab.name), &found, wanted);
            }
            assert!(!case.logits.is_empty(), "{} records nothing", lab.name);
        }
    }
}

/// With one adapter, another and none side by side, in chunks, on any threads and instructions.
#[test]
fn a_batch_of_adapters_computes_the_bits_of_each_alone() {
    for lab in labs() {
        let texts: Vec<&[u32]> = lab.golden.cases.iter().map(|case| &*case.tokens).collect();
        let (short, long) = (texts[0], texts[1]);
        let format = KvFormat::F16;
        let alone = How { format, ..WHOLE };
        let one = |text, adapter| compute_adapted(&lab.base, alone, &[text], &[adapter]).remove(0);
        let adapter = Some(&lab.adapter);
        let wanted = [one(short, adapter), one(long, None), one(long, adapter), one(short, None)];
        for isa in Isa::available() {
            for (threads, chunk_len) in [(1, 1), (2, 7), (3, 1 << 16)] {
                let how = How { isa, threads, format, chunk_len };
                let texts = [short, long, long, short];
                let adapters = [adapter, None, adapter, None];
                let found = compute_adapted(&lab.base, how, &texts, &adapters);
                for (index, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
                    assert!(found.bits() == wanted.bits(), "{} {how:?}: text {index}", lab.name);
                }
            }
        }
    }
}
