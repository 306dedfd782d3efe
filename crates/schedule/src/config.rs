//! The limits of a scheduler: what each bounds, and which go together.

/// Limits of one [`crate::Scheduler`]. Checked once, by [`crate::Scheduler::new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Positions in a page. 16 to 64 are usual: small pages share more, large ones copy faster.
    pub page_len: u32,

    /// Pages that the engine's key/value store holds.
    pub page_count: u32,

    /// Sequences that hold pages at once, and so rows in a batch.
    pub rows_max: u32,

    /// Tokens computed in a step, prompts and answers and drafts together. At least `rows_max`, so
    /// that every row that answers is in every step.
    pub batch_tokens_max: u32,

    /// Tokens of one prompt computed in a step.
    pub chunk_len_max: u32,

    /// Sequences that wait, of all callers. Parked ones count, and are never refused for it.
    pub queue_len_max: u32,

    /// Sequences that wait, of one caller.
    pub queue_len_per_caller_max: u32,

    /// Whether computed prefixes are kept for later sequences.
    pub caching: Caching,

    /// Drafted tokens in a row; 0 turns drafting off.
    pub draft_len_max: u32,

    /// Drafted tokens in a batch. Past the point where a batch is bound by arithmetic and not by
    /// reading weights, a draft costs as much as a token.
    pub draft_tokens_max: u32,

    /// Steps after which a priority that was passed over comes first, once. See
    /// [`crate::scheduler`], rule 5.
    pub age_steps_max: u32,
}

/// Whether computed prefixes are kept, and from when on a part of a page is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Nothing is kept.
    Off,

    /// Whole pages are kept.
    On {
        /// A page that is equal in its first positions only is copied when there are at least this
        /// many. `page_len` and more: never.
        copy_len_min: u32,
    },
}

/// Why limits make no scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum ConfigError {
    #[error("`{name}` is 0; it must be at least 1")]
    Zero { name: &'static str },

    #[error("`{name}` is {got}; it must be at most {max}")]
    TooLarge { name: &'static str, got: u32, max: u32 },

    #[error("`batch_tokens_max` is {tokens}, less than the {rows} of `rows_max`: raise it")]
    BatchTooSmall { tokens: u32, rows: u32 },
}

/// Positions are `u32`: a pool of more of them could not be addressed.
const POSITIONS_MAX: u32 = 1 << 31;

impl Config {
    /// Refuses limits with which a sequence could wait for ever, or that cannot be addressed.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the limit.
    pub fn check(&self) -> Result<(), ConfigError> {
        let limits = [
            ("page_len", self.page_len, 1 << 16),
            ("page_count", self.page_count, 1 << 24),
            ("rows_max", self.rows_max, 1 << 16),
            ("batch_tokens_max", self.batch_tokens_max, 1 << 24),
            ("chunk_len_max", self.chunk_len_max, 1 << 24),
            ("queue_len_max", self.queue_len_max, 1 << 20),
            ("queue_len_per_caller_max", self.queue_len_per_caller_max, 1 << 20),
            ("age_steps_max", self.age_steps_max, u32::MAX),
        ];
        for (name, got, max) in limits {
            if got == 0 {
                return Err(ConfigError::Zero { name });
            }
            if got > max {
                return Err(ConfigError::TooLarge { name, got, max });
            }
        }
        let max = POSITIONS_MAX / self.page_len;
        if self.page_count > max {
            return Err(ConfigError::TooLarge { name: "page_count", got: self.page_count, max });
        }
        if self.batch_tokens_max < self.rows_max {
            let (tokens, rows) = (self.batch_tokens_max, self.rows_max);
            return Err(ConfigError::BatchTooSmall { tokens, rows });
        }
        Ok(())
    }

    /// Pages that hold `len` positions.
    pub fn pages_for(&self, len: usize) -> usize {
        len.div_ceil(self.page_len as usize)
    }
}
