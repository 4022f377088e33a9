//! Which known word somebody meant who wrote another one.

/// What other services and libraries call it, and what it is called here.
const ELSEWHERE: [(&str, &[&str]); 22] = [
    ("after", &["page_token", "created_after"]),
    ("args", &["command"]),
    ("argv", &["command"]),
    ("before", &["created_before"]),
    ("callback_url", &["webhooks"]),
    ("cmd", &["command"]),
    ("count", &["page_size"]),
    ("cursor", &["page_token"]),
    ("deadline", &["timeout_seconds"]),
    ("eta", &["run_at"]),
    ("limit", &["page_size"]),
    ("metadata", &["labels"]),
    ("not_before", &["run_at"]),
    ("page", &["page_token"]),
    ("per_page", &["page_size"]),
    ("since", &["created_after"]),
    ("sort", &["order_by"]),
    ("status", &["state"]),
    ("tags", &["labels"]),
    ("username", &["user"]),
    ("working_dir", &["cwd"]),
    ("workdir", &["cwd"]),
];

/// The known word that an unknown one most likely stands for. What nobody would type is not compared.
pub(crate) fn nearest(word: &str, known: &[&'static str]) -> Option<&'static str> {
    const ALIKE: f64 = 0.82;
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    let part = known.iter().find(|known| {
        // `timeout` for `timeout_seconds`.
        word.len() >= 3
            && known
                .strip_prefix(word.as_str())
                .is_some_and(|rest| rest.starts_with('_'))
    });
    let elsewhere = ELSEWHERE.iter().find(|(there, _)| *there == word);
    let here = elsewhere.and_then(|(_, here)| known.iter().find(|known| here.contains(known)));
    let alike = known
        .iter()
        .map(|known| (strsim::jaro_winkler(&word, known), known));
    let best = alike.max_by(|(one, _), (other, _)| one.total_cmp(other));
    part.or(here)
        .or_else(|| {
            best.filter(|(score, _)| *score >= ALIKE)
                .map(|(_, known)| known)
        })
        .copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_other_services_are_understood_where_their_meaning_is_known() {
        let fields = ["command", "cwd", "labels", "timeout_seconds"];
        assert_eq!(nearest("argv", &fields), Some("command"));
        assert_eq!(nearest("working-dir", &fields), Some("cwd"));
        assert_eq!(nearest("Tags", &fields), Some("labels"));
        assert_eq!(nearest("limit", &fields), None);
        assert_eq!(nearest("limit", &["page_size"]), Some("page_size"));
        assert_eq!(nearest("zzz", &fields), None);
    }
}
