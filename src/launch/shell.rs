//! The little of the POSIX shell that a gst-launch command needs: quoting, and reading back what people paste.

use std::path::PathBuf;

use super::LaunchError;
use super::line::Piece;

/// The text as one word of a shell.
pub fn quote(text: &str) -> String {
    let safe = |c: char| {
        c.is_ascii_alphanumeric()
            || matches!(c, '_' | '-' | '.' | '/' | ':' | '=' | '+' | ',' | '@' | '%')
    };
    if text == "!" || (!text.is_empty() && text.chars().all(safe)) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

pub(super) fn escape_in_double_quotes(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '$' | '`' | '}') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// A command: its words, each of pieces, and the comments that stand before it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Command {
    pub comments: Vec<String>,
    pub words: Vec<Vec<Piece>>,
}

/// Reads commands, one a line (a backslash at its end continues the line).
pub fn commands(text: &str) -> Result<Vec<Command>, LaunchError> {
    let mut reader = Reader {
        chars: text.chars().peekable(),
        line: 1,
    };
    let mut commands = Vec::new();
    let mut command = Command::default();
    while let Some(c) = reader.chars.peek().copied() {
        match c {
            '\n' => {
                reader.next();
                if !command.words.is_empty() {
                    commands.push(std::mem::take(&mut command));
                }
            }
            '\\' if reader.continues() => {}
            '#' => command.comments.push(reader.comment()),
            c if c.is_whitespace() => {
                reader.next();
            }
            _ => {
                let word = reader.word().map_err(|what| LaunchError::Shell {
                    line: reader.line,
                    what,
                })?;
                command.words.push(word);
            }
        }
    }
    if !command.words.is_empty() {
        commands.push(command);
    }
    Ok(commands)
}

struct Reader<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.chars.next();
        self.line += usize::from(c == Some('\n'));
        c
    }

    fn next_if(&mut self, wanted: char) -> bool {
        let is = self.chars.peek() == Some(&wanted);
        if is {
            self.next();
        }
        is
    }

    /// Passes over a backslash with a line end after it.
    fn continues(&mut self) -> bool {
        let mut ahead = self.chars.clone();
        let is = ahead.next() == Some('\\') && ahead.next() == Some('\n');
        if is {
            self.next();
            self.next();
        }
        is
    }

    fn comment(&mut self) -> String {
        let mut comment = String::new();
        while let Some(c) = self.chars.peek().copied().filter(|c| *c != '\n') {
            comment.push(c);
            self.next();
        }
        comment.trim_start_matches('#').trim().to_owned()
    }

    fn word(&mut self) -> Result<Vec<Piece>, String> {
        let mut word = Pieces::default();
        while let Some(c) = self.chars.peek().copied().filter(|c| !c.is_whitespace()) {
            if self.continues() {
                continue;
            }
            self.next();
            match c {
                '\'' => loop {
                    word.quoted();
                    match self.next().ok_or("a ' is not closed")? {
                        '\'' => break,
                        c => word.push(c),
                    }
                },
                '"' => self.double_quoted(&mut word)?,
                '\\' => word.push(self.next().ok_or("nothing follows the last backslash")?),
                '$' => word.reference(self.reference()?),
                '`' | ';' | '&' | '|' | '<' | '>' => {
                    return Err(format!(
                        "`{c}` has a meaning of its own for a shell: quote it, or give the command alone"
                    ));
                }
                c => word.push(c),
            }
        }
        Ok(word.finish())
    }

    fn double_quoted(&mut self, word: &mut Pieces) -> Result<(), String> {
        loop {
            match self.next().ok_or("a \" is not closed")? {
                '"' => {
                    word.quoted();
                    return Ok(());
                }
                '$' => word.reference(self.reference()?),
                '\\' => match self.next().ok_or("nothing follows the last backslash")? {
                    '\n' => {}
                    c @ ('"' | '\\' | '$' | '`') => word.push(c),
                    c => {
                        word.push('\\');
                        word.push(c);
                    }
                },
                c => word.push(c),
            }
        }
    }

    /// What follows a `$`.
    fn reference(&mut self) -> Result<Piece, String> {
        if self.next_if('(') {
            let inside = self.until(')')?;
            let path = inside
                .trim()
                .strip_prefix("cat ")
                .ok_or("only `$(cat FILE)` is understood, no other command")?;
            let words = commands(path).map_err(|error| error.to_string())?;
            return match words.as_slice() {
                [Command { words, .. }] if words.len() == 1 => match words[0].as_slice() {
                    [Piece::Plain(path)] => Ok(Piece::File {
                        path: PathBuf::from(path),
                        value: None,
                    }),
                    _ => Err("the file of `$(cat FILE)` must be a plain path".to_owned()),
                },
                _ => Err("`$(cat FILE)` takes one file".to_owned()),
            };
        }
        let (name, default) = if self.next_if('{') {
            let inside = self.until('}')?;
            match inside.split_once(":-") {
                Some((name, default)) => (name.to_owned(), Some(unescape_default(default))),
                None => (inside, None),
            }
        } else {
            let mut name = String::new();
            while let Some(c) = self
                .chars
                .next_if(|c| c.is_ascii_alphanumeric() || *c == '_')
            {
                name.push(c);
            }
            (name, None)
        };
        if !is_variable(&name) {
            return Err(format!("`${name}` names no environment variable"));
        }
        Ok(Piece::Env {
            name,
            default,
            value: None,
        })
    }

    fn until(&mut self, end: char) -> Result<String, String> {
        let mut inside = String::new();
        let mut in_quotes = false;
        loop {
            let c = self.next().ok_or_else(|| format!("a `{end}` is missing"))?;
            if c == end && !in_quotes {
                return Ok(inside);
            }
            in_quotes ^= end == ')' && c == '\'';
            inside.push(c);
            if c == '\\' {
                inside.extend(self.next());
            }
        }
    }
}

