//! The page `/docs`: `openapi.yaml` as one HTML file without scripts and without anything from elsewhere.

use std::fmt::Write as _;

use pulldown_cmark::{Options, Parser, html};
use serde_json::Value;

use super::schema::{Field, fields, kind, resolve};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// The page, with `{nonce}` where that of its style belongs.
pub(super) fn render(root: &Value) -> String {
    let (mut navigation, mut body) = (String::new(), String::new());
    for tag in root["tags"].as_array().expect("there are tags") {
        let name = text(&tag["name"]);
        push(&mut navigation, format_args!("<p>{}</p>\n", escape(name)));
        push(
            &mut body,
            format_args!(
                "<h2>{}</h2>\n{}",
                escape(name),
                markdown(text(&tag["description"]))
            ),
        );
        for (path, methods) in root["paths"].as_object().expect("there are paths") {
            let shared = &methods["parameters"];
            for method in METHODS {
                let operation = &methods[method];
                // The addresses of the page for people are no API.
                let is_page = path == "/" || path.starts_with("/ui");
                if operation["tags"][0] == name && !is_page {
                    operation_into(
                        root,
                        (method, path),
                        shared,
                        operation,
                        &mut navigation,
                        &mut body,
                    );
                }
            }
        }
    }
    let info = &root["info"];
    PAGE.replace("{title}", &escape(text(&info["title"])))
        .replace("{version}", &escape(text(&info["version"])))
        .replace("{introduction}", &markdown(text(&info["description"])))
        .replace("{navigation}", &navigation)
        .replace("{objects}", &objects(root))
        .replace("{operations}", &body)
}

fn operation_into(
    root: &Value,
    (method, path): (&str, &str),
    shared: &Value,
    operation: &Value,
    navigation: &mut String,
    body: &mut String,
) {
    let id = escape(text(&operation["operationId"]));
    let name = format!("{} {}", method.to_uppercase(), escape(path));
    push(navigation, format_args!("<a href=\"#{id}\">{name}</a>\n"));
    push(
        body,
        format_args!(
            "<h3 id=\"{id}\"><a href=\"#{id}\"><code>{name}</code></a> {}</h3>\n{}",
            escape(text(&operation["summary"])),
            markdown(text(&operation["description"]))
        ),
    );
    parameters(root, shared, operation, body);
    let request = &operation["requestBody"]["content"];
    for (media, content) in request.as_object().into_iter().flatten() {
        let schema = &content["schema"];
        push(
            body,
            format_args!("<h4>Body: {}{}</h4>\n", escape(media), link(schema)),
        );
        if schema["$ref"].is_null() {
            table(&fields(root, schema), true, body);
        }
    }
    body.push_str("<details><summary>Answers</summary><table>\n");
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let response = resolve(root, response);
        let content = response["content"].as_object();
        let schema = content.and_then(|content| content.values().next());
        let schema = schema.map_or_else(String::new, |content| link(&content["schema"]));
        push(
            body,
            format_args!(
                "<tr><th>{}<td>{}{schema}\n",
                escape(status),
                inline(text(&response["description"]))
            ),
        );
    }
    body.push_str("</table></details>\n");
}

fn parameters(root: &Value, shared: &Value, operation: &Value, body: &mut String) {
    let lists = [shared, &operation["parameters"]];
    let all: Vec<&Value> = lists
        .into_iter()
        .filter_map(Value::as_array)
        .flatten()
        .map(|parameter| resolve(root, parameter))
        .collect();
    if all.is_empty() {
        return;
    }
    body.push_str("<table>\n<tr><th>parameter<th>type<th>what\n");
    for parameter in all {
        let place = match text(&parameter["in"]) {
            "query" => String::new(),
            place => format!(" <small>{}</small>", escape(place)),
        };
        push(
            body,
            format_args!(
                "<tr><td><code>{}</code>{place}<td>{}<td>{}\n",
                escape(text(&parameter["name"])),
                inline(&kind(root, &parameter["schema"])),
                inline(text(&parameter["description"]))
            ),
        );
    }
    body.push_str("</table>\n");
}

