//! `procession templates`: what a service with a command policy can run by a name.

use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use super::connection::{Client, ConnectArgs};
use super::execute;
use super::failure::Failure;
use super::table::{Align, Table};
use super::terminal::{self, print, print_json};

#[derive(Debug, Args)]
pub struct TemplatesArgs {
    /// Print the templates as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Deserialize)]
struct Template {
    name: String,
    command: Vec<String>,
    params: Value,
}

/// `procession templates`
pub fn list(args: &TemplatesArgs) -> ExitCode {
    execute::run(async {
        let client = Client::new(&args.connect)?;
        let list: Value = client.json(|| client.get("/templates")).await?;
        if args.json {
            print_json(&list)?;
            return Ok(ExitCode::SUCCESS);
        }
        let is_empty = list["templates"].as_array().is_none_or(Vec::is_empty);
        if list["only"] == false && is_empty {
            print("The service has no command policy: it runs any command, and no templates.\n")?;
            return Ok(ExitCode::SUCCESS);
        }
        let templates = Vec::<Template>::deserialize(&list["templates"])
            .map_err(|error| Failure::NotUnderstood(error.to_string()))?;
        print(&table(&templates).render(terminal::style()))?;
        Ok(ExitCode::SUCCESS)
    })
}

fn table(templates: &[Template]) -> Table {
    let mut table = Table::new(&[
        ("TEMPLATE", Align::Left),
        ("PARAMETERS", Align::Left),
        ("COMMAND", Align::Fill),
    ]);
    for template in templates {
        let names = template.params["required"].as_array().into_iter().flatten();
        let params: Vec<String> = names
            .filter_map(Value::as_str)
            .map(|name| parameter(name, &template.params["properties"][name]))
            .collect();
        let (params, command) = (params.join(" "), template.command.join(" "));
        table.row(&[&template.name, &params, &command], None);
    }
    table
}

/// As it is given to `run --param`, with what it may be.
fn parameter(name: &str, schema: &Value) -> String {
    let words = |values: &Value| -> Vec<String> {
        let values = values.as_array().into_iter().flatten();
        values
            .map(|value| {
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned)
            })
            .collect()
    };
    let allowed = if schema["enum"].is_array() {
        words(&schema["enum"]).join("|")
    } else if let Some(pattern) = schema["pattern"].as_str() {
        pattern.to_owned()
    } else if let Some(beneath) = schema["x-beneath"].as_str() {
        format!("{}/…", beneath.trim_end_matches('/'))
    } else if schema["type"] == "integer" {
        format!("{}..{}", schema["minimum"], schema["maximum"])
    } else {
        schema["type"].as_str().unwrap_or("…").to_owned()
    };
    format!("{name}={allowed}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_parameter_says_what_it_may_be() {
        for (schema, expected) in [
            (json!({"type": "string", "enum": ["a", "b"]}), "p=a|b"),
            (
                json!({"type": "integer", "minimum": 0, "maximum": 9}),
                "p=0..9",
            ),
            (
                json!({"type": "string", "pattern": "^(?:[a-z]+)$"}),
                "p=^(?:[a-z]+)$",
            ),
            (
                json!({"type": "string", "x-beneath": "/srv/data"}),
                "p=/srv/data/…",
            ),
            (json!({"type": "boolean"}), "p=boolean"),
        ] {
            assert_eq!(parameter("p", &schema), expected);
        }
    }
}
