//! The far party in another process, at the end of a TCP connection.

use super::command::{Answer, Command};
use super::party::Party;
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

/// A connection to a far party.
pub(crate) struct Wire {
    to: TcpStream,
    from: BufReader<TcpStream>,
}

impl Wire {
    /// Connects to one that [serves](serve).
    pub(crate) fn connect(address: &str) -> Result<Self> {
        let to = TcpStream::connect(address).with_context(|| format!("the far party at {address}"))?;
        to.set_nodelay(true)?;
        Ok(Self { from: BufReader::new(to.try_clone()?), to })
    }

    /// Asks for something, and waits for the answer.
    pub(crate) fn ask(&mut self, command: &Command) -> Result<Answer> {
        let mut line = serde_json::to_string(command)?;
        line.push('\n');
        self.to.write_all(line.as_bytes())?;
        line.clear();
        anyhow::ensure!(self.from.read_line(&mut line)? > 0, "the far party has gone");
        Ok(serde_json::from_str(&line)?)
    }
}

/// Plays the far party for whoever connects, each connection one end of a case, until the process is ended. Says on standard output where it is.
///
/// # Errors
/// Nobody can connect to this address.
pub fn serve(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("to serve at {address}"))?;
    println!("serving {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            if let Err(error) = attend(&stream) {
                eprintln!("a case ended early: {error:#}");
            }
        });
    }
    Ok(())
}

/// Answers one connection to its end.
fn attend(mut stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut party = Party::default();
    for line in BufReader::new(stream.try_clone()?).lines() {
        let answer = match serde_json::from_str(&line?) {
            Ok(command) => party.answer(command),
            Err(error) => Answer::Failed(error.to_string()),
        };
        let mut line = serde_json::to_string(&answer)?;
        line.push('\n');
        stream.write_all(line.as_bytes())?;
    }
    Ok(())
}
