//! What is told of the ledger, and as series.

use std::fmt::Write;

use serde_json::json;

use ledger::View;

/// What is told of the ledger.
pub(crate) fn seen(view: &View) -> serde_json::Value {
    let members: Vec<_> = view
        .members
        .iter()
        .map(|member| {
            json!({
                "url": member.url,
                "version": member.version,
                "heard": member.is_heard,
                "behind": view.head.saturating_sub(member.seq),
            })
        })
        .collect();
    json!({
        "role": view.role.as_str(),
        "cluster": view.cluster,
        "epoch": view.epoch,
        "seq": view.seq,
        "behind": view.head.saturating_sub(view.seq),
        "leader": view.leader,
        "available": view.is_heard(),
        "followers": members,
    })
}

/// The series of the ledger, before the end of all others.
pub(crate) fn with_series(text: &str, view: &View) -> String {
    const END: &str = "# EOF\n";
    let (text, end) = match text.strip_suffix(END) {
        Some(text) => (text, END),
        None => (text, ""),
    };
    let heard = view.members.iter().filter(|member| member.is_heard);
    let behind = heard
        .clone()
        .map(|it| view.head.saturating_sub(it.seq))
        .max();
    let series = [
        (
            "available",
            "PostgreSQL has answered in the last seconds.",
            u64::from(view.is_heard()),
        ),
        (
            "epoch",
            "How often the lead of the cluster has been taken.",
            view.epoch,
        ),
        ("seq", "The last change of the ledger.", view.seq),
        (
            "followers",
            "API nodes that follow and are heard.",
            u64::try_from(heard.count()).unwrap_or_default(),
        ),
        (
            "behind",
            "Changes that the slowest of them lacks.",
            behind.unwrap_or_default(),
        ),
        (
            "appended_bytes",
            "Bytes that this server has appended to the ledger.",
            view.appended.1,
        ),
    ];
    let mut all = text.to_owned();
    for (name, help, value) in series {
        let name = format!("procession_ledger_{name}");
        // A text does not fail.
        let _ = writeln!(
            all,
            "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}"
        );
    }
    all + end
}
