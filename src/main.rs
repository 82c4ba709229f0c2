//! temp
use std::time::Duration;
#[tokio::main]
async fn main() {
    tracing_subscriber::fmt()
        .with_env_filter("info,tidings=debug")
        .with_writer(std::io::stderr)
        .init();
    let url = std::env::var("TURL").unwrap();
    let listen: std::net::SocketAddr = std::env::args().nth(1).unwrap().parse().unwrap();
    let c = tidings::config::Config {
        database_url: None,
        direct_database_url: None,
        listen,
        cors_origins: tidings::config::CorsOrigins::Exactly(vec![]),
        heartbeat: Duration::from_secs(10),
        drain: Duration::from_secs(20),
        drain_delay: Duration::ZERO,
        max_connections: 15000,
        max_data: 65536,
        max_body: 8 << 20,
        migrate: true,
        allow_unauthenticated: false,
        limits: Default::default(),
    };
    let l = tokio::net::TcpListener::bind(listen).await.unwrap();
    let s = tidings::shutdown::Shutdown::on_signals().unwrap();
    let r = tidings::run(c, &url, l, s).await;
    eprintln!("{r:?}");
}
