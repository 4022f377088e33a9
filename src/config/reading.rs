//! The settings as they are read: every value, and all that is wrong with any of them.

use std::cell::RefCell;

use super::ConfigError;
use super::settings::Settings;

/// Reads values, and notes what is wrong, so that all of it can be reported at once.
pub(super) struct Reading<'a> {
    settings: &'a Settings,
    errors: RefCell<Vec<ConfigError>>,
}

impl<'a> Reading<'a> {
    /// Begins with what is wrong already.
    pub(super) fn new(settings: &'a Settings, errors: Vec<ConfigError>) -> Self {
        Self {
            settings,
            errors: RefCell::new(errors),
        }
    }

    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        self.errors.into_inner()
    }

    /// The value, or nothing and one error more.
    pub(super) fn keep<T>(&self, read: Result<T, ConfigError>) -> Option<T> {
        read.map_err(|error| self.errors.borrow_mut().push(error))
            .ok()
    }

    /// The value of a setting that has a default; the default if the value is wrong.
    pub(super) fn one<T>(&self, key: &str, read: impl Fn(&str) -> Result<T, String>) -> T {
        let value = self.keep(self.settings.one(key, &read));
        value.unwrap_or_else(|| Settings::default_of(key, read))
    }

    /// The value of a setting, if it was given and is right.
    pub(super) fn optional<T>(
        &self,
        key: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        self.keep(self.settings.optional(key, read)).flatten()
    }

    /// Every value of a setting, if all are right.
    pub(super) fn many<T>(&self, key: &str, read: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        self.keep(self.settings.many(key, read)).unwrap_or_default()
    }
}
