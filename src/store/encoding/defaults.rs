//! What is left out of a row's text since it is as usual, and put back when it is read. Pure.
//!
//! Both are done on the text: it is made for every acceptance and every end of a job, and read for every job of a list
//! and every one that waits when the service starts. A tree of values in between cost more than everything else that the
//! server's store does in user space.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use job::Spec;

/// What is left out where it is exactly this, by section. Frozen: rows were written against it, so it
/// stays as it is even when a default of the program changes. A field that is new needs no entry.
const USUAL: &str = r#"{
  "spec": {
    "cwd": null, "env": {}, "secret_env": {}, "env_inherit": "default", "user": null, "group": null,
    "supplementary_groups": null, "umask": "0022", "nice": null, "oom_score_adj": null,
    "cpu_affinity": null, "rlimits": {},
    "limits": {"memory_bytes": null, "cpu": null, "pids": null},
    "no_new_privs": true, "sandbox": null, "stdin": {"mode": "null"}, "pty": null,
    "output": {"merge_stderr": false, "max_bytes": 67108864, "on_limit": "drop_oldest"},
    "timeout_seconds": null, "timeout_warning": null,
    "stop": {"signal": "SIGTERM", "grace_seconds": 10, "scope": "group"},
    "wait_for": "leader", "success_exit_codes": [0], "queue": "default", "priority": 0,
    "weight": 1, "concurrency": null,
    "start_deadline_seconds": null, "ttl_seconds_after_finished": 604800,
    "webhooks": [], "retry": null, "ready": null, "io_priority": null, "workspace": null, "inputs": [], "artifacts": null
  },
  "process": {"executable": null, "cgroup": null, "sandbox": null},
  "exit": {"oom_killed": null},
  "usage": {"max_memory_bytes": null},
  "termination": {
    "requested_by": null, "reason": null, "signals_sent": [], "escalated": false, "killed_leftovers": 0
  },
  "output": {
    "stdout_bytes": 0, "stderr_bytes": 0, "first_offset": 0, "next_offset": 0, "dropped_bytes": 0,
    "complete": true
  }
}"#;

static SECTIONS: LazyLock<Map<String, Value>> =
    LazyLock::new(|| serde_json::from_str(USUAL).expect("the text above is a JSON object"));

static PATTERNS: LazyLock<Patterns> = LazyLock::new(|| sections(|_, _| {}));

/// What has to be put back: all of it, but for what a spec has by itself where nothing is said. It is read several times
/// as fast without these forty members.
static ABSENT: LazyLock<Patterns> = LazyLock::new(|| {
    let by_itself = serde_json::to_value(Spec::default()).expect("a spec is JSON");
    let usual = SECTIONS.get("spec").and_then(Value::as_object);
    let is_usual = |name: &str| usual.and_then(|it| it.get(name)) == by_itself.get(name);
    sections(|name, members| {
        if name == "spec" {
            members.retain(|name, pattern| match pattern {
                Pattern::Object { text, .. } if is_usual(name) => {
                    // What is there in part is still put together.
                    *text = None;
                    true
                }
                Pattern::Object { .. } | Pattern::Text(_) | Pattern::Section(_) => !is_usual(name),
            });
        }
    })
});

/// The sections as patterns, each after `change`.
fn sections(change: impl Fn(&str, &mut Patterns)) -> Patterns {
    let sections = SECTIONS.iter().map(|(name, section)| {
        let Pattern::Object { mut members, .. } = Pattern::of(section) else {
            unreachable!("every section above is an object");
        };
        change(name, &mut members);
        (name.clone(), Pattern::Section(members))
    });
    sections.collect()
}

type Patterns = BTreeMap<String, Pattern>;

/// What a member's text is compared with.
enum Pattern {
    Text(String),
    Object {
        members: Patterns,
        /// What is put back if it is not there at all.
        text: Option<String>,
    },
    /// Its members are compared, and it stays even if nothing is left in it.
    Section(Patterns),
}

impl Pattern {
    fn of(value: &Value) -> Self {
        match value {
            Value::Object(members) => Self::Object {
                members: members
                    .iter()
                    .map(|(name, value)| (name.clone(), Self::of(value)))
                    .collect(),
                text: Some(value.to_string()),
            },
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Self::Text(value.to_string()),
        }
    }
}

/// The text without what is as usual. It has to be compact, as `serde_json` writes it; any other text
/// comes back as it is.
pub(super) fn strip(text: String) -> String {
    let mut stripped = String::with_capacity(text.len());
    let mut rest = text.as_str();
    match strip_object(&mut rest, &PATTERNS, &mut stripped) {
        Some(_) if rest.is_empty() => stripped,
        Some(_) | None => text,
    }
}

