//! The parts of the documentation that are made of the program and of `openapi.yaml`. A page has them between
//! `<!-- begin NAME -->` and `<!-- end -->`; `make docs` writes them, and the test compares.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use serde_json::Value;

use super::schema::{Field, fields, resolve};
use super::{pages, read};

/// Every part by its name.
fn part(name: &str, contract: &Value) -> String {
    let schema = |name: &str| &contract["components"]["schemas"][name];
    match name {
        "commands" => commands(),
        "settings" => settings(),
        "metrics" => metrics(),
        "errors" => errors(contract),
        "new-job" => table(&fields(contract, schema("JobSubmission")), true),
        "job" => {
            let mut rows = fields(contract, schema("Job"));
            // Those of the request, which are above.
            rows.retain(|row| !row.name.starts_with("spec."));
            table(&rows, false)
        }
        "states" => listed(schema("State")),
        "causes" => listed(schema("Cause")),
        "events" => listed(schema("EventType")),
        "event" => table(&fields(contract, schema("Event")), false),
        "webhook" => {
            let schema = schema("WebhookSubmission");
            let what = schema["description"].as_str().unwrap();
            format!("{what}\n{}", table(&fields(contract, schema), true))
        }
        "queue" => table(&fields(contract, schema("QueueSettings")), true),
        other => panic!("nothing is called {other}"),
    }
}

#[test]
fn the_generated_parts_are_current() {
    let contract: Value = serde_norway::from_str(&read("openapi.yaml")).unwrap();
    let update = std::env::var_os("PROCESSION_UPDATE_DOCS").is_some();
    let (mut seen, mut stale) = (0, Vec::new());
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        let mut made = String::new();
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once("<!-- begin ") {
            let (name, after) = after.split_once(" -->\n").unwrap();
            let (_, after) = after.split_once("<!-- end -->").unwrap();
            let part = part(name, &contract);
            write!(
                made,
                "{before}<!-- begin {name} -->\n\n{}\n\n<!-- end -->",
                part.trim()
            )
            .unwrap();
            rest = after;
            seen += 1;
        }
        made.push_str(rest);
        if made == text {
            continue;
        }
        if update {
            std::fs::write(&page, made).unwrap();
        } else {
            stale.push(page);
        }
    }
    assert!(seen >= 10, "only {seen} parts were found");
    assert!(stale.is_empty(), "not current: {stale:?}; run `make docs`");
}

