//! Webhooks of a job: who is to be told of what, whom no request may go to, and when one is tried again.
//!
//! PURE. How a request is made is not known here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::event::Kind;

/// The most webhooks of a job.
pub const WEBHOOKS_MAX: usize = 8;

/// What a secret in text begins with; standard base64 of the key follows.
pub const SECRET_PREFIX: &str = "whsec_";

/// How often a delivery is tried before it is given up: that takes four to eight hours.
pub const ATTEMPTS_MAX: u32 = 20;

/// The longest pause between two attempts.
pub const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// One receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// Where to; `parse` has checked that it is an http or https URL without credentials.
    pub url: String,
    /// Of what.
    pub events: Vec<Kind>,
    /// With what a delivery is signed.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "named"
    )]
    pub secret: Option<WebhookSecret>,
}

impl Webhook {
    /// Is it told of this kind? Never of deliveries, as that would have no end, and of what is no job or batch.
    #[must_use]
    pub fn wants(&self, kind: Kind) -> bool {
        match kind {
            // Its webhooks are told of it up to its end.
            Kind::ReportedLate
            | Kind::WebhookDelivered
            | Kind::WebhookFailed
            | Kind::ScheduleStarted
            | Kind::ScheduleSkipped
            | Kind::ScheduleChanged
            | Kind::QueueChanged => false,
            Kind::Created
            | Kind::Started
            | Kind::Paused
            | Kind::Resumed
            | Kind::Stopping
            | Kind::Signaled
            | Kind::Warned
            | Kind::Changed
            | Kind::Ready
            | Kind::NotReady
            | Kind::AttemptFinished
            | Kind::Artifacts
            | Kind::Finished
            | Kind::BatchCreated
            | Kind::BatchFinished => self.events.contains(&kind),
        }
    }
}

/// A secret as it was given, which is never shown again: `Debug` and `Serialize` only say that there is
/// one.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(pub String);

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret")
    }
}

impl Serialize for WebhookSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

/// Where the field is, there is a secret; its value is kept elsewhere.
fn named<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<WebhookSecret>, D::Error> {
    let value = Option::<String>::deserialize(deserializer)?;
    Ok(Some(WebhookSecret(value.unwrap_or_default())))
}

/// Who receives what is sent to this address: its scheme, host and port.
#[must_use]
pub fn receiver(url: &str) -> &str {
    let authority = url.find("://").map_or(0, |at| at + 3);
    let rest = url.get(authority..).unwrap_or_default();
    let length = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    url.get(..authority + length).unwrap_or(url)
}

/// How long to wait after so many attempts that failed; nothing if it is given up. `jitter` is random,
/// from 0 to 1, and keeps those that failed together from coming back together.
#[must_use]
pub fn pause_after(attempts: u32, jitter: f64) -> Option<Duration> {
    if attempts >= ATTEMPTS_MAX {
        return None;
    }
    let doubled = 1_u64 << attempts.saturating_sub(1).min(32);
    let pause = Duration::from_secs(doubled).min(LONGEST_PAUSE);
    Some(pause.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0))
}

/// Is this an address that anybody on the internet may have? All others are refused, so that a job's
/// webhook reaches neither this machine nor its network.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// By the registry of special-purpose addresses (RFC 6890 and its successors).
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = matches!(
        (a, b, c),
        (0 | 10 | 127, ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
            | (224..=255, ..)
    );
    !special
}

/// Of IPv6, only global unicast; and of that nothing that leads on to another address (Teredo, 6to4) or is
/// for documents and benchmarks.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let global = a & 0xe000 == 0x2000;
    let special =
        (a == 0x2001 && (b < 0x0200 || b == 0x0db8)) || a == 0x2002 || a & 0xfff0 == 0x3ff0;
    global && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for address in [
            "8.8.8.8",
            "1.1.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "192.167.1.1",
            "223.255.255.254",
            "2606:4700::1111",
            "2a00:1450:4001::1",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "127.0.0.1",
            "127.255.0.1",
            "100.64.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::7f00:1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_receiver_is_scheme_host_and_port() {
        for (url, expected) in [
            ("https://example.org/a/b?c", "https://example.org"),
            ("http://example.org:8080", "http://example.org:8080"),
            ("http://[::1]:1?x=/", "http://[::1]:1"),
            ("no address", "no address"),
            ("", ""),
        ] {
            assert_eq!(receiver(url), expected);
        }
    }

    #[test]
    fn pauses_grow_to_an_hour_and_end() {
        assert_eq!(pause_after(1, 1.0), Some(Duration::from_secs(1)));
        assert_eq!(pause_after(1, 0.0), Some(Duration::from_millis(500)));
        assert_eq!(pause_after(4, 1.0), Some(Duration::from_secs(8)));
        assert_eq!(pause_after(19, 1.0), Some(Duration::from_hours(1)));
        assert_eq!(pause_after(20, 1.0), None);
        let most: Duration = (1..ATTEMPTS_MAX).map_while(|it| pause_after(it, 1.0)).sum();
        assert!(most < Duration::from_hours(9) && most > Duration::from_hours(8));
    }

    #[test]
    fn a_secret_is_neither_shown_nor_encoded() {
        let webhook = Webhook {
            url: "https://example.org/".into(),
            events: vec![Kind::Finished],
            secret: Some(WebhookSecret("hunter2".into())),
        };
        let text = serde_json::to_string(&webhook).unwrap();
        assert!(!format!("{webhook:?} {text}").contains("hunter2"));
        let back: Webhook = serde_json::from_str(&text).unwrap();
        assert_eq!(back.secret, Some(WebhookSecret(String::new())));
        assert_eq!(back.events, webhook.events);
        let plain: Webhook = serde_json::from_str(r#"{"url": "http://a/", "events": []}"#).unwrap();
        assert_eq!(plain.secret, None);
    }

    #[test]
    fn nobody_is_told_of_deliveries() {
        let webhook = Webhook {
            url: String::new(),
            events: Kind::ALL.to_vec(),
            secret: None,
        };
        let told = Kind::ALL.into_iter().filter(|kind| webhook.wants(*kind));
        assert_eq!(told.count(), Kind::ALL.len() - 7);
    }
}
