//! Shows that the class of the processor repeats bit for bit: the hash over the logits of one
//! sequence, computed in one of many ways.
//!
//! ```text
//! Way { instruction set, threads, rows, pass } -> trace: the hash of the logits so far, at each token
//! ```
//!
//! The sequence is known in advance, so that prefill and decode read the same tokens. It never comes
//! alone where there are rows: the others begin, end and begin again, in steps of one token for
//! decode and of a few for prefill, so that hardly two batches have one shape. It goes through a
//! prompt in pieces of all sizes from 1 to 256.
//!
//! What must hold is in `docs/EXACT.md`. Not here: how fast that is (`measure.rs`), tables of it
//! (`cargo xtask conform exact`).

use std::fmt;
use std::str::FromStr;

use commons_kernels::Isa;
use commons_kernels::kv::KvError;
use commons_record::Hash;
use commons_record::hash::ContentHasher;

use crate::cache::{Cache, KvFormat, PAGE_LEN};
use crate::forward::{ForwardError, Segment, Transformer};
use crate::measure::ids;
use crate::team::Team;

/// The sizes of the pieces of a prompt, in turn.
const PIECES: [usize; 8] = [1, 64, 3, 128, 17, 256, 5, 31];

/// How the sequence goes through the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// In pieces of many tokens.
    Prefill,
    /// Token by token.
    Decode,
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        })
    }
}

/// A text names no pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no pass; write prefill or decode")]
pub struct UnknownPass {
    text: String,
}

impl FromStr for Pass {
    type Err = UnknownPass;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "prefill" => Ok(Self::Prefill),
            "decode" => Ok(Self::Decode),
            _ => Err(UnknownPass { text: text.to_owned() }),
        }
    }
}

/// One way to compute a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    /// With what.
    pub isa: Isa,
    /// On how many threads.
    pub threads: usize,
    /// Among how many sequences, itself included.
    pub rows: usize,
    /// In which steps.
    pub pass: Pass,
    /// How keys and values are stored. Unlike the rest it is part of the result.
    pub kv_format: KvFormat,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { isa, threads, rows, pass, .. } = self;
        write!(f, "{isa}, {threads} threads, {rows} rows, {pass}")
    }
}

/// The hashes of the logits of a sequence up to each of its tokens.
///
/// Number `i` is the BLAKE3 hash over the bits of all logits behind the tokens `0..=i`: 32 bits
/// each, little-endian, in the order of the sequence and of the vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace(Vec<Hash>);

impl Trace {
    /// Takes hashes that were written down.
    pub fn new(hashes: Vec<Hash>) -> Self {
        Self(hashes)
    }

    /// The hash up to each token.
    pub fn hashes(&self) -> &[Hash] {
        &self.0
    }

    /// The first token whose logits differ, where both have some; none if they are the same.
    pub fn first_difference(&self, other: &Self) -> Option<usize> {
        self.0.iter().zip(&other.0).position(|(one, other)| one != other)
    }
}