/// Copies the object at the beginning of `rest` and leaves out what the patterns say; is it all of them
/// and nothing else?
fn strip_object(rest: &mut &str, patterns: &Patterns, out: &mut String) -> Option<bool> {
    take(rest, "{")?;
    out.push('{');
    let (mut kept, mut left_out) = (0_usize, 0_usize);
    if take(rest, "}").is_none() {
        loop {
            let before = out.len();
            let key = take_value(rest)?;
            take(rest, ":")?;
            let name = key.strip_prefix('"')?.strip_suffix('"')?;
            begin_member(out, name, kept == 0);
            let is_usual = match patterns.get(name) {
                Some(Pattern::Object { members, .. }) if rest.starts_with('{') => {
                    strip_object(rest, members, out)?
                }
                Some(Pattern::Section(members)) if rest.starts_with('{') => {
                    strip_object(rest, members, out)?;
                    false
                }
                Some(Pattern::Text(usual)) => {
                    let value = take_value(rest)?;
                    out.push_str(value);
                    value == usual
                }
                Some(Pattern::Object { .. } | Pattern::Section(_)) | None => {
                    out.push_str(take_value(rest)?);
                    false
                }
            };
            if is_usual {
                out.truncate(before);
                left_out += 1;
            } else {
                kept += 1;
            }
            if take(rest, "}").is_some() {
                break;
            }
            take(rest, ",")?;
        }
    }
    out.push('}');
    Some(kept == 0 && left_out == patterns.len())
}

fn take(rest: &mut &str, token: &str) -> Option<()> {
    *rest = rest.strip_prefix(token)?;
    Some(())
}

/// The value at the beginning of `rest`, which begins after it then.
fn take_value<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let bytes = rest.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            b'"' => at = end_of_string(bytes, at + 1)?,
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                at += 1;
            }
            _ if depth > 0 => at += 1,
            _ => {
                let end = |byte: &u8| matches!(byte, b',' | b'}' | b']');
                at += bytes.get(at..)?.iter().position(end)?;
            }
        }
        if depth == 0 {
            let (value, after) = rest.split_at_checked(at)?;
            *rest = after;
            return Some(value);
        }
    }
}

