//! `vita run`: the supervision of a deployment.
//!
//! One task a source. It makes attempts (`attempt`): a GStreamer pipeline each (`pipeline`), whose bus is read on the posting threads and
//! whose source pads are watched (`taps`, `flow`), since a frozen server looks like a healthy one to GStreamer. Between attempts it waits
//! (`backoff`). What elements notice (`gstvita::messages`) and what becomes of the source (`announce`) goes to the publisher, which never waits. Commands reach the
//! pipeline that is there by the source's `room`.

mod announce;
mod attempt;
pub mod backoff;
pub mod branches;
mod diagnose;
mod flow;
mod media;
mod pipeline;
mod reason;
pub mod redact;
mod source;
mod taps;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::Context as _;
use gstvita::messages::SourceRoom;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;
use tracing::Instrument as _;
use vita_engine::models::Model;
use vita_messages::service::{CommandService, Served};
use vita_messages::{Broker, Options, Prefix, Publisher, ServerUrl, SourceName};

use crate::models;
use crate::nats_server::EmbeddedNats;
use crate::plan::{ModelPlan, NatsPlan, NatsServer, Plan};
use source::SourceTask;

/// Longer than any source takes that does not hang.
const SOURCES_STOP_WITHIN: Duration = Duration::from_secs(10);
/// What is not sent by then stays in the spool for the next time.
const FLUSH_WITHIN: Duration = Duration::from_secs(5);

/// Runs a deployment until every source is finished or `stop` turns true. Ends within a bounded time.
///
/// GStreamer and the elements must be there: see [`gstvita::plugin_register_static`].
pub async fn run(plan: Plan, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
    let names = plan
        .sources
        .iter()
        .map(|source| SourceName::new(&source.name))
        .collect::<Result<Vec<_>, _>>()?;
    let models = open_models(&plan).await?;
    let (broker, embedded) = broker(&plan.nats).await?;
    let prefix = Prefix::new(&plan.nats.prefix)?;
    let mut options = Options::new(broker.servers.clone(), &plan.nats.spool_dir);
    options.broker = broker.clone();
    options.prefix = prefix.clone();
    options.spool.max_bytes = plan.nats.spool_max_bytes;
    let publisher = Publisher::connect(options).await?;

    let mut sources = JoinSet::new();
    let mut served = Vec::new();
    for (source, name) in plan.sources.into_iter().zip(names) {
        let span = tracing::info_span!("source", %name);
        let model = source.model.as_ref().map(|model| model.name.clone());
        let room = Arc::new(SourceRoom::new(name.as_str(), model));
        served.push(Served {
            source: name.clone(),
            outcomes: room.outcomes.clone(),
            room: room.clone(),
        });
        let task = SourceTask::new(source, name, room, publisher.clone(), stop.clone());
        sources.spawn(task.run().instrument(span));
    }
    let commands = CommandService::start(broker, prefix, served);
    let mut given_up = GivenUp::default();
    loop {
        tokio::select! {
            () = stopped(&mut stop) => break,
            finished = sources.join_next() => match finished {
                Some(finished) => given_up.add(finished),
                None => break,
            }
        }
    }
    let last = async {
        while let Some(finished) = sources.join_next().await {
            given_up.add(finished);
        }
    };
    if timeout(SOURCES_STOP_WITHIN, last).await.is_err() {
        tracing::warn!(sources = sources.len(), "some sources did not stop in time");
    }
    drop(commands);
    drop(models);
    let drained = publisher.close(FLUSH_WITHIN).await;
    let stats = publisher.stats();
    tracing::info!(
        sent = stats.acknowledged,
        in_spool = drained.remaining,
        lost = stats.lost,
        observations_dropped = given_up.queue_full,
        malformed = given_up.malformed,
        "stopped"
    );
    if let Some(embedded) = embedded {
        embedded.stop().await;
    }
    Ok(())
}

/// Opens each model of the plan once; the elements of all sources find them open. A model that cannot be loaded is an
/// error of the whole run: who configured it does not want a deployment that stays silent.
async fn open_models(plan: &Plan) -> anyhow::Result<Vec<Arc<Model>>> {
    let mut wanted: Vec<ModelPlan> = Vec::new();
    for model in plan
        .sources
        .iter()
        .filter_map(|source| source.model.as_ref())
    {
        if !wanted.contains(model) {
            wanted.push(model.clone());
        }
    }
    let opened = spawn_blocking(move || wanted.iter().map(models::open_planned).collect());
    opened.await?
}

/// Resolves when it turns true, or when nobody is left to turn it.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Counts over all sources.
#[derive(Default)]
struct GivenUp {
    queue_full: u64,
    malformed: u64,
}

impl GivenUp {
    fn add(&mut self, finished: Result<Arc<pipeline::Dropped>, tokio::task::JoinError>) {
        match finished {
            Ok(dropped) => {
                self.queue_full += dropped.queue_full.load(Relaxed);
                self.malformed += dropped.malformed.load(Relaxed);
            }
            Err(error) => tracing::error!(%error, "a source's task failed; this is a bug"),
        }
    }
}

async fn broker(nats: &NatsPlan) -> anyhow::Result<(Broker, Option<EmbeddedNats>)> {
    match &nats.server {
        NatsServer::Embedded {
            store_dir,
            port,
            program,
        } => {
            let embedded = EmbeddedNats::start(store_dir, *port, program.as_deref()).await?;
            let url = ServerUrl::parse(embedded.url())?;
            Ok((Broker::new(vec![url]), Some(embedded)))
        }
        NatsServer::Remote {
            url,
            credentials_file,
            token,
            tls_ca_file,
        } => {
            let mut broker = Broker::new(ServerUrl::parse_list(url.reveal()).context("nats.url")?);
            broker.credentials_file.clone_from(credentials_file);
            broker.token = token.as_ref().map(|token| token.reveal().to_owned());
            broker.tls_ca_file.clone_from(tls_ca_file);
            Ok((broker, None))
        }
    }
}
