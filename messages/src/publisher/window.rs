//! Durable messages at hand: read from the spool or about to be sent, sent, and not all acknowledged up to them.

use std::collections::VecDeque;

use crate::spool::{Entry, Position, Record};

/// What the acknowledgement of a message settles.
pub(super) enum Origin {
    Spool(Position),
    /// It could not be written to the spool, and is only here.
    Memory,
    Notice(Entry),
}

struct Flight {
    record: Record,
    origin: Origin,
    is_settled: bool,
}

/// Bounded by count and bytes; in order.
pub(super) struct Window {
    flights: VecDeque<Flight>,
    /// Number of the front.
    first: u64,
    /// Number of the next one to send on this connection.
    next: u64,
    bytes: usize,
    max_count: usize,
}

/// Payload bytes that a window holds at most, so that large messages cannot fill the memory.
const MAX_BYTES: usize = 16 << 20;

impl Window {
    pub fn new(max_count: usize) -> Self {
        Self {
            flights: VecDeque::new(),
            first: 0,
            next: 0,
            bytes: 0,
            max_count: max_count.max(1),
        }
    }

    pub fn has_room(&self) -> bool {
        self.flights.len() < self.max_count && self.bytes < MAX_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }

    /// Messages that only this window holds.
    pub fn in_memory(&self) -> u64 {
        self.flights
            .iter()
            .filter(|flight| matches!(flight.origin, Origin::Memory))
            .count() as u64
    }

    pub fn push(&mut self, record: Record, origin: Origin) {
        self.bytes += record.payload.len();
        self.flights.push_back(Flight {
            record,
            origin,
            is_settled: false,
        });
    }

    /// The next message to send and its number.
    pub fn next(&mut self) -> Option<(u64, &Record)> {
        while self
            .flight(self.next)
            .is_some_and(|flight| flight.is_settled)
        {
            self.next += 1;
        }
        let number = self.next;
        self.flight(number).map(|flight| (number, &flight.record))
    }

    pub fn sent(&mut self, number: u64) {
        self.next = number + 1;
    }

    /// Everything that is not settled is to be sent again.
    pub fn rewind(&mut self) {
        self.next = self.first;
    }

    /// One needs no more sending. Returns what that settles, in order: an acknowledgement counts once all before it have come.
    pub fn settle(&mut self, number: u64) -> Vec<Origin> {
        if let Some(flight) = number
            .checked_sub(self.first)
            .and_then(|at| self.flights.get_mut(usize::try_from(at).ok()?))
        {
            flight.is_settled = true;
        }
        let mut settled = Vec::new();
        while self.flights.front().is_some_and(|flight| flight.is_settled) {
            let Some(flight) = self.flights.pop_front() else {
                break;
            };
            self.first += 1;
            self.bytes -= flight.record.payload.len();
            settled.push(flight.origin);
        }
        self.next = self.next.max(self.first);
        settled
    }

    pub fn record(&self, number: u64) -> Option<&Record> {
        self.flight(number).map(|flight| &flight.record)
    }

    fn flight(&self, number: u64) -> Option<&Flight> {
        self.flights
            .get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }
}
