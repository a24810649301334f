//! Where the server on loopback puts the bodies of its answers. In memory they need no copy and no system call; over
//! loopback they would come in pieces of 8 KiB, each of which wakes a thread.

use std::sync::{Arc, Mutex, PoisonError};

use crate::pure::body::Body;

/// A tray for each connection to the server: a connection has one request under way.
#[derive(Debug, Clone)]
pub(crate) struct Trays(Arc<[Mutex<Option<Body>>]>);

impl Trays {
    pub(crate) fn new(size: usize) -> Self {
        Self((0..size).map(|_| Mutex::default()).collect())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The body of the answer that is about to be sent.
    pub(crate) fn put(&self, number: usize, body: Body) {
        if let Some(tray) = self.0.get(number) {
            *tray.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }

    pub(super) fn take(&self, number: usize) -> Option<Body> {
        self.0.get(number)?.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
