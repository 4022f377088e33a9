//! Variables of the environment that look like settings and are none.

use std::ffi::OsString;

use super::error::did_you_mean;
use super::settings::{CONFIG_FILE, SETTINGS};

/// Variables that something other than the settings of the service gives a meaning: the client commands, the
/// image and the service itself.
const OTHER_VARIABLES: [&str; 13] = [
    "PROCESSION_URL",
    "PROCESSION_TOKEN",
    "PROCESSION_TOKEN_FILE",
    "PROCESSION_CA",
    "PROCESSION_CLIENT_CERT",
    "PROCESSION_RETRY_SECONDS",
    "PROCESSION_JOB_ID",
    "PROCESSION_SCHEDULE",
    "PROCESSION_DUE_AT",
    "PROCESSION_HANDOVER",
    "PROCESSION_HANDOVER_VERSION",
    "PROCESSION_FAILPOINTS",
    "PROCESSION_BOOT_ID",
];

/// A remark on each variable that looks like a setting and is none. It is no error: Kubernetes makes variables such
/// as `PROCESSION_SERVICE_HOST` of a service's name, and those are not even worth a remark.
pub(crate) fn unknown_variables(names: impl Iterator<Item = OsString>) -> Vec<String> {
    let known = || {
        let settings = SETTINGS.iter().chain([&CONFIG_FILE]);
        settings.map(|setting| setting.env).chain(OTHER_VARIABLES)
    };
    let names = names.filter_map(|name| name.into_string().ok());
    let mut unknown: Vec<String> = names
        .filter(|name| name.starts_with("PROCESSION_") && !known().any(|known| known == name))
        .filter(|name| {
            let of_kubernetes = ["PROCESSION_SERVICE_", "PROCESSION_PORT"];
            !of_kubernetes.iter().any(|prefix| name.starts_with(prefix))
        })
        .collect();
    unknown.sort();
    let remark = |name: &String| {
        let meant = did_you_mean(name, known());
        format!("the variable {name} is ignored: there is no such setting{meant}")
    };
    unknown.iter().map(remark).collect()
}
