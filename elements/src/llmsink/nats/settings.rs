//! The properties that lead to a broker, and what they come to.

use std::path::PathBuf;

use gst::{glib, prelude::*};
use vita_messages::{Broker, Options, Prefix, ServerUrl, SourceName, redact};

use crate::common::state_folder;

#[derive(Clone, Default, PartialEq)]
pub(in crate::llmsink) struct NatsSettings {
    /// With its login, which is for the broker alone.
    url: Option<String>,
    prefix: Option<String>,
    source: Option<String>,
    spool_dir: Option<String>,
    credentials_file: Option<String>,
    tls_ca_file: Option<String>,
}

/// Without the login.
impl std::fmt::Debug for NatsSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NatsSettings")
            .field("url", &self.readable_url())
            .field("prefix", &self.prefix)
            .field("source", &self.source)
            .field("spool_dir", &self.spool_dir)
            .finish_non_exhaustive()
    }
}

/// Where to publish, and as whom.
pub(super) struct Plan {
    pub options: Options,
    pub source: SourceName,
}

impl NatsSettings {
    const NAMES: [&'static str; 6] = [
        "nats-url",
        "subject-prefix",
        "source-name",
        "spool-dir",
        "nats-credentials-file",
        "nats-tls-ca-file",
    ];

    /// `None`: nothing goes to NATS. `element`: the element's name.
    ///
    /// # Errors
    /// Which property is wrong, and why.
    pub(super) fn plan(&self, element: &str) -> Result<Option<Plan>, String> {
        let Some(url) = self.url.as_deref().filter(|url| !url.is_empty()) else {
            return Ok(None);
        };
        let of = |property: &'static str| {
            move |error: &dyn std::error::Error| format!("{property}: {error}")
        };
        let servers = ServerUrl::parse_list(url).map_err(|error| of("nats-url")(&error))?;
        let prefix = match &self.prefix {
            Some(prefix) => Prefix::new(prefix).map_err(|error| of("subject-prefix")(&error))?,
            None => Prefix::default(),
        };
        let source = SourceName::new(self.source.as_deref().unwrap_or(element));
        let source = source.map_err(|error| of("source-name")(&error))?;
        let spool_dir = match &self.spool_dir {
            Some(dir) => PathBuf::from(dir),
            None => default_spool_dir(&source)?,
        };
        let given = |property: &Option<String>, variable| {
            property.clone().or_else(|| variable_of(variable))
        };
        let broker = Broker {
            credentials_file: given(&self.credentials_file, "NATS_CREDS").map(PathBuf::from),
            token: variable_of("NATS_TOKEN"),
            tls_ca_file: self.tls_ca_file.as_ref().map(PathBuf::from),
            ..Broker::new(servers)
        };
        let options = Options {
            broker,
            prefix,
            ..Options::new(Vec::new(), spool_dir)
        };
        Ok(Some(Plan { options, source }))
    }

    fn readable_url(&self) -> Option<String> {
        self.url.as_deref().map(redact)
    }

    pub(in crate::llmsink) fn properties() -> impl Iterator<Item = glib::ParamSpec> {
        let blurbs = [
            "Publish to the broker there and take commands from it: nats://host:port, several with commas. A login in it is never read back; \
             better are nats-credentials-file, NATS_CREDS and NATS_TOKEN. Unset: nothing goes to NATS",
            "First words of all subjects. Unset: vita",
            "Name of the source in subjects: letters, digits, - and _. Unset: the element's name",
            "Folder where messages wait for the broker, one for each sink. Unset: spool-SOURCE under vita-stream in $XDG_STATE_HOME or \
             ~/.local/state",
            "File with the user JWT and key for the broker. Unset: what NATS_CREDS names; a token is taken from NATS_TOKEN",
            "PEM file of further certificate authorities that the broker's certificate may be from",
        ];
        let nicks = [
            "NATS address",
            "Subject prefix",
            "Source name",
            "Spool folder",
            "NATS credentials",
            "NATS authorities",
        ];
        let named = Self::NAMES.into_iter().zip(nicks).zip(blurbs);
        named.map(|((name, nick), blurb)| {
            glib::ParamSpecString::builder(name)
                .nick(nick)
                .blurb(blurb)
                .mutable_ready()
                .build()
        })
    }

    fn field(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "nats-url" => &mut self.url,
            "subject-prefix" => &mut self.prefix,
            "source-name" => &mut self.source,
            "spool-dir" => &mut self.spool_dir,
            "nats-credentials-file" => &mut self.credentials_file,
            "nats-tls-ca-file" => &mut self.tls_ca_file,
            _ => return None,
        })
    }

    /// Takes the value of the property `name`, where it is one of these.
    pub(in crate::llmsink) fn set(&mut self, name: &str, value: &glib::Value) -> bool {
        let text = value.get().ok().flatten();
        self.field(name).map(|field| *field = text).is_some()
    }

    /// The value of the property `name`, where it is one of these.
    pub(in crate::llmsink) fn get(&self, name: &str) -> Option<glib::Value> {
        if name == "nats-url" {
            return Some(self.readable_url().to_value());
        }
        self.clone().field(name).map(|field| field.to_value())
    }
}

fn variable_of(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn default_spool_dir(source: &SourceName) -> Result<PathBuf, String> {
    let state = state_folder(variable_of);
    let state = state.ok_or("spool-dir: no home folder to make one in; name a folder")?;
    Ok(state.join(format!("spool-{source}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(values: &[(&str, &str)]) -> NatsSettings {
        let mut settings = NatsSettings::default();
        for (name, value) in values {
            assert!(settings.set(name, &value.to_value()), "{name}");
        }
        settings
    }

    #[test]
    fn a_login_in_the_address_is_used_and_never_told() {
        let settings = with(&[("nats-url", "nats://anna:s3cret@a:1"), ("spool-dir", "/s")]);
        let plan = settings.plan("sink0").unwrap().unwrap();
        let expected = ServerUrl::parse_list("nats://anna:s3cret@a:1").unwrap();
        assert_eq!(plan.options.broker.servers, expected);
        assert_eq!(plan.source.as_str(), "sink0");
        let read: Option<String> = settings.get("nats-url").unwrap().get().unwrap();
        assert_eq!(read.as_deref(), Some("nats://***@a:1"));
        assert!(!format!("{settings:?}").contains("s3cret"));
    }

    #[test]
    fn without_an_address_there_is_no_plan_and_what_is_wrong_is_named() {
        assert!(with(&[("source-name", "a b")]).plan("x").unwrap().is_none());
        for (name, value) in [
            ("nats-url", "http://u:s3cret@a"),
            ("subject-prefix", "a b"),
            ("source-name", "a.b"),
        ] {
            let settings = with(&[("nats-url", "nats://a"), ("spool-dir", "/s"), (name, value)]);
            let error = settings.plan("x").err().unwrap();
            assert!(
                error.starts_with(name) && !error.contains("s3cret"),
                "{error}"
            );
        }
    }
}
