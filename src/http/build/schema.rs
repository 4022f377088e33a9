//! `openapi.yaml` for people: the fields of a schema as rows, in Markdown. Shared by the page `/docs` and by the
//! reference in `docs/`.

use serde_json::Value;

/// One row.
pub(super) struct Field {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) default: String,
    pub(super) is_required: bool,
    pub(super) what: String,
}

/// What a `$ref` leads to.
pub(super) fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(path) => root
            .pointer(path.trim_start_matches('#'))
            .unwrap_or_else(|| panic!("{path} leads nowhere")),
        None => schema,
    }
}

/// The fields of an object by their names, those of objects in it with a dotted one. A field that is defined twice, as for a
/// request and for an answer, has its first definition.
pub(super) fn fields(root: &Value, schema: &Value) -> Vec<Field> {
    let mut rows: Vec<Field> = Vec::new();
    collect(root, schema, "", &mut rows);
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    rows
}

fn collect(root: &Value, schema: &Value, prefix: &str, rows: &mut Vec<Field>) {
    let schema = resolve(root, schema);
    for part in list(&schema["allOf"]) {
        collect(root, part, prefix, rows);
    }
    let required = list(&schema["required"]);
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    for (key, property) in properties {
        let name = format!("{prefix}{key}");
        if rows.iter().any(|row| row.name == name) {
            continue;
        }
        let inner = the_one(root, property);
        rows.push(Field {
            kind: kind(root, property),
            default: default(property),
            is_required: required.iter().any(|it| it == key),
            what: description(property)
                .or_else(|| description(inner))
                .unwrap_or_default(),
            name: name.clone(),
        });
        if inner["type"] != "array" {
            collect(root, inner, &format!("{name}."), rows);
        } else {
            let item = the_one(root, &inner["items"]);
            collect(root, item, &format!("{name}[]."), rows);
        }
    }
}

/// What a schema is if it is not `null`.
fn the_one<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let schema = resolve(root, schema);
    let others: Vec<&Value> = list(&schema["oneOf"])
        .iter()
        .filter(|it| it["type"] != "null")
        .collect();
    match others.as_slice() {
        [only] => resolve(root, only),
        _ => schema,
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn description(schema: &Value) -> Option<String> {
    let text = schema["description"].as_str()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn default(schema: &Value) -> String {
    // Of a few words or `null`: generators of clients cannot do with a default there.
    let given = ["default", "x-default"].map(|key| &schema[key]);
    let Some(value) = given.into_iter().find(|value| !value.is_null()) else {
        return String::new();
    };
    format!("`{}`", plain(value))
}

/// The type in a few words.
pub(super) fn kind(root: &Value, schema: &Value) -> String {
    let schema = resolve(root, schema);
    for choice in ["oneOf", "anyOf"] {
        if schema[choice].is_array() {
            let mut words: Vec<String> = Vec::new();
            for it in list(&schema[choice]) {
                let word = kind(root, it);
                if !word.is_empty() && !words.contains(&word) {
                    words.push(word);
                }
            }
            return words.join(" or ");
        }
    }
    if let Some(value) = schema.get("const") {
        return format!("`{}`", plain(value));
    }
    if schema["enum"].is_array() {
        let values = list(&schema["enum"]).iter().filter(|it| !it.is_null());
        let values: Vec<String> = values.map(|it| format!("`{}`", plain(it))).collect();
        return values.join(", ");
    }
    let name = &schema["type"];
    let is_object = schema["properties"].is_object() || schema["allOf"].is_array();
    let names: Vec<&str> = match name.as_str() {
        Some(name) => vec![name],
        None if is_object && name.is_null() => vec!["object"],
        None => list(name).iter().filter_map(Value::as_str).collect(),
    };
    let names = names.into_iter().filter(|name| *name != "null");
    let words: Vec<String> = names.map(|name| of_type(root, schema, name)).collect();
    words.join(" or ")
}

fn of_type(root: &Value, schema: &Value, name: &str) -> String {
    match name {
        "array" => match kind(root, &schema["items"]) {
            item if item.is_empty() => "list".to_owned(),
            item => format!("list of {item}"),
        },
        "integer" | "number" => format!("{name}{}", range(schema)),
        "object" => match kind(root, &schema["additionalProperties"]) {
            value if value.is_empty() => name.to_owned(),
            value => format!("object of {value}"),
        },
        "string" => schema["format"]
            .as_str()
            .map_or_else(|| "string".to_owned(), |format| format!("string, {format}")),
        other => other.to_owned(),
    }
}

fn range(schema: &Value) -> String {
    let (least, above, most) = (
        &schema["minimum"],
        &schema["exclusiveMinimum"],
        &schema["maximum"],
    );
    let least = if above.is_null() {
        least.to_string()
    } else {
        format!("above {above}")
    };
    // The most that a number of 63 or 64 bits can be is no limit to people.
    let has_most = most.as_f64().is_some_and(|most| most < 9e18);
    match (least.as_str(), has_most) {
        ("null", false) => String::new(),
        ("null", true) => format!(", up to {most}"),
        (_, false) if above.is_null() => format!(", from {least}"),
        (_, false) => format!(", {least}"),
        (_, true) => format!(", {least} to {most}"),
    }
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