/// Why a sequence was not computed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum ExactError {
    #[error("there is no room for keys and values")]
    Kv(#[from] KvError),

    #[error("failed to start threads")]
    Threads(#[source] std::io::Error),

    #[error("a batch was not computed")]
    Forward(#[from] ForwardError),

    #[error("{tokens} tokens were asked for and the model's context has {context_len}")]
    TooLong { tokens: usize, context_len: usize },

    #[error("a batch holds one sequence at least")]
    NoRows,
}

impl Way {
    /// Computes so many tokens of the sequence.
    pub fn run(&self, model: &Transformer, tokens: usize) -> Result<Trace, ExactError> {
        let context_len = model.settings().context_len;
        if tokens > context_len {
            return Err(ExactError::TooLong { tokens, context_len });
        }
        if self.rows == 0 {
            return Err(ExactError::NoRows);
        }
        let vocabulary = model.settings().token_count;
        // In the middle, so that there are rows before it and behind it.
        let hashed = self.rows / 2;
        let mut first_page: u32 = 0;
        let row = |index: usize| {
            let len = if index == hashed { tokens } else { other_len(index).min(context_len) };
            let pages = first_page..first_page + page_count(len);
            first_page = pages.end;
            // The hashed sequence is the same wherever it stands.
            let seed = if index == hashed { 0 } else { index + 1 };
            Row { tokens: ids(seed, len, vocabulary), at: 0, pages }
        };
        let rows: Vec<Row> = (0..self.rows).map(row).collect();
        let cache = model.cache(self.kv_format, first_page as usize)?;
        let team = Team::new(self.threads, self.isa).map_err(ExactError::Threads)?;
        Batches { way: *self, model, team, cache, rows, hashed }.run()
    }
}

/// How long another sequence is until it begins again: primes, so that they do not end together.
fn other_len(index: usize) -> usize {
    const LENS: [usize; 8] = [5, 97, 11, 67, 41, 23, 131, 53];
    LENS[index % LENS.len()]
}

fn page_count(len: usize) -> u32 {
    u32::try_from(len.div_ceil(PAGE_LEN)).unwrap_or(u32::MAX)
}

/// A sequence of the batch.
struct Row {
    tokens: Vec<u32>,
    /// How many are computed.
    at: usize,
    pages: std::ops::Range<u32>,
}

/// One way under way.
struct Batches<'a> {
    way: Way,
    model: &'a Transformer,
    team: Team,
    cache: Cache,
    rows: Vec<Row>,
    /// Which row is hashed.
    hashed: usize,
}

impl Batches<'_> {
    fn run(mut self) -> Result<Trace, ExactError> {
        let mut hasher = ContentHasher::default();
        let mut trace = Vec::with_capacity(self.rows[self.hashed].tokens.len());
        for step in 0.. {
            let counts: Vec<usize> =
                (0..self.rows.len()).map(|index| self.count(step, index)).collect();
            if counts[self.hashed] == 0 {
                break;
            }
            let logits = self.step(&counts)?;
            let vocabulary = self.model.settings().token_count;
            let before: usize = counts[..self.hashed].iter().map(|it| wanted(*it, false)).sum();
            for row in logits.chunks(vocabulary).skip(before).take(counts[self.hashed]) {
                let bits: Vec<u8> = row.iter().flat_map(|it| it.to_bits().to_le_bytes()).collect();
                hasher.update(&bits);
                trace.push(hasher.finish());
            }
        }
        Ok(Trace(trace))
    }

    /// How many tokens of a row the next batch has.
    fn count(&mut self, step: usize, index: usize) -> usize {
        let row = &mut self.rows[index];
        let is_hashed = index == self.hashed;
        if !is_hashed && row.at == row.tokens.len() {
            row.at = 0;
        }
        let most = match self.way.pass {
            Pass::Decode => 1,
            Pass::Prefill if is_hashed => PIECES[step % PIECES.len()],
            Pass::Prefill => 1 + (step + index) % 5,
        };
        most.min(row.tokens.len() - row.at)
    }

    /// The logits of the batch: of all tokens of the row that is hashed, and of the last of others.
    fn step(&mut self, counts: &[usize]) -> Result<Vec<f32>, ExactError> {
        let pages: Vec<Vec<u32>> = self.rows.iter().map(|it| it.pages.clone().collect()).collect();
        let segments = self.rows.iter().zip(counts).zip(&pages).enumerate();
        let segments = segments.map(|(index, ((row, &count), pages))| Segment {
            tokens: &row.tokens[row.at..row.at + count],
            start: row.at,
            pages,
            positions_max: 0,
            wanted: wanted(count, index == self.hashed),
            adapter: None,
        });
        let segments: Vec<_> = segments.collect();
        let rows = self.model.forward(&mut self.team, &mut self.cache, &segments)?;
        let normed = self.model.norm(self.team.isa(), &rows);
        let logits = self.model.logits(&mut self.team, &normed)?;
        for (row, count) in self.rows.iter_mut().zip(counts) {
            row.at += count;
        }
        Ok(logits)
    }
}

fn wanted(count: usize, is_hashed: bool) -> usize {
    if is_hashed { count } else { count.min(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(numbers: &[u8]) -> Trace {
        Trace::new(numbers.iter().map(|it| Hash::of_content(&[*it])).collect())
    }

    #[test]
    fn the_first_token_that_differs_is_found_and_a_beginning_is_the_same() {
        let check = |one: &[u8], other: &[u8], want| {
            assert_eq!(trace(one).first_difference(&trace(other)), want, "{one:?} {other:?}");
        };
        check(&[1, 2, 3], &[1, 2, 3], None);
        check(&[1, 2, 3], &[1, 2], None);
        check(&[1, 2, 3], &[1, 4, 3], Some(1));
        check(&[], &[1], None);
    }

    #[test]
    fn a_pass_is_read_as_it_is_written() {
        for pass in [Pass::Prefill, Pass::Decode] {
            assert_eq!(pass.to_string().parse(), Ok(pass));
        }
        assert!("both".parse::<Pass>().is_err());
    }
}
