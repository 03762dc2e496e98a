//! A server and its client, which is how most RDMA programs come.

use crate::stage::Stage;
use anyhow::{Context, Result};
use tbrdma_kit::Process;

/// Where the server is.
pub(crate) const HOST: &str = "127.0.0.1";

/// Both sides, running.
pub(crate) struct Pair {
    pub(crate) server: Process,
    pub(crate) client: Process,
    /// Where the server listens.
    pub(crate) port: u16,
}

/// Starts both. `words` makes a side's command of the port and, for a client, the host.
pub(crate) fn start(
    stage: &Stage,
    options: &[String],
    words: impl Fn(u16, Option<&str>) -> Vec<String>,
) -> Result<Pair> {
    let port = stage.port()?;
    let mut server = stage.start(options, &words(port, None))?;
    server.until_listening(port)?;
    let client = stage.start(options, &words(port, Some(HOST)))?;
    Ok(Pair { server, client, port })
}

impl Pair {
    /// Both must end well; returns what they said, the client's first.
    pub(crate) fn succeed(self) -> Result<(String, String)> {
        // Who waits for a peer that failed is killed when it is dropped.
        let client = self.client.succeed();
        match client {
            Ok(said) => Ok((said, self.server.succeed().context("server")?)),
            Err(error) => {
                let said = self.server.output();
                let last =
                    said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing").to_owned();
                Err(error.context(format!("client (the server said last: {last})")))
            }
        }
    }
}