/// Whether a shell takes this for the name of a variable.
pub fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn unescape_default(text: &str) -> String {
    let mut chars = text.chars().peekable();
    let mut plain = String::with_capacity(text.len());
    while let Some(c) = chars.next() {
        let escaped = c == '\\'
            && chars
                .peek()
                .is_some_and(|next| matches!(next, '"' | '\\' | '$' | '`' | '}'));
        plain.extend(if escaped { chars.next() } else { Some(c) });
    }
    plain
}

#[derive(Default)]
struct Pieces {
    done: Vec<Piece>,
    plain: String,
    quoted: bool,
}

impl Pieces {
    fn push(&mut self, c: char) {
        self.plain.push(c);
    }

    /// Something stood in quotes, so the word is there even if it is empty.
    fn quoted(&mut self) {
        self.quoted = true;
    }

    fn reference(&mut self, piece: Piece) {
        if !self.plain.is_empty() {
            self.done
                .push(Piece::Plain(std::mem::take(&mut self.plain)));
        }
        self.done.push(piece);
    }

    fn finish(mut self) -> Vec<Piece> {
        if !self.plain.is_empty() || (self.quoted && self.done.is_empty()) {
            self.done.push(Piece::Plain(self.plain));
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<Vec<Piece>> {
        let mut commands = commands(text).unwrap();
        assert_eq!(commands.len(), 1, "{commands:?}");
        commands.remove(0).words
    }

    fn plain(text: &str) -> Vec<Piece> {
        vec![Piece::Plain(text.to_owned())]
    }

    fn env(name: &str, default: Option<&str>) -> Piece {
        Piece::Env {
            name: name.to_owned(),
            default: default.map(str::to_owned),
            value: None,
        }
    }

    #[test]
    fn words_are_split_as_a_shell_does() {
        assert_eq!(
            words(r#"a  'b c' d\ e "f 'g'" ''"#),
            ["a", "b c", "d e", "f 'g'", ""].map(plain)
        );
        assert_eq!(words("a \\\n  b\\\nc"), ["a", "bc"].map(plain));
    }

    #[test]
    fn references_stay_references() {
        let expected = vec![
            Piece::Plain("x=".to_owned()),
            env("NAME", None),
            Piece::Plain("/y".to_owned()),
        ];
        assert_eq!(words(r#"x="$NAME"/y"#), std::slice::from_ref(&expected));
        assert_eq!(words("x=${NAME}/y"), [expected]);
        assert_eq!(
            words(r#""${NAME:-a \"b}""#),
            [vec![env("NAME", Some("a \"b"))]]
        );
        let file = Piece::File {
            path: "/run/a b".into(),
            value: None,
        };
        assert_eq!(words(r#""$(cat '/run/a b')""#), [vec![file]]);
    }

    #[test]
    fn comments_belong_to_the_command_below() {
        let commands = commands("# one\na # two\n\n# three\nb\n# four").unwrap();
        let comments: Vec<_> = commands
            .iter()
            .map(|command| command.comments.join(","))
            .collect();
        assert_eq!(comments, ["one,two", "three"]);
    }

    #[test]
    fn what_only_a_shell_can_do_is_refused() {
        for (text, what) in [
            (
                "a\n b; c",
                "line 2: `;` has a meaning of its own for a shell: quote it, or give the command alone",
            ),
            (
                "$(reboot)",
                "line 1: only `$(cat FILE)` is understood, no other command",
            ),
            ("'a", "line 1: a ' is not closed"),
            ("\"${1:-a}\"", "line 1: `$1` names no environment variable"),
        ] {
            assert_eq!(commands(text).unwrap_err().to_string(), what);
        }
    }

    proptest! {
        #[test]
        fn what_is_quoted_reads_back(text in ".+") {
            prop_assert_eq!(words(&quote(&text)), [plain(&text)]);
        }

        #[test]
        fn a_default_reads_back(default in "[^\0]*") {
            let text = format!("\"${{NAME:-{}}}\"", escape_in_double_quotes(&default));
            prop_assert_eq!(words(&text), [vec![env("NAME", Some(&default))]]);
        }

        #[test]
        fn no_text_panics(text in "[\\PC\n'\"$(){}\\\\#]*") {
            let _ = commands(&text);
        }
    }
}
