//! stub
use std::{net::SocketAddr, time::Duration};
#[derive(Clone, Debug)]
pub struct Config {
    pub database_url: Option<String>,
    pub direct_database_url: Option<String>,
    pub listen: SocketAddr,
    pub cors_origins: CorsOrigins,
    pub heartbeat: Duration,
    pub drain: Duration,
    pub drain_delay: Duration,
    pub max_connections: usize,
    pub max_data: usize,
    pub max_body: usize,
    pub migrate: bool,
    pub allow_unauthenticated: bool,
    pub limits: Limits,
}
#[derive(Clone, Debug)]
pub enum CorsOrigins {
    Any,
    Exactly(Vec<String>),
}
/// Bounds that no variable sets: their values are measured, and only tests have a reason to differ.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Events that the hub keeps for subscriptions that are a little behind, in bytes.
    pub ring_bytes: usize,
    /// How large one page of a replay may be.
    pub page: crate::replayer::PageSize,
    /// Where this instance takes its time from.
    pub clock: crate::clock::Clock,
}
impl Default for Limits {
    fn default() -> Limits {
        Limits {
            ring_bytes: 64 << 20,
            page: crate::replayer::PageSize { rows: 500, bytes: 256 << 10 },
            clock: crate::clock::Clock::default(),
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            database_url: None,
            direct_database_url: None,
            listen: "127.0.0.1:8080".parse().expect("x"),
            cors_origins: CorsOrigins::Exactly(vec![]),
            heartbeat: Duration::from_secs(10),
            drain: Duration::from_secs(20),
            drain_delay: Duration::ZERO,
            max_connections: 15000,
            max_data: 65536,
            max_body: 8 << 20,
            migrate: true,
            allow_unauthenticated: false,
            limits: Default::default(),
        }
    }
}
