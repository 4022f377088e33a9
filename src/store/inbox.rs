//! The queue to the writing thread, which wakes it only for what cannot wait.
//!
//! A thread that is woken costs two switches of a processor, which is more than most of what it is told. What
//! the messages mean is not known here.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Makes a queue. One that holds `crowd` messages does not let its receiver rest, urgent or not.
pub(super) fn channel<T>(crowd: usize) -> (Sender<T>, Inbox<T>) {
    let shared = Arc::new(Shared {
        queue: Mutex::new(Queue {
            messages: VecDeque::new(),
            urgent: 0,
            senders: 1,
            is_open: true,
            sleep: Sleep::Awake,
        }),
        bell: Condvar::new(),
        crowd,
    });
    (Sender(Arc::clone(&shared)), Inbox(shared))
}

/// Can a message wait for others?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// The receiver is woken for it.
    Now,
    /// It is taken along, at the latest when the receiver looks by itself.
    Later,
}

/// Why [`Inbox::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// Something urgent is there, or a crowd.
    Urgent,
    /// What can wait is there, and nothing else was waited for.
    Told,
    /// The time is up.
    Rested,
    /// There are no senders any more; there may be messages.
    Closed,
}

#[derive(Debug)]
struct Shared<T> {
    // Held to move a message; the bell is rung outside, so that who is woken finds it free.
    queue: Mutex<Queue<T>>,
    bell: Condvar,
    crowd: usize,
}

#[derive(Debug)]
struct Queue<T> {
    messages: VecDeque<(T, Urgency)>,
    urgent: usize,
    senders: usize,
    is_open: bool,
    sleep: Sleep,
}

/// What the receiver is woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sleep {
    Awake,
    UntilUrgent,
    UntilTold,
}

impl<T> Shared<T> {
    fn queue(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self, queue: MutexGuard<'_, Queue<T>>) {
        let is_awake = queue.sleep == Sleep::Awake;
        drop(queue);
        if !is_awake {
            self.bell.notify_one();
        }
    }
}

/// A place to send from; the queue closes with the last of them.
#[derive(Debug)]
pub(super) struct Sender<T>(Arc<Shared<T>>);

impl<T> Sender<T> {
    /// Queues a message behind all that were sent before; gives it back if nobody receives any more.
    pub(super) fn send(&self, message: T, urgency: Urgency) -> Result<(), T> {
        let mut queue = self.0.queue();
        if !queue.is_open {
            return Err(message);
        }
        queue.messages.push_back((message, urgency));
        if urgency == Urgency::Now {
            queue.urgent += 1;
        }
        let is_called = match queue.sleep {
            Sleep::Awake => false,
            Sleep::UntilTold => true,
            Sleep::UntilUrgent => urgency == Urgency::Now || queue.messages.len() >= self.0.crowd,
        };
        if is_called {
            self.0.ring(queue);
        }
        Ok(())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.queue().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.senders -= 1;
        if queue.senders == 0 {
            self.0.ring(queue);
        }
    }
}

/// The receiving end; there is one.
#[derive(Debug)]
pub(super) struct Inbox<T>(Arc<Shared<T>>);

impl<T> Inbox<T> {
    /// Rests until there is something urgent, or `until` has come.
    pub(super) fn wait(&self, until: Instant) -> Woken {
        self.sleep(Some(until), Sleep::UntilUrgent)
    }

    /// Rests until there is anything, or `until` has come.
    pub(super) fn wait_for_any(&self, until: Option<Instant>) -> Woken {
        self.sleep(until, Sleep::UntilTold)
    }

    fn sleep(&self, until: Option<Instant>, how: Sleep) -> Woken {
        let mut queue = self.0.queue();
        loop {
            if queue.urgent > 0 || queue.messages.len() >= self.0.crowd {
                return Woken::Urgent;
            }
            if queue.senders == 0 {
                return Woken::Closed;
            }
            if how == Sleep::UntilTold && !queue.messages.is_empty() {
                return Woken::Told;
            }
            let wait = match until {
                None => None,
                Some(until) => match until.checked_duration_since(Instant::now()) {
                    Some(left) if !left.is_zero() => Some(left),
                    Some(_) | None => return Woken::Rested,
                },
            };
            queue.sleep = how;
            queue = match wait {
                None => self.0.bell.wait(queue),
                Some(left) => self
                    .0
                    .bell
                    .wait_timeout(queue, left)
                    .map(|(queue, _)| queue)
                    .map_err(|poisoned| PoisonError::new(poisoned.into_inner().0)),
            }
            .unwrap_or_else(PoisonError::into_inner);
            queue.sleep = Sleep::Awake;
        }
    }

