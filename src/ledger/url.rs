//! The address of the database: a URL of PostgreSQL, with the rules for TLS.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// How long a connection to one of the hosts may take.
const CONNECT: Duration = Duration::from_secs(3);

/// How long the other side of a connection may take nothing.
const SILENT: Duration = Duration::from_secs(10);

/// Where the database is, and as whom it is used. It is shown without the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    config: Config,
    authority: Option<PathBuf>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postgres://")?;
        if let Some(user) = self.config.get_user() {
            write!(f, "{user}@")?;
        }
        let ports = self.config.get_ports();
        for (index, host) in self.config.get_hosts().iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            match host {
                Host::Tcp(host) => f.write_str(host)?,
                Host::Unix(path) => write!(f, "{}", path.display())?,
            }
            if let Some(port) = ports.get(index).or(ports.first()) {
                write!(f, ":{port}")?;
            }
        }
        write!(f, "/{}", self.config.get_dbname().unwrap_or_default())
    }
}

impl Address {
    /// Reads a URL such as `postgres://user:password@host1,host2/database`.
    ///
    /// # Errors
    /// Words that follow the name of the setting, and do not show the URL.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return Err(
                "must be local, off, or a URL such as postgres://user@host/database".to_owned(),
            );
        }
        let (base, query) = text.split_once('?').unwrap_or((text, ""));
        let (mut mode, mut authority) = (None, None);
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value.to_owned()),
                Some(("sslrootcert", value)) => authority = Some(PathBuf::from(decoded(value)?)),
                _ => rest.push(pair),
            }
        }
        let url = match rest.is_empty() {
            true => base.to_owned(),
            false => format!("{base}?{}", rest.join("&")),
        };
        // Its error may show a part of the URL.
        let mut config: Config = url.parse().map_err(|_| {
            "is no URL of PostgreSQL: postgres://user:password@host:port/database".to_owned()
        })?;
        if config.get_hosts().is_empty() {
            return Err("names no host".to_owned());
        }
        let is_near = config.get_hosts().iter().all(is_near);
        config.ssl_mode(match (mode.as_deref(), is_near) {
            (None, true) | (Some("disable"), true) => SslMode::Disable,
            (None | Some("verify-full"), _) => SslMode::Require,
            (Some(_), true) => {
                return Err("may have sslmode=verify-full or sslmode=disable".to_owned());
            }
            (Some(_), false) => {
                return Err(
                    "must have sslmode=verify-full, which is the default, since its host is another machine"
                        .to_owned(),
                );
            }
        });
        Ok(Self { config, authority })
    }

    /// Does nothing leave this machine?
    #[must_use]
    pub fn is_socket(&self) -> bool {
        let mut hosts = self.config.get_hosts().iter();
        hosts.all(|host| matches!(host, Host::Unix(_)))
    }

    /// How to connect to each of the hosts, in their order.
    pub(crate) fn configs(&self) -> Vec<Config> {
        let mut base = Config::new();
        base.ssl_mode(self.config.get_ssl_mode())
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .application_name("procession")
            .connect_timeout(CONNECT)
            .tcp_user_timeout(SILENT);
        if let Some(user) = self.config.get_user() {
            base.user(user);
        }
        if let Some(password) = self.config.get_password() {
            base.password(password);
        }
        if let Some(name) = self.config.get_dbname() {
            base.dbname(name);
        }
        if let Some(options) = self.config.get_options() {
            base.options(options);
        }
        let ports = self.config.get_ports();
        let hosts = self.config.get_hosts().iter().enumerate();
        hosts
            .map(|(index, host)| {
                let mut config = base.clone();
                match host {
                    Host::Tcp(name) => config.host(name),
                    Host::Unix(path) => config.host_path(path),
                };
                if let Some(port) = ports.get(index).or(ports.first()) {
                    config.port(*port);
                }
                config
            })
            .collect()
    }

    /// The file of the authority of the database's certificate.
    pub(crate) fn authority(&self) -> Option<&PathBuf> {
        self.authority.as_ref()
    }

    /// Is the connection to be by TLS?
    pub(crate) fn has_tls(&self) -> bool {
        self.config.get_ssl_mode() == SslMode::Require
    }
}

fn is_near(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
        }
    }
}

/// Without `%xx`.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits =
            [rest.next(), rest.next()].map(|it| it.and_then(|it| char::from(it).to_digit(16)));
        let [Some(high), Some(low)] = digits else {
            return Err("has a % without two digits".to_owned());
        };
        bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_its_password() {
        let address =
            Address::parse("postgres://me:hunter2@db1:5433,db2:5434/jobs?sslmode=verify-full&sslrootcert=%2Fca.pem")
                .unwrap();
        assert_eq!(address.to_string(), "postgres://me@db1:5433,db2:5434/jobs");
        assert!(!format!("{address:?}").contains("hunter2"));
        assert_eq!(address.authority(), Some(&PathBuf::from("/ca.pem")));
        assert!(address.has_tls() && !address.is_socket());
        let socket = Address::parse("postgres://me@%2Ftmp%2Fpg/jobs").unwrap();
        assert!(socket.is_socket() && !socket.has_tls());
        assert_eq!(socket.to_string(), "postgres://me@/tmp/pg:5432/jobs");
    }

    #[test]
    fn only_a_near_database_may_do_without_tls() {
        for (url, wanted) in [
            ("postgres://me@127.0.0.1/jobs", Ok(false)),
            ("postgres://me@localhost/jobs?sslmode=verify-full", Ok(true)),
            ("postgres://me@db.example/jobs", Ok(true)),
            (
                "postgres://me@db.example/jobs?sslmode=disable",
                Err("must have sslmode=verify-full"),
            ),
            (
                "postgres://me@db.example/jobs?sslmode=require",
                Err("must have sslmode=verify-full"),
            ),
            ("postgres://me@/jobs", Err("names no host")),
            ("postgres://me@db:port/jobs", Err("is no URL of PostgreSQL")),
            ("mysql://me@db/jobs", Err("must be local, off, or a URL")),
        ] {
            match (Address::parse(url), wanted) {
                (Ok(address), Ok(tls)) => assert_eq!(address.has_tls(), tls, "{url}"),
                (Err(why), Err(words)) => assert!(why.contains(words), "{url}: {why}"),
                (found, wanted) => panic!("{url}: {found:?}, not {wanted:?}"),
            }
        }
    }
}
