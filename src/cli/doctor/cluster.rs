//! Which API nodes share a ledger, as the one that leads says: who follows, and who could take the lead. PURE.

use serde_json::Value;

use super::{Say, Verdict};

/// One that lacks more changes than this does not follow any more as it should.
const FAR: u64 = 1000;

/// Says what there is to say of the answer to `GET /info`.
pub(super) fn examine(info: &Value, say: &mut Say<'_>) {
    let ledger = &info["ledger"];
    let Some(leader) = ledger["leader"].as_str() else {
        return;
    };
    if ledger["available"] != true {
        let text = "PostgreSQL does not answer: what runs continues, new jobs are refused";
        say("ledger", Verdict::Problem, text.to_owned());
    }
    let text = match leader {
        "" => "no API node leads".to_owned(),
        leader => format!("{leader} leads, as number {}", ledger["epoch"]),
    };
    let verdict = match leader {
        "" => Verdict::Problem,
        _ => Verdict::Good,
    };
    say("ledger", verdict, text);
    let followers = ledger["followers"].as_array();
    let followers = followers.map(Vec::as_slice).unwrap_or_default();
    if !followers.iter().any(|it| it["heard"] == true) {
        let text = "no other API node is heard: nobody takes the lead if this one dies";
        say("ledger", Verdict::Note, text.to_owned());
    }
    for follower in followers {
        let url = follower["url"].as_str().unwrap_or_default();
        let behind = follower["behind"].as_u64().unwrap_or_default();
        let (verdict, text) = if follower["heard"] != true {
            (Verdict::Note, format!("{url} is not heard"))
        } else if behind > FAR {
            let text = format!("{url} follows, and lacks {behind} changes");
            (Verdict::Note, text)
        } else {
            (Verdict::Good, format!("{url} follows"))
        };
        say("ledger", verdict, text);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Finding;
    use super::*;

    fn found(info: &Value) -> Vec<(Verdict, String)> {
        let findings = Finding::collect(|say| examine(info, say));
        let found = findings.into_iter().map(|it| (it.verdict, it.text));
        found.collect()
    }

    #[test]
    fn a_ledger_that_nobody_else_could_lead_is_named() {
        assert_eq!(found(&json!({"name": "procession"})), []);
        let follower = |heard: bool, behind: u64| json!({"url": "https://b", "heard": heard, "behind": behind});
        let ledger = |available: bool, followers: Value| json!({"ledger": {"leader": "https://a", "epoch": 3, "available": available, "followers": followers}});
        let leads = (Verdict::Good, "https://a leads, as number 3".to_owned());
        let follows = |verdict, text: &str| (verdict, text.to_owned());
        assert_eq!(
            found(&ledger(true, json!([follower(true, 2)]))),
            [leads.clone(), follows(Verdict::Good, "https://b follows")]
        );
        assert_eq!(
            found(&ledger(true, json!([follower(true, 5000)]))),
            [
                leads.clone(),
                follows(Verdict::Note, "https://b follows, and lacks 5000 changes")
            ]
        );
        let alone = "no other API node is heard: nobody takes the lead if this one dies";
        assert_eq!(
            found(&ledger(true, json!([follower(false, 0)]))),
            [
                leads.clone(),
                follows(Verdict::Note, alone),
                follows(Verdict::Note, "https://b is not heard")
            ]
        );
        let out = found(&ledger(false, json!([follower(true, 0)])));
        assert_eq!((out[0].0, &out[1]), (Verdict::Problem, &leads));
    }
}
