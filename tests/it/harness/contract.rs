//! Is an answer one that `openapi.yaml` has? Asked of every answer, not only of those under test.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use jsonschema::Validator;
use reqwest::Method;
use serde_json::{Value, json};

use super::Reply;

static DESCRIPTION: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.yaml"));
    serde_norway::from_str(text).unwrap()
});

/// Problems that every operation can have, as the description's introduction says.
const ANYWHERE: [(u16, &str); 7] = [
    (400, "invalid_query"),
    (403, "origin_not_allowed"),
    (421, "host_not_allowed"),
    (431, "head_too_large"),
    (500, "internal"),
    (503, "ledger_unavailable"),
    (503, "node_unreachable"),
];

/// The reason why an answer is not one that the description has.
pub(crate) fn check(method: &Method, path: &str, reply: &Reply) -> Result<(), String> {
    if reply.header("request-id").is_empty() {
        return Err("no Request-Id".to_owned());
    }
    // Errors of JSON-RPC are held against their own schema below.
    let is_rpc = path == "/mcp" && reply.content_type() == "application/json";
    if !is_rpc && reply.status >= 400 {
        check_problem(method, reply)?;
    }
    let is_head = method == Method::HEAD;
    let code = reply.code();
    let Some(item) = item(path) else {
        return expect(reply, &[(404, "not_found"), (401, "unauthenticated")]);
    };
    let word = if is_head {
        "get"
    } else {
        &method.as_str().to_lowercase()
    };
    // Methods are told apart by case, the keys of the description are not.
    let described = (!method.as_str().contains(char::is_lowercase)).then_some(item);
    let Some(operation) = described.and_then(|item| item.get(word)) else {
        if reply.status == 405 && reply.header("allow").is_empty() {
            return Err("405 without Allow".to_owned());
        }
        return expect(
            reply,
            &[(405, "method_not_allowed"), (401, "unauthenticated")],
        );
    };
    let Some(described) = operation["responses"].get(reply.status.to_string()) else {
        if ANYWHERE.contains(&(reply.status, code.as_str())) {
            return Ok(());
        }
        return Err(format!("{} is not described", reply.status));
    };
    let described = resolved(described);
    for (name, header) in described["headers"].as_object().into_iter().flatten() {
        let header = resolved(header);
        let required = header["required"] == true;
        match reply.headers.get(name) {
            None if required => return Err(format!("no {name}")),
            None => {}
            Some(value) => check_header(name, value.to_str().unwrap_or_default(), header)?,
        }
    }
    let Some(content) = described.get("content") else {
        return match reply.body.as_slice() {
            [] => Ok(()),
            _ => Err("a body where none is described".to_owned()),
        };
    };
    let media = content
        .get(reply.content_type())
        .ok_or_else(|| format!("{:?} is not described", reply.content_type()))?;
    if is_head {
        return match reply.body.as_slice() {
            [] => Ok(()),
            _ => Err("a body to HEAD".to_owned()),
        };
    }
    if reply.content_type() == "application/x-ndjson" {
        let name = if path.ends_with("/events") {
            "Event"
        } else if path.ends_with("/search") {
            "SearchRecord"
        } else {
            "OutputRecord"
        };
        let schema = json!({"$ref": format!("#/components/schemas/{name}")});
        for line in reply
            .body
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let record = serde_json::from_slice(line).map_err(|error| error.to_string())?;
            validate(&schema, &record)?;
        }
    } else if reply.content_type().ends_with("json") {
        let body = serde_json::from_slice(&reply.body).map_err(|error| error.to_string())?;
        validate(&media["schema"], &body)?;
    }
    Ok(())
}

/// Every refusal has the same form.
fn check_problem(method: &Method, reply: &Reply) -> Result<(), String> {
    if reply.content_type() != "application/problem+json" {
        return Err(format!("a problem as {:?}", reply.content_type()));
    }
    if method == Method::HEAD {
        return Ok(());
    }
    let body: Value = serde_json::from_slice(&reply.body).map_err(|error| error.to_string())?;
    validate(&json!({"$ref": "#/components/schemas/Problem"}), &body)?;
    let code = body["code"].as_str().unwrap_or_default();
    if body["status"] != reply.status || body["type"] != format!("urn:procession:problem:{code}") {
        return Err("status or type contradicts the rest".to_owned());
    }
    if body["request_id"] != reply.header("request-id") {
        return Err("request_id is not that of the header".to_owned());
    }
    Ok(())
}

fn expect(reply: &Reply, allowed: &[(u16, &str)]) -> Result<(), String> {
    let found = (reply.status, reply.code());
    // The answer to HEAD has no body to take the code from.
    let fits = |(status, code): &(u16, &str)| {
        *status == found.0 && (*code == found.1 || reply.body.is_empty())
    };
    if allowed.iter().chain(&ANYWHERE).any(fits) {
        Ok(())
    } else {
        Err(format!("{found:?} instead of one of {allowed:?}"))
    }
}

fn check_header(name: &str, text: &str, header: &Value) -> Result<(), String> {
    let schema = &header["schema"];
    let value = if schema["type"] == "integer" {
        text.parse::<u64>()
            .map(Value::from)
            .map_err(|error| format!("{name}: {error}"))?
    } else {
        Value::from(text)
    };
    validate(schema, &value).map_err(|why| format!("{name}: {why}"))
}

/// The described path that this one is an instance of.
fn item(path: &str) -> Option<&'static Value> {
    let paths = DESCRIPTION["paths"].as_object().unwrap();
    let given: Vec<&str> = path.split('/').collect();
    paths
        .iter()
        .find(|(template, _)| {
            let parts: Vec<&str> = template.split('/').collect();
            let is_of_file = parts.ends_with(&["files", "{path}"]) && given.len() > parts.len();
            (parts.len() == given.len() || is_of_file)
                && parts.iter().zip(&given).all(|(part, given)| {
                    part == given || part.starts_with('{') && !given.is_empty()
                })
        })
        .map(|(_, item)| item)
}

/// The value itself, or what its `$ref` points at.
fn resolved(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(pointer) => DESCRIPTION.pointer(&pointer[1..]).expect(pointer),
        None => value,
    }
}

fn validate(schema: &Value, value: &Value) -> Result<(), String> {
    static BUILT: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);
    let key = schema.to_string();
    let known = BUILT.lock().unwrap().get(&key).cloned();
    let validator = known.unwrap_or_else(|| {
        let built = Arc::new(build(schema));
        BUILT.lock().unwrap().insert(key, Arc::clone(&built));
        built
    });
    let errors: Vec<String> = validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors.join("; "))
    }
}

fn build(schema: &Value) -> Validator {
    let document = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "allOf": [schema],
        "components": {"schemas": DESCRIPTION["components"]["schemas"]},
    });
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .should_validate_formats(true)
        .build(&document)
        .unwrap()
}
