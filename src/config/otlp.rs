//! Where spans go: the variables that every program with OpenTelemetry reads, and one setting.

use std::time::Duration;

use percent_encoding::percent_decode_str;

use manager::spans::{Otlp, Sampler};

/// How long a collector may take, if nobody says.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the setting and the variables say; `None` if no spans are to be made. An error is what is wrong with a
/// variable: its name, what is allowed and what was given.
pub(super) fn read(
    endpoint: Option<String>,
    labels: Vec<String>,
    variables: &[(String, String)],
) -> Result<Option<Otlp>, (&'static str, String, String)> {
    let of = |name: &str| {
        let found = variables.iter().find(|(have, _)| have == name);
        found
            .map(|(_, value)| value.trim())
            .filter(|value| !value.is_empty())
    };
    if of("OTEL_SDK_DISABLED").is_some_and(|word| word.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let below = |base: &str| format!("{}/v1/traces", base.trim_end_matches('/'));
    let url = endpoint
        .map(|base| below(&base))
        .or_else(|| of("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").map(str::to_owned))
        .or_else(|| of("OTEL_EXPORTER_OTLP_ENDPOINT").map(below));
    let Some(url) = url else {
        return Ok(None);
    };
    let timeout = match of("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT").or(of("OTEL_EXPORTER_OTLP_TIMEOUT"))
    {
        None => TIMEOUT,
        Some(text) => match text.parse() {
            Ok(millis) => Duration::from_millis(millis),
            Err(_) => {
                let fix = "must be a number of milliseconds".to_owned();
                return Err(("OTEL_EXPORTER_OTLP_TIMEOUT", fix, text.to_owned()));
            }
        },
    };
    let headers = of("OTEL_EXPORTER_OTLP_TRACES_HEADERS").or(of("OTEL_EXPORTER_OTLP_HEADERS"));
    let mut resource = pairs(of("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default());
    if let Some(name) = of("OTEL_SERVICE_NAME") {
        resource.retain(|(key, _)| key != "service.name");
        resource.push(("service.name".to_owned(), name.to_owned()));
    } else if !resource.iter().any(|(key, _)| key == "service.name") {
        resource.push(("service.name".to_owned(), "procession".to_owned()));
    }
    resource.push((
        "service.version".to_owned(),
        env!("CARGO_PKG_VERSION").to_owned(),
    ));
    Ok(Some(Otlp {
        url,
        headers: pairs(headers.unwrap_or_default()),
        timeout,
        resource,
        sampler: sampler(of("OTEL_TRACES_SAMPLER"), of("OTEL_TRACES_SAMPLER_ARG"))?,
        labels,
    }))
}

fn sampler(
    word: Option<&str>,
    arg: Option<&str>,
) -> Result<Sampler, (&'static str, String, String)> {
    let word = word.unwrap_or("parentbased_always_on");
    let (follows_parent, kind) = match word.strip_prefix("parentbased_") {
        Some(kind) => (true, kind),
        None => (false, word),
    };
    let of_million = match kind {
        "always_on" => 1_000_000,
        "always_off" => 0,
        "traceidratio" => {
            let ratio = arg.unwrap_or("1").parse::<f64>().ok();
            let ratio = ratio
                .filter(|ratio| (0.0..=1.0).contains(ratio))
                .ok_or_else(|| {
                    let fix = "must be a number from 0 to 1".to_owned();
                    (
                        "OTEL_TRACES_SAMPLER_ARG",
                        fix,
                        arg.unwrap_or_default().to_owned(),
                    )
                })?;
            // Counted out, since a float does not become an integer without a word about it.
            (0..=1_000_000_u32)
                .rev()
                .find(|count| f64::from(*count) <= ratio * 1_000_000.0)
                .map_or(0, u64::from)
        }
        _ => {
            let fix =
                "must be always_on, always_off or traceidratio, or one of them after parentbased_"
                    .to_owned();
            return Err(("OTEL_TRACES_SAMPLER", fix, word.to_owned()));
        }
    };
    Ok(Sampler {
        follows_parent,
        of_million,
    })
}

/// `key=value,key=value`, with values in percent-encoding; what is no pair is left out.
fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |part: &str| {
        let (key, value) = part.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        Some((key.trim().to_owned(), value.into_owned()))
    };
    text.split(',').filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Result<Option<Otlp>, (&'static str, String, String)> {
        let owned = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        read(None, Vec::new(), &owned.collect::<Vec<_>>())
    }

    #[test]
    fn the_variables_of_opentelemetry_are_read() {
        assert_eq!(with(&[]), Ok(None));
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/");
        assert_eq!(with(&[base, ("OTEL_SDK_DISABLED", "true")]), Ok(None));
        let otlp = with(&[
            base,
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "authorization=Basic%20eA==, x=1",
            ),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "250"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,host.name=h"),
            ("OTEL_SERVICE_NAME", "jobs"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ]);
        let otlp = otlp.unwrap().unwrap();
        assert_eq!(otlp.url, "http://c:4318/v1/traces");
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            otlp.headers,
            [pair("authorization", "Basic eA=="), pair("x", "1")]
        );
        assert_eq!(otlp.timeout, Duration::from_millis(250));
        assert_eq!(
            otlp.resource[..2],
            [pair("host.name", "h"), pair("service.name", "jobs")]
        );
        let quarter = Sampler {
            follows_parent: false,
            of_million: 250_000,
        };
        assert_eq!(otlp.sampler, quarter);
        let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t/x");
        assert_eq!(with(&[base, whole]).unwrap().unwrap().url, "http://t/x");
    }

    #[test]
    fn what_cannot_be_followed_is_refused_by_name() {
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        for (name, value) in [
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ] {
            assert_eq!(with(&[base, (name, value)]).unwrap_err().0, name);
        }
        let ratio = [
            base,
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ];
        assert_eq!(with(&ratio).unwrap_err().0, "OTEL_TRACES_SAMPLER_ARG");
    }
}
