//! The rules of `webhooks`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use url::{Host, Url};

use super::SpecLimits;
use super::fields::{At, Fields, code};
use job::event::Kind;
use job::webhook::{SECRET_PREFIX, WEBHOOKS_MAX, Webhook, WebhookSecret, is_public};

const URL_BYTES: usize = 2048;

/// How long a key may be, in bytes, as the Standard Webhooks specification wants it.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

pub(super) fn webhooks(limits: &SpecLimits) -> impl Fn(&At<'_>) -> Option<Vec<Webhook>> {
    let private = limits.private_webhooks;
    move |at| at.list(WEBHOOKS_MAX, webhook(private, &EVENTS))
}

/// The webhooks of a batch, which are told of its end.
pub(super) fn of_batch(limits: &SpecLimits) -> impl Fn(&At<'_>) -> Option<Vec<Webhook>> {
    let private = limits.private_webhooks;
    move |at| at.list(WEBHOOKS_MAX, webhook(private, &OF_BATCH))
}

fn webhook(
    private: bool,
    known: &'static [(&'static str, Kind)],
) -> impl Fn(&At<'_>) -> Option<Webhook> {
    move |at| {
        let mut f = Fields::of(at)?;
        let url = f.required("url", address(private));
        let all = known.iter().map(|(_, kind)| *kind).collect();
        let events = f.or(all, "events", |at| {
            at.filled_list(known.len(), |at| at.choice(known))
        });
        let secret = f.optional("secret", secret);
        f.finish();
        Some(Webhook {
            url: url?,
            events,
            secret,
        })
    }
}

fn address(private: bool) -> impl Fn(&At<'_>) -> Option<String> {
    move |at| {
        let text = at.text()?;
        if text.len() > URL_BYTES {
            return at.refuse(
                code::TOO_LONG,
                format!("must have at most {URL_BYTES} bytes"),
            );
        }
        let refuse = |detail: &str| at.refuse(code::INVALID_VALUE, detail);
        let Ok(url) = Url::parse(text) else {
            return refuse("must be a URL, such as https://example.org/hook");
        };
        if !["http", "https"].contains(&url.scheme()) {
            return refuse("must begin with https:// or http://");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("must not have a user or a password: use a secret");
        }
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            Some(Host::Domain(_)) | None => None,
        };
        if address.is_some_and(|address| !private && !is_public(address)) {
            return refuse(
                "must not be a private, loopback or link-local address; --webhook-allow-private allows it",
            );
        }
        Some(url.into())
    }
}

/// What a webhook can be told of: all but deliveries.
const EVENTS: [(&str, Kind); 13] = [
    ("job.created", Kind::Created),
    ("job.started", Kind::Started),
    ("job.paused", Kind::Paused),
    ("job.resumed", Kind::Resumed),
    ("job.stopping", Kind::Stopping),
    ("job.signaled", Kind::Signaled),
    ("job.warned", Kind::Warned),
    ("job.changed", Kind::Changed),
    ("job.ready", Kind::Ready),
    ("job.not_ready", Kind::NotReady),
    ("job.attempt_finished", Kind::AttemptFinished),
    ("job.artifacts", Kind::Artifacts),
    ("job.finished", Kind::Finished),
];

/// What a webhook of a batch can be told of.
const OF_BATCH: [(&str, Kind); 1] = [("batch.finished", Kind::BatchFinished)];

fn secret(at: &At<'_>) -> Option<WebhookSecret> {
    let text = at.text()?;
    let key = text.strip_prefix(SECRET_PREFIX);
    let key = key.and_then(|key| STANDARD.decode(key).ok());
    if key.is_some_and(|key| KEY_BYTES.contains(&key.len())) {
        return Some(WebhookSecret(text.to_owned()));
    }
    at.refuse(
        code::INVALID_VALUE,
        "must be whsec_ and the base64 of 24 to 64 random bytes",
    )
}
