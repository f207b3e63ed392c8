//! The account of what was given up, by source and cause, kept in a file so that a restart does not hide it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::kinds::{Lost, LostCause};
use crate::wall_time::WallTime;

/// One line of the account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub source: String,
    /// On its way to the broker: no more is added, so that what is sent again is the same message.
    announced: bool,
    #[serde(flatten)]
    pub lost: Lost,
}

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    entries: Vec<Entry>,
    total: u64,
}

impl Ledger {
    pub(super) fn open(path: PathBuf) -> Self {
        let entries = match std::fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).unwrap_or_else(|error| {
                tracing::warn!(%error, path = %path.display(), "spool: the account of lost messages is damaged; it starts anew");
                Vec::new()
            }),
            Err(_) => Vec::new(),
        };
        Self {
            path,
            entries,
            total: 0,
        }
    }

    /// So many more messages of this source are lost. Call [`save`](Self::save) after the last.
    pub fn add(&mut self, source: &str, cause: LostCause, count: u64) {
        self.total += count;
        let now = WallTime::now();
        let open = self
            .entries
            .iter_mut()
            .find(|e| !e.announced && e.source == source && e.lost.cause == cause);
        if let Some(entry) = open {
            entry.lost.count += count;
            entry.lost.last_time = now;
            return;
        }
        let lost = Lost {
            count,
            cause,
            first_time: now,
            last_time: now,
        };
        self.entries.push(Entry {
            source: source.to_owned(),
            announced: false,
            lost,
        });
    }

    /// What is to be announced now; each entry until it [has arrived](Self::arrived).
    pub fn announce(&mut self) -> Vec<Entry> {
        let mut new = Vec::new();
        for entry in self.entries.iter_mut().filter(|entry| !entry.announced) {
            entry.announced = true;
            new.push(entry.clone());
        }
        if !new.is_empty() {
            self.save();
        }
        new
    }

    /// After a restart: what was on its way may not have arrived, and is announced again, as the same message.
    pub fn announce_again(&self) -> Vec<Entry> {
        self.entries
            .iter()
            .filter(|entry| entry.announced)
            .cloned()
            .collect()
    }

    pub fn has_news(&self) -> bool {
        self.entries.iter().any(|entry| !entry.announced)
    }

    pub fn arrived(&mut self, entry: &Entry) {
        self.entries.retain(|kept| kept != entry);
        self.save();
    }

    /// Messages given up since it was opened.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// A full disk may be the very reason for a loss, so this only warns.
    pub fn save(&self) {
        let part = self.path.with_extension("json.part");
        let json = serde_json::to_vec_pretty(&self.entries).unwrap_or_default();
        if let Err(error) =
            std::fs::write(&part, json).and_then(|()| std::fs::rename(&part, &self.path))
        {
            tracing::warn!(%error, path = %self.path.display(), "spool: cannot write the account of lost messages");
        }
    }
}
