//! Every instruction set against plain Rust, operation by operation.

use proptest::prelude::*;

use super::*;
use crate::testing::bits;

/// All operations on three rows of lanes, and the loads.
struct Operations {
    rows: [[f32; LANES]; 3],
    halves: [u16; LANES],
    bytes: [i8; LANES],
}

impl Kernel for Operations {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<f32> {
        let [a, b, c] = [0, 1, 2].map(|row| simd.load(&self.rows[row]));
        let results = [
            simd.splat(self.rows[0][3]),
            simd.load_half(&self.halves),
            simd.load_upper(&self.halves),
            simd.load_bytes(&self.bytes),
            simd.load_part(&self.rows[0][..5]),
            simd.add(a, b),
            simd.sub(a, b),
            simd.mul(a, b),
            simd.div(a, b),
            simd.select_less((a, b), c, a),
            simd.max(a, b),
            simd.copy_sign(a, b),
            simd.add_exponent(a, b),
            simd.splat(simd.sum(a)),
        ];
        let mut out = vec![0.0; results.len() * LANES];
        for (result, out) in results.into_iter().zip(out.as_chunks_mut().0) {
            simd.store(result, out);
        }
        let mut part = [7.0; 3];
        simd.store_part(b, &mut part);
        out.extend(part);
        out
    }
}

fn any_number() -> impl Strategy<Value = f32> {
    let special = [0.0, -0.0, 1.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MIN_POSITIVE];
    prop_oneof![
        any::<u32>().prop_map(f32::from_bits),
        -4.0_f32..4.0,
        proptest::sample::select(special.to_vec()),
    ]
}

proptest! {
    /// Whatever the numbers, all instruction sets give the same.
    #[test]
    fn an_operation_gives_the_same_on_every_instruction_set(
        rows in [(); 3].map(|()| proptest::array::uniform16(any_number())),
        halves in proptest::array::uniform16(any::<u16>()),
        bytes in proptest::array::uniform16(any::<i8>()),
    ) {
        let operations = || Operations { rows, halves, bytes };
        let expected = bits(&run(Isa::SCALAR, operations()));
        for isa in Isa::available() {
            prop_assert_eq!(&bits(&run(isa, operations())), &expected, "{}", isa);
        }
    }
}

#[test]
fn every_half_precision_number_widens_exactly() {
    struct Halves([u16; LANES]);
    impl Kernel for Halves {
        type Output = [f32; LANES];

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> [f32; LANES] {
            let mut out = [0.0; LANES];
            simd.store(simd.load_half(&self.0), &mut out);
            out
        }
    }
    for isa in Isa::available() {
        for start in (0..=u16::MAX).step_by(LANES) {
            let mut halves = [start; LANES];
            for (half, offset) in halves.iter_mut().zip(0..) {
                *half += offset;
            }
            let expected = halves.map(|half| half::f16::from_bits(half).to_f32());
            assert_eq!(bits(&run(isa, Halves(halves))), bits(&expected), "{isa} from {start}");
        }
    }
}

#[test]
fn lanes_are_summed_by_the_documented_tree() {
    struct Sum([f32; LANES]);
    impl Kernel for Sum {
        type Output = f32;

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> f32 {
            simd.sum(simd.load(&self.0))
        }
    }
    let x: [f32; LANES] = std::array::from_fn(|i| 1.1_f32.powi(i32::try_from(i * 7).expect("few")));
    let four = |i: usize| (x[i] + x[i + 8]) + (x[i + 4] + x[i + 12]);
    let expected = (four(0) + four(2)) + (four(1) + four(3));
    for isa in Isa::available() {
        assert_eq!(run(isa, Sum(x)).to_bits(), expected.to_bits(), "{isa}");
    }
}
