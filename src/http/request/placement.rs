//! The fields `placement` and `on_node_loss` of a spec.

use super::fields::{At, Fields, code};
use job::placement::{OnNodeLoss, Placement};
use job::{NodeName, Spec};

/// The most nodes that can be named.
const NODES_MAX: usize = 100;

pub(super) fn placement(at: &At<'_>) -> Option<Placement> {
    let mut f = Fields::of(at)?;
    let placement = Placement {
        node_selector: f.or_default("node_selector", |at| {
            let parsed = at.text()?.parse();
            parsed.map_or_else(
                |error| at.refuse(code::INVALID_VALUE, format!("{error}")),
                Some,
            )
        }),
        nodes: f.or_default("nodes", |at| {
            at.list(NODES_MAX, |at| {
                let parsed = at.text()?.parse::<NodeName>();
                parsed.map_or_else(|fix| at.refuse(code::INVALID_VALUE, fix), Some)
            })
        }),
    };
    f.finish();
    Some(placement)
}

pub(super) fn on_node_loss(at: &At<'_>) -> Option<OnNodeLoss> {
    at.choice(&[("lost", OnNodeLoss::Lost), ("restart", OnNodeLoss::Restart)])
}

/// What was typed in an attempt is gone in the next, and so are the files of a lost node.
pub(super) fn check_together(f: &Fields<'_>, spec: &Spec) {
    if spec.on_node_loss == OnNodeLoss::Restart && spec.takes_input() {
        f.refuse(
            "on_node_loss",
            code::CONFLICT,
            "restart goes neither with an open standard input nor with a terminal",
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::request::tests::spec_with;

    #[test]
    fn what_was_given_is_shown_and_nothing_else() {
        let given = json!({
            "placement": {"node_selector": "gpu=a100,zone in (a,b)", "nodes": ["n7"]},
            "on_node_loss": "restart",
        });
        let shown = serde_json::to_value(spec_with(&given).unwrap()).unwrap();
        assert_eq!(shown["placement"], given["placement"]);
        assert_eq!(shown["on_node_loss"], "restart");
        let usual = json!({"placement": null, "on_node_loss": "lost"});
        let shown = serde_json::to_value(spec_with(&usual).unwrap()).unwrap();
        assert!(shown.get("placement").is_none() && shown.get("on_node_loss").is_none());
    }

    #[test]
    fn what_is_wrong_is_refused_where_it_is() {
        for (body, pointer) in [
            (json!({"placement": {"node_selector": "gpu=="}}), ""),
            (
                json!({"placement": {"node_selector": "a b"}}),
                "/placement/node_selector",
            ),
            (json!({"placement": {"nodes": ["-"]}}), "/placement/nodes/0"),
            (json!({"placement": {"node": "n7"}}), "/placement/node"),
            (
                json!({"on_node_loss": "restart_exclusive"}),
                "/on_node_loss",
            ),
            (
                json!({"on_node_loss": "restart", "pty": {}}),
                "/on_node_loss",
            ),
        ] {
            match spec_with(&body) {
                Err(errors) => assert_eq!(errors[0].pointer, pointer, "{body}"),
                Ok(_) => assert_eq!(pointer, "", "{body}"),
            }
        }
    }
}
