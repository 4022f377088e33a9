//! The rules of `depends_on`.

use super::fields::{At, Fields, code};
use super::rules;
use job::JobId;
use job::batch::{DEPENDENCIES_MAX, On, Target};
use job::dependency::{Awaited, Dependency};

/// What a job waits for that is submitted by itself.
pub(super) fn dependencies(at: &At<'_>) -> Option<Vec<Dependency>> {
    let read = list(at, false)?;
    let known = read.into_iter().filter_map(|(target, on)| {
        let awaited = match target {
            Target::Job(job) => Awaited::Job { job },
            Target::Batch(batch) => Awaited::Batch { batch },
            Target::Key(_) => return None,
        };
        Some(Dependency { awaited, on })
    });
    Some(known.collect())
}

/// The same for an entry of a batch, which may wait for others of it.
pub(super) fn of_entry(at: &At<'_>) -> Option<Vec<(Target, On)>> {
    list(at, true)
}

fn list(at: &At<'_>, with_keys: bool) -> Option<Vec<(Target, On)>> {
    let items = at.list(DEPENDENCIES_MAX, |at| one(at, with_keys))?;
    let mut rest = items.as_slice();
    while let Some((first, others)) = rest.split_first() {
        if others.contains(first) {
            return at.refuse(code::INVALID_VALUE, "must have no item twice");
        }
        rest = others;
    }
    Some(items)
}

fn one(at: &At<'_>, with_keys: bool) -> Option<(Target, On)> {
    let mut f = Fields::of(at)?;
    let key = with_keys.then(|| f.optional("key", rules::queue)).flatten();
    let job = f.optional("job", id);
    let batch = f.optional("batch", id);
    let on = f.or_default("on", |at| {
        at.choice(&[
            ("succeeded", On::Succeeded),
            ("failed", On::Failed),
            ("finished", On::Finished),
        ])
    });
    let names: &[&str] = if with_keys {
        &["key", "job", "batch"]
    } else {
        &["job", "batch"]
    };
    let given: Vec<&&str> = names.iter().filter(|name| f.has(name)).collect();
    match given.as_slice() {
        [] => f.refuse(
            names[0],
            code::MISSING,
            format!("give one of {}", names.join(", ")),
        ),
        [_] => {}
        [_, second, ..] => {
            f.refuse(
                second,
                code::CONFLICT,
                format!("give one of {}", names.join(", ")),
            );
        }
    }
    f.finish();
    let target = key.map(Target::Key).or(job.map(Target::Job));
    Some((target.or(batch.map(Target::Batch))?, on))
}

/// The id of a job or a batch.
pub(super) fn id(at: &At<'_>) -> Option<JobId> {
    match at.text()?.parse() {
        Ok(id) => Some(id),
        Err(_) => at.refuse(code::INVALID_VALUE, "must be an id"),
    }
}
