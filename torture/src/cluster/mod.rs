//! Everything that runs: Postgres, the instances, a gate between each of them and Postgres, and the
//! balancer before them. All of it is in one folder and ends with the tester.

mod balancer;
mod gate;
mod guard;
mod instance;
mod postgres;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::Signal;
use wire::Outcome;

use crate::senders::Addresses;

pub(crate) use balancer::Balancer;
pub(crate) use gate::{Gate, Mode, Strike};
pub(crate) use guard::{Guard, send_signal};
pub(crate) use instance::Instance;
pub(crate) use postgres::Postgres;

/// A place to break things in.
pub(crate) struct Cluster {
    pub(crate) postgres: Postgres,
    pub(crate) instances: Vec<Instance>,
    /// Between each instance and Postgres.
    pub(crate) gates: Vec<Gate>,
    pub(crate) balancer: Balancer,
    pub(crate) guard: Arc<Guard>,
}

impl Cluster {
    /// Starts everything; logs go to `out`.
    pub(crate) async fn start(program: &Path, instances: usize, out: &Path) -> Outcome<Self> {
        let program = std::path::absolute(program)?;
        if !program.is_file() {
            let remedy = "build it with `cargo build --release`, or name it with --server";
            return Err(format!("{} is not there: {remedy}", program.display()).into());
        }
        let folder = fresh_folder()?;
        let guard = Guard::over(&folder)?;
        let database = folder.join("postgres");
        std::fs::create_dir(&database)?;
        let postgres = Postgres::create(&database, &out.join("postgres.log"), &guard).await?;
        let (mut gates, mut servers) = (Vec::new(), Vec::new());
        for number in 0..instances {
            let target = postgres.address;
            let gate = Gate::open(Box::new(move || vec![target])).await?;
            let home = folder.join(format!("instance-{number}"));
            std::fs::create_dir(&home)?;
            let log = out.join(format!("instance-{number}.log"));
            let instance = Instance::new(&program, &home, &log, gate.address, &guard)?;
            instance.start().await?;
            gates.push(gate);
            servers.push(instance);
        }
        let balancer =
            Balancer::open(servers.iter().map(|server| server.address).collect()).await?;
        Ok(Self { postgres, instances: servers, gates, balancer, guard })
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
        self.postgres.end(Signal::INT).await?;
        Ok(())
    }
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
