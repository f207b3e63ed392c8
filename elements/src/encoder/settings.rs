use gst::glib;
use gst::prelude::*;
use vita_engine::encode::ClientSettings;
use vita_engine::models::{DeviceSpec, Error, ModelSpec, Precision};

/// What happens to a medium that comes when `max-queued` others wait.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstVitaQueuePolicy")]
pub enum QueuePolicy {
    #[default]
    #[enum_value(name = "Drop the oldest that waits", nick = "drop-oldest")]
    DropOldest,
    #[enum_value(name = "Drop the one that comes", nick = "drop-newest")]
    DropNewest,
    #[enum_value(name = "Block upstream, for files: nothing is lost", nick = "block")]
    Block,
}

impl QueuePolicy {
    /// As `vita-dropped` says it.
    pub(super) fn nick(self) -> &'static str {
        match self {
            Self::DropOldest => "drop-oldest",
            Self::DropNewest => "drop-newest",
            Self::Block => "block",
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub model: Option<String>,
    pub device: String,
    pub precision: String,
    pub batch: u32,
    pub queue: QueuePolicy,
    pub max_queued: u32,
    pub max_wait: gst::ClockTime,
    pub cache_mib: u32,
    pub latency: gst::ClockTime,
}

/// As many jobs as any `max-queued`: the line's own limit is the one that counts.
const CAPACITY: usize = 1_000;

impl Default for Settings {
    fn default() -> Self {
        Self {
            model: None,
            device: DeviceSpec::default().to_string(),
            precision: "f32".to_owned(),
            batch: 8,
            queue: QueuePolicy::default(),
            // as many as the model's rule chooses of a clip, which come all at once
            max_queued: 16,
            max_wait: gst::ClockTime::from_seconds(10),
            cache_mib: (ClientSettings::default().cache_bytes >> 20) as u32,
            latency: gst::ClockTime::from_seconds(1),
        }
    }
}

impl Settings {
    pub fn model_spec(&self) -> Result<ModelSpec, Error> {
        Ok(ModelSpec {
            device: self.device.parse()?,
            precision: self.precision.parse::<Precision>()?,
            ..ModelSpec::named(self.model.as_deref().unwrap_or_default())?
        })
    }

    /// What the element wants of the model's encoder.
    pub fn client(&self) -> ClientSettings {
        let is_limited = !self.max_wait.is_zero() && self.queue != QueuePolicy::Block;
        ClientSettings {
            batch: self.batch as usize,
            capacity: CAPACITY,
            max_wait: is_limited.then(|| self.max_wait.into()),
            cache_bytes: (self.cache_mib as usize) << 20,
        }
    }

    pub fn properties() -> Vec<glib::ParamSpec> {
        let default = Self::default();
        vec![
            glib::ParamSpecString::builder("model")
                .nick("Model")
                .blurb("The model: path of its folder, or a name such as nano, which is a folder in models of the cache")
                .mutable_ready()
                .build(),
            glib::ParamSpecString::builder("device")
                .nick("Device")
                .blurb("Where it computes: cpu, cuda or cuda:N")
                .default_value(Some(default.device.as_str()))
                .mutable_ready()
                .build(),
            glib::ParamSpecString::builder("precision")
                .nick("Precision")
                .blurb("Type in which its matrices are kept: f32, f16 or bf16 (quantised ones stay as they are)")
                .default_value(Some(default.precision.as_str()))
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("batch")
                .nick("Batch")
                .blurb("Most frames encoded together, those of other streams on the same model included")
                .minimum(1)
                .maximum(256)
                .default_value(default.batch)
                .mutable_ready()
                .build(),
            glib::ParamSpecEnum::builder_with_default("queue", default.queue)
                .nick("Queue policy")
                .blurb("What happens to a frame or utterance when max-queued others wait")
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt::builder("max-queued")
                .nick("Maximum queued")
                .blurb("Frames or utterances that may wait to be encoded or to be pushed, those being encoded not counted")
                .minimum(1)
                .maximum(1_000)
                .default_value(default.max_queued)
                .mutable_playing()
                .build(),
            glib::ParamSpecUInt64::builder("max-wait")
                .nick("Maximum wait")
                .blurb(
                    "An utterance that has waited longer (ns) is dropped instead of encoded: nobody wants its answer any \
                     more. 0, or queue=block: never",
                )
                .maximum(gst::ClockTime::from_seconds(3600).nseconds())
                .default_value(default.max_wait.nseconds())
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt::builder("encode-cache-mib")
                .nick("Encode cache")
                .blurb(
                    "MiB of encoded media kept, so that what is seen again is not encoded again. All who share the model share \
                     them; the most that one of them wants counts",
                )
                .maximum(1 << 20)
                .default_value(default.cache_mib)
                .mutable_ready()
                .build(),
            glib::ParamSpecUInt64::builder("latency")
                .nick("Latency")
                .blurb("Time in ns that a live pipeline allows for encoding; what takes longer is counted as late")
                .maximum(gst::ClockTime::from_seconds(600).nseconds())
                .default_value(default.latency.nseconds())
                .mutable_playing()
                .build(),
        ]
    }

    pub fn set(&mut self, name: &str, value: &glib::Value) {
        const CHECKED: &str = "glib checks the type";
        let text = || value.get::<Option<String>>().expect(CHECKED);
        match name {
            "model" => self.model = text(),
            "device" => self.device = text().unwrap_or_else(|| Self::default().device),
            "precision" => self.precision = text().unwrap_or_else(|| Self::default().precision),
            "batch" => self.batch = value.get().expect(CHECKED),
            "queue" => self.queue = value.get().expect(CHECKED),
            "max-queued" => self.max_queued = value.get().expect(CHECKED),
            "max-wait" => {
                self.max_wait = gst::ClockTime::from_nseconds(value.get().expect(CHECKED));
            }
            "encode-cache-mib" => self.cache_mib = value.get().expect(CHECKED),
            "latency" => self.latency = gst::ClockTime::from_nseconds(value.get().expect(CHECKED)),
            _ => unreachable!("no such property is registered"),
        }
    }

    pub fn get(&self, name: &str) -> glib::Value {
        match name {
            "model" => self.model.to_value(),
            "device" => self.device.to_value(),
            "precision" => self.precision.to_value(),
            "batch" => self.batch.to_value(),
            "queue" => self.queue.to_value(),
            "max-queued" => self.max_queued.to_value(),
            "max-wait" => self.max_wait.nseconds().to_value(),
            "encode-cache-mib" => self.cache_mib.to_value(),
            "latency" => self.latency.nseconds().to_value(),
            _ => unreachable!("no such property is registered"),
        }
    }
}