    /// Takes the oldest messages, `most` of them at most.
    pub(super) fn take(&self, most: usize) -> Vec<T> {
        let mut queue = self.0.queue();
        let count = queue.messages.len().min(most);
        let taken: Vec<(T, Urgency)> = queue.messages.drain(..count).collect();
        let urgent = taken.iter().filter(|(_, it)| *it == Urgency::Now).count();
        queue.urgent -= urgent;
        drop(queue);
        taken.into_iter().map(|(message, _)| message).collect()
    }
}

impl<T> Drop for Inbox<T> {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.is_open = false;
        queue.urgent = 0;
        // What answers hang on goes outside the lock.
        let left = std::mem::take(&mut queue.messages);
        drop(queue);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use super::Urgency::{Later, Now};
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_can_wait_wakes_nobody_before_the_time_is_up_and_keeps_its_place() {
        let (sender, inbox) = channel(10);
        sender.send(1, Later).unwrap();
        let begin = Instant::now();
        let patience = Duration::from_millis(20);
        assert_eq!(inbox.wait(begin + patience), Woken::Rested);
        assert!(begin.elapsed() >= patience);
        sender.send(2, Now).unwrap();
        sender.send(3, Later).unwrap();
        assert_eq!(inbox.wait(Instant::now() + LONG), Woken::Urgent);
        assert_eq!(inbox.take(2), [1, 2]);
        assert_eq!(inbox.wait_for_any(None), Woken::Told);
        assert_eq!(inbox.take(2), [3]);
    }

    #[test]
    fn who_sleeps_is_woken_by_what_is_urgent_by_a_crowd_and_by_the_end() {
        let (sender, inbox) = channel(2);
        let receiver = thread::spawn(move || {
            let mut seen = Vec::new();
            loop {
                let woken = inbox.wait(Instant::now() + LONG);
                seen.push((woken, inbox.take(9)));
                if woken == Woken::Closed {
                    return seen;
                }
            }
        });
        let asleep_with = |left: usize| {
            let end = Instant::now() + LONG;
            loop {
                let queue = sender.0.queue();
                if queue.sleep == Sleep::UntilUrgent && queue.messages.len() == left {
                    return;
                }
                drop(queue);
                assert!(Instant::now() < end, "the receiver does not rest");
                thread::yield_now();
            }
        };
        asleep_with(0);
        sender.send(1, Now).unwrap();
        asleep_with(0);
        sender.send(2, Later).unwrap();
        asleep_with(1);
        sender.send(3, Later).unwrap();
        asleep_with(0);
        drop(sender.clone());
        sender.send(4, Later).unwrap();
        drop(sender);
        assert_eq!(
            receiver.join().unwrap(),
            [
                (Woken::Urgent, vec![1]),
                (Woken::Urgent, vec![2, 3]),
                (Woken::Closed, vec![4])
            ]
        );
    }

    #[test]
    fn who_sleeps_with_no_time_set_is_woken_by_anything() {
        let (sender, inbox) = channel(10);
        let receiver = thread::spawn(move || (inbox.wait_for_any(None), inbox.take(9)));
        sender.send(1, Later).unwrap();
        assert_eq!(receiver.join().unwrap(), (Woken::Told, vec![1]));
        assert_eq!(sender.send(2, Now), Err(2));
    }

    #[test]
    fn who_waits_for_anything_for_a_time_is_told_of_what_can_wait() {
        let (sender, inbox) = channel(10);
        let begin = Instant::now();
        let patience = Duration::from_millis(20);
        assert_eq!(inbox.wait_for_any(Some(begin + patience)), Woken::Rested);
        assert!(begin.elapsed() >= patience);
        sender.send(1, Later).unwrap();
        let later = Instant::now() + LONG;
        assert_eq!(inbox.wait_for_any(Some(later)), Woken::Told);
        assert_eq!(inbox.take(9), [1]);
    }
}
