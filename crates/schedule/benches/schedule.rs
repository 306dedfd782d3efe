//! What a step costs the scheduler: the time from one batch to the next, computing left out.
//!
//! Run by hand: `cargo bench -p commons-schedule`. Each line is the smallest and the median of
//! many steps, `done` and the next `plan` together. The pool is full: the prefix tree holds every
//! page that no running sequence owns, so that every new page is an eviction.

#![expect(clippy::print_stdout, reason = "a bench prints")]

use std::time::{Duration, Instant};

use commons_schedule::{
    Ask, Batch, Caching, CallerId, Config, Drafting, Outcome, PrefixKey, Priority, Scheduler,
    SequenceId, Sharing, Status, Wants, Work,
};

const PAGE_LEN: u32 = 16;
const STEPS: usize = 2_000;
/// Enough for a prompt and all steps.
const CONTEXT_LEN_MAX: u32 = 1 << 17;

/// One case of the table.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    rows: u32,
    prompt_len: u32,
    waiting: u32,
    drafting: Drafting,
}

fn main() {
    let case = |name, rows, prompt_len, waiting, drafting| Case {
        name,
        rows,
        prompt_len,
        waiting,
        drafting,
    };
    let cases = [
        case("16 rows of 1k", 16, 1024, 0, Drafting::Off),
        case("16 rows of 1k, guessing", 16, 1024, 0, Drafting::Ngram),
        case("64 rows of 1k", 64, 1024, 0, Drafting::Off),
        case("64 rows of 1k, 256 callers wait", 64, 1024, 256, Drafting::Off),
        case("200 rows of 1k", 200, 1024, 0, Drafting::Off),
        case("200 rows of 1k, guessing", 200, 1024, 0, Drafting::Ngram),
        case("200 rows of 1k, 256 callers wait", 200, 1024, 256, Drafting::Off),
        case("200 rows of 8k", 200, 8192, 0, Drafting::Off),
    ];
    println!("| case | smallest us | median us | tree pages |");
    println!("|---|---|---|---|");
    for case in cases {
        let (mut times, pages) = measure(case);
        times.sort_unstable();
        let (least, median) = (micros(times[0]), micros(times[times.len() / 2]));
        println!("| {} | {least:.1} | {median:.1} | {pages} |", case.name);
    }
    let (miss, hit) = measure_entry();
    println!("\nA prompt of 4k tokens arrives and enters: {miss:.1} us new, {hit:.1} us cached.");
}

/// Every sequence decodes in every step; each is a caller of its own.
fn measure(case: Case) -> (Vec<Duration>, usize) {
    let steps = u32::try_from(STEPS).unwrap_or(u32::MAX);
    let per_row = (case.prompt_len + 2 * steps).div_ceil(PAGE_LEN) + 1;
    let mut engine = Engine::new(case.rows, case.rows * per_row + 1024);
    engine.fill_tree();
    for id in 0..case.rows + case.waiting {
        engine.arrive(id, text(id, case.prompt_len), case.drafting);
    }
    while engine.rows_that_draw() < case.rows as usize {
        engine.step();
    }
    let mut times = Vec::with_capacity(STEPS);
    for _ in 0..STEPS {
        times.push(engine.step());
    }
    assert_eq!(engine.batch.rows.len(), case.rows as usize);
    let stats = engine.scheduler.stats();
    (times, stats.pages - stats.pages_free)
}

/// What a long prompt costs when it comes in: nothing of it cached, and nearly all.
fn measure_entry() -> (f64, f64) {
    let mut engine = Engine::new(2, 4096);
    engine.fill_tree();
    let mut times = [f64::MAX; 2];
    for id in 0..200 {
        let is_hit = id % 2;
        let prompt = if is_hit == 1 { text(6 + id, 4096) } else { text(7 + id, 4096) };
        let begin = now();
        engine.arrive(id, prompt, Drafting::Off);
        engine.scheduler.plan(&mut engine.batch);
        let time = micros(now().duration_since(begin));
        times[is_hit as usize] = times[is_hit as usize].min(time);
        engine.compute_prompt(id);
    }
    (times[0], times[1])
}