/// Every schema that has fields or values.
fn objects(root: &Value) -> String {
    let mut all = String::new();
    let schemas = root["components"]["schemas"].as_object();
    for (name, schema) in schemas.expect("there are schemas") {
        push(
            &mut all,
            format_args!(
                "<details id=\"schema-{0}\"><summary><code>{0}</code> {1}</summary>\n{2}",
                escape(name),
                inline(&kind(root, schema)),
                markdown(text(&schema["description"]))
            ),
        );
        table(&fields(root, schema), true, &mut all);
        all.push_str("</details>\n");
    }
    all
}

fn table(rows: &[Field], has_default: bool, into: &mut String) {
    if rows.is_empty() {
        return;
    }
    into.push_str("<table>\n<tr><th>field<th>type<th>default<th>what\n");
    for row in rows {
        let mark = if row.is_required {
            " <small>always</small>"
        } else {
            ""
        };
        let default = if has_default {
            inline(&row.default)
        } else {
            String::new()
        };
        push(
            into,
            format_args!(
                "<tr><td><code>{}</code>{mark}<td>{}<td>{default}<td>{}\n",
                escape(&row.name),
                inline(&row.kind),
                inline(&row.what)
            ),
        );
    }
    into.push_str("</table>\n");
}

/// To the schema that is referred to.
fn link(schema: &Value) -> String {
    let Some(name) = schema["$ref"]
        .as_str()
        .and_then(|path| path.rsplit('/').next())
    else {
        return String::new();
    };
    format!(" <a href=\"#schema-{0}\">{0}</a>", escape(name))
}

fn markdown(source: &str) -> String {
    let mut made = String::new();
    html::push_html(&mut made, Parser::new_ext(source, Options::empty()));
    made
}

/// Markdown of one paragraph, without the paragraph.
fn inline(source: &str) -> String {
    let made = markdown(source);
    let made = made.trim();
    match made
        .strip_prefix("<p>")
        .and_then(|rest| rest.strip_suffix("</p>"))
    {
        Some(only) if !only.contains("<p>") => only.to_owned(),
        _ => made.to_owned(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn push(into: &mut String, what: std::fmt::Arguments<'_>) {
    into.write_fmt(what).expect("memory takes what is written");
}

const PAGE: &str = r##"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>{title} API</title>
<style nonce="{nonce}">
:root { --line: #8884; --soft: #8881; font: 15px/1.5 system-ui, sans-serif }
body { margin: 0; display: grid; grid-template-columns: 17rem minmax(0, 60rem); gap: 2rem }
nav { position: sticky; top: 0; height: 100vh; overflow: auto; box-sizing: border-box; padding: 1rem; border-right: 1px solid var(--line); font-size: .85em }
nav p { margin: 1rem 0 .25rem; font-weight: 600 }
nav a { display: block; overflow-wrap: anywhere; text-decoration: none }
main { padding: 1rem 1rem 4rem }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line) }
h3 { margin-top: 2.5rem; font-weight: 400 }
h3 code { font-weight: 600 }
h3 a { text-decoration: none }
code { background: var(--soft); padding: 0 .2em; border-radius: 3px; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100%; font-size: .92em; margin: .5rem 0 }
th, td { text-align: left; vertical-align: top; padding: .25rem .5rem; border-top: 1px solid var(--line) }
summary { cursor: pointer }
details { margin: .25rem 0 }
@media (max-width: 50rem) { body { display: block } nav { position: static; height: auto; border: 0 } }
</style>
<nav aria-label="Operations">
<a href="openapi.yaml">openapi.yaml</a>
<a href="ui/">The page</a>
{navigation}<p>Objects</p>
<a href="#objects">Every field</a>
</nav>
<main>
<h1>{title} API <small>{version}</small></h1>
{introduction}
{operations}
<h2 id="objects">Objects</h2>
{objects}
</main>
</html>
"##;
