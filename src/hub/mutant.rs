//! The mutant that takes a wake-up for the data.

use super::Hub;

impl Hub {
    /// Goes on just before the position that was announced, as if nothing else could have come.
    pub(crate) fn believe(&self, announced: i64) {
        let mut state = self.state();
        if mutant!(NotifyIsTheData) && announced < i64::MAX {
            state.position = state.position.max(state.position.moved_to(announced - 1));
        }
    }
}
