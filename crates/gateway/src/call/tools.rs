//! The functions that an answer may call: `tools`, `tool_choice`, `parallel_tool_calls`.
//!
//! Not here: calls in a conversation's history (`message.rs`), calls of an answer (`answer/tools.rs`).

use commons_record::constraint::{FUNCTIONS_MAX, Function, ToolChoice, Tools, is_function_name};
use serde_json::value::RawValue;

use super::constraint::schema;
use crate::error::ApiError;
use crate::params::{Params, wrong_type};

/// Takes the functions. Where none may be called there are none: the model is told of none.
pub(super) fn take_tools(params: &mut Params) -> Result<Option<Tools>, ApiError> {
    let functions: Option<Vec<Box<RawValue>>> = params.take("tools", "a list of functions")?;
    let is_parallel = params.take("parallel_tool_calls", "true or false")?.unwrap_or(true);
    let functions = functions.unwrap_or_default();
    let has_tools = !functions.is_empty();
    let choice = take_choice(params, has_tools)?;
    if functions.len() > FUNCTIONS_MAX {
        return Err(params.invalid("tools", "are over 128"));
    }
    let numbered = functions.iter().enumerate();
    let functions = numbered.map(|(index, raw)| parse_tool(raw, format!("tools[{index}]")));
    let functions = functions.collect::<Result<Vec<_>, _>>()?;
    let Some(choice) = choice.filter(|_| has_tools) else { return Ok(None) };
    let tools = Tools { functions, choice, is_parallel };
    tools.check().map_err(|error| params.invalid(error.field, error.reason))?;
    Ok(Some(tools))
}

fn parse_tool(raw: &RawValue, at: String) -> Result<Function, ApiError> {
    let mut tool = Params::parse(raw.get(), at)?;
    let kind: String = tool.require("type", "a string")?;
    if kind != "function" {
        return Err(tool.unsupported("type", &[r#""function""#]));
    }
    let Some(raw) = tool.take_raw("function") else { return Err(tool.missing("function")) };
    let mut function = Params::parse(raw.get(), tool.name("function"))?;
    let name: String = function.require("name", "a string")?;
    if !is_function_name(&name) {
        return Err(function.invalid("name", "is not 1 to 64 of a-z, A-Z, 0-9, _ and -"));
    }
    let description = function.take("description", "a string")?;
    let parameters = function.take_raw("parameters");
    let parameters =
        parameters.map(|raw| schema(&raw, &function.name("parameters"))).transpose()?;
    // Arguments keep to their schema whether that is asked for or not.
    function.take::<bool>("strict", "true or false")?;
    function.finish()?;
    tool.finish()?;
    Ok(Function { name, description, parameters })
}

/// Whether a function must be called; none if none may be.
fn take_choice(params: &mut Params, has_tools: bool) -> Result<Option<ToolChoice>, ApiError> {
    let Some(raw) = params.take_raw("tool_choice") else { return Ok(Some(ToolChoice::Auto)) };
    if raw.get().starts_with('{') {
        let mut choice = Params::parse(raw.get(), "tool_choice")?;
        let kind: String = choice.require("type", "a string")?;
        if kind != "function" {
            return Err(choice.unsupported("type", &[r#""function""#]));
        }
        let Some(raw) = choice.take_raw("function") else { return Err(choice.missing("function")) };
        let mut function = Params::parse(raw.get(), "tool_choice.function")?;
        let name = function.require("name", "a string")?;
        function.finish()?;
        choice.finish()?;
        return needs_tools(params, has_tools).map(|()| Some(ToolChoice::Named(name)));
    }
    let expected = "none, auto, required, or an object that names a function";
    let word: String =
        serde_json::from_str(raw.get()).map_err(|_| wrong_type("tool_choice", expected))?;
    match word.as_str() {
        "none" => Ok(None),
        "auto" => Ok(Some(ToolChoice::Auto)),
        "required" => needs_tools(params, has_tools).map(|()| Some(ToolChoice::Required)),
        _ => Err(params.invalid("tool_choice", &format!("is not {expected}"))),
    }
}

fn needs_tools(params: &Params, has_tools: bool) -> Result<(), ApiError> {
    if has_tools { Ok(()) } else { Err(params.invalid("tool_choice", "needs `tools`")) }
}
