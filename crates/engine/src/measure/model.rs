//! The forward pass alone: a batch of rows with pages of their own, the likeliest token of each.

use std::time::Duration;

use super::{MeasureError, Plan, Report, What, ids, largest, now, resident, seconds};
use crate::cache::{Cache, PAGE_LEN};
use crate::forward::{LoadOptions, Segment, Transformer};
use crate::model::Model;
use crate::settings::ModelKind;
use crate::team::Team;

/// Tokens of a prompt that go through at once.
const CHUNK_LEN: usize = 512;

/// Steps before the stopwatch starts.
const WARM_STEPS: usize = 4;

/// Tokens of the prompt that [`What::Load`] waits for.
const FIRST_PROMPT_LEN: usize = 8;

/// A model with rows that are all its own.
struct Lab {
    model: Model,
    team: Team,
    cache: Cache,
    pages_per_row: usize,
}

pub(super) fn run(plan: &Plan) -> Result<Report, MeasureError> {
    let started = now();
    let options =
        LoadOptions { threads: plan.threads, device: plan.device, ..LoadOptions::default() };
    let model = Model::load_with(&plan.path, &options)?;
    let mut lab = Lab::new(plan, model)?;
    let loaded = started.elapsed();
    let mut report = plan.report(&lab.model);
    report.load_s = seconds(loaded);
    report.loaded_bytes = resident().map_or(0, |(now, _)| now);
    report.file_bytes = lab.model.facts().file_size;
    report.weight_bytes = lab.transformer().size_bytes() as u64;
    let page = lab.transformer().page_bytes(plan.kv_format)?;
    report.kv_bytes = page * lab.cache.page_count() as u64;
    match plan.what {
        What::Load => {
            lab.prompt(0, FIRST_PROMPT_LEN);
            report.seconds.push(seconds(started.elapsed()));
            report.tokens_timed = FIRST_PROMPT_LEN;
            lab.prompt(0, plan.tokens);
        }
        What::Decode => {
            if lab.transformer().settings().kind == ModelKind::Encoder {
                return Err(MeasureError::Encoder);
            }
            report.tokens_timed = plan.tokens * plan.rows;
            for _ in 0..plan.rounds {
                report.seconds.push(seconds(lab.decode(plan)));
            }
        }
        What::Prefill | What::Prefix | What::Repeat | What::DecodeJson => {
            report.tokens_timed = plan.tokens;
            lab.prompt(0, plan.tokens);
            for _ in 0..plan.rounds {
                let started = now();
                lab.prompt(0, plan.tokens);
                report.seconds.push(seconds(started.elapsed()));
            }
        }
    }
    Ok(report)
}

impl Lab {
    fn new(plan: &Plan, model: Model) -> Result<Self, MeasureError> {
        let settings = model.transformer().settings();
        let answers = if plan.what == What::Decode { plan.context + WARM_STEPS } else { 0 };
        let tokens = (answers + plan.tokens).max(FIRST_PROMPT_LEN);
        let context_len = settings.context_len;
        if tokens > context_len {
            return Err(MeasureError::TooLong { tokens, context_len });
        }
        let pages_per_row = tokens.div_ceil(PAGE_LEN);
        let page_count = pages_per_row * plan.rows.max(1);
        let cache = model.transformer().cache(plan.kv_format, page_count)?;
        let team = Team::new(plan.threads, plan.isa).map_err(MeasureError::Threads)?;
        Ok(Self { model, team, cache, pages_per_row })
    }

    fn transformer(&self) -> &Transformer {
        self.model.transformer()
    }

    /// Puts some tokens of each row through and picks the likeliest behind the last of each.
    fn step(&mut self, rows: &[(usize, &[u32], usize)]) -> Vec<u32> {
        let first = |row: usize| u32::try_from(row * self.pages_per_row).unwrap_or(u32::MAX);
        let count = u32::try_from(self.pages_per_row).unwrap_or(u32::MAX);
        let pages: Vec<Vec<u32>> =
            rows.iter().map(|&(row, ..)| (first(row)..first(row) + count).collect()).collect();
        let mut segments = Vec::with_capacity(rows.len());
        for (&(_, tokens, start), pages) in rows.iter().zip(&pages) {
            segments.push(Segment {
                tokens,
                start,
                pages,
                positions_max: 0,
                wanted: 1,
                adapter: None,
            });
        }
        let transformer = self.model.transformer();
        let rows = transformer.forward(&mut self.team, &mut self.cache, &segments);
        let rows = rows.expect("the rows have pages for all their tokens");
        let normed = transformer.norm(self.team.isa(), &rows);
        let logits = transformer.logits(&mut self.team, &normed);
        let logits = logits.expect("the rows are those of the model");
        logits.chunks(transformer.settings().token_count).map(largest).collect()
    }

    /// Reads a prompt into a row's pages and picks the token behind it.
    fn prompt(&mut self, row: usize, count: usize) -> u32 {
        let ids = ids(row, count, self.transformer().settings().token_count);
        let mut picked = 0;
        let chunk_len = match self.transformer().settings().kind {
            ModelKind::Decoder => CHUNK_LEN,
            ModelKind::Encoder => count,
        };
        for (index, chunk) in ids.chunks(chunk_len).enumerate() {
            picked = self.step(&[(row, chunk, index * chunk_len)]).first().copied().unwrap_or(0);
        }
        picked
    }

    fn decode(&mut self, plan: &Plan) -> Duration {
        let mut last: Vec<u32> = (0..plan.rows).map(|row| self.prompt(row, plan.context)).collect();
        let mut started = now();
        for step in 0..WARM_STEPS + plan.tokens {
            if step == WARM_STEPS {
                started = now();
            }
            let tokens: Vec<[u32; 1]> = last.iter().map(|&id| [id]).collect();
            let at = plan.context + step;
            let rows: Vec<(usize, &[u32], usize)> =
                tokens.iter().enumerate().map(|(row, token)| (row, &token[..], at)).collect();
            last = self.step(&rows);
        }
        started.elapsed()
    }
}
