//! Which known word somebody meant who wrote another one.

/// The known word that an unknown one most likely stands for. What nobody would type is not compared.
pub(crate) fn nearest(word: &str, known: &[&'static str]) -> Option<&'static str> {
    const ALIKE: f64 = 0.82;
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    let part = known.iter().find(|known| {
        // `timeout` for `timeout_seconds`, `argv` for nothing.
        word.len() >= 3
            && known
                .strip_prefix(word.as_str())
                .is_some_and(|rest| rest.starts_with('_'))
    });
    let alike = known
        .iter()
        .map(|known| (strsim::jaro_winkler(&word, known), known));
    let best = alike.max_by(|(one, _), (other, _)| one.total_cmp(other));
    part.or_else(|| {
        best.filter(|(score, _)| *score >= ALIKE)
            .map(|(_, known)| known)
    })
    .copied()
}
