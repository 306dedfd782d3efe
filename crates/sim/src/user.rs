//! People who ask nodes, and what they hear.
//!
//! A user is a task of the world: it outlives the node that it asks, and hears it go. What users
//! hear is kept in the world, so that invariants can compare it with the records.

use std::sync::{Arc, Mutex};

use commons_node::api::{AnswerEnd, AnswerEvent, AnswerHead, Ask, NodeApi, Refusal};
use commons_port::time::TaskHandle;
use commons_record::Millis;
use commons_record::order::{PrivacyClass, Prompt, PromptInput, Sampling};
use futures::StreamExt as _;

use crate::clock::Micros;
use crate::executor::Executor;
use crate::life::NodeId;
use crate::lock;
use crate::world::World;

/// What a user heard of one request.
#[derive(Debug, Clone)]
pub struct Heard {
    /// The node that was asked.
    pub node: NodeId,
    /// What was asked.
    pub ask: Ask,
    /// Who answers, once someone has accepted.
    pub head: Option<AnswerHead>,
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Their text.
    pub text: String,
    /// When it was asked.
    pub asked_at: Millis,
    /// When something was heard last.
    pub last_at: Millis,
    /// How it ended; none while it goes on.
    pub ending: Option<Ending>,
}

/// How a request ended, for the one who asked.
#[derive(Debug, Clone)]
pub enum Ending {
    /// With a complete answer.
    Done(Box<AnswerEnd>),
    /// Nobody accepted it.
    Refused(Refusal),
    /// The answer broke off, and the user was told.
    Failed(Refusal),
    /// The node that was asked went away without a word.
    Lost,
    /// The user hung up.
    HungUp,
}

impl Heard {
    /// The end of a complete answer.
    pub fn done(&self) -> Option<&AnswerEnd> {
        match &self.ending {
            Some(Ending::Done(end)) => Some(end),
            _ => None,
        }
    }

    /// Why the user did not get an answer, or not all of it.
    pub fn refusal(&self) -> Option<&Refusal> {
        match &self.ending {
            Some(Ending::Refused(refusal) | Ending::Failed(refusal)) => Some(refusal),
            _ => None,
        }
    }
}

/// What all users heard, in the order in which they asked.
#[derive(Debug)]
pub struct Notebook {
    executor: Executor,
    pages: Mutex<Vec<Heard>>,
}

impl Notebook {
    pub(crate) fn new(executor: Executor) -> Self {
        Self { executor, pages: Mutex::default() }
    }

    /// Everything that was written down.
    pub fn all(&self) -> Vec<Heard> {
        lock(&self.pages).clone()
    }

    fn open(&self, node: NodeId, ask: Ask) -> usize {
        let now = self.executor.now().as_millis();
        let mut pages = lock(&self.pages);
        pages.push(Heard {
            node,
            ask,
            head: None,
            tokens: Vec::new(),
            text: String::new(),
            asked_at: now,
            last_at: now,
            ending: None,
        });
        pages.len() - 1
    }

    fn change(&self, page: usize, change: impl FnOnce(&mut Heard)) {
        let heard = &mut lock(&self.pages)[page];
        heard.last_at = self.executor.now().as_millis();
        change(heard);
    }

    /// Writes an event down; an ending if it is the last.
    fn hear(&self, page: usize, event: AnswerEvent) -> Option<Ending> {
        let mut ending = None;
        self.change(page, |heard| match event {
            AnswerEvent::Prefilled { .. } | AnswerEvent::Heartbeat => {}
            AnswerEvent::Token(token) => {
                heard.tokens.push(token.id);
                heard.text.push_str(&token.text);
            }
            AnswerEvent::Done(end) => {
                heard.text.push_str(&end.text);
                ending = Some(Ending::Done(end));
            }
            AnswerEvent::Failed(refusal) => ending = Some(Ending::Failed(refusal)),
        });
        ending
    }
}

/// Someone who waits for an answer. Dropping it hangs up.
#[derive(Debug)]
pub struct User {
    notebook: Arc<Notebook>,
    page: usize,
    task: Option<TaskHandle>,
}

impl User {
    /// What this user heard so far.
    pub fn heard(&self) -> Heard {
        lock(&self.notebook.pages)[self.page].clone()
    }

    /// Waits for the end and tells what was heard.
    pub async fn ended(&self) -> Heard {
        while self.heard().ending.is_none() {
            self.notebook.executor.sleep(Micros::from_millis(5)).await;
        }
        self.heard()
    }

    /// Waits until this many tokens were heard, or the end.
    pub async fn tokens(&self, count: usize) {
        while self.heard().ending.is_none() && self.heard().tokens.len() < count {
            self.notebook.executor.sleep(Micros::from_millis(5)).await;
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        drop(self.task.take());
        if self.heard().ending.is_none() {
            self.notebook.change(self.page, |heard| heard.ending = Some(Ending::HungUp));
        }
    }
}

/// A request for at most that many tokens of a model's answer to a fixed text.
pub fn question(model: &str, tokens: u32) -> Ask {
    let text = "tell me about the river and the people who live there".to_owned();
    Ask {
        model: model.to_owned(),
        prompt: Prompt {
            input: PromptInput::Text(text),
            stop: Vec::new(),
            constraint: None,
            tools: None,
        },
        sampling: Sampling::greedy(),
        seed: None,
        completion_tokens_max: Some(tokens),
        top_logprobs: 0,
        class: PrivacyClass::Mesh,
    }
}

/// Asks `node` through its contract, and writes down what comes.
pub fn ask(world: &World, node: NodeId, api: Arc<dyn NodeApi>, ask: Ask) -> User {
    let (notebook, log) = (Arc::clone(world.heard()), Arc::clone(world.log()));
    let page = notebook.open(node, ask.clone());
    log.note(Some(node), "user.asked", format_args!("u{page} {}", ask.model));
    let book = Arc::clone(&notebook);
    let listen = async move {
        let ending = listen(&book, page, &*api, ask).await;
        log.note(Some(node), "user.ended", format_args!("u{page} {}", describe(&ending)));
        book.change(page, |heard| heard.ending = Some(ending));
    };
    let task = world.executor().spawn(None, "user", Box::pin(listen));
    User { notebook, page, task: Some(task) }
}

async fn listen(book: &Notebook, page: usize, api: &dyn NodeApi, ask: Ask) -> Ending {
    let mut answer = match api.ask(ask).await {
        Ok(answer) => answer,
        Err(refusal) => return Ending::Refused(refusal),
    };
    book.change(page, |heard| heard.head = Some(answer.head.clone()));
    while let Some(event) = answer.events.next().await {
        if let Some(ending) = book.hear(page, event) {
            return ending;
        }
    }
    Ending::Lost
}

fn describe(ending: &Ending) -> String {
    match ending {
        Ending::Done(end) => format!("done: {:?}, {:?}", end.reason, end.usage),
        Ending::Refused(refusal) => format!("refused: {}", refusal.code.as_str()),
        Ending::Failed(refusal) => format!("failed: {} ({refusal})", refusal.code.as_str()),
        Ending::Lost => "lost".to_owned(),
        Ending::HungUp => "hung up".to_owned(),
    }
}
