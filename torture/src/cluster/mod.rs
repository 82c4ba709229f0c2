//! Everything that runs: Postgres, the instances, a gate between each of them and Postgres, and the
//! balancer before them. All of it is in one folder and ends with the tester.

mod balancer;
mod clock;
mod disk;
mod gate;
mod guard;
mod instance;
mod postgres;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;
use sqlx::{Connection, PgConnection};
use wire::Outcome;

use crate::senders::Addresses;

pub(crate) use balancer::Balancer;
pub(crate) use clock::Clock;
pub(crate) use disk::SmallDisk;
pub(crate) use gate::{Gate, Mode, Strike};
pub(crate) use guard::{Guard, send_signal};
pub(crate) use instance::Instance;
pub(crate) use postgres::{IN_SYNC, Needs, Postgres};

/// A place to break things in.
pub(crate) struct Cluster {
    /// One of them is the primary; the other, if there is one, its synchronous standby.
    databases: Vec<Postgres>,
    primary: Arc<AtomicUsize>,
    pub(crate) instances: Vec<Instance>,
    /// Between each instance and the primary.
    pub(crate) gates: Vec<Gate>,
    /// Between those who read the table and the primary.
    pub(crate) readers: Gate,
    pub(crate) balancer: Balancer,
    pub(crate) guard: Arc<Guard>,
}

/// What the tester is told about what to start.
pub(crate) struct Setup<'a> {
    pub(crate) server: &'a Path,
    pub(crate) instances: usize,
    /// For logs.
    pub(crate) out: &'a Path,
    pub(crate) needs: Needs,
    /// Of the servers, beside what each of them is given.
    pub(crate) environment: &'a [(String, String)],
}

impl Cluster {
    /// Starts everything.
    pub(crate) async fn start(setup: &Setup<'_>) -> Outcome<Self> {
        let program = std::path::absolute(setup.server)?;
        if !program.is_file() {
            let remedy = "build it with `cargo build --release`, or name it with --server";
            return Err(format!("{} is not there: {remedy}", program.display()).into());
        }
        let folder = fresh_folder()?;
        let guard = Guard::over(&folder)?;
        // A build meanwhile must not change what is tested.
        let copy = folder.join("tidings");
        std::fs::copy(&program, &copy)?;
        let databases = databases(&folder, &guard, setup).await?;
        let addresses: Vec<SocketAddr> =
            databases.iter().map(|database| database.address).collect();
        let primary = Arc::new(AtomicUsize::new(0));
        let (mut gates, mut servers) = (Vec::new(), Vec::new());
        let gate = || {
            let (addresses, primary) = (addresses.clone(), primary.clone());
            Gate::open(Box::new(move || vec![addresses[primary.load(Ordering::Acquire)]]))
        };
        let readers = gate().await?;
        for number in 0..setup.instances {
            let gate = gate().await?;
            let home = subfolder(&folder, &format!("instance-{number}"))?;
            let log = setup.out.join(format!("instance-{number}.log"));
            let instance = Instance::new(&copy, &home, &log, gate.address, &guard)?
                .with_environment(setup.environment);
            instance.start().await?;
            gates.push(gate);
            servers.push(instance);
        }
        let balancer =
            Balancer::open(servers.iter().map(|server| server.address).collect()).await?;
        Ok(Self { databases, primary, instances: servers, gates, readers, balancer, guard })
    }

    /// The primary of now.
    pub(crate) fn postgres(&self) -> &Postgres {
        &self.databases[self.primary.load(Ordering::Acquire)]
    }

    /// The other database.
    pub(crate) fn standby(&self) -> Outcome<&Postgres> {
        let other = 1 - self.primary.load(Ordering::Acquire);
        Ok(self.databases.get(other).ok_or("there is no standby")?)
    }

    /// From here on the gates lead to the other database.
    pub(crate) fn switch(&self) {
        self.primary.fetch_xor(1, Ordering::AcqRel);
    }

    pub(crate) fn addresses(&self) -> Addresses {
        Addresses {
            balancer: self.balancer.address(),
            instances: self.instances.iter().map(|instance| instance.address).collect(),
        }
    }

    /// Connections from all instances to Postgres.
    pub(crate) fn database_connections(&self) -> usize {
        self.gates.iter().map(|gate| gate.passing(None)).sum()
    }

    /// Ends everything in good order; dropping it kills.
    pub(crate) async fn stop(self) -> Outcome<()> {
        for instance in &self.instances {
            instance.signal(Signal::TERM).await?;
        }
        for (number, instance) in self.instances.iter().enumerate() {
            let status = instance.ended().await?;
            if !status.success() {
                return Err(format!("instance {number} ended at last with {status}").into());
            }
        }
        self.postgres().end(Signal::INT).await?;
        Ok(())
    }
}

/// A connection of the tester's own to the primary.
pub(crate) async fn connect_through(gate: &Gate) -> Outcome<PgConnection> {
    let url = format!(
        "postgres://tidings@{}/tidings?sslmode=disable&application_name=torture",
        gate.address
    );
    Ok(PgConnection::connect(&url).await?)
}

async fn databases(folder: &Path, guard: &Arc<Guard>, setup: &Setup<'_>) -> Outcome<Vec<Postgres>> {
    let Setup { out, needs, .. } = setup;
    let home = subfolder(folder, "postgres-0")?;
    let mut databases =
        vec![Postgres::create(&home, &out.join("postgres-0.log"), guard, needs).await?];
    if needs.standby {
        let home = subfolder(folder, "postgres-1")?;
        let standby = Postgres::in_folder(&home, &out.join("postgres-1.log"), guard, needs)?;
        standby.follow(&databases[0]).await?;
        databases[0].wait_for_standbys("*").await?;
        databases.push(standby);
    }
    Ok(databases)
}

fn subfolder(folder: &Path, name: &str) -> Outcome<PathBuf> {
    let path = folder.join(name);
    std::fs::create_dir(&path)?;
    Ok(path)
}

/// Short, since a socket's path may have 107 bytes; open, since Postgres runs as somebody else.
fn fresh_folder() -> Outcome<PathBuf> {
    let folder = std::env::temp_dir().join(format!("tidings-torture-{:08x}", fastrand::u32(..)));
    std::fs::create_dir(&folder)?;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

/// Below the ports that outgoing connections take by themselves: what ends here can start here again.
fn free_address() -> Outcome<SocketAddr> {
    for _ in 0..1000 {
        let address = (Ipv4Addr::LOCALHOST, fastrand::u16(20_000..32_000));
        if let Ok(listener) = TcpListener::bind(address) {
            return Ok(listener.local_addr()?);
        }
    }
    Err("no free port between 20,000 and 32,000".into())
}
