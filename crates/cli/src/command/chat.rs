//! `commons chat`: talk to a model through the running node.
//!
//! The answer's text goes to standard output, who gave it to standard error.

use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, bail};
use commons_gateway::control::Client;
use commons_node::api::{AnswerProof, ModelView};
use commons_record::PeerId;
use commons_record::order::PrivacyClass;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};

use crate::answer::{Event, Finish, read};
use crate::control::{Explain as _, client};
use crate::output::{Output, short};
use crate::settings::Settings;

/// Talk to a model through the running node
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Ask this once and end, instead of holding a conversation
    #[arg(long, short, value_name = "TEXT")]
    message: Option<String>,

    /// The model to ask [default: the first that this node holds, else the first in reach]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,

    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,

    /// The longest answer, in tokens
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,

    /// How freely tokens are drawn, from 0 (always the likeliest) to 2
    #[arg(long, value_name = "NUMBER")]
    temperature: Option<serde_json::Number>,

    /// A seed that makes the same question give the same answer
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    seed: Option<i64>,

    /// How far the question may travel: local-only, lan, mesh or any
    #[arg(long, value_name = "CLASS", default_value = "mesh", value_parser = privacy)]
    privacy: PrivacyClass,
}

fn privacy(text: &str) -> Result<PrivacyClass, String> {
    let wrong = || "choose one of local-only, lan, mesh and any".to_owned();
    PrivacyClass::from_name(text).ok_or_else(wrong)
}

/// One message, as the API takes it.
#[derive(Debug, Clone, Serialize)]
struct Message {
    role: &'static str,
    content: String,
}

/// A question, as the API takes it.
#[derive(Debug, Serialize)]
struct Body<'a> {
    model: &'a str,
    messages: &'a [Message],
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<&'a serde_json::Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<i64>,
}

/// An answer for programs.
#[derive(Debug, Serialize)]
struct Reply<'a> {
    text: &'a str,
    finish_reason: &'a str,
    commons: &'a AnswerProof,
}

/// A conversation with one model.
struct Chat<'a> {
    client: Client,
    settings: &'a Settings,
    args: Args,
    model: String,
    own_peer: PeerId,
    messages: Vec<Message>,
}

pub(crate) async fn run(
    mut args: Args,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<()> {
    let client = client(settings)?;
    let own_peer = client.status().await.explain("failed to ask the node", settings)?.peer;
    let models = client.models().await.explain("failed to list models", settings)?;
    let model = choose(args.model.take(), &models)?;
    let system = args.system.take().map(|content| Message { role: "system", content });
    let message = args.message.take();
    let messages = system.into_iter().collect();
    let mut chat = Chat { client, settings, args, model, own_peer, messages };
    match message {
        Some(message) => chat.ask(message, out).await,
        None => chat.converse(out).await,
    }
}

fn choose(wanted: Option<String>, models: &[ModelView]) -> anyhow::Result<String> {
    if let Some(model) = wanted {
        return Ok(model); // The node knows best whether it can be asked for, and says why not.
    }
    let first = models.iter().find(|model| model.is_local).or_else(|| models.first());
    let first = first.context(
        "no model is in reach: start the node with `--model FILE`, or join a mesh with \
         `commons join TICKET`",
    )?;
    Ok(first.name.clone())
}

impl Chat<'_> {
    /// Asks line by line until the input ends.
    async fn converse(&mut self, out: &mut Output<'_>) -> anyhow::Result<()> {
        let is_person = std::io::stdin().is_terminal();
        if is_person {
            eprintln!("talking to {}; an empty line or Ctrl-D ends", self.model);
        }
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Some(line) = next_line(&mut lines, is_person).await? {
            if let Err(error) = self.ask(line, out).await {
                if !is_person || crate::output::is_broken_pipe(&error) {
                    return Err(error);
                }
                eprintln!("\nerror: {error:#}");
                self.messages.pop(); // The question that has no answer.
            }
        }
        Ok(())
    }

    /// Asks one question and tells the answer as it comes.
    async fn ask(&mut self, question: String, out: &mut Output<'_>) -> anyhow::Result<()> {
        self.messages.push(Message { role: "user", content: question });
        let body = Body {
            model: &self.model,
            messages: &self.messages,
            stream: true,
            max_completion_tokens: self.args.max_tokens,
            temperature: self.args.temperature.as_ref(),
            seed: self.args.seed,
        };
        let stream = self.client.stream("/v1/chat/completions", self.args.privacy, &body).await;
        let mut stream = stream.explain("failed to ask", self.settings)?;
        let mut text = String::new();
        let finish = loop {
            let event = stream.next().await.explain("the answer broke off", self.settings)?;
            match read(&event.context("the answer ended before it was complete")?)? {
                Event::Text(piece) => {
                    text.push_str(&piece);
                    if !out.is_json() {
                        out.piece(&piece)?;
                    }
                }
                Event::Finished(finish) => break finish,
                Event::Done => bail!("the answer ended without saying who gave it"),
                Event::Other => {}
            }
        };
        self.tell_end(&text, &finish, out)?;
        self.messages.push(Message { role: "assistant", content: text });
        Ok(())
    }

    fn tell_end(&self, text: &str, finish: &Finish, out: &mut Output<'_>) -> anyhow::Result<()> {
        let proof = &finish.proof;
        if out.is_json() {
            let reply = Reply { text, finish_reason: &finish.reason, commons: proof };
            return Ok(out.json(&reply)?);
        }
        out.line("")?;
        let who = if proof.peer == self.own_peer {
            "this node".to_owned()
        } else {
            format!("peer {}", short(proof.peer))
        };
        let receipt = match &proof.receipt {
            Some(receipt) => format!("receipt {receipt}"),
            None => "no receipt yet".to_owned(),
        };
        let (model, quantisation) = (&self.model, &proof.quantisation);
        eprintln!("[{who} answered with {model} {quantisation}; {receipt}]");
        Ok(())
    }
}

/// The next question; none at the end, or where a person has nothing more to ask.
async fn next_line(
    lines: &mut Lines<BufReader<Stdin>>,
    is_person: bool,
) -> anyhow::Result<Option<String>> {
    loop {
        if is_person {
            eprint!("> ");
            std::io::stderr().flush()?;
        }
        match lines.next_line().await.context("failed to read the question")? {
            None => return Ok(None),
            Some(line) if !line.trim().is_empty() => return Ok(Some(line)),
            Some(_) if is_person => return Ok(None),
            Some(_) => {}
        }
    }
}