/// Where the string ends whose content begins at `at`: behind its closing quote.
fn end_of_string(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let special = |byte: &u8| matches!(byte, b'"' | b'\\');
        at += bytes.get(at..)?.iter().position(special)?;
        if bytes.get(at) == Some(&b'"') {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Puts back what [`strip`] left out, but for what a [`Spec`] has by itself. A text that [`strip`] would not have understood comes back as it is.
pub(super) fn fill(text: &str) -> Cow<'_, str> {
    let mut filled = String::with_capacity(text.len() + 512);
    let mut rest = text;
    match fill_object(&mut rest, &ABSENT, &mut filled) {
        Some(()) if rest.is_empty() => filled.into(),
        Some(()) | None => text.into(),
    }
}

/// Copies the object at the beginning of `rest`, and behind its members those that the patterns have besides.
fn fill_object(rest: &mut &str, patterns: &Patterns, out: &mut String) -> Option<()> {
    take(rest, "{")?;
    out.push('{');
    let mut names = Vec::new();
    if take(rest, "}").is_none() {
        loop {
            let key = take_value(rest)?;
            take(rest, ":")?;
            let name = key.strip_prefix('"')?.strip_suffix('"')?;
            begin_member(out, name, names.is_empty());
            match patterns.get(name) {
                Some(Pattern::Object { members, .. } | Pattern::Section(members))
                    if rest.starts_with('{') =>
                {
                    fill_object(rest, members, out)?;
                }
                Some(Pattern::Text(_) | Pattern::Object { .. } | Pattern::Section(_)) | None => {
                    out.push_str(take_value(rest)?);
                }
            }
            names.push(name);
            if take(rest, "}").is_some() {
                break;
            }
            take(rest, ",")?;
        }
    }
    let mut is_first = names.is_empty();
    for (name, pattern) in patterns {
        let (Pattern::Text(text)
        | Pattern::Object {
            text: Some(text), ..
        }) = pattern
        else {
            continue;
        };
        if !names.contains(&name.as_str()) {
            begin_member(out, name, is_first);
            out.push_str(text);
            is_first = false;
        }
    }
    out.push('}');
    Some(())
}

fn begin_member(out: &mut String, name: &str, is_first: bool) {
    if !is_first {
        out.push(',');
    }
    out.push('"');
    out.push_str(name);
    out.push_str("\":");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// What [`strip`] does, on a tree: simple, and slow.
    fn strip_tree(value: &mut Value, usual: &Value) {
        let (Value::Object(value), Value::Object(usual)) = (value, usual) else {
            return;
        };
        value.retain(|key, value| match usual.get(key) {
            Some(usual) if *value == *usual => false,
            Some(usual) => {
                strip_tree(value, usual);
                true
            }
            None => true,
        });
    }

    /// What [`fill`] does, on a tree.
    fn fill_tree(value: &mut Value, usual: &Value) {
        let (Value::Object(value), Value::Object(usual)) = (value, usual) else {
            return;
        };
        for (key, usual) in usual {
            match value.get_mut(key) {
                Some(value) => fill_tree(value, usual),
                None => {
                    value.insert(key.clone(), usual.clone());
                }
            }
        }
    }

    fn in_sections(value: &mut Value, change: fn(&mut Value, &Value)) {
        for (section, usual) in SECTIONS.iter() {
            if let Some(value) = value.get_mut(section) {
                change(value, usual);
            }
        }
    }

    fn stripped(value: &Value) -> Value {
        let text = strip(value.to_string());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn scalar() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            Just(json!("\"\\{[,:]}\n")),
            Just(json!("default")),
        ]
    }

    fn value() -> impl Strategy<Value = Value> {
        scalar().prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..4)
                    .prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    /// A value that is like the usual one here and there.
    fn like(usual: &Value) -> BoxedStrategy<Value> {
        let same = Just(usual.clone());
        match usual {
            Value::Object(members) => {
                let members: Vec<_> = members
                    .iter()
                    .map(|(name, usual)| {
                        prop::option::weighted(0.9, like(usual))
                            .prop_map({
                                let name = name.clone();
                                move |value| value.map(|value| (name.clone(), value))
                            })
                            .boxed()
                    })
                    .collect();
                let more = prop::option::weighted(0.1, (any::<String>(), value()));
                let mixed = (members, more).prop_map(|(members, more)| {
                    more.into_iter()
                        .chain(members.into_iter().flatten())
                        .collect()
                });
                prop_oneof![3 => same, 6 => mixed, 1 => value()].boxed()
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => prop_oneof![3 => same, 1 => value()].boxed(),
        }
    }

    proptest! {
        #[test]
        fn a_text_loses_what_its_tree_would_lose_and_gets_it_back(
            whole in like(&Value::Object(SECTIONS.clone()))
        ) {
            let mut expected = whole.clone();
            in_sections(&mut expected, strip_tree);
            let stripped = stripped(&whole);
            prop_assert_eq!(&stripped, &expected);
            let mut whole = whole;
            in_sections(&mut whole, fill_tree);
            for some in [stripped, whole.clone()] {
                let mut filled: Value = serde_json::from_str(&fill(&some.to_string())).unwrap();
                // What a spec has by itself.
                in_sections(&mut filled, fill_tree);
                prop_assert_eq!(&filled, &whole);
            }
        }

        #[test]
        fn any_text_is_stripped_or_left_as_it_is(text in "[{}\\[\\],:\"\\\\a0é ]{0,20}") {
            drop(fill(&text));
            drop(strip(text));
        }
    }

    #[test]
    fn a_spec_of_a_row_is_the_usual_one_though_little_of_it_is_put_back() {
        let mut whole = SECTIONS["spec"].clone();
        whole["command"] = json!(["true"]);
        let whole: Spec = serde_json::from_value(whole).unwrap();
        let row = r#"{"spec":{"command":["true"]}}"#;
        let filled: Value = serde_json::from_str(&fill(row)).unwrap();
        assert_eq!(
            serde_json::from_value::<Spec>(filled["spec"].clone()).unwrap(),
            whole
        );
        assert_eq!(filled, serde_json::from_str::<Value>(row).unwrap());
    }

    #[test]
    fn a_section_stays_when_nothing_is_left_in_it() {
        assert_eq!(
            stripped(&Value::Object(SECTIONS.clone())),
            json!({"exit": {}, "output": {}, "process": {}, "spec": {}, "termination": {}, "usage": {}})
        );
    }

    #[test]
    fn what_is_not_compact_json_is_left_as_it_is() {
        for text in [
            "",
            "{",
            "null",
            r#"{"spec":{"cwd":null}"#,
            r#"{"spec":{"cwd":null}}x"#,
            r#"{"spec": {"cwd":null}}"#,
            r#"{"spec":{"cwd":"\"#,
        ] {
            assert_eq!(fill(text), text);
            assert_eq!(strip(text.to_owned()), text);
        }
    }
}
