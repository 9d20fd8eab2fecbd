//! `finishline completions`: a script that completes commands in a shell.

use clap::{CommandFactory, ValueEnum};
use clap_complete::{Shell, generate};

use super::{
    Failure,
    screen::{Form, Screen},
};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// For which shell
    shell: ShellName,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ShellName {
    Bash,
    Zsh,
    Fish,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let shell = match arguments.shell {
        ShellName::Bash => Shell::Bash,
        ShellName::Zsh => Shell::Zsh,
        ShellName::Fish => Shell::Fish,
    };
    // The generator panics when it cannot write, so it writes into memory.
    let mut script = Vec::new();
    generate(shell, &mut super::Arguments::command(), "finishline", &mut script);
    let mut screen = Screen::new(Form::People);
    screen.script(&script)?;
    Ok(screen.flush()?)
}
