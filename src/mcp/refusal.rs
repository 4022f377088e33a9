//! Why a tool did nothing, or not all, and how a model and a client read that.

use rmcp::ErrorData;
use rmcp::model::{CallToolResult, ContentBlock};
use serde::Deserialize;
use serde_json::{Value, json};

/// Why a tool did nothing, or not all.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The service says no.
    Problem(Problem),
    /// It did not answer, or not as it should; one sentence.
    Door(String),
    /// The arguments are wrong; one sentence.
    Arguments(String),
    /// The client no longer wants to know.
    Cancelled,
}

/// A problem as the API tells it.
#[derive(Debug, Deserialize)]
pub(crate) struct Problem {
    pub(crate) code: String,
    detail: String,
    #[serde(default)]
    errors: Vec<Value>,
}

impl Refusal {
    /// As the result of a tool, which a model reads.
    pub(crate) fn into_result(self) -> CallToolResult {
        let (code, detail, errors) = match self {
            Self::Problem(problem) => (problem.code, problem.detail, problem.errors),
            Self::Door(why) => ("no_answer".to_owned(), why, Vec::new()),
            Self::Arguments(why) => ("invalid_arguments".to_owned(), why, Vec::new()),
            Self::Cancelled => {
                let why = "cancelled by the client".to_owned();
                ("cancelled".to_owned(), why, Vec::new())
            }
        };
        let mut text = format!("refused: {code}: {detail}");
        for error in &errors {
            let place = error["pointer"].as_str().or(error["parameter"].as_str());
            let place = place.unwrap_or_default();
            let detail = error["detail"].as_str().unwrap_or_default();
            text.push_str(&format!("\n{place}: {detail}"));
        }
        let mut result = CallToolResult::error(vec![ContentBlock::text(text)]);
        result.structured_content = Some(json!({"code": code, "detail": detail, "errors": errors}));
        result
    }

    /// As the answer to a request that is no tool.
    pub(crate) fn into_error(self) -> ErrorData {
        match self {
            Self::Problem(problem) => {
                ErrorData::internal_error(format!("{}: {}", problem.code, problem.detail), None)
            }
            Self::Door(why) | Self::Arguments(why) => ErrorData::internal_error(why, None),
            Self::Cancelled => ErrorData::internal_error("cancelled", None),
        }
    }
}
