//! The command policy: templates that a service runs, alone or beside what clients say themselves.
//!
//! A template is an argument list with placeholders, each a whole argument with a type. There is no shell and
//! no text put together, so that a value can never become more than one argument. The policy judges the parsed
//! job that will run, not the request that asked for it. It knows no HTTP.

mod live;
mod param;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::param::{Param, RawParam};
use crate::request::{self, Argument, FieldError, NewJob, SpecLimits, TemplateRequest, Turn, code};
use job::Spec;
use job::spec::Program;
use linux::files;
pub use live::Policies;

/// Fields that a template's `spec` must leave to the template and to the request.
const NOT_IN_SPEC: [&str; 6] = ["command", "script", "shell", "name", "labels", "depends_on"];

/// The templates of a service.
#[derive(Clone, Debug)]
pub struct Policy {
    mode: Mode,
    templates: BTreeMap<String, Template>,
    limits: SpecLimits,
}

/// What there is beside the templates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Nothing.
    #[default]
    Only,
    /// Whatever a client says.
    Also,
}

/// A template as clients see it.
#[derive(Clone, Debug, Serialize)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// What it runs, with parameters as `{NAME}`.
    pub command: Vec<String>,
    /// The JSON Schema of `params`; `required` has them in the order of the command.
    pub params: Value,
}

/// Why a request for a template gives no job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// The policy does not have it.
    NoSuchTemplate,
    /// Parameters are missing, unknown or not allowed.
    Invalid(Vec<FieldError>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    #[serde(default)]
    mode: Mode,
    template: BTreeMap<String, RawTemplate>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTemplate {
    command: Vec<String>,
    #[serde(default)]
    params: BTreeMap<String, RawParam>,
    #[serde(default)]
    spec: serde_json::Map<String, Value>,
}

#[derive(Clone, Debug)]
struct Template {
    command: Vec<Word>,
    params: BTreeMap<String, Param>,
    /// The rest of the body of `POST /jobs`.
    spec: serde_json::Map<String, Value>,
}

/// One argument of a template.
#[derive(Clone, Debug)]
enum Word {
    Fixed(String),
    Param(String),
}

impl Policy {
    /// Reads the file; the error is one line that says the fix.
    pub fn read(path: &Path) -> Result<Self, String> {
        let wrong = |why: String| format!("--policy: {}: {why}", path.display());
        let (found, text) = files::read_text(path).map_err(|error| wrong(error.to_string()))?;
        if found.mode() & 0o022 != 0 {
            return Err(wrong(format!(
                "can be written by others (mode {:04o}); run chmod go-w on it",
                found.mode() & 0o7777
            )));
        }
        if found.uid() != 0 && found.uid() != geteuid().as_raw() {
            return Err(wrong(format!(
                "belongs to uid {}, who could change it; give it to root or to this service's user",
                found.uid()
            )));
        }
        Self::parse(&text).map_err(wrong)
    }

    /// Reads the text of a policy.
    pub fn parse(text: &str) -> Result<Self, String> {
        let raw: RawPolicy = toml::from_str(text).map_err(|error| {
            let place = error.span().map_or(0, |span| span.start);
            let line = text
                .bytes()
                .take(place)
                .filter(|byte| *byte == b'\n')
                .count()
                + 1;
            let why = error.message().lines().collect::<Vec<_>>().join(", ");
            format!("line {line}: {why}")
        })?;
        let limits = SpecLimits {
            // Whoever writes the file decides; where it leads is looked at with every delivery.
            private_webhooks: true,
            ..SpecLimits::default()
        };
        let mut templates = BTreeMap::new();
        for (name, raw) in raw.template {
            let template = Template::compile(raw, &limits)
                .and_then(|template| {
                    is_name(&name)
                        .then_some(template)
                        .ok_or_else(|| "a name has letters, digits and -_. only".to_owned())
                })
                .map_err(|why| format!("template {name:?}: {why}"))?;
            templates.insert(name, template);
        }
        Ok(Self {
            mode: raw.mode,
            templates,
            limits,
        })
    }

    /// Are the templates all that can be run?
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.mode == Mode::Only
    }

    /// How many templates there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.templates.len()
    }

    /// Every template, for those who may run them.
    #[must_use]
    pub fn described(&self) -> Vec<Described> {
        let templates = self.templates.iter();
        templates
            .map(|(name, template)| template.described(name))
            .collect()
    }

    /// Does it forbid everything?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.templates.is_empty()
    }

    /// The job that the request asks for. Looks at the file system where a parameter is a path.
    pub fn job(&self, request: TemplateRequest) -> Result<NewJob, TemplateError> {
        let template = self
            .templates
            .get(&request.template)
            .ok_or(TemplateError::NoSuchTemplate)?;
        let arguments = template
            .arguments(&request.params)
            .map_err(TemplateError::Invalid)?;
        let mut spec = template
            .spec(&arguments, &self.limits)
            .map_err(TemplateError::Invalid)?;
        let has_priority = request.turn.priority.is_some() || template.says("priority");
        let fixed = template.give(&mut spec, request.turn);
        if !fixed.is_empty() {
            let errors = fixed.into_iter().map(|field| FieldError {
                pointer: format!("/{field}"),
                code: code::CONFLICT,
                detail: format!(
                    "template {:?} says this itself: leave it out",
                    request.template
                ),
            });
            return Err(TemplateError::Invalid(errors.collect()));
        }
        Ok(NewJob {
            name: request.name,
            labels: request.labels,
            spec,
            run_at: request.run_at,
            hold: request.hold,
            has_priority,
            depends_on: request.depends_on,
        })
    }

    /// May this job run: is it one that a template makes, with parameters that the template allows, or may be any?
    /// Where it waits is asked only as far as the template says that.
    #[must_use]
    pub fn admits(&self, spec: &Spec) -> bool {
        if !self.is_all() {
            return true;
        }
        let Program::Command { command } = &spec.program else {
            return false;
        };
        self.templates.values().any(|template| {
            template
                .arguments_in(command)
                .and_then(|arguments| template.spec(&arguments, &self.limits).ok())
                .is_some_and(|mut made| {
                    template.give(&mut made, Turn::of(spec));
                    made == *spec
                })
        })
    }
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// The name in an argument that is nothing but a placeholder.
fn placeholder(word: &str) -> Option<&str> {
    let name = word.strip_prefix('{')?.strip_suffix('}')?;
    is_name(name).then_some(name)
}

