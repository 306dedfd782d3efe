//! The `commons` binary: parse, then call one function.
//!
//! ```text
//! args (what was typed) -> command::* -> settings (what it means) -> one function of a room
//! ```
//!
//! The modules in reading order:
//!
//! * [`args`]: the command line; [`settings`]: folders and addresses, resolved once;
//! * [`command`]: one file for each command;
//! * [`up`], [`demo`], [`doctor`], [`mod@bench`]: what the larger commands are made of;
//! * [`engine`], [`model_path`]: how models are computed, and where they are;
//! * [`runtime`], [`offline`], [`machine`]: what a node is built on, and what it runs on;
//! * [`control`], [`http`], [`answer`], [`lock`]: speaking to a running node;
//! * [`output`]: how results are told to people and to programs.
//!
//! Data goes to standard output, everything else to standard error.
//!
//! Not here: any decision about who serves, what is owed or what is believed.

#![forbid(unsafe_code)]

mod answer;
mod args;
mod bench;
mod command;
mod control;
mod demo;
mod doctor;
mod engine;
mod http;
mod lock;
mod machine;
mod model_path;
mod offline;
mod output;
mod runtime;
mod settings;
mod transfer;
mod up;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Args;
use crate::output::{Format, Output};

fn main() -> ExitCode {
    let args = Args::parse();
    let format = args.format();
    let mut stdout = io::stdout().lock();
    let result = command::run(args, &mut Output::new(format, &mut stdout));
    let result = result.and_then(|code| Ok(stdout.flush().map(|()| code)?));
    match result {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::report(format, &error, &mut io::stderr().lock());
            ExitCode::FAILURE
        }
    }
}

impl Args {
    fn format(&self) -> Format {
        if self.global.json { Format::Json } else { Format::Text }
    }
}
