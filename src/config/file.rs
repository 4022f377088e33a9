//! The configuration file: which one it is, and what is asked of it before or beside the settings as a whole.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::settings::Settings;
use super::values::{log_format, log_level};
use super::{ConfigError, LogFormat, LogLevel, ServeArgs};
use linux::files;
use protocol::state_dir::Surroundings;

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogForm {
    /// By default it depends on where the log goes.
    pub format: Option<LogFormat>,
    /// Which lines are written.
    pub level: LogLevel,
}

/// The configuration file that is read where none is named, if there is one.
const DEFAULT_FILE: &str = "/etc/procession/config.toml";

/// The configuration file and its text: the one that is named, else the default one where it exists. An empty name
/// stands for none.
pub(super) fn text(
    args: &ServeArgs,
    surroundings: &Surroundings,
) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let (file, must_exist) = match args.config_file() {
        Some("") => return Ok(None),
        Some(named) => (surroundings.current_dir.join(named), true),
        None => (PathBuf::from(DEFAULT_FILE), false),
    };
    match files::read_text(&file) {
        Ok((_, text)) => Ok(Some((file, text))),
        Err(error) if !must_exist && error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ConfigError::Unreadable {
            file,
            why: error.to_string(),
        }),
    }
}

/// How the log is written, as far as the settings say: it has to tell what is wrong with the others.
pub(crate) fn log_form(args: &ServeArgs, surroundings: &Surroundings) -> LogForm {
    let file = text(args, surroundings).ok().flatten();
    let of_file = file.as_ref().map(|(path, text)| (&**path, &**text));
    let settings = Settings::new(args, of_file).or_else(|_| Settings::new(args, None));
    let (format, level) = settings.map_or((None, None), |(s, _)| {
        let format = s.optional("log_format", log_format);
        (format.ok().flatten(), s.one("log_level", log_level).ok())
    });
    LogForm {
        format,
        level: level.unwrap_or(LogLevel::Info),
    }
}

/// Where the service keeps its state, for commands that only want to find it: as named, else as the configuration file
/// says, else by the default.
pub(crate) fn state_dir(named: Option<&Path>, surroundings: &Surroundings) -> Option<PathBuf> {
    if let Some(named) = named {
        return Some(named.to_owned());
    }
    let args = ServeArgs::of_environment();
    let of_file = text(&args, surroundings)
        .ok()
        .flatten()
        .and_then(|(path, text)| {
            let (settings, _) = Settings::new(&args, Some((&path, &text))).ok()?;
            settings
                .optional("state_dir", |text| Ok(text.to_owned()))
                .ok()?
        });
    of_file
        .map(|text| surroundings.current_dir.join(text))
        .or_else(|| surroundings.state_dir())
}
