//! What pulls cost the processor: cutting, hashing, and choosing what to ask for.
//!
//! Run by hand: `cargo bench -p commons-swarm`. Each line is the best of five runs on one core.

#![expect(clippy::print_stdout, reason = "a bench prints")]
#![expect(clippy::disallowed_methods, reason = "a bench reads a clock")]
#![expect(
    clippy::cast_precision_loss,
    reason = "figures for people: they are far below what floats hold"
)]

use std::hint::black_box;
use std::time::Instant;

use commons_port::blobs::Bits;
use commons_record::{Hash, PeerId};
use commons_swarm::chunk::{Chunker, Chunks};
use commons_swarm::fetch::{Budget, Fetch, Input, Nearness, Output, Spec};
use commons_swarm::wire::Holding;

/// Larger than the caches.
const BYTES: usize = 256 << 20;

fn best(mut run: impl FnMut()) -> f64 {
    let once = || {
        let begun = Instant::now();
        run();
        begun.elapsed().as_secs_f64()
    };
    std::iter::repeat_with(once).take(5).fold(f64::INFINITY, f64::min)
}

fn rate(name: &str, seconds: f64) {
    println!("{name:<44} {:>7.2} GB/s", BYTES as f64 / seconds / 1e9);
}

fn main() {
    let mut bytes = vec![0; BYTES];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    rate("BLAKE3 of the whole, one core", best(|| _ = black_box(Hash::of_content(&bytes))));
    for (name, step) in
        [("cuts, fed 1 MiB at a time", 1 << 20), ("cuts, fed 4 KiB at a time", 4096)]
    {
        rate(name, best(|| _ = black_box(cuts(&bytes, step))));
    }
    rate(
        "cuts and BLAKE3 of each chunk, 1 MiB",
        best(|| {
            let (mut chunks, mut count) = (Chunks::new(), 0_u64);
            bytes.chunks(1 << 20).for_each(|part| chunks.update(part, |_| count += 1));
            black_box(count);
        }),
    );
    for (name, pieces, parts) in [
        ("1 GiB from 8 whole peers", 1_024, 0),
        ("64 GiB from 8 peers with parts", 65_536, 8),
        ("10 TB from 8 peers with parts", 10_000_000, 8),
    ] {
        let (steps, seconds) = choose(pieces, parts);
        println!("{name:<44} {:>7.2} us for each piece", seconds * 1e6 / steps as f64);
    }
}

fn cuts(bytes: &[u8], step: usize) -> u64 {
    let (mut chunker, mut count) = (Chunker::new(), 0);
    for mut part in bytes.chunks(step) {
        while let Some(taken) = chunker.cut(part) {
            count += 1;
            part = &part[taken..];
        }
    }
    count
}

/// Fetches up to a thousand pieces; every peer answers at once. The machine's steps alone.
fn choose(pieces: u64, parts: u64) -> (u64, f64) {
    let size = pieces << 20;
    let mut budget = Budget::default();
    let all = Bits(vec![0xff; 10_000]);
    let spec = Spec {
        blob: Hash::of_content(b""),
        size,
        me: PeerId::from_bytes([0xff; 32]),
        seed: 1,
        held: Bits::default(),
        has_top: true,
        pages: all,
    };
    let mut fetch = Fetch::new(spec, &mut budget);
    let mut inputs = Vec::new();
    for number in 0..8_u8 {
        let peer = PeerId::from_bytes([number; 32]);
        inputs.push(Input::PeerUp { peer, near: Nearness::Wan });
        let is_part = u64::from(number) < parts;
        let holding = if is_part { Holding::Part } else { Holding::Whole };
        inputs.push(Input::Holdings { peer, size, holding });
        if is_part {
            let stretches = pieces.div_ceil(1 << 18);
            inputs.extend((0..stretches).map(|stretch| {
                let stretch = u32::try_from(stretch).unwrap_or(0);
                Input::Held { peer, stretch, bits: vec![0x7f ^ number; 32 * 1024] }
            }));
        }
    }
    let mut waiting = std::collections::VecDeque::from(inputs);
    let (mut put, mut now, mut seconds) = (0, 0, 0.0);
    while let Some(input) = waiting.pop_front().filter(|_| put < 1000) {
        now += 1;
        let is_setup = put == 0;
        let begun = Instant::now();
        let outputs = fetch.step(now, input, &mut budget);
        seconds += if is_setup { 0.0 } else { begun.elapsed().as_secs_f64() };
        for output in outputs {
            match output {
                Output::Ask { peer, ask, .. } => {
                    waiting.push_back(Input::Data { peer, ask, len: 1 << 20 });
                }
                Output::Put(target) => {
                    put += 1;
                    waiting.push_back(Input::Checked { target, is_right: true });
                }
                _ => {}
            }
        }
    }
    (put, seconds)
}
