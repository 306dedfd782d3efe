//! What a guesser knows of one sequence: its tokens, and how far they are computed.

/// One sequence. Its tokens are those that were said, and behind them guesses that were fed.
#[derive(Debug, Default)]
pub(super) struct Mind {
    tokens: Vec<u32>,
    /// How many of the tokens were said.
    said: usize,
    /// Positions whose keys and values are in the pages.
    computed: usize,
    /// The pages of its positions.
    pub(super) pages: Vec<u32>,
    /// The round in which it was last asked for.
    pub(super) asked_at: u64,
    /// Whether it can never be guessed for.
    pub(super) is_lost: bool,
}

impl Mind {
    /// Takes in all that was said. Guesses that were right stay computed; what stands behind the
    /// first that was wrong does not. The last token is always unread: a guess is drawn behind it.
    pub(super) fn hear(&mut self, tokens: &[u32]) {
        let said = self.said.min(tokens.len());
        let pairs = self.tokens[said..].iter().zip(&tokens[said..]);
        let same = said + pairs.take_while(|(guess, token)| guess == token).count();
        self.tokens.truncate(same);
        self.tokens.extend_from_slice(&tokens[same..]);
        self.computed = self.computed.min(same).min(tokens.len().saturating_sub(1));
        self.said = tokens.len();
    }

    /// How many tokens there are.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The position of the first token that is not computed.
    pub(super) fn computed(&self) -> usize {
        self.computed
    }

    /// The tokens that are not computed.
    pub(super) fn unread(&self) -> &[u32] {
        &self.tokens[self.computed..]
    }

    /// So many tokens more are computed.
    pub(super) fn read(&mut self, count: usize) {
        self.computed = (self.computed + count).min(self.tokens.len());
    }

    /// A guess that is fed.
    pub(super) fn push(&mut self, guess: u32) {
        self.tokens.push(guess);
    }

    /// Gives everything up for good. Returns its pages.
    pub(super) fn lose(&mut self) -> Vec<u32> {
        let (pages, asked_at) = (std::mem::take(&mut self.pages), self.asked_at);
        *self = Self { asked_at, is_lost: true, ..Self::default() };
        pages
    }
}
