//! The arguments of `procession serve`, built from the table of settings.

use std::collections::BTreeMap;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::config::settings::{CONFIG_FILE, Given, Kind, SETTINGS, Setting};

/// The settings given by flags and by the environment, still as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServeArgs(BTreeMap<&'static str, Given>);

impl ServeArgs {
    /// The configuration file, if one was named.
    #[must_use]
    pub(crate) fn config_file(&self) -> Option<&str> {
        let given = self.0.get(CONFIG_FILE.key)?;
        given.values.first().map(String::as_str)
    }

    /// The configuration file that the environment names, and nothing else.
    #[must_use]
    pub(crate) fn of_environment() -> Self {
        let named = std::env::var(CONFIG_FILE.env).ok().map(|file| {
            let given = Given {
                values: vec![file],
                origin: CONFIG_FILE.env.to_owned(),
            };
            (CONFIG_FILE.key, given)
        });
        Self(named.into_iter().collect())
    }

    pub(super) fn given(&self) -> impl Iterator<Item = (&'static str, &Given)> {
        self.0.iter().map(|(key, given)| (*key, given))
    }
}

fn all() -> impl Iterator<Item = &'static Setting> {
    const FILE: &Setting = &CONFIG_FILE;
    SETTINGS.iter().chain([FILE])
}

fn arg(setting: &'static Setting) -> Arg {
    let help = format!("{} [default: {}]", setting.what, setting.default.as_str());
    let arg = Arg::new(setting.key)
        .long(setting.flag.trim_start_matches('-'))
        .env(setting.env)
        // A value may be private, and help texts are pasted into tickets.
        .hide_env_values(true)
        .help(help.replace('`', ""));
    match setting.kind {
        Kind::One => arg.value_name(setting.value).action(ArgAction::Set),
        Kind::Many => arg
            .value_name(setting.value)
            .action(ArgAction::Append)
            .value_delimiter(','),
        Kind::Switch => arg
            .value_name("true|false")
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
    }
}

impl Args for ServeArgs {
    fn augment_args(command: Command) -> Command {
        all().fold(command, |command, setting| command.arg(arg(setting)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ServeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut given = BTreeMap::new();
        for setting in all() {
            let Some(values) = matches.get_many::<String>(setting.key) else {
                continue;
            };
            let from_env = matches.value_source(setting.key) == Some(ValueSource::EnvVariable);
            let origin = if from_env { setting.env } else { setting.flag };
            let values = values.cloned().collect();
            let origin = origin.to_owned();
            given.insert(setting.key, Given { values, origin });
        }
        Ok(Self(given))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
