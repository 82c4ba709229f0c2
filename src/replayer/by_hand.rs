//! A replayer whose pages a test reads: it takes each wish when it likes, and answers with rows of its
//! own. Everything else about a page is the replayer's.

use super::*;
use crate::store::replay::{QueryRow, pages_of};

/// The answering side.
pub(crate) struct ByHand {
    waiting: mpsc::UnboundedReceiver<Wish>,
    batcher: Batcher,
}

/// A page that a subscription waits for.
pub(crate) struct Asked(Wish);

impl Asked {
    pub(crate) fn request(&self) -> ReplayRequest<'_> {
        self.0.request()
    }
}

impl ByHand {
    pub(crate) fn new(
        database: Arc<Database>,
        size: PageSize,
        metrics: Arc<Metrics>,
    ) -> (Replayer, ByHand) {
        let (wishes, waiting) = mpsc::unbounded_channel();
        let memory = Arc::new(Semaphore::new(PAGES_BYTES));
        let batcher = Batcher { database, size, metrics: metrics.clone(), memory };
        (Replayer { wishes, most_rows: size.rows, metrics }, ByHand { waiting, batcher })
    }

    pub(crate) fn size(&self) -> PageSize {
        self.batcher.size
    }

    pub(crate) fn next(&mut self) -> Option<Asked> {
        self.waiting.try_recv().ok().map(Asked)
    }

    pub(crate) fn answer(&self, Asked(wish): Asked, rows: Vec<QueryRow>) {
        let page = pages_of(&[wish.request()], rows).unwrap().remove(0);
        let whole = self.batcher.size.bytes as u32;
        let permit = self.batcher.memory.clone().try_acquire_many_owned(whole).unwrap();
        let page = self.batcher.frame(&wish, page, permit);
        let _ = wish.reply.send(page);
    }
}
