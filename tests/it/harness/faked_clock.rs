//! A cluster of the test's own, whose clock can be put forward: libfaketime in its processes alone.

use std::path::Path;

use super::TestDatabase;
use super::cluster::Cluster;

/// Where distributions put it.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
];
const OFFSET: &str = "offset";

/// A running cluster with a clock of its own.
pub struct FakedClock {
    cluster: Cluster,
}

impl FakedClock {
    /// `None` where the library is not installed.
    pub fn start() -> Option<FakedClock> {
        let library = LIBRARIES.into_iter().find(|path| Path::new(path).exists())?;
        let cluster = Cluster::start(&[
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", "DIR/offset"),
            // Read again each time: what is put forward is so at once.
            ("FAKETIME_NO_CACHE", "1"),
            // Waits and timeouts take as long as ever.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ]);
        Some(FakedClock { cluster })
    }

    /// A database in it, with nothing inside.
    pub async fn database(&self) -> TestDatabase {
        TestDatabase::create_in(&self.cluster, "faked", "template0").await
    }

    /// Sets how far its clock is from the real one, like `+1h`.
    pub fn go_on(&self, offset: &str) {
        // Renamed, so that nobody reads half of it.
        let (new, file) = (self.cluster.dir.join("new"), self.cluster.dir.join(OFFSET));
        std::fs::write(&new, offset).expect("the cluster's folder");
        std::fs::rename(new, file).expect("the cluster's folder");
    }
}
