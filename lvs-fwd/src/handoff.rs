//! Frames that arrived at a worker that doesn't own their flow travel to the one that does.
//!
//! Between workers stand bounded queues, one for each receiver. A full queue drops, and the sender counts:
//! a slow worker must not slow the others. The receiver is woken once for a batch.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::frame::Frame;
use crate::sys::event::Event;
use crate::view::PortId;

/// A frame on its way to its owner.
#[derive(Debug)]
pub struct Handoff {
    /// Where it came in.
    pub origin: Origin,
    /// The frame, on the heap.
    pub frame: Frame,
    /// Why the receiver gets it.
    pub errand: Errand,
}

/// Why a worker gets a frame from another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Errand {
    /// It owns the flow, as the frame itself says.
    Own,
    /// It owns the datagram that this is a part of, as the first part has said.
    Part,
    /// All workers should know what this error says about a tunnel; the frame is a copy.
    Learn,
}

/// Where a frame came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// At a port.
    Port(PortId),
    /// From the host's own stack.
    Host,
}

/// A bounded queue with a wake-up; both ends may be on different threads.
pub(crate) fn queue<T>(capacity: usize) -> io::Result<(QueueSender<T>, QueueReceiver<T>)> {
    let (sender, receiver) = sync_channel(capacity);
    let event = Arc::new(Event::new()?);
    Ok((
        QueueSender {
            sender,
            event: Arc::clone(&event),
        },
        QueueReceiver { receiver, event },
    ))
}

#[derive(Debug)]
pub(crate) struct QueueSender<T> {
    sender: SyncSender<T>,
    event: Arc<Event>,
}

impl<T> QueueSender<T> {
    /// Queues without waking anybody. Gives the item back if the queue is full or nobody listens any more.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        self.sender.try_send(item).map_err(|error| match error {
            TrySendError::Full(item) | TrySendError::Disconnected(item) => item,
        })
    }

    /// Wakes the receiver.
    pub(crate) fn wake(&self) {
        self.event.signal();
    }
}

impl<T> Clone for QueueSender<T> {
    fn clone(&self) -> Self {
        Self {
            sender: self.sender.clone(),
            event: Arc::clone(&self.event),
        }
    }
}

#[derive(Debug)]
pub(crate) struct QueueReceiver<T> {
    receiver: Receiver<T>,
    event: Arc<Event>,
}

impl<T> QueueReceiver<T> {
    /// Takes back the wake-up. Must come before draining: what is queued later wakes again.
    pub(crate) fn clear(&self) {
        self.event.clear();
    }

    pub(crate) fn pop(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }
}

impl<T> AsFd for QueueReceiver<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
