//! `openapi.yaml` as generators of clients have to have it. Each rule is one that a widely used generator cannot do without.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::read;
use crate::schema::resolve;

fn contract() -> Value {
    serde_norway::from_str(&read("openapi.yaml")).unwrap()
}

/// Every object in it with its place.
fn each(value: &Value, place: &str, look: &mut impl FnMut(&Value, &str)) {
    look(value, place);
    for (key, inner) in value.as_object().into_iter().flatten() {
        each(inner, &format!("{place}/{key}"), look);
    }
    for (index, inner) in value.as_array().into_iter().flatten().enumerate() {
        each(inner, &format!("{place}/{index}"), look);
    }
}

fn schemas(contract: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let schemas = contract["components"]["schemas"].as_object().unwrap();
    schemas.iter()
}

/// In Go, `NewX` is what makes an `X`.
#[test]
fn no_schema_is_called_as_what_makes_another_one() {
    let contract = contract();
    for (name, _) in schemas(&contract) {
        assert!(!name.starts_with("New"), "{name}: XSubmission is free");
    }
}

/// Words of enumerations that are schemas share one room in Go, under their `x-enum-varnames` if there are any.
#[test]
fn no_two_enumerations_have_a_word_in_common() {
    let contract = contract();
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for (name, schema) in schemas(&contract) {
        let words = schema["enum"].as_array().into_iter().flatten();
        let given = schema["x-enum-varnames"].as_array();
        if let Some(given) = given {
            assert_eq!(given.len(), words.clone().count(), "{name}");
        }
        let names: Vec<String> = match given {
            Some(given) => given.iter().map(|it| it.as_str().unwrap().into()).collect(),
            None => words
                .map(|word| word.as_str().unwrap_or_default())
                .map(|word| word.replace(['.', '-'], "_").to_uppercase())
                .collect(),
        };
        for word in names {
            let other = seen.insert(word.clone(), name);
            assert_eq!(other, None, "{word} is in {name}, too");
        }
    }
}

/// What a method of a client gives back has one type.
#[test]
fn what_an_operation_answers_well_has_one_schema() {
    let contract = contract();
    for (path, item) in contract["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let mut answers: BTreeMap<&String, &Value> = BTreeMap::new();
            let responses = operation["responses"].as_object().into_iter().flatten();
            for (_, response) in responses.filter(|(status, _)| status.starts_with('2')) {
                let content = resolve(&contract, response)["content"].as_object();
                for (kind, body) in content.into_iter().flatten() {
                    let schema = &body["schema"];
                    let first = answers.entry(kind).or_insert(schema);
                    assert_eq!(*first, schema, "{method} {path} {kind}");
                }
            }
        }
    }
}

/// Java takes the first alternative, by name, that an answer fits into, and an answer may have more than it knows.
#[test]
fn of_two_answers_the_usual_one_is_the_first() {
    let contract = contract();
    let mut look = |value: &Value, place: &str| {
        if !place.ends_with("/schema") {
            return;
        }
        let schema = resolve(&contract, value);
        let is_object = |it: &Value| resolve(&contract, it)["type"] != "string";
        let many = schema["oneOf"]
            .as_array()
            .is_some_and(|of| of.iter().any(is_object));
        assert!(!many || !place.contains("/responses/"), "{place}: anyOf");
        let names: Vec<&str> = schema["anyOf"].as_array().map_or_else(Vec::new, |of| {
            of.iter().filter_map(|it| it["$ref"].as_str()).collect()
        });
        assert!(names.is_sorted(), "{place}: {names:?}");
    };
    each(&contract["paths"], "", &mut look);
}

/// Go does not compile with the default of a nullable enumeration, and says a nullable text with a pattern is wrong whatever it is.
#[test]
fn what_may_be_null_has_neither_a_default_among_words_nor_a_pattern_that_is_shown() {
    let contract = contract();
    let mut look = |schema: &Value, place: &str| {
        let has_null = |list: &Value| list.as_array().is_some_and(|it| it.contains(&Value::Null));
        let is_bad = has_null(&schema["enum"]) && schema.get("default").is_some();
        assert!(!is_bad, "{place}: x-default");
    };
    each(&contract, "", &mut look);
    for name in [
        "Job",
        "BasicJob",
        "Batch",
        "Schedule",
        "JobSpec",
        "SpecCommon",
        "Name",
    ] {
        let mut look = |schema: &Value, place: &str| {
            let types = schema["type"].as_array();
            let may_be_null = types.is_some_and(|types| types.contains(&"null".into()));
            let is_bad = may_be_null && schema.get("pattern").is_some();
            assert!(!is_bad, "{place}: if, then");
        };
        each(&contract["components"]["schemas"][name], name, &mut look);
    }
}

/// Java takes null for no value of a choice, unless it is one of the choices itself.
#[test]
fn null_is_beside_no_choice() {
    let contract = contract();
    let mut look = |schema: &Value, place: &str| {
        let Some([null, other]) = schema["oneOf"].as_array().map(Vec::as_slice) else {
            return;
        };
        // In no answer it is null.
        if other["$ref"] == "#/components/schemas/SignalName" {
            return;
        }
        let inner = resolve(&contract, other);
        let is_choice = inner["oneOf"].is_array() || inner["anyOf"].is_array();
        assert!(null["type"] != "null" || !is_choice, "{place}");
    };
    each(&contract, "", &mut look);
}
