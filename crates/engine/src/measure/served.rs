//! What callers get: requests to a worker, with its scheduler and its sampler.

use std::time::Duration;

use commons_port::engine::{Caller, EngineEvent, EngineRequest, ModelKind, Priority, Sequence};
use commons_record::Micro;
use commons_record::constraint::Constraint;
use commons_record::key::SecretKey;
use commons_record::order::{LogitBias, PromptInput, Sampling};
use futures::executor::block_on;
use futures::future::join_all;

use super::{MeasureError, Plan, Report, Through, What, ids, now, resident, seconds};
use crate::cache::PAGE_LEN;
use crate::forward::LoadOptions;
use crate::model::Model;
use crate::worker::{Worker, WorkerConfig};

/// Tokens before the stopwatch starts.
const WARM_TOKENS: usize = 4;

/// Tokens of the prompt that [`What::Prefix`] adds to the known ones.
const NEW_TOKENS: usize = 16;

/// How often the prompt of [`What::Repeat`] says the same, and how long that is.
const REPEATS: (usize, usize) = (8, 16);

/// A list without an end, of records as people ask for them: strings, numbers, names, lists.
const SCHEMA: &str = r#"{
    "type": "array", "minItems": 4000, "items": {
        "type": "object", "additionalProperties": false,
        "required": ["name", "age", "kind", "tags"],
        "properties": {
            "name": {"type": "string", "minLength": 3, "maxLength": 24},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "kind": {"enum": ["person", "place", "thing"]},
            "tags": {"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 12}}
        }
    }
}"#;

/// A served model.
struct Lab {
    worker: Worker,
    /// Rows of the vocabulary.
    vocabulary: usize,
    /// No token ends an answer before its time.
    endless: Vec<LogitBias>,
}

pub(super) fn run(plan: &Plan) -> Result<Report, MeasureError> {
    let started = now();
    let options =
        LoadOptions { threads: plan.threads, device: plan.device, ..LoadOptions::default() };
    let model = Model::load_with(&plan.path, &options)?;
    if model.facts().kind == ModelKind::Encoder {
        return Err(MeasureError::Encoder);
    }
    let mut report = plan.report(&model);
    report.file_bytes = model.facts().file_size;
    report.weight_bytes = model.transformer().size_bytes() as u64;
    let page = model.transformer().page_bytes(plan.kv_format)?;
    let lab = Lab::new(plan, model, page)?;
    report.kv_bytes = page * lab.worker.stats().pages as u64;
    report.load_s = seconds(started.elapsed());
    report.loaded_bytes = resident().map_or(0, |(now, _)| now);
    match plan.what {
        What::Prefix => lab.prefix(plan, &mut report)?,
        What::Repeat => lab.repeat(plan, &mut report)?,
        What::DecodeJson => lab.decode_json(plan, &mut report)?,
        What::Decode | What::Prefill | What::Load => lab.decode(plan, &mut report)?,
    }
    Ok(report)
}

impl Lab {
    fn new(plan: &Plan, model: Model, page: u64) -> Result<Self, MeasureError> {
        let settings = model.transformer().settings();
        let (vocabulary, context_len) = (settings.token_count, settings.context_len);
        let prompt = match plan.what {
            What::Prefix => plan.tokens + NEW_TOKENS,
            What::Repeat => REPEATS.0 * REPEATS.1 + plan.tokens,
            What::Decode | What::DecodeJson | What::Prefill | What::Load => {
                plan.context + plan.tokens
            }
        };
        let tokens = prompt + WARM_TOKENS + 1;
        if tokens > context_len {
            return Err(MeasureError::TooLong { tokens, context_len });
        }
        // Farther down than any logit of a working model is apart from another.
        let low = Micro::from_millionths(-100_000_000).unwrap_or_default();
        let bias = |&token: &u32| LogitBias { token, bias: low };
        let endless = model.tokenizer().ends().iter().map(bias).collect();
        // Two of each row: what the cache keeps, and what a row holds.
        let pages = (2 * tokens.div_ceil(PAGE_LEN) + 1) * plan.rows.max(1);
        let config = WorkerConfig {
            slots: plan.rows.max(1),
            threads: plan.threads,
            threads_for_owner: 0,
            isa: plan.isa,
            device: plan.device,
            kv_format: plan.kv_format,
            kv_size_max: Some(page * pages as u64),
            context_len_max: tokens,
            caches_prefixes: plan.what == What::Prefix,
            draft_len_max: if plan.guesses && plan.what == What::Repeat {
                WorkerConfig::default().draft_len_max
            } else {
                0
            },
            ..WorkerConfig::default()
        };
        let worker = Worker::spawn(model, config).map_err(crate::local::AddError::from)?;
        Ok(Self { worker, vocabulary, endless })
    }

    fn start(&self, prompt: Vec<u32>, count: usize) -> Result<Box<dyn Sequence>, MeasureError> {
        self.start_held(prompt, count, None)
    }

    fn start_held(
        &self,
        prompt: Vec<u32>,
        count: usize,
        constraint: Option<&Constraint>,
    ) -> Result<Box<dyn Sequence>, MeasureError> {
        let request = EngineRequest {
            model: self.worker.facts().model,
            adapter: None,
            caller: Caller {
                key: SecretKey::from_seed(&[0; 32]).public(),
                priority: Priority::Owner,
                shares_prefixes: false,
            },
            input: PromptInput::Tokens(prompt),
            stop: Vec::new(),
            constraint: constraint.cloned(),
            tools: None,
            sampling: Sampling { logit_bias: self.endless.clone(), ..Sampling::greedy() },
            seed: Some([0; 32]),
            prompt_tokens_max: u32::MAX,
            completion_tokens_max: u32::try_from(count).unwrap_or(u32::MAX),
            top_logprobs: 0,
        };
        let refused = |refusal: commons_port::engine::EngineRefusal| MeasureError::Refused {
            message: refusal.message,
        };
        self.worker.start(request).map_err(refused)
    }

