//! A credentials file (user JWT and key) at a real nats-server that trusts an operator alone.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use vita_messages::kinds::{Source, SourceStatus};
use vita_messages::testing::NatsServer;
use vita_messages::{BrokerErrorKind, Message, Options, Publisher, ServerUrl, SourceName};

/// Nothing here takes long; a busy machine may.
const PATIENCE: Duration = Duration::from_secs(120);

fn options(server: &NatsServer, dir: &Path) -> Options {
    let servers = ServerUrl::parse_list(&server.url()).unwrap();
    Options::new(servers, dir.join("spool"))
}

fn up() -> Message {
    let source = Source {
        state: SourceStatus::Up,
        reason: None,
        attempt: 1,
        next_retry: None,
        media: Vec::new(),
    };
    Message::now(&SourceName::new("door").unwrap(), source)
}

/// A claim of NATS about `subject`, signed by `issuer` (JWT with nkeys, version 2).
fn claim(issuer: &KeyPair, subject: &KeyPair, nats: Value) -> String {
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(json!({"typ": "JWT", "alg": "ed25519-nkey"}));
    let body = part(json!({
        "jti": subject.public_key(),
        "iat": 1_764_000_000,
        "iss": issuer.public_key(),
        "sub": subject.public_key(),
        "name": "test",
        "nats": nats,
    }));
    let text = format!("{header}.{body}");
    let signature = issuer.sign(text.as_bytes()).unwrap();
    format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

fn account(operator: &KeyPair, account: &KeyPair, stores: bool) -> String {
    let storage = if stores { -1 } else { 0 };
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        "mem_storage": storage, "disk_storage": storage, "streams": storage, "consumer": storage,
    });
    let nats = json!({"type": "account", "version": 2, "limits": limits});
    claim(operator, account, nats)
}

fn credentials(issuer: &KeyPair, file: &Path) {
    let user = KeyPair::new_user();
    let nats = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1});
    let (jwt, seed) = (claim(issuer, &user, nats), user.seed().unwrap());
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    std::fs::write(file, text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credentials_file_lets_in_and_a_strangers_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (operator, system, site) = (
        KeyPair::new_operator(),
        KeyPair::new_account(),
        KeyPair::new_account(),
    );
    let trusted = claim(
        &operator,
        &operator,
        json!({"type": "operator", "version": 2}),
    );
    let config = format!(
        "operator: {trusted}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{ {}: {}, {}: {} }}",
        system.public_key(),
        system.public_key(),
        account(&operator, &system, false),
        site.public_key(),
        account(&operator, &site, true),
    );
    let server = NatsServer::start_with(dir.path(), &config).unwrap();

    let file = dir.path().join("door.creds");
    credentials(&site, &file);
    let mut of_site = options(&server, dir.path());
    of_site.broker.credentials_file = Some(file);
    let publisher = Publisher::connect(of_site).await.unwrap();
    publisher.publish(&up()).unwrap();
    assert_eq!(publisher.close(PATIENCE).await.remaining, 0);

    let file = dir.path().join("stranger.creds");
    credentials(&KeyPair::new_account(), &file);
    let mut strangers = options(&server, dir.path()).broker;
    strangers.credentials_file = Some(file.clone());
    let error = strangers.connect().await.unwrap_err();
    assert_eq!(error.kind, BrokerErrorKind::Unauthorized, "{error}");
    let text = std::fs::read_to_string(&file).unwrap();
    let secret = text.lines().find(|line| line.starts_with("SU")).unwrap();
    let told = format!("{error} {error:?} {strangers:?}");
    assert!(!told.contains(secret), "{told}");

    std::fs::write(&file, "not a key").unwrap();
    let error = strangers.connect().await.unwrap_err();
    assert_eq!(error.kind, BrokerErrorKind::File, "{error}");
    assert!(error.to_string().contains("stranger.creds"), "{error}");
}
