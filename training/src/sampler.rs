//! Which items are drawn for training, and in which order.

use crate::{Item, Kind, Mix};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// Where in the data a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Draws {
    /// Items drawn so far.
    pub all: u64,
    /// Of these, by kind.
    pub kinds: [u64; 3],
}

/// Draws items in the parts of a mix: each kind's items are shuffled anew for every pass over them.
/// What is drawn depends on the seed and on [`Draws`] alone.
pub struct Sampler {
    seed: u64,
    /// Indices of the items of each kind.
    pools: [Vec<usize>; 3],
    mix: [f64; 3],
    /// The pass that each kind's order belongs to.
    orders: [Option<(u64, Vec<usize>)>; 3],
    pub draws: Draws,
}

/// A generator for one decision, from the seed and what is decided.
pub(crate) fn generator(seed: u64, what: u64, number: u64) -> StdRng {
    let mut bytes = [0; 32];
    for (part, value) in bytes
        .chunks_exact_mut(8)
        .zip([seed, what, number, 0x5674_6121])
    {
        part.copy_from_slice(&value.to_le_bytes());
    }
    StdRng::from_seed(bytes)
}

impl Sampler {
    /// Kinds of which there are no items are left out of the mix.
    pub fn new(items: &[Item], mix: Mix, seed: u64) -> Self {
        let pools = Kind::ALL.map(|kind| {
            let of_kind = items
                .iter()
                .enumerate()
                .filter(|(_, item)| item.kind == kind);
            of_kind.map(|(i, _)| i).collect::<Vec<_>>()
        });
        let mut mix = [mix.query, mix.noise, mix.text];
        for (part, pool) in mix.iter_mut().zip(&pools) {
            if pool.is_empty() {
                *part = 0.0;
            }
        }
        Self {
            seed,
            pools,
            mix,
            orders: [None, None, None],
            draws: Draws::default(),
        }
    }

    /// The next item's index, and a number that no other draw has. `None` without items.
    pub fn draw(&mut self) -> Option<(usize, u64)> {
        let whole: f64 = self.mix.iter().sum();
        if whole <= 0.0 {
            return None;
        }
        let number = self.draws.all;
        let mut at = generator(self.seed, 1, number).random_range(0.0..whole);
        let kind = self.mix.iter().position(|part| {
            at -= part;
            at < 0.0
        });
        let kind = kind.unwrap_or(0);
        let drawn = self.draws.kinds[kind];
        let pool = &self.pools[kind];
        let (pass, place) = (drawn / pool.len() as u64, drawn % pool.len() as u64);
        let order = match &mut self.orders[kind] {
            Some((of, order)) if *of == pass => order,
            slot => {
                let mut order = pool.clone();
                order.shuffle(&mut generator(self.seed, 2 + kind as u64, pass));
                &mut slot.insert((pass, order)).1
            }
        };
        let item = order[place as usize];
        self.draws.all += 1;
        self.draws.kinds[kind] += 1;
        Some((item, number))
    }
}