impl Template {
    fn compile(raw: RawTemplate, limits: &SpecLimits) -> Result<Self, String> {
        let mut params = BTreeMap::new();
        for (name, raw) in raw.params {
            let param = Param::compile(raw).map_err(|why| format!("parameter {name:?}: {why}"))?;
            if !is_name(&name) {
                return Err(format!(
                    "parameter {name:?}: a name has letters, digits and -_. only"
                ));
            }
            params.insert(name, param);
        }
        if !raw
            .command
            .first()
            .is_some_and(|program| program.starts_with('/'))
        {
            return Err("command must begin with the absolute path of a program".to_owned());
        }
        let mut unused: BTreeSet<&str> = params.keys().map(String::as_str).collect();
        let mut command = Vec::new();
        for word in &raw.command {
            if let Some(name) = placeholder(word) {
                if !params.contains_key(name) {
                    return Err(format!("{word:?} is no parameter; declare it under params"));
                }
                unused.remove(name);
                command.push(Word::Param(name.to_owned()));
                continue;
            }
            if let Some(name) = params
                .keys()
                .find(|name| word.contains(&format!("{{{name}}}")))
            {
                return Err(format!(
                    "{word:?}: a placeholder is a whole argument; write \"{{{name}}}\" as one of its own"
                ));
            }
            command.push(Word::Fixed(word.clone()));
        }
        if let Some(name) = unused.first() {
            return Err(format!("parameter {name:?} is not used in command"));
        }
        if let Some(field) = NOT_IN_SPEC
            .iter()
            .find(|field| raw.spec.contains_key(**field))
        {
            return Err(format!("spec must not have {field:?}"));
        }
        let template = Self {
            command,
            params,
            spec: raw.spec,
        };
        // What is wrong with the rest is found now, not with the first request.
        let sample = template
            .params
            .keys()
            .map(|name| (name.clone(), "x".to_owned()))
            .collect();
        template.spec(&sample, limits).map_err(|errors| {
            let told: Vec<String> = errors
                .iter()
                .map(|error| format!("{}: {}", error.pointer, error.detail))
                .collect();
            format!("spec: {}", told.join("; "))
        })?;
        Ok(template)
    }

    fn says(&self, field: &str) -> bool {
        self.spec.contains_key(field)
    }

