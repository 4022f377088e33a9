//! Jobs that are on their way to the disk, and may have their slot by then.

use tokio::sync::oneshot;

use super::{Entry, Room};
use crate::admission::Ticket;
use job::JobId;

impl Room {
    /// A job that is not durable waits from now on: it may be granted, and nobody sees it before [`Room::show`].
    pub(crate) fn enter_ahead(&self, ticket: Ticket, slot: oneshot::Sender<()>) {
        let mut books = self.books();
        let id = ticket.job;
        books.admission.enter(ticket);
        if let Some(Entry::Task(task)) = books.entries.get_mut(&id) {
            task.slot = Some(slot);
        }
    }

    /// A job that has entered ahead is durable.
    pub(crate) fn show(&self, id: JobId) {
        if let Some(Entry::Task(task)) = self.books().entries.get_mut(&id) {
            task.visible = true;
        }
    }

    /// A job that has entered ahead was not accepted after all.
    pub(crate) fn turn_away(&self, id: JobId) {
        let mut books = self.books();
        books.entries.remove(&id);
        if !books.admission.withdraw(id) {
            books.admission.leave(id);
        }
    }
}
