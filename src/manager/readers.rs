//! How far the output of a job has been read, of a job that waits for that: by the one who is furthest behind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Those who follow the output of one job.
#[derive(Debug)]
pub(super) struct Readers {
    places: Mutex<Places>,
    /// Up to where all of them have read; what the last one had when none is left.
    read: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    at: HashMap<u64, u64>,
}

impl Default for Readers {
    fn default() -> Self {
        Self {
            places: Mutex::default(),
            read: watch::Sender::new(0),
        }
    }
}

impl Readers {
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.read.subscribe()
    }

    fn change(&self, change: impl FnOnce(&mut Places)) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut places);
        if let Some(read) = places.at.values().copied().min() {
            self.read.send_if_modified(|known| {
                let is_news = *known != read;
                *known = read;
                is_news
            });
        }
    }
}

/// One who follows, until it is dropped. What it has read may be forgotten.
#[derive(Debug)]
pub struct Reading {
    readers: Arc<Readers>,
    number: u64,
}

impl Reading {
    pub(super) fn begin(readers: Arc<Readers>, at: u64) -> Self {
        let mut number = 0;
        readers.change(|places| {
            number = places.next;
            places.next += 1;
            places.at.insert(number, at);
        });
        Self { readers, number }
    }

    /// Everything before this offset has been handed on.
    pub fn up_to(&self, at: u64) {
        self.readers.change(|places| {
            places.at.insert(self.number, at);
        });
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.readers.change(|places| {
            places.at.remove(&self.number);
        });
    }
}

/// What the monitor of such a job is told: only while its log is full, and one thing at a time.
#[derive(Debug, Default)]
pub(super) struct Telling {
    is_full: bool,
    in_flight: bool,
    told: Option<u64>,
}

impl Telling {
    /// The monitor says that it waits.
    pub(super) fn ask(&mut self) {
        *self = Self {
            is_full: true,
            ..Self::default()
        };
    }

    /// The monitor has answered whether it still waits.
    pub(super) fn answer(&mut self, is_full: bool) {
        self.is_full = is_full;
        self.in_flight = false;
    }

    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    /// What it is to be told now.
    pub(super) fn next(&mut self, read: u64) -> Option<u64> {
        let is_due = self.is_full && !self.in_flight && self.told != Some(read);
        is_due.then(|| {
            self.in_flight = true;
            self.told = Some(read);
            read
        })
    }
}

/// Returns when more of the output has been read.
pub(super) async fn more_read(read: &mut Option<watch::Receiver<u64>>) {
    let gone = match read {
        Some(read) => read.changed().await.is_err(),
        None => true,
    };
    if gone {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_who_is_furthest_behind_counts_and_the_last_ones_place_stays() {
        let readers = Arc::new(Readers::default());
        let read = readers.watch();
        let first = Reading::begin(readers.clone(), 5);
        let second = Reading::begin(readers.clone(), 3);
        assert_eq!(*read.borrow(), 3);
        second.up_to(9);
        assert_eq!(*read.borrow(), 5);
        drop(first);
        assert_eq!(*read.borrow(), 9);
        drop(second);
        assert_eq!(*read.borrow(), 9);
    }

    #[test]
    fn a_monitor_is_told_once_and_again_when_there_is_more() {
        let mut telling = Telling::default();
        assert_eq!(telling.next(1), None);
        telling.ask();
        assert_eq!(telling.next(1), Some(1));
        assert_eq!(telling.next(2), None, "it has not answered");
        telling.answer(true);
        assert_eq!(telling.next(1), None, "it knows that");
        assert_eq!(telling.next(2), Some(2));
        telling.answer(false);
        assert_eq!(telling.next(3), None);
        telling.ask();
        assert_eq!(telling.next(2), Some(2));
    }
}