/// No two spaces where a cell is empty.
fn tidy(table: &str) -> String {
    table.replace(" |  |", " | |").replace("|  |", "| |")
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn table(rows: &[Field], is_request: bool) -> String {
    let mut text = if is_request {
        "| field | type | default | what |\n|---|---|---|---|\n".to_owned()
    } else {
        "| field | type | what |\n|---|---|---|\n".to_owned()
    };
    for row in rows {
        let mut what = row.what.clone();
        if is_request && row.is_required {
            what = format!("Required. {what}");
        }
        let default = if is_request {
            format!(" {} |", cell(&row.default))
        } else {
            String::new()
        };
        let (kind, what) = (cell(&row.kind), cell(what.trim()));
        writeln!(text, "| `{}` | {kind} |{default} {what} |", row.name).unwrap();
    }
    tidy(&text)
}

/// The values of an enumeration, with its description.
fn listed(schema: &Value) -> String {
    let values = schema["enum"].as_array().unwrap().iter();
    let values: Vec<String> = values
        .map(|value| format!("`{}`", value.as_str().unwrap()))
        .collect();
    let what = schema["description"].as_str().unwrap_or_default();
    format!("{}\n\n{what}", values.join(", "))
}

fn help(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_procession"))
        .args(words)
        .arg("--help")
        .env_clear()
        .env("COLUMNS", "100")
        .output()
        .unwrap();
    assert!(output.status.success(), "{words:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The names below `Commands:` of a help text.
fn names(help: &str) -> Vec<String> {
    let listed = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    let names = listed.filter_map(|line| {
        let word = line.strip_prefix("  ")?.split(' ').next()?;
        (!word.is_empty() && word != "help").then(|| word.to_owned())
    });
    names.collect()
}

/// The help of every command. What is the same for all that talk to a service is there once.
fn commands() -> String {
    let mut text = String::new();
    let mut connection: Option<String> = None;
    let mut queue: Vec<Vec<String>> = names(&help(&[])).into_iter().map(|it| vec![it]).collect();
    queue.reverse();
    while let Some(path) = queue.pop() {
        let words: Vec<&str> = path.iter().map(String::as_str).collect();
        let full = help(&words);
        let mut deeper: Vec<Vec<String>> = names(&full)
            .into_iter()
            .map(|name| [path.clone(), vec![name]].concat())
            .collect();
        deeper.reverse();
        queue.extend(deeper);
        let (own, rest) = full.split_once("\nConnection:\n").unwrap_or((&full, ""));
        let (common, after) = rest.split_once("\n\nExit codes").unwrap_or((rest, ""));
        if connection.is_none() && !common.is_empty() {
            connection = Some(common.to_owned());
        }
        let mut own = own.trim_end().to_owned();
        if !common.is_empty() {
            own.push_str("\n\nConnection: see below");
        }
        if !after.is_empty() {
            own.push_str("\n\nExit codes");
            own.push_str(after.trim_end());
        }
        let own: Vec<&str> = own.lines().map(str::trim_end).collect();
        write!(
            text,
            "## procession {}\n\n```text\n{}\n```\n\n",
            words.join(" "),
            own.join("\n")
        )
        .unwrap();
    }
    let common = connection.expect("some command talks to a service");
    let common: Vec<&str> = common.lines().map(str::trim_end).collect();
    write!(
        text,
        "## Connection\n\n```text\n{}\n```\n",
        common.join("\n").trim_end()
    )
    .unwrap();
    text
}

/// The flags of `procession serve`, with variable and default.
fn settings() -> String {
    let mut text = "| flag | environment | default | what |\n|---|---|---|---|\n".to_owned();
    let full = help(&["serve"]);
    for entry in full.split("\n      --").skip(1) {
        let (flag, rest) = entry.split_once('\n').unwrap();
        let rest = rest.split("\n\n").next().unwrap();
        let rest = rest.split_whitespace().collect::<Vec<_>>().join(" ");
        let Some((rest, variable)) = rest.split_once(" [env: ") else {
            continue;
        };
        let (what, default) = rest.split_once(" [default: ").unwrap();
        let default = match default.trim_end_matches(']') {
            rule if rule == "none" || rule.contains(' ') => rule.to_owned(),
            value => format!("`{value}`"),
        };
        let flag = match flag.split_once("[=<") {
            // Of a switch, the flag alone is enough.
            Some((flag, _)) => flag.to_owned(),
            None => flag.replace(['<', '>'], ""),
        };
        writeln!(
            text,
            "| `--{}` | `{}` | {default} | {what} |",
            cell(&flag),
            variable.split(']').next().unwrap().trim_end_matches('='),
        )
        .unwrap();
    }
    text
}

/// What the source registers. A server shows only the series that have been counted.
fn metrics() -> String {
    let source = ["metrics.rs", "metrics/labels.rs", "metrics/gauges.rs"];
    let source = source
        .map(|file| read(&format!("src/manager/{file}")))
        .concat();
    // The type of each field, and the labels of each type of labels.
    let mut types: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    let mut labels: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut inside = "";
    for line in source.lines() {
        if let Some(rest) = line.split("struct ").nth(1) {
            inside = rest.trim_end_matches(" {");
        } else if line.trim().starts_with("pub(super) chosen: ") {
            labels.entry(inside).or_default().push("label_…");
        } else if let Some((name, kind)) = line.trim().split_once(": ")
            && line.starts_with("    ")
            && !line.starts_with("     ")
            && line.ends_with(',')
        {
            let name = name.trim_start_matches("pub(super) ");
            labels.entry(inside).or_default().push(name);
            let kinds = ["Counter", "Gauge", "Histogram"];
            if kinds.iter().any(|it| kind.contains(it)) {
                types.insert((inside, name), kind.trim_end_matches(','));
            }
        }
    }
    let mut text = "| series | type | labels | what |\n|---|---|---|---|\n".to_owned();
    // The names that every exporter has come last.
    let mut of_process = String::new();
    for piece in source.split("r.register").skip(1) {
        let call = piece.split(");").next().unwrap();
        let mut quoted = call.split('"').skip(1).step_by(2);
        let (name, what) = (quoted.next().unwrap(), quoted.next().unwrap());
        let field = call.rsplit('.').nth(1).unwrap();
        let holder = if call.contains("self.") {
            "Metrics"
        } else {
            "Gauges"
        };
        let kind = types[&(holder, field)];
        let (prefix, rows) = if name.starts_with("process_") {
            ("", &mut of_process)
        } else {
            ("procession_", &mut text)
        };
        let unit = call.split("Unit::").nth(1).map_or(String::new(), |rest| {
            format!("_{}", rest.split(',').next().unwrap().to_lowercase())
        });
        let (word, end) = match kind {
            kind if kind.contains("Histogram") => ("histogram", ""),
            kind if kind.contains("Counter") => ("counter", "_total"),
            _ => ("gauge", ""),
        };
        let names = kind
            .strip_prefix("Family<")
            .and_then(|rest| rest.split(',').next())
            .map_or(String::new(), |of| {
                let names: Vec<String> = labels[of].iter().map(|it| format!("`{it}`")).collect();
                names.join(", ")
            });
        writeln!(
            rows,
            "| `{prefix}{name}{unit}{end}` | {word} | {names} | {what} |"
        )
        .unwrap();
    }
    tidy(&(text + &of_process))
}

/// Each code with its status and title, and what may answer it.
fn errors(contract: &Value) -> String {
    let source = read("src/http/problem/catalogue.rs");
    let mut known: BTreeMap<&str, (u16, &str)> = BTreeMap::new();
    for piece in source.split("Problem::new(S::").skip(1) {
        let (status, rest) = piece.split_once(',').unwrap();
        let mut quoted = rest.split('"').skip(1).step_by(2);
        let (code, title) = (quoted.next().unwrap(), quoted.next().unwrap());
        known.insert(code, (number(status), title));
    }
    let anywhere = contract["info"]["description"].as_str().unwrap();
    let codes = contract["components"]["schemas"]["ProblemCode"]["enum"].as_array();
    let mut text = "| code | status | means | answered to |\n|---|---|---|---|\n".to_owned();
    for code in codes.unwrap() {
        let code = code.as_str().unwrap();
        let (status, title) = known
            .get(code)
            .unwrap_or_else(|| panic!("{code} is not in the catalogue"));
        let word = format!("`{code}`");
        let mut where_from = Vec::new();
        for (path, methods) in contract["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let responses = operation["responses"].as_object().into_iter().flatten();
                let says = responses.into_iter().any(|(_, response)| {
                    let response = resolve(contract, response);
                    response["description"]
                        .as_str()
                        .is_some_and(|text| text.contains(&word))
                });
                if says {
                    where_from.push(format!("`{} {path}`", method.to_uppercase()));
                }
            }
        }
        let count = where_from.len();
        let from = match count {
            _ if anywhere.contains(&word) => "any request".to_owned(),
            0 => String::new(),
            1..=6 => where_from.join(", "),
            _ => format!("{count} operations"),
        };
        writeln!(text, "| `{code}` | {status} | {title} | {from} |").unwrap();
    }
    tidy(&text)
}

/// The number of a status as the code names it.
fn number(name: &str) -> u16 {
    let all = (100..600).filter_map(|number| reqwest::StatusCode::from_u16(number).ok());
    let words = |status: &reqwest::StatusCode| {
        let reason = status.canonical_reason().unwrap_or_default();
        reason
            .to_uppercase()
            .replace([' ', '-'], "_")
            .replace('\'', "")
    };
    all.into_iter()
        .find(|status| words(status) == name)
        .unwrap_or_else(|| panic!("no status is called {name}"))
        .as_u16()
}
