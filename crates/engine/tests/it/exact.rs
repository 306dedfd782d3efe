//! The class of the processor repeats bit for bit: one sequence, computed in every way.

use commons_engine::cache::KvFormat;
use commons_engine::exact::{Pass, Trace, Way};
use commons_engine::forward::{LoadOptions, Transformer};
use commons_engine::noise::noise_model;
use commons_engine::noise::{
    Mix,
    bench::{Shape, write_bench_model},
};
use commons_engine::place::Device;
use commons_engine::{Model, WorkerConfig};
use commons_kernels::Isa;

use crate::support::{config, noise_engine};

/// Every way is computed, and has the logits of the first.
fn check(
    model: &Transformer,
    (tokens, kv_format): (usize, KvFormat),
    (all_threads, all_rows): (&[usize], &[usize]),
) -> Trace {
    let mut first: Option<(Way, Trace)> = None;
    for isa in Isa::available() {
        for &threads in all_threads {
            for &rows in all_rows {
                for pass in [Pass::Prefill, Pass::Decode] {
                    let way = Way { isa, threads, rows, pass, kv_format };
                    let trace = way.run(model, tokens).expect("is computed");
                    assert_eq!(trace.hashes().len(), tokens, "{way}");
                    let (wanted_way, wanted) = first.get_or_insert_with(|| (way, trace.clone()));
                    let difference = trace.first_difference(wanted);
                    assert_eq!(difference, None, "{way} differs from {wanted_way}");
                }
            }
        }
    }
    first.expect("there is a way").1
}

fn load(path: &std::path::Path) -> Model {
    let options = LoadOptions { device: Device::Cpu, ..LoadOptions::default() };
    Model::load_with(path, &options).expect("loads")
}

#[test]
fn logits_do_not_depend_on_batch_threads_pass_or_instruction_set_in_any_stored_form() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("every.gguf");
    let shape = Shape::named("tiny").expect("is a shape");
    write_bench_model(&path, (shape, Mix::Every), 1, |_, _| ()).expect("is written");
    let model = load(&path);
    let model = model.transformer();
    let halves = check(model, (20, KvFormat::F16), (&[1, 2, 4], &[1, 7, 32]));
    // More positions than a split of attention, so that splits are joined.
    let long = check(model, (270, KvFormat::F16), (&[2], &[7]));
    assert_eq!(long.first_difference(&halves), None);
    // Keys and values of eight bits are another result, and repeat as well.
    let eighths = check(model, (20, KvFormat::Q8), (&[1, 2], &[1, 7]));
    assert_eq!(eighths.first_difference(&halves), Some(0));
}

#[test]
fn a_form_of_keys_and_values_that_gives_other_results_is_another_class() {
    let kernels = |kv_format| {
        let (_, facts) = noise_engine(WorkerConfig { kv_format, ..config() });
        facts.class.kernels
    };
    assert_eq!(kernels(KvFormat::F16), "commons/rows-1");
    assert_eq!(kernels(KvFormat::Q8), "commons/rows-1+kv-q8");
}

#[test]
fn a_hash_over_logits_tells_two_models_and_two_sequences_apart() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let trace = |seed| {
        let path = folder.path().join("noise.gguf");
        std::fs::write(&path, noise_model(seed).expect("builds").to_bytes()).expect("writes");
        let way = Way {
            isa: Isa::best(),
            threads: 1,
            rows: 1,
            pass: Pass::Decode,
            kv_format: KvFormat::F16,
        };
        way.run(load(&path).transformer(), 8).expect("is computed")
    };
    let one = trace(7);
    assert_eq!(one, trace(7));
    assert_eq!(one.first_difference(&trace(8)), Some(0));
    let hashes = one.hashes();
    assert!((1..8).all(|index| !hashes[..index].contains(&hashes[index])), "every token adds");
}
