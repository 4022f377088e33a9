//! What a job runs, on one line.

use job::spec::Program;

/// The most characters of a command on one line.
const COMMAND_CHARACTERS: usize = 200;

/// What a job runs, on one line and cut; arguments as one would type them to a shell.
pub(super) fn command_line(program: &Program) -> String {
    // Nobody looks at more, and a script may have 128 KiB.
    let text = match program {
        Program::Command { command } => {
            let mut line = String::new();
            for argument in command {
                if line.len() > 4 * COMMAND_CHARACTERS {
                    break;
                }
                if !line.is_empty() {
                    line.push(' ');
                }
                let cut = argument.floor_char_boundary(4 * COMMAND_CHARACTERS);
                let argument = argument.get(..cut).unwrap_or_default();
                // No argument has a NUL byte.
                line.push_str(
                    &shlex::Quoter::new()
                        .allow_nul(true)
                        .quote(argument)
                        .unwrap_or_default(),
                );
            }
            line
        }
        Program::Script { script, .. } => {
            let lines = script.lines().map(str::trim);
            let lines = lines.filter(|line| !line.is_empty());
            let mut line = String::new();
            for one in lines {
                if line.len() > 4 * COMMAND_CHARACTERS {
                    break;
                }
                if !line.is_empty() {
                    line.push_str("; ");
                }
                line.push_str(one);
            }
            line
        }
    };
    let mut plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut cut: String = plain.by_ref().take(COMMAND_CHARACTERS).collect();
    if plain.next().is_some() {
        cut.pop();
        cut.push('…');
    }
    cut
}
