//! How a value is written in gst-launch syntax, and how it is read back.
//!
//! The grammar is that of GStreamer's `gst/parse`: a property is one token `name=value`, in which a backslash takes the next
//! character literally; what comes out is deserialised by the property's type, where a string may be wrapped in quotes once
//! more, with octal escapes. A value escaped here is always one token, so it can set its property and nothing else.

/// The value as one gst-launch word.
pub fn escape(value: &str) -> String {
    if value.is_empty() {
        return "\"\"".to_owned();
    }
    if needs_wrapping(value) {
        escape_word(&wrap(value))
    } else {
        escape_word(value)
    }
}

/// Part of a value, next to others in one word.
pub fn escape_word(part: &str) -> String {
    let mut text = String::with_capacity(part.len());
    for c in part.chars() {
        if c.is_ascii_whitespace() || matches!(c, '\\' | '"' | '\'') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// The value that a gst-launch word stands for.
pub fn unescape(word: &str) -> String {
    let bare = ['"', '\'']
        .into_iter()
        .find_map(|quote| word.strip_prefix(quote)?.strip_suffix(quote));
    let mut value = String::with_capacity(word.len());
    let (mut in_quotes, mut previous) = (false, '\0');
    let mut chars = bare.unwrap_or(word).chars();
    while let Some(mut c) = chars.next() {
        if c == '\\' && !in_quotes {
            let Some(next) = chars.next() else { break };
            c = next;
        } else if c == '"' && !(in_quotes && previous == '\\') {
            in_quotes = !in_quotes;
        }
        value.push(c);
        previous = c;
    }
    unwrap(&value).unwrap_or(value)
}

/// The argument of the command `gst-launch-1.0` that becomes this word: the command escapes spaces outside quotes itself.
pub fn to_argument(word: &str) -> String {
    let mut argument = String::with_capacity(word.len());
    let mut quotes = Quotes::default();
    let mut chars = word.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\\' && chars.peek() == Some(&' ') && !quotes.inside {
            continue;
        }
        quotes.pass(c);
        argument.push(c);
        if c == '\\'
            && let Some(escaped) = chars.next()
        {
            quotes.pass(escaped);
            argument.push(escaped);
        }
    }
    argument
}

/// The gst-launch word that the command makes of its argument.
pub fn from_argument(argument: &str) -> String {
    let mut word = String::with_capacity(argument.len());
    let mut quotes = Quotes::default();
    for c in argument.chars() {
        quotes.pass(c);
        if c == ' ' && !quotes.inside {
            word.push('\\');
        }
        word.push(c);
    }
    word
}

/// Where the command `gst-launch-1.0` believes to be inside quotes: an escaped quote opens, but does not close.
#[derive(Default)]
struct Quotes {
    inside: bool,
    previous: Option<char>,
}

impl Quotes {
    fn pass(&mut self, c: char) {
        if c == '"' && !(self.inside && self.previous == Some('\\')) {
            self.inside = !self.inside;
        }
        self.previous = Some(c);
    }
}

/// Whether the deserialiser of strings would take the value for something else, or the tokeniser would not end where it
/// does: at a control character too early, after a backslash too late.
fn needs_wrapping(value: &str) -> bool {
    let quoted = value.starts_with('"') && value.ends_with('"');
    quoted
        || value == "NULL"
        || value.ends_with('\\')
        || value.chars().any(|c| c.is_ascii_control())
}

fn wrap(value: &str) -> String {
    let mut wrapped = String::from("\"");
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() {
            wrapped.push(char::from(byte));
        } else {
            wrapped.push_str(&format!("\\{byte:03o}"));
        }
    }
    wrapped.push('"');
    wrapped
}

fn unwrap(value: &str) -> Option<String> {
    let inner = value.strip_prefix('"')?.strip_suffix('"')?;
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
        } else if let Some((octal, after)) = rest.split_first_chunk::<3>()
            && let Some(byte) = str::from_utf8(octal)
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 8).ok())
        {
            bytes.push(byte);
            rest = after;
        } else if let Some((&escaped, after)) = rest.split_first() {
            bytes.push(escaped);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use gst::prelude::*;
    use proptest::prelude::*;

    use super::*;

    /// What GStreamer itself makes of the text: the number of elements and the property of the first.
    fn parsed(text: &str) -> (usize, Option<String>) {
        gst::init().unwrap();
        let bin = gst::parse::bin_from_description(text, false).unwrap();
        let source = bin.by_name("source").unwrap();
        (bin.children().len(), source.property("location"))
    }

    fn parsed_as_command(word: &str) -> (usize, Option<String>) {
        gst::init().unwrap();
        let bin = gst::parse::launchv(&[
            "filesrc",
            "name=source",
            &to_argument(word),
            "!",
            "fakesink",
        ])
        .unwrap();
        let bin = bin.downcast::<gst::Pipeline>().unwrap();
        (
            bin.children().len(),
            bin.by_name("source").unwrap().property("location"),
        )
    }

    /// Strings made of what gst-launch gives a meaning to.
    fn hostile() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            proptest::sample::select(vec![
                "\\",
                "\"",
                "'",
                " ",
                "\t",
                "\n",
                "\r",
                "\u{b}",
                "!",
                "=",
                "(",
                ")",
                ".",
                ":",
                ",",
                ";",
                "#",
                "$",
                "{",
                "}",
                " ! fakesink",
                "\" ! fakesink name=\"x",
                "NULL",
                "name=",
                "é",
                "日",
                "0",
                "a",
                "\u{1}",
                "\u{7f}",
                "\u{85}",
            ])
            .prop_map(str::to_owned),
            any::<char>()
                .prop_filter("NUL ends a C string", |c| *c != '\0')
                .prop_map(String::from),
        ];
        proptest::collection::vec(piece, 1..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_value_sets_its_property_and_nothing_else(value in hostile()) {
            let word = format!("location={}", escape(&value));
            prop_assert_eq!(parsed(&format!("filesrc name=source {word} ! fakesink")), (2, Some(value.clone())));
            prop_assert_eq!(parsed_as_command(&word), (2, Some(value)));
        }

        #[test]
        fn what_is_escaped_reads_back(value in hostile()) {
            let word = escape(&value);
            prop_assert_eq!(unescape(&word), value);
            prop_assert_eq!(from_argument(&to_argument(&word)), word);
        }

        #[test]
        fn no_word_panics(word in ".*") {
            unescape(&word);
            from_argument(&to_argument(&word));
        }
    }

    #[test]
    fn an_empty_value_is_an_empty_string() {
        assert_eq!(
            parsed("filesrc name=source location=\"\" ! fakesink"),
            (2, Some(String::new()))
        );
        assert_eq!(unescape(&escape("")), "");
    }

    #[test]
    fn everyday_values_stay_readable() {
        assert_eq!(
            escape("rtsp://127.0.0.1:8554/demo?a=b"),
            "rtsp://127.0.0.1:8554/demo?a=b"
        );
        assert_eq!(escape("two words"), "two\\ words");
    }
}