    /// Time until the first token is picked.
    fn first_token(&self, prompt: Vec<u32>) -> Result<Duration, MeasureError> {
        let started = now();
        let mut sequence = self.start(prompt, 1)?;
        block_on(tokens(&mut *sequence, 1))?;
        let elapsed = started.elapsed();
        block_on(drain(&mut *sequence))?;
        Ok(elapsed)
    }

    fn prefix(&self, plan: &Plan, report: &mut Report) -> Result<(), MeasureError> {
        let known = ids(0, plan.tokens, self.vocabulary);
        let new = |round: usize| {
            let mut prompt = known.clone();
            // Others each time: what an earlier round left behind is no help.
            prompt.extend(ids(1 + round, NEW_TOKENS, self.vocabulary));
            prompt
        };
        let cold = self.first_token(new(0))?;
        report.cold_s = Some(seconds(cold));
        for round in 0..plan.rounds {
            report.seconds.push(seconds(self.first_token(new(1 + round))?));
        }
        report.tokens_timed = NEW_TOKENS;
        Ok(())
    }

    fn repeat(&self, plan: &Plan, report: &mut Report) -> Result<(), MeasureError> {
        let (times, len) = REPEATS;
        let prompt = ids(0, len, self.vocabulary).repeat(times);
        let (mut drafted, mut accepted) = (0, 0);
        for _ in 0..plan.rounds {
            let mut sequence = self.start(prompt.clone(), plan.tokens + 1)?;
            block_on(tokens(&mut *sequence, 1))?;
            let (before, started) = (self.worker.stats(), now());
            block_on(tokens(&mut *sequence, plan.tokens))?;
            report.seconds.push(seconds(started.elapsed()));
            block_on(drain(&mut *sequence))?;
            let after = self.worker.stats();
            drafted += after.guessed_total - before.guessed_total;
            accepted += after.guessed_right_total - before.guessed_right_total;
        }
        report.tokens_timed = plan.tokens;
        (report.drafted, report.accepted) = (Some(drafted), Some(accepted));
        Ok(())
    }

    fn decode(&self, plan: &Plan, report: &mut Report) -> Result<(), MeasureError> {
        for _ in 0..plan.rounds {
            let (elapsed, computed) = self.round(plan, None)?;
            report.seconds.push(seconds(elapsed));
            report.computed_s.push(seconds(computed));
        }
        debug_assert_eq!(plan.through, Through::Scheduler, "the model alone is measured elsewhere");
        report.tokens_timed = plan.tokens * plan.rows.max(1);
        Ok(())
    }

    /// In turns, so that whatever else the machine does disturbs both alike.
    fn decode_json(&self, plan: &Plan, report: &mut Report) -> Result<(), MeasureError> {
        let schema = Constraint::JsonSchema(SCHEMA.to_owned());
        for _ in 0..plan.rounds {
            report.free_s.push(seconds(self.round(plan, None)?.0));
            let (elapsed, computed) = self.round(plan, Some(&schema))?;
            report.seconds.push(seconds(elapsed));
            report.computed_s.push(seconds(computed));
        }
        report.tokens_timed = plan.tokens * plan.rows.max(1);
        Ok(())
    }

    /// Some steps of all rows: how long they took, and how long of that the model was computed.
    fn round(
        &self,
        plan: &Plan,
        constraint: Option<&Constraint>,
    ) -> Result<(Duration, Duration), MeasureError> {
        let start = |row| {
            let prompt = ids(row, plan.context, self.vocabulary);
            self.start_held(prompt, WARM_TOKENS + plan.tokens, constraint)
        };
        let rows = plan.rows.max(1);
        let mut sequences: Vec<_> = (0..rows).map(start).collect::<Result<_, _>>()?;
        let all = |sequences: &mut Vec<Box<dyn Sequence>>, count| {
            let each = sequences.iter_mut().map(|it| tokens(&mut **it, count));
            block_on(join_all(each)).into_iter().collect::<Result<Vec<()>, _>>()
        };
        all(&mut sequences, WARM_TOKENS)?;
        let (started, computed) = (now(), self.worker.computed());
        all(&mut sequences, plan.tokens)?;
        let times = (started.elapsed(), self.worker.computed().saturating_sub(computed));
        for sequence in &mut sequences {
            block_on(drain(&mut **sequence))?;
        }
        Ok(times)
    }
}

/// Waits for so many tokens.
async fn tokens(sequence: &mut dyn Sequence, count: usize) -> Result<(), MeasureError> {
    let mut left = count;
    while left > 0 {
        match sequence.next().await {
            Some(EngineEvent::Token(_)) => left -= 1,
            Some(EngineEvent::Prefilled { .. }) => {}
            Some(EngineEvent::Failed(refusal)) => {
                return Err(MeasureError::Refused { message: refusal.message });
            }
            Some(EngineEvent::Finished { .. }) | None => {
                let message = format!("an answer ended {left} tokens before its time");
                return Err(MeasureError::Refused { message });
            }
        }
    }
    Ok(())
}

async fn drain(sequence: &mut dyn Sequence) -> Result<(), MeasureError> {
    while let Some(event) = sequence.next().await {
        if let EngineEvent::Failed(refusal) = event {
            return Err(MeasureError::Refused { message: refusal.message });
        }
    }
    Ok(())
}
