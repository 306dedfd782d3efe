//! One answer under a grammar: what may come next, computed while the model computes.
//!
//! ```text
//! Known { matcher, mask } --push(token)--> Working (on the mask thread) --allowed()--> Known
//!                                                                     \-> Lost(why)
//! ```
//!
//! A token is pushed as soon as it is drawn, and its mask is asked for when the next logits are
//! there: a whole forward pass later. The mask thread is not one of the threads that compute.
//!
//! Not here: compiling (`grammar.rs`).

use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use commons_verify::sampling::Allowed;
use llguidance::Matcher;
use llguidance::toktrie::SimpleVob;

use super::{GrammarError, STACK_SIZE, guarded};

/// Masks that wait to be computed. A sequence that is computed has one at most, and a batch has
/// fewer rows; beyond that a push waits until one is taken.
const JOBS_MAX: usize = 256;

/// Where an answer stands in its grammar.
pub(crate) struct Guide {
    state: State,
    /// Where masks are computed; none computes them at once.
    helper: Option<SyncSender<Job>>,
}

enum State {
    Known(Box<Known>),
    Working(Receiver<Outcome>),
    Lost(GrammarError),
}

/// A place in the grammar, and what may come next there.
struct Known {
    matcher: Matcher,
    mask: SimpleVob,
}

type Outcome = Result<Box<Known>, GrammarError>;

/// A token to advance by.
struct Job {
    known: Box<Known>,
    token: u32,
    reply: SyncSender<Outcome>,
}

impl fmt::Debug for Guide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guide").finish_non_exhaustive()
    }
}

impl Guide {
    pub(super) fn new(matcher: Matcher, mask: SimpleVob) -> Self {
        Self { state: State::Known(Box::new(Known { matcher, mask })), helper: None }
    }

    /// The same, with its masks computed on a thread of their own.
    pub(crate) fn beside(mut self, thread: &MaskThread) -> Self {
        self.helper.clone_from(&thread.sender);
        self
    }

    /// What may come next. Waits for the mask thread where it is not done.
    pub(crate) fn allowed(&mut self) -> Result<Allowed<'_>, GrammarError> {
        if let State::Working(receiver) = &self.state {
            self.state = match receiver.recv() {
                Ok(Ok(known)) => State::Known(known),
                Ok(Err(error)) => State::Lost(error),
                Err(_) => State::Lost(lost("the thread that computes masks is gone")),
            };
        }
        match &self.state {
            State::Known(known) => Ok(Allowed::new(known.mask.as_slice())),
            State::Lost(error) => Err(error.clone()),
            State::Working(_) => Err(lost("a mask is still being computed")),
        }
    }

    /// Goes on behind a token that was allowed. A token that was not leads nowhere.
    pub(crate) fn push(&mut self, token: u32) {
        let here = std::mem::replace(&mut self.state, State::Lost(lost("nothing follows")));
        let State::Known(known) = here else {
            self.state = here;
            return;
        };
        let (reply, outcome) = sync_channel(1);
        let job = Job { known, token, reply };
        self.state = State::Working(outcome);
        match &self.helper {
            // A thread that is gone is noticed when the mask is asked for.
            Some(helper) => drop(helper.send(job)),
            None => job.run(),
        }
    }
}

fn lost(cause: &str) -> GrammarError {
    GrammarError::TooComplex { cause: cause.to_owned() }
}

impl Job {
    fn run(self) {
        let Self { mut known, token, reply } = self;
        let advanced = guarded(|| {
            known.matcher.consume_token(token)?;
            known.matcher.compute_mask_or_eos()
        });
        let outcome = match advanced {
            Ok(mask) => {
                known.mask = mask;
                Ok(known)
            }
            Err(cause) => Err(GrammarError::TooComplex { cause }),
        };
        // Nobody waits for the mask of an answer that is over.
        let _ = reply.send(outcome);
    }
}

/// The thread that computes the masks of a model's answers. It sleeps while there are none.
#[derive(Debug)]
pub(crate) struct MaskThread {
    sender: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl MaskThread {
    /// Starts it.
    pub(crate) fn spawn(name: &str) -> std::io::Result<Self> {
        let (sender, jobs) = sync_channel::<Job>(JOBS_MAX);
        let thread = std::thread::Builder::new()
            .name(format!("masks {name}"))
            .stack_size(STACK_SIZE)
            .spawn(move || jobs.into_iter().for_each(Job::run))?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
    }
}

impl Drop for MaskThread {
    /// The answers are gone by now, and with the last sender the thread ends.
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // Jobs catch their panics.
            let _ = thread.join();
        }
    }
}
