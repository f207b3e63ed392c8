//! Keeps passwords out of what is said: GStreamer puts whole URIs and property values into its error texts.

/// Shorter texts are not looked for: they would be found everywhere, and blanking them tells what they are.
const MIN_SECRET_CHARS: usize = 3;
const BLANK: &str = "<redacted>";

/// Takes the secrets of one gst-launch text, and any userinfo of any URI, out of other texts.
#[derive(Clone, Default)]
pub struct Redactor {
    secrets: Vec<String>,
}

impl Redactor {
    /// Learns the secrets of a gst-launch text: values of properties for users and passwords, and userinfo of URIs.
    pub fn of_launch(launch: &str) -> Self {
        let mut secrets = Vec::new();
        for key in [
            "user-pw=",
            "proxy-pw=",
            "password=",
            "token=",
            "passphrase=",
        ] {
            secrets.extend(
                launch
                    .match_indices(key)
                    .map(|(at, _)| value(&launch[at + key.len()..])),
            );
        }
        for (at, _) in launch.match_indices("://") {
            let Some(userinfo) = userinfo(&launch[at + 3..]) else {
                continue;
            };
            let password = userinfo
                .split_once(':')
                .map_or(userinfo, |(_, password)| password);
            secrets.push(password.to_owned());
            secrets.extend(percent_decoded(password));
        }
        secrets.retain(|secret| secret.chars().count() >= MIN_SECRET_CHARS);
        // The longest first: a secret may hold another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Self { secrets }
    }

    pub fn redact(&self, text: &str) -> String {
        let mut text = redact_userinfo(text);
        for secret in &self.secrets {
            text = text.replace(secret.as_str(), BLANK);
        }
        text
    }
}

/// `rtsp://user:password@host` → `rtsp://<redacted>@host`, wherever it stands in the text.
pub fn redact_userinfo(text: &str) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        redacted.push_str(before);
        rest = after;
        if let Some(userinfo) = userinfo(after) {
            redacted.push_str(BLANK);
            rest = &after[userinfo.len()..];
        }
    }
    redacted.push_str(rest);
    redacted
}

/// What stands before the last `@` of the authority, after `://`.
fn userinfo(after_scheme: &str) -> Option<&str> {
    let ends = |c: char| matches!(c, '/' | '?' | '#' | '"' | '\'' | '!') || c.is_whitespace();
    let authority = &after_scheme[..after_scheme.find(ends).unwrap_or(after_scheme.len())];
    authority.rfind('@').map(|at| &authority[..at])
}

/// A property's value in a gst-launch text: quoted with backslashes, or up to the next blank.
fn value(text: &str) -> String {
    let mut chars = text.chars();
    let quoted = text.starts_with('"');
    if quoted {
        chars.next();
    }
    let mut value = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\\' => value.extend(chars.next()),
            '"' if quoted => break,
            c if !quoted && c.is_whitespace() => break,
            c => value.push(c),
        }
    }
    value
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (first, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|decoded| decoded != text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn userinfo_goes_and_the_rest_stays() {
        assert_eq!(
            redact_userinfo(
                "could not open rtsp://admin:p@ss@10.0.0.1:554/a@b (http://u@h, tcp://host:1)"
            ),
            "could not open rtsp://<redacted>@10.0.0.1:554/a@b (http://<redacted>@h, tcp://host:1)"
        );
    }

    #[test]
    fn a_password_is_found_without_its_uri() {
        let redactor = Redactor::of_launch(
            "rtspsrc name=source location=\"rtsp://admin:hun%21ter@cam/1\" ! fakesink",
        );
        assert_eq!(
            redactor.redact("401 for admin with hun!ter or hun%21ter"),
            "401 for admin with <redacted> or <redacted>"
        );
    }

    #[test]
    fn properties_of_a_launch_text_are_secrets() {
        for launch in [
            "rtspsrc user-id=me user-pw=tell-no-one !",
            r#"rtspsrc user-pw="tell\-no\-one" ! fakesink"#,
        ] {
            let said = Redactor::of_launch(launch).redact("tried tell-no-one as me");
            assert_eq!(said, "tried <redacted> as me");
        }
    }

    #[test]
    fn short_words_are_left_alone() {
        assert_eq!(
            Redactor::of_launch("rtspsrc user-pw=a").redact("a camera"),
            "a camera"
        );
    }
}
