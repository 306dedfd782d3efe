//! The set of measurements, and each as the arguments of a process.

use clap::ValueEnum;
use commons_engine::settings::ModelKind;

use super::LeftOut;
use crate::command::bench::{Args, Through, What};
use crate::engine::Switch;

/// Tokens where none are asked for.
const TOKENS: u32 = 128;

/// Tokens of a measured answer's prompt where none are asked for.
const CONTEXT: u32 = 16;

/// Tokens that a measurement adds to its own: warm steps, a new end of a known prompt.
const SPARE: u32 = 32;

/// The repetitive prompt.
const REPEATED: u32 = 128;

/// What the set depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) kind: ModelKind,
    pub(super) context_len: usize,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) what: What,
    pub(super) tokens: u32,
    pub(super) rows: u16,
    pub(super) context: u32,
    pub(super) through: Through,
    pub(super) speculation: Switch,
}

impl Case {
    fn new(what: What, tokens: u32) -> Self {
        let (through, speculation) = (Through::Model, Switch::On);
        Self { what, tokens, rows: 1, context: CONTEXT, through, speculation }
    }

    /// What was asked for with `--only`.
    pub(super) fn typed(what: What, args: &Args) -> Self {
        Self {
            what,
            tokens: args.tokens.unwrap_or(TOKENS),
            rows: args.rows.unwrap_or(1),
            context: args.context.unwrap_or(CONTEXT),
            through: args.through.unwrap_or(Through::Model),
            speculation: args.speculation.unwrap_or(Switch::On),
        }
    }

    /// What people call it.
    pub(super) fn name(&self) -> String {
        let Self { what, tokens, rows, .. } = self;
        match (what, rows, self.speculation) {
            (What::Load, ..) => "load".to_owned(),
            (What::Prefill, ..) => format!("prefill {tokens}"),
            (What::Decode, 1, _) => format!("decode 1 row{}", self.layer()),
            (What::Decode, rows, _) => format!("decode {rows} rows{}", self.layer()),
            (What::DecodeJson, rows, _) => format!("decode-json {rows}"),
            (What::Prefix, ..) => format!("prefix hit {tokens}"),
            (What::Repeat, _, Switch::On) => "repeat, speculation on".to_owned(),
            (What::Repeat, _, Switch::Off) => "repeat, speculation off".to_owned(),
        }
    }

    fn layer(&self) -> &'static str {
        match self.through {
            Through::Model => "",
            Through::Scheduler => ", as requests",
        }
    }

    /// What a process is told that measures it.
    pub(super) fn args(&self) -> Vec<String> {
        let (rows, context) = (self.rows.to_string(), self.context.to_string());
        [
            ("--only", word(self.what)),
            ("--tokens", self.tokens.to_string()),
            ("--rows", rows),
            ("--context", context),
            ("--through", word(self.through)),
            ("--speculation", word(self.speculation)),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
    }

    /// Tokens of the context that it takes.
    fn len(&self) -> u32 {
        let before = match self.what {
            What::Prefill | What::Load => return self.tokens,
            What::Decode | What::DecodeJson => self.context,
            What::Prefix => 0,
            What::Repeat => REPEATED,
        };
        before + self.tokens + SPARE
    }
}

/// What every process of the set is told.
pub(super) fn common(args: &Args) -> Vec<String> {
    let mut common = vec!["--rounds".to_owned(), args.rounds.to_string()];
    for (name, value) in [
        ("--threads", args.threads.map(|it| it.to_string())),
        ("--device", args.device.map(|it| it.to_string())),
        ("--isa", args.isa.clone()),
        ("--kv", args.kv.map(word)),
    ] {
        common.extend(value.into_iter().flat_map(|value| [name.to_owned(), value]));
    }
    common
}

/// The set that fits a model, and what does not fit it.
pub(super) fn set(facts: Facts) -> (Vec<Case>, Vec<LeftOut>) {
    let decode = |rows| Case { rows, ..Case::new(What::Decode, 64) };
    let repeat = |speculation| Case { speculation, ..Case::new(What::Repeat, TOKENS) };
    let wanted = [
        Case::new(What::Load, TOKENS),
        Case::new(What::Prefill, 128),
        Case::new(What::Prefill, 512),
        decode(1),
        decode(4),
        decode(16),
        Case { through: Through::Scheduler, ..decode(16) },
        Case { what: What::DecodeJson, through: Through::Scheduler, ..decode(1) },
        Case { what: What::DecodeJson, through: Through::Scheduler, ..decode(16) },
        Case::new(What::Prefix, 512),
        repeat(Switch::Off),
        repeat(Switch::On),
    ];
    let (mut set, mut left_out) = (Vec::new(), Vec::new());
    for mut case in wanted {
        let reads = matches!(case.what, What::Load | What::Prefill);
        let reason = if facts.kind == ModelKind::Encoder && !reads {
            "the model turns text into vectors and continues none".to_owned()
        } else if case.what == What::Load {
            // The shortest context loads too.
            case.tokens = case.tokens.min(u32::try_from(facts.context_len).unwrap_or(u32::MAX));
            set.push(case);
            continue;
        } else if case.len() as usize > facts.context_len {
            let (len, context_len) = (case.len(), facts.context_len);
            format!("it takes {len} tokens and the model's context has {context_len}")
        } else {
            set.push(case);
            continue;
        };
        left_out.push(LeftOut { case: case.name(), reason, is_failure: false });
    }
    (set, left_out)
}

/// The word that stands for a value on the command line.
fn word(value: impl ValueEnum + Copy) -> String {
    value.to_possible_value().map(|it| it.get_name().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Typed {
        #[command(flatten)]
        bench: Args,
    }

    #[test]
    fn a_case_is_what_its_own_arguments_say() {
        let (set, _) = set(Facts { kind: ModelKind::Decoder, context_len: 4096 });
        assert_eq!(set.len(), 12);
        for case in set {
            let typed = ["commons", "model.gguf"].into_iter().map(str::to_owned);
            let typed = Typed::try_parse_from(typed.chain(case.args())).expect("is understood");
            let what = typed.bench.only.expect("one case");
            assert_eq!(Case::typed(what, &typed.bench), case);
        }
    }

    #[test]
    fn the_set_follows_the_model() {
        let check = |kind, context_len, count: usize, part: &str| {
            let (set, left_out) = set(Facts { kind, context_len });
            assert_eq!(set.len(), count, "{kind:?} {context_len}: {set:?}");
            assert_eq!(set.first().map(|it| it.what), Some(What::Load));
            let names_it = |it: &LeftOut| it.reason.contains(part) && !it.is_failure;
            assert!(left_out.iter().all(names_it), "{left_out:?}");
        };
        check(ModelKind::Decoder, 2048, 12, "");
        check(ModelKind::Decoder, 512, 11, "context has 512");
        check(ModelKind::Decoder, 64, 1, "context has 64");
        check(ModelKind::Encoder, 512, 3, "continues none");
    }

    #[test]
    fn details_are_refused_without_the_case_that_they_belong_to() {
        for detail in [["--tokens", "4"], ["--rows", "2"], ["--speculation", "on"]] {
            let typed = Typed::try_parse_from(["commons", "m", detail[0], detail[1]]);
            let error = typed.expect_err("is refused").to_string();
            assert!(error.contains("--only"), "{error}");
        }
        for wrong in [["--only", "sleep"], ["--rounds", "0"], ["--threads", "0"]] {
            let typed = Typed::try_parse_from(["commons", "m", wrong[0], wrong[1]]);
            assert!(typed.expect_err("is refused").to_string().contains(wrong[0]));
        }
    }
}
