//! Measurements behind choices; they decide nothing and run with `RUN_SLOW_TESTS=1` only.
//!
//! Build with `--release`. The numbers that were found are with the choices they justify.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Tensor};
use commons_engine::Model;

use crate::support::fixture;

#[expect(clippy::disallowed_methods, reason = "a switch for people, and a stopwatch")]
fn is_wanted() -> bool {
    let is_wanted = std::env::var("RUN_SLOW_TESTS").is_ok();
    if !is_wanted {
        eprintln!("SKIPPED: a measurement; set RUN_SLOW_TESTS=1");
    }
    is_wanted
}

/// The fastest of several runs: the others waited for something else.
#[expect(clippy::disallowed_methods, reason = "a switch for people, and a stopwatch")]
fn fastest(mut run: impl FnMut()) -> Duration {
    let once = |()| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    [(); 12].map(once).into_iter().min().expect("twelve")
}

#[test]
fn widened_floats_against_compact_ones() {
    if !is_wanted() {
        return;
    }
    let (inputs, outputs) = (2048, 5632);
    for kind in [GgmlDType::F32, GgmlDType::F16, GgmlDType::BF16] {
        let data = vec![0u8; inputs * outputs * kind.type_size()];
        let storage = QStorage::from_data(Cow::Owned(data), &Device::Cpu, kind).expect("whole");
        let compact = QTensor::new(storage, (outputs, inputs)).expect("a matrix");
        let wide = compact.dequantize(&Device::Cpu).expect("widens").t().expect("turns");
        for rows in [1, 4, 128] {
            let lhs = Tensor::ones((rows, inputs), candle_core::DType::F32, &Device::Cpu);
            let lhs = lhs.expect("ones");
            let wide = fastest(|| drop(lhs.matmul(&wide).expect("multiplies")));
            let compact = fastest(|| drop(lhs.apply_op1_no_bwd(&compact).expect("multiplies")));
            eprintln!("{kind:?} x {rows} rows: widened {wide:?}, compact {compact:?}");
        }
    }
}

#[test]
fn tokens_per_second_of_the_fixtures() {
    if !is_wanted() {
        return;
    }
    for name in ["stories260K", "stories260K-F16", "stories260K-Q8_0", "stories260K-Q4_0"] {
        let Some(path) = fixture(&format!("models/{name}.gguf")) else { return };
        let model = Model::load(&path).expect("loads");
        let prefill = fastest(|| {
            let mut cache = model.llama().new_cache();
            model.llama().forward(&[5; 128], &mut cache).expect("computes");
        });
        let decode = fastest(|| {
            let mut cache = model.llama().new_cache();
            for id in 3..67 {
                model.llama().next_logits(&[id], &mut cache).expect("computes");
            }
        });
        let rate = |count: f64, time: Duration| count / time.as_secs_f64();
        let (prefill, decode) = (rate(128.0, prefill), rate(64.0, decode));
        eprintln!("{name}: prefill {prefill:.0} token/s, decode {decode:.0} token/s");
    }
}
