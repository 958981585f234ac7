//! Services of a test's own, for faults that nothing else may suffer from: started and broken by `scripts/services`.

use std::path::Path;
use std::process::Command;

/// What can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Kafka,
    ClickHouse,
}

impl Service {
    const fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::ClickHouse => "clickhouse",
        }
    }
}

/// A service with a folder of its own. It ends with the value, also when the test fails.
pub(crate) struct Own {
    service: Service,
    state: tempfile::TempDir,
    /// Where it listens: `127.0.0.1:PORT`, also behind a restart.
    pub(crate) address: String,
}

impl Own {
    pub(crate) fn start(service: Service) -> Self {
        let state = tempfile::tempdir().unwrap();
        let said = services(state.path(), &["up", service.name()]);
        // Other lines may follow: what else the tests can use.
        let port = said.rsplit_once("127.0.0.1:").unwrap().1.split_whitespace().next().unwrap();
        Self { service, address: format!("127.0.0.1:{port}"), state }
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&self) {
        self.tell("kill");
    }

    /// Starts it again with its data; returns when it answers.
    pub(crate) fn restart(&self) {
        self.tell("up");
    }

    /// Stops it as it stands.
    pub(crate) fn freeze(&self) {
        self.tell("freeze");
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.tell("thaw");
    }

    fn tell(&self, what: &str) {
        services(self.state.path(), &[what, self.service.name()]);
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs `scripts/services` on a folder.
fn services(state: &Path, arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/services");
    let output = Command::new(script).args(arguments).env("HIGHWATER_TEST_SERVICES_STATE", state).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
