//! More adapters in use than fit: what is read again, beside what one who knows the future would.

use std::collections::BTreeSet;
use std::path::Path;

use futures::StreamExt as _;
use futures::executor::block_on;
use futures::stream::FuturesUnordered;

use crate::lab::{Lab, Room, now, tokens};

/// Adapters, room for how many of them, requests, and how many of those are under way.
const ADAPTERS: usize = 64;
const PLACES: usize = 16;
const REQUESTS: usize = 256;
const CLIENTS: usize = 32;

/// Tokens of each answer.
const TOKENS: usize = 4;

pub(crate) fn measure(model: &Path, threads: usize) -> anyhow::Result<String> {
    eprintln!("rotation");
    let lab = Lab::new(model, threads, &Room::For(PLACES as u64))?;
    let trace: Vec<usize> = (0..REQUESTS).map(|at| at % ADAPTERS).collect();
    let before = lab.worker.adapter_stats();
    let started = now();
    // Clients in a closed loop: the next request of the trace begins when any has ended.
    let answer = |index: usize| {
        let started = lab.start(Some(lab.adapter(index)), (lab.prompt(4), TOKENS), Some([0; 32]));
        async move { tokens(&mut *started?, TOKENS).await }
    };
    let mut next = trace.iter().map(|&index| answer(index));
    let mut under_way: FuturesUnordered<_> = next.by_ref().take(CLIENTS).collect();
    while let Some(ended) = block_on(under_way.next()) {
        ended?;
        under_way.extend(next.next());
    }
    let elapsed = started.elapsed();
    let stats = lab.worker.adapter_stats();
    let loads = stats.loads_total - before.loads_total;
    let bytes = stats.loaded_bytes_total - before.loaded_bytes_total;
    let optimum = optimum(&trace, PLACES);
    Ok(format!(
        "## {ADAPTERS} adapters in rotation, room for {PLACES}\n\n\
         {REQUESTS} requests of {TOKENS} tokens, {CLIENTS} at a time, each with the next adapter. The \
         optimum is that of one who knows all requests and serves them in order (Belady). Wanted: \
         1.5.\n\n| read from the disk | of the optimum ({optimum}) | MB | tokens/s |\n\
         |---:|---:|---:|---:|\n| {loads} | {:.2} | {:.0} | {:.1} |\n\n",
        loads as f64 / optimum as f64,
        bytes as f64 / 1e6,
        (REQUESTS * TOKENS) as f64 / elapsed.as_secs_f64(),
    ))
}

/// Loads of the best possible cache: what is needed last goes first.
fn optimum(trace: &[usize], places: usize) -> usize {
    let mut here: BTreeSet<usize> = BTreeSet::new();
    let mut loads = 0;
    for (at, &adapter) in trace.iter().enumerate() {
        if here.contains(&adapter) {
            continue;
        }
        loads += 1;
        if here.len() == places {
            let next =
                |it: &usize| trace[at..].iter().position(|other| other == it).unwrap_or(usize::MAX);
            let last = here.iter().copied().max_by_key(next);
            last.map(|it| here.remove(&it));
        }
        here.insert(adapter);
    }
    loads
}
