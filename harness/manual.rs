//! Completions for shells, and manual pages: both made from the definition of the command line, so that they cannot say anything else.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::error::{Context, Error, Result};
use crate::say;

/// What `completions --help` ends with.
pub const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  source <(tbrdma-bench completions bash)
  tbrdma-bench completions zsh >~/.zfunc/_tbrdma-bench
  tbrdma-bench completions fish >~/.config/fish/completions/tbrdma-bench.fish";

/// What `man --help` ends with.
pub const EXAMPLES: &str = "\
Examples:
  tbrdma-bench man | man -l -                the page of the program
  tbrdma-bench man -o ~/.local/share/man/man1
  man tbrdma-bench-pingpong                  then: one page for each";

/// Flags of `completions`.
#[derive(Debug, Clone, Args)]
pub struct CompletionsFlags {
    /// Which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Flags of `man`.
#[derive(Debug, Clone, Args)]
pub struct Flags {
    /// A folder for the pages, of the program and of each subcommand; without it, the program's goes to standard output
    #[arg(short, long, value_name = "FOLDER")]
    pub output: Option<PathBuf>,
}

/// Writes the completions of a shell to standard output.
///
/// # Errors
/// Standard output cannot be written.
pub fn completions(flags: &CompletionsFlags) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(flags.shell, &mut Cli::command(), "tbrdma-bench", &mut text);
    say(&String::from_utf8_lossy(&text))
}

/// Writes manual pages.
///
/// # Errors
/// The folder is none, or a file cannot be written.
pub fn run(flags: &Flags) -> Result<()> {
    let Some(folder) = &flags.output else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page).context(|| "make the manual page".into())?;
        return say(&String::from_utf8_lossy(&page));
    };
    let shown = folder.display();
    if !folder.is_dir() {
        return Err(Error::Usage(format!("--output {shown} is no folder: make it first, as by mkdir -p")));
    }
    clap_mangen::generate_to(Cli::command(), folder).context(|| format!("write manual pages to {shown}"))
}
