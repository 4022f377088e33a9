//! One request to a webhook, signed as Standard Webhooks 1.0 has it.
//!
//! A job's webhook must not reach what is near this service. So names are resolved here, and every address
//! is looked at in the moment in which it is connected to; redirects are not followed, and no proxy is
//! asked. When a request is made, and what follows from its failure, is not known here.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use sha2::Sha256;
use url::{Host, Url};

use crate::cloud_event::{CLOUD_EVENT_JSON, CloudEvent};
use job::webhook::{SECRET_PREFIX, WebhookSecret, is_public};
use linux::clock;
use store::Delivery;

/// How long a connection, and a request with its answer, may take.
const CONNECT_TIME: Duration = Duration::from_secs(5);
const REQUEST_TIME: Duration = Duration::from_secs(15);

const NOT_PUBLIC: &str =
    "the address is private, loopback or link-local; --webhook-allow-private allows it";

/// Why an attempt failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// In words that the job's clients may read.
    pub(super) why: String,
    /// The receiver says that it will never take it.
    pub(super) is_final: bool,
}

impl Failure {
    fn passing(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            is_final: false,
        }
    }
}

/// What makes requests; clones share their connections.
#[derive(Clone, Debug)]
pub(super) struct Client {
    allow_private: bool,
    /// Made with the first request: to read the machine's certificate authorities takes a while.
    http: Arc<OnceLock<Result<reqwest::Client, String>>>,
}

impl Client {
    pub(super) fn new(allow_private: bool) -> Self {
        Self {
            allow_private,
            http: Arc::default(),
        }
    }

    /// Makes the request; gives the status with which the event was taken.
    pub(super) async fn send(&self, source: &str, delivery: &Delivery) -> Result<u16, Failure> {
        let http = self.http.get_or_init(|| self.build()).as_ref();
        let http = http.map_err(|why| Failure::passing(why.as_str()))?;
        let url: Url = delivery
            .url
            .parse()
            .map_err(|_| Failure::passing("the URL is not valid"))?;
        // An address in the URL is never resolved.
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            Some(Host::Domain(_)) | None => None,
        };
        if !self.allow_private && address.is_some_and(|address| !is_public(address)) {
            return Err(Failure::passing(NOT_PUBLIC));
        }
        let body = CloudEvent::new(source, delivery.cursor, &delivery.event).to_json();
        let id = message_id(source, delivery);
        let seconds = clock::wall().as_micros() / 1_000_000;
        let mut request = http
            .post(url)
            .header("content-type", CLOUD_EVENT_JSON)
            .header("webhook-id", &id)
            .header("webhook-timestamp", seconds.to_string());
        if let Some(parent) = &delivery.event.traceparent {
            request = request.header("traceparent", parent);
        }
        if let Some(secret) = &delivery.secret {
            let signature = sign(secret, &id, seconds, &body)
                .ok_or_else(|| Failure::passing("the secret is not valid"))?;
            request = request.header("webhook-signature", signature);
        }
        let response = request.body(body).send().await.map_err(|error| {
            // The URL may have a secret in it, and whoever reads the events need not know it.
            Failure::passing(words(&error.without_url()))
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(status.as_u16());
        }
        Err(Failure {
            why: format!("answered {}", status.as_u16()),
            is_final: status == reqwest::StatusCode::GONE,
        })
    }

    fn build(&self) -> Result<reqwest::Client, String> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("procession/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .no_proxy()
            .referer(false)
            .connect_timeout(CONNECT_TIME)
            .timeout(REQUEST_TIME)
            .pool_max_idle_per_host(1);
        if !self.allow_private {
            builder = builder.dns_resolver(Arc::new(PublicOnly));
        }
        let built = builder.build();
        built.map_err(|error| format!("no client could be made: {}", words(&error)))
    }
}

/// An error with what caused it, in one line.
fn words(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = next.source();
    }
    text
}

/// The same for every attempt of a delivery, and for no other delivery.
fn message_id(source: &str, delivery: &Delivery) -> String {
    let store: String = source
        .rsplit(':')
        .next()
        .unwrap_or_default()
        .replace('-', "");
    format!("msg_{store}_{}_{}", delivery.cursor, delivery.webhook)
}

/// `v1,` and the base64 of the HMAC-SHA256 over id, time and body.
fn sign(secret: &WebhookSecret, id: &str, seconds: i64, body: &str) -> Option<String> {
    let key = secret.0.strip_prefix(SECRET_PREFIX)?;
    let key = STANDARD.decode(key).ok()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(format!("{id}.{seconds}.{body}").as_bytes());
    Some(format!(
        "v1,{}",
        STANDARD.encode(mac.finalize().into_bytes())
    ))
}

/// Resolves names, and keeps what is private to itself.
#[derive(Debug)]
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|found| is_public(found.ip())).collect();
            if public.is_empty() {
                return Err(io::Error::other(NOT_PUBLIC).into());
            }
            let addresses: Addrs = Box::new(public.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_specification() {
        // The example of the Standard Webhooks libraries.
        let secret = WebhookSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let signature = sign(&secret, id, 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(
            signature.as_deref(),
            Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
        );
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_not_resolved() {
        let resolved = PublicOnly.resolve("localhost".parse().unwrap()).await;
        let Err(error) = resolved else {
            panic!("resolved");
        };
        assert_eq!(error.to_string(), NOT_PUBLIC);
    }
}