    /// Gives the job this turn, but for the fields that the template says itself: those are the answer.
    fn give(&self, spec: &mut Spec, turn: Turn) -> Vec<&'static str> {
        let mut fixed = Vec::new();
        let mut is_free = |field| {
            if self.says(field) {
                fixed.push(field);
            }
            !self.says(field)
        };
        if let Some(queue) = turn.queue
            && is_free("queue")
        {
            spec.queue = queue;
        }
        if let Some(priority) = turn.priority
            && is_free("priority")
        {
            spec.priority = priority;
        }
        if let Some(weight) = turn.weight
            && is_free("weight")
        {
            spec.weight = weight;
        }
        if let Some(concurrency) = turn.concurrency
            && is_free("concurrency")
        {
            spec.concurrency = Some(concurrency);
        }
        fixed
    }

    fn described(&self, name: &str) -> Described {
        let command: Vec<String> = self
            .command
            .iter()
            .map(|word| match word {
                Word::Fixed(text) => text.clone(),
                Word::Param(name) => format!("{{{name}}}"),
            })
            .collect();
        // In the order in which the command has them.
        let mut order: Vec<&str> = Vec::new();
        for word in &self.command {
            if let Word::Param(name) = word
                && !order.contains(&name.as_str())
            {
                order.push(name);
            }
        }
        let properties: serde_json::Map<String, Value> = self
            .params
            .iter()
            .map(|(name, param)| (name.clone(), param.schema()))
            .collect();
        let params = json!({
            "type": "object",
            "properties": properties,
            "required": order,
            "additionalProperties": false,
        });
        Described {
            name: name.to_owned(),
            command,
            params,
        }
    }

    /// Every parameter as the argument it becomes.
    fn arguments(
        &self,
        given: &BTreeMap<String, Argument>,
    ) -> Result<BTreeMap<String, String>, Vec<FieldError>> {
        let wrong = |name: &str, code: &'static str, detail: String| FieldError {
            pointer: format!("/params/{}", name.replace('~', "~0").replace('/', "~1")),
            code,
            detail,
        };
        let mut errors = Vec::new();
        let mut arguments = BTreeMap::new();
        for (name, param) in &self.params {
            match given.get(name) {
                None => errors.push(wrong(name, code::MISSING, "must be given".to_owned())),
                Some(argument) => match param.argument(argument) {
                    Ok(text) => {
                        arguments.insert(name.clone(), text);
                    }
                    Err(refused) => errors.push(wrong(name, refused.code, refused.detail)),
                },
            }
        }
        let known: Vec<&str> = self.params.keys().map(String::as_str).collect();
        let unknown = given.keys().filter(|name| !self.params.contains_key(*name));
        errors.extend(unknown.take(10).map(|name| {
            let detail = format!("known parameters: {}", known.join(", "));
            wrong(name, code::UNKNOWN_FIELD, detail)
        }));
        if errors.is_empty() {
            Ok(arguments)
        } else {
            Err(errors)
        }
    }

    /// The parameters that make this command, if there are any that are allowed.
    fn arguments_in(&self, command: &[String]) -> Option<BTreeMap<String, String>> {
        if command.len() != self.command.len() {
            return None;
        }
        let mut arguments: BTreeMap<String, String> = BTreeMap::new();
        for (word, given) in self.command.iter().zip(command) {
            match word {
                Word::Fixed(fixed) if fixed == given => {}
                Word::Fixed(_) => return None,
                Word::Param(name) => {
                    let same = arguments.get(name).is_none_or(|before| before == given);
                    if !same || !self.params.get(name)?.makes(given) {
                        return None;
                    }
                    arguments.insert(name.clone(), given.clone());
                }
            }
        }
        Some(arguments)
    }

    fn spec(
        &self,
        arguments: &BTreeMap<String, String>,
        limits: &SpecLimits,
    ) -> Result<Spec, Vec<FieldError>> {
        let command: Vec<&str> = self
            .command
            .iter()
            .map(|word| match word {
                Word::Fixed(text) => text.as_str(),
                Word::Param(name) => arguments.get(name).expect(
                    "every placeholder is a parameter, and every parameter has its argument",
                ),
            })
            .collect();
        let mut body = self.spec.clone();
        body.insert("command".to_owned(), command.into());
        let bytes = serde_json::to_vec(&body).expect("a map of JSON values");
        let body = request::parse_body(&bytes).map_err(|error| {
            vec![FieldError {
                pointer: String::new(),
                code: code::INVALID_VALUE,
                detail: error.to_string(),
            }]
        })?;
        request::parse_submission(&body, limits).map(|new| new.spec)
    }
}

#[cfg(test)]
mod tests;
