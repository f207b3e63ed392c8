use candle_core::Tensor;
use std::fmt::{Arguments, Write};

/// Is given a stage's name and value.
pub type Observer<'a> = dyn FnMut(&str, &Tensor) + 'a;

/// An optional observer of intermediate values, for comparing implementations stage by stage.
///
/// Names are those of the published vectors (`layer0_attn`, `router_logits1`). Without an observer
/// nothing is formatted or kept.
pub struct Probe<'a> {
    observer: Option<&'a mut Observer<'a>>,
}

impl<'a> Probe<'a> {
    /// Sees nothing, costs nothing.
    pub fn none() -> Self {
        Self { observer: None }
    }

    pub fn new(observer: &'a mut Observer<'a>) -> Self {
        Self {
            observer: Some(observer),
        }
    }

    /// Whether anybody looks: a step may then keep apart what it would otherwise do in one pass.
    pub fn sees(&self) -> bool {
        self.observer.is_some()
    }

    pub fn see(&mut self, name: Arguments<'_>, value: &Tensor) {
        let Some(observer) = self.observer.as_mut() else {
            return;
        };
        let mut text = String::new();
        if text.write_fmt(name).is_ok() {
            observer(&text, value);
        }
    }
}
