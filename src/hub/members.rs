//! Whom to wake for an audience. A member keeps its place, so that one of thousands who leaves a hundred
//! topics is not looked for in each.

use std::sync::Arc;

use tokio::sync::Notify;

/// The subscriptions that joined one audience.
#[derive(Debug, Default)]
pub(super) struct Members {
    places: Vec<Option<Arc<Notify>>>,
    free: Vec<u32>,
}

impl Members {
    pub(super) fn add(&mut self, member: Arc<Notify>) -> u32 {
        if let Some(place) = self.free.pop() {
            self.places[place as usize] = Some(member);
            return place;
        }
        self.places.push(Some(member));
        self.places.len() as u32 - 1
    }

    pub(super) fn remove(&mut self, place: u32) {
        self.places[place as usize] = None;
        self.free.push(place);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.len() == self.free.len()
    }

    pub(super) fn wake(&self) {
        self.places.iter().flatten().for_each(|member| member.notify_one());
    }
}

#[cfg(test)]
impl Members {
    /// How many places there are, and how many of them are free.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.places.len(), self.free.len())
    }
}
