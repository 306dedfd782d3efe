//! What the tests of the kernels share.

/// Numbers between -1 and 1 that look random, the same every time.
pub(crate) fn numbers(seed: u32, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let bits = u16::try_from(state >> 16).expect("sixteen bits are left");
        f32::from(bits) / 32768.0 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// The bits of numbers; all NaN are one, because only their payload may differ.
pub(crate) fn bits(numbers: &[f32]) -> Vec<u32> {
    let bits = |number: &f32| if number.is_nan() { u32::MAX } else { number.to_bits() };
    numbers.iter().map(bits).collect()
}

/// FNV-1a of the bits: to notice any change of them.
pub(crate) fn checksum(numbers: &[f32]) -> u64 {
    let bytes = bits(numbers).into_iter().flat_map(u32::to_le_bytes);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
