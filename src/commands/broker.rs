//! How a command that talks to the broker is told about it.

use std::path::PathBuf;

use vita_messages::{Broker, ServerUrl};

use crate::plan::Secret;

const DEFAULT_URL: &str = "nats://localhost:4222";

#[derive(clap::Args, Debug)]
pub struct BrokerArgs {
    /// The broker's address, or several with commas; may hold user:password@ or token@ [default: nats://localhost:4222]
    #[arg(long, env = "NATS_URL", hide_env_values = true, value_name = "URL")]
    url: Option<Secret>,
    /// Credentials file of NATS (.creds)
    #[arg(long, env = "NATS_CREDS", hide_env_values = true, value_name = "FILE")]
    creds: Option<PathBuf>,
    /// Token; better given in the environment, where other users of the machine do not see it
    #[arg(long, env = "NATS_TOKEN", hide_env_values = true)]
    token: Option<Secret>,
    /// PEM file of certificate authorities to trust besides the system's
    #[arg(long, value_name = "FILE")]
    tls_ca_file: Option<PathBuf>,
}

impl BrokerArgs {
    /// Whether an address was given.
    pub fn is_given(&self) -> bool {
        self.url.is_some()
    }

    pub fn broker(&self) -> anyhow::Result<Broker> {
        let mut broker = Broker::new(ServerUrl::parse_list(
            self.url.as_ref().map_or(DEFAULT_URL, Secret::reveal),
        )?);
        broker.credentials_file = self.creds.clone();
        broker.token = self.token.as_ref().map(|token| token.reveal().to_owned());
        broker.tls_ca_file = self.tls_ca_file.clone();
        Ok(broker)
    }
}
