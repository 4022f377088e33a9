//! What a service is in a cluster, as its settings say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ConfigError;
use super::reading::Reading;
use super::values::{DAY, span, url, word};
use cluster::Target;
use http::connections::Auth;
use job::NodeName;
use job::label;
use job::placement::OWN_LABELS;
use ledger::Address;
use manager::{HubSetup, own_labels};
use protocol::state_dir::STORE;

/// The labels of a node.
pub(crate) type Labels = BTreeMap<String, String>;

/// What a service is in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// There is none.
    Alone,
    /// Its hub.
    Hub(HubSetup),
    /// A node of it.
    Node(NodeName, Target, Labels),
}

/// Where the ledger of a hub is.
enum Place {
    /// There is no hub.
    Off,
    /// In its state directory.
    Local,
    /// In a database, which several API nodes share.
    Postgres(Box<Address>),
}

/// Reads it; what does not go together is an error.
pub(super) fn read(
    s: &Reading<'_>,
    path: impl Fn(&str) -> Result<PathBuf, String>,
    auth: Auth,
    state_dir: &Path,
) -> (Part, Option<ledger::Setup>) {
    let place = place(s, &path);
    let is_hub = !matches!(place, Place::Off);
    let is_node = s.one("role", word(&[("all", true), ("api", false)]));
    let join = s.optional("join", |text| given(text, urls)).flatten();
    let token_file = s.optional("join_token_file", |text| given(text, &path));
    let token_file = token_file.flatten();
    let ca = s.optional("join_ca", |text| given(text, &path)).flatten();
    let name = s.optional("node_name", |text| {
        given(text, |text| text.parse::<NodeName>().map_err(str::to_owned))
    });
    let name = name.flatten();
    let lost_after = s.one(
        "node_lost_after_seconds",
        span(Duration::from_secs(1), 7 * DAY),
    );
    let ledger = shared(s, place, &path, is_node, ca.clone(), state_dir);
    let ledger = s.keep(ledger).flatten();
    let packs = s.one("placement", word(&[("spread", false), ("pack", true)]));
    let given_labels = s.many("node_label", node_label);
    let has_labels = !given_labels.is_empty();
    let labels: Labels = given_labels.into_iter().collect();
    let part = match (is_hub, join) {
        (true, Some(_)) => Err((
            "--join",
            "is for nodes, and --cluster for their hub: give one of them",
        )),
        (true, None) if auth == Auth::None => Err((
            "--cluster",
            "needs --auth token: nodes show who they are by their tokens",
        )),
        (true, None) => Ok(Some(None)),
        (false, _) if !is_node => Err(("--role api", "goes with --cluster local or --cluster URL")),
        (false, None) if token_file.is_some() || ca.is_some() => {
            Err(("--join-token-file and --join-ca", "go with --join"))
        }
        (false, None) if has_labels => Err(("--node-label", "goes with --join or --cluster local")),
        (false, None) => Ok(None),
        (false, Some(join)) => match token_file {
            None => Err((
                "--join",
                "goes with --join-token-file, the file of a token of the hub with the scope runner",
            )),
            Some(token_file) => Ok(Some(Some(Target {
                urls: join,
                token_file,
                ca,
            }))),
        },
    };
    let part = part.map_err(|(flags, why)| ConfigError::Together { flags, why });
    let Some(Some(target)) = s.keep(part) else {
        return (Part::Alone, None);
    };
    let name = match name {
        Some(name) => Ok(name),
        None => host_name(),
    };
    let part = match (s.keep(name), target) {
        (None, _) => Part::Alone,
        (Some(name), Some(target)) => {
            let labels = with_own(labels, &name);
            Part::Node(name, target, labels)
        }
        (Some(name), None) => Part::Hub(HubSetup {
            is_node,
            lost_after,
            labels: with_own(labels, &name),
            packs,
            name,
        }),
    };
    (part, ledger)
}

/// Reads where the ledger is. An error does not show what was given, which may have a password in it.
fn place(s: &Reading<'_>, path: impl Fn(&str) -> Result<PathBuf, String>) -> Place {
    let text = s.one("cluster", |text| Ok(text.to_owned()));
    let read = match text.strip_prefix('@') {
        None => Ok(text.clone()),
        Some(name) => path(name).and_then(|path| {
            std::fs::read_to_string(&path).map_err(|error| format!("@{}: {error}", path.display()))
        }),
    };
    let place = read.and_then(|text| match text.trim() {
        "off" | "" => Ok(Place::Off),
        "local" => Ok(Place::Local),
        url => Address::parse(url).map(|it| Place::Postgres(Box::new(it))),
    });
    let hidden = |why| ConfigError::Hidden {
        flags: "--cluster",
        why,
    };
    s.keep(place.map_err(hidden)).unwrap_or(Place::Off)
}

/// What goes with a database.
fn shared(
    s: &Reading<'_>,
    place: Place,
    path: impl Fn(&str) -> Result<PathBuf, String>,
    is_node: bool,
    ca: Option<PathBuf>,
    state_dir: &Path,
) -> Result<Option<ledger::Setup>, ConfigError> {
    let key_file = s.optional("cluster_key_file", |text| given(text, &path));
    let key_file = key_file.flatten();
    let advertise = s.optional("advertise", |text| given(text, url)).flatten();
    let takeover = s.one(
        "api_takeover_seconds",
        span(Duration::from_secs(2), Duration::from_secs(3600)),
    );
    let wrong = |flags, why| Err(ConfigError::Together { flags, why });
    let Place::Postgres(address) = place else {
        if key_file.is_some() || advertise.is_some() {
            return wrong(
                "--cluster-key-file and --advertise",
                "go with --cluster and the URL of a database",
            );
        }
        return Ok(None);
    };
    if is_node {
        return wrong(
            "--cluster URL",
            "goes with --role api: what runs jobs joins the API nodes with --join",
        );
    }
    if key_file.is_none() && !address.is_socket() {
        return wrong(
            "--cluster URL",
            "goes with --cluster-key-file, which `procession cluster-key FILE` makes: the database would see secrets and tokens",
        );
    }
    let Some(advertise) = advertise else {
        return wrong(
            "--cluster URL",
            "goes with --advertise, the URL at which the other API nodes reach this one",
        );
    };
    Ok(Some(ledger::Setup {
        address: *address,
        advertise,
        key_file,
        ca,
        takeover,
        state_dir: state_dir.to_owned(),
        store: state_dir.join(STORE),
    }))
}

/// URLs with commas between them.
fn urls(text: &str) -> Result<Vec<String>, String> {
    text.split(',').map(|one| url(one.trim())).collect()
}

/// With those that a node has by itself.
fn with_own(mut labels: Labels, name: &NodeName) -> Labels {
    labels.extend(own_labels(name));
    labels
}

/// A label of a node.
fn node_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("must be KEY=VALUE, such as gpu=a100")?;
    if key.starts_with(OWN_LABELS) {
        return Err(format!(
            "labels that begin with {OWN_LABELS} are given by the service"
        ));
    }
    label::check_key(key).map_err(|error| error.to_string())?;
    label::check_value(value).map_err(|error| error.to_string())?;
    Ok((key.to_owned(), value.to_owned()))
}

/// What was given, unless that is nothing.
fn given<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
    (!text.is_empty()).then(|| read(text)).transpose()
}

fn host_name() -> Result<NodeName, ConfigError> {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    text.trim().parse().map_err(|_| ConfigError::Together {
        flags: "--node-name",
        why: "must be given: the name of this machine cannot be that of a node",
    })
}
