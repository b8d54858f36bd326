//! One agent for each run directory, and one for each network namespace.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tokio::time::{Instant, sleep};
use tracing::info;

use super::StartError;

/// How long an agent that ends is waited for: as long as a pod is given to end. Who gives up at once
/// is started again after longer and longer pauses, and the node is without an agent meanwhile.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How often we look whether it has ended.
const LOOK: Duration = Duration::from_millis(100);

/// Both locks; released when the process ends, however.
#[derive(Debug)]
pub(super) struct Locks {
    _directory: Flock<File>,
    _namespace: UnixListener,
}

/// Takes both locks, and waits for who has them.
pub(super) async fn take(directory: &Path, patience: Duration) -> Result<Locks, StartError> {
    let deadline = Instant::now() + patience;
    Ok(Locks {
        _directory: wait(deadline, || lock(directory)).await?,
        _namespace: wait(deadline, lock_namespace).await?,
    })
}

async fn wait<T>(
    deadline: Instant,
    attempt: impl Fn() -> Result<T, StartError>,
) -> Result<T, StartError> {
    let mut told = false;
    loop {
        match attempt() {
            Err(error @ (StartError::Running { .. } | StartError::NamespaceTaken(_)))
                if Instant::now() < deadline =>
            {
                if !std::mem::replace(&mut told, true) {
                    let seconds = deadline.duration_since(Instant::now()).as_secs();
                    info!(why = %error, seconds, "waiting for the other agent to end");
                }
                sleep(LOOK).await;
            }
            result => return result,
        }
    }
}

/// Takes the lock file of the run directory; it is released when the process ends, however.
fn lock(directory: &Path) -> Result<Flock<File>, StartError> {
    let unusable = |error| StartError::RunDirectory(directory.to_owned(), error);
    fs::create_dir_all(directory).map_err(unusable)?;
    let path = directory.join("agent.pid");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(unusable)?;
    let mut file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
        let pid = fs::read_to_string(&path).unwrap_or_default();
        StartError::Running { pid: pid.trim().to_owned(), directory: directory.to_owned() }
    })?;
    file.set_len(0).map_err(unusable)?;
    writeln!(file, "{}", std::process::id()).map_err(unusable)?;
    Ok(file)
}

/// Takes the network namespace: routes and table are its, so there is one agent for each. Abstract
/// socket names belong to the network namespace and are freed by the kernel with the process.
pub(crate) fn lock_namespace() -> Result<UnixListener, StartError> {
    let name = SocketAddr::from_abstract_name(b"network.rampart.agent");
    name.and_then(|name| UnixListener::bind_addr(&name)).map_err(StartError::NamespaceTaken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("rampart-lock-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_second_agent_in_the_same_run_directory_is_refused_with_the_pid_of_the_first() {
        let directory = directory("pid");
        let first = lock(&directory).unwrap();
        let error = lock(&directory).unwrap_err();
        assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
        drop(first);
        lock(&directory).unwrap();
        fs::remove_dir_all(&directory).unwrap();
    }

    /// One test: the name belongs to the network namespace that all tests of this program share.
    #[tokio::test]
    async fn an_agent_that_ends_is_waited_for_and_one_that_stays_is_not_for_ever() {
        let directory = directory("wait");
        let (short, long) = (3 * LOOK, Duration::from_secs(300));
        let first = take(&directory, short).await.unwrap();
        let begun = Instant::now();
        let refused = take(&directory, short).await;
        assert!(matches!(refused, Err(StartError::Running { .. })), "{refused:?}");
        assert!(begun.elapsed() >= short);
        // Another run directory, the same namespace.
        let refused = take(&directory.join("other"), short).await;
        assert!(matches!(refused, Err(StartError::NamespaceTaken(_))), "{refused:?}");
        assert!(matches!(lock_namespace(), Err(StartError::NamespaceTaken(_))), "not waited for");
        let path = directory.clone();
        let mut waiting = tokio::spawn(async move { take(&path, long).await });
        assert!(tokio::time::timeout(short, &mut waiting).await.is_err(), "not while it runs");
        drop(first);
        waiting.await.unwrap().unwrap();
        fs::remove_dir_all(&directory).unwrap();
    }
}