fn text(seed: u32, len: u32) -> Vec<u32> {
    (0..len).map(|at| seed.wrapping_mul(40_503).wrapping_add(at) % 30_000).collect()
}

/// A scheduler whose engine takes no time: the same token every time, all guesses wrong or right
/// by chance of the text.
struct Engine {
    scheduler: Scheduler,
    batch: Batch,
    drawn: Vec<Vec<u32>>,
}

impl Engine {
    fn new(rows: u32, page_count: u32) -> Self {
        let config = Config {
            page_len: PAGE_LEN,
            page_count,
            rows_max: rows,
            batch_tokens_max: rows.max(512) * 2,
            chunk_len_max: 512,
            queue_len_max: 1024,
            queue_len_per_caller_max: 1024,
            caching: Caching::On { copy_len_min: PAGE_LEN / 2 },
            draft_len_max: 4,
            draft_tokens_max: rows * 4,
            age_steps_max: 1 << 20,
        };
        let scheduler = Scheduler::new(config).expect("the limits go together");
        Self { scheduler, batch: Batch::default(), drawn: Vec::new() }
    }

    /// One sequence after another, until every page but the last one's answer holds a prefix.
    fn fill_tree(&mut self) {
        let mut id = 1 << 20;
        while self.scheduler.stats().pages_free > 1 {
            let free = u32::try_from(self.scheduler.stats().pages_free).unwrap_or(1);
            let len = (free * PAGE_LEN).clamp(PAGE_LEN, 2048) + 1 - PAGE_LEN;
            self.arrive(id, text(id, len + PAGE_LEN - 1), Drafting::Off);
            self.compute_prompt(id);
            id += 1;
        }
    }

    fn arrive(&mut self, id: u32, prompt: Vec<u32>, drafting: Drafting) {
        let mut caller = [0; 32];
        caller[..4].copy_from_slice(&id.to_le_bytes());
        let output_len_max = 4 * u32::try_from(STEPS).unwrap_or(u32::MAX);
        let pages = self.scheduler.config().page_count * PAGE_LEN;
        let room = pages - u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        let ask = Ask {
            id: SequenceId(u64::from(id)),
            caller: CallerId(caller),
            priority: Priority::Normal,
            prompt,
            work: Work::Generate { output_len_max: output_len_max.min(room).max(1) },
            context_len_max: CONTEXT_LEN_MAX.max(pages + 1),
            prefix_key: PrefixKey([0; 32]),
            sharing: Sharing::Shared,
            drafting,
            is_revealed: true,
        };
        self.scheduler.arrive(ask).expect("there is room");
    }

    /// Steps until the only sequence has drawn its first token, and forgets it.
    fn compute_prompt(&mut self, id: u32) {
        while self.rows_that_draw() == 0 {
            self.step();
        }
        self.step();
        self.scheduler.cancel(SequenceId(u64::from(id)));
        self.step();
    }

    fn rows_that_draw(&self) -> usize {
        self.batch.rows.iter().filter(|row| row.wants != Wants::Nothing).count()
    }

    /// Reports the batch that is out and plans the next. Times both.
    fn step(&mut self) -> Duration {
        let rows = self.batch.rows.len();
        self.drawn.resize(rows.max(self.drawn.len()), Vec::new());
        for (row, drawn) in self.batch.rows.iter().zip(&mut self.drawn) {
            drawn.clear();
            if row.wants != Wants::Nothing {
                let next = (row.start.wrapping_mul(2_654_435_761) >> 16) % 5;
                drawn.push(next);
            }
        }
        let outcomes: Vec<Outcome<'_>> = (self.batch.rows.iter().zip(&self.drawn))
            .map(|(row, drawn)| Outcome { id: row.id, drawn, status: Status::Continues })
            .collect();
        let begin = now();
        self.scheduler.done(&outcomes).expect("an outcome for each row");
        self.scheduler.plan(&mut self.batch);
        now().duration_since(begin)
    }
}

#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
fn now() -> Instant {
    Instant::now()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
