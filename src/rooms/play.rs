//! A script through the real pipeline, by the media's time: the same media tell the same messages.
//!
//! What is done goes by the pad for text: until it is told that the text has come further, the sink waits there, so that
//! an act happens at its time and at no other.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use gst::ClockTime;
use gst::prelude::*;
use gst_app::AppSrc;
use gstvita::messages::{self, Session};
use image::RgbImage;
use vita_messages::Body;

use super::media::Media;
use super::script::{Act, Script, time};
use crate::config;
use crate::plan::ModelPlan;

/// Messages on their way from the bus; drop-newest, which ends the play with an error.
const TOLD_CAPACITY: usize = 65_536;
/// How often the sink is asked how far it has come.
const POLL: Duration = Duration::from_millis(2);
/// Nothing moved for so long: something hangs.
const PATIENCE: Duration = Duration::from_secs(300);

enum Told {
    Body(Box<Body>),
    Error(String),
    End,
}

/// What was told, in order. After a restart times and numbers begin anew.
pub fn play(script: &Script) -> anyhow::Result<Vec<Body>> {
    let media = Media::of(script)?;
    let mut told = Vec::new();
    let mut from = ClockTime::ZERO;
    let mut acts = script.acts.as_slice();
    let restarts = acts.iter().filter(|act| act.restart).count();
    for session in 0..=restarts {
        let next = acts.iter().position(|act| act.restart);
        let (part, rest) = match next {
            Some(restart) => (&acts[..restart], &acts[restart + 1..]),
            None => (acts, [].as_slice()),
        };
        let to = next.map_or(script.length(), |restart| time(acts[restart].at_secs));
        let played = Part {
            session_id: session as u64 + 1,
            from,
            length: to - from,
            acts: part,
            is_last: next.is_none(),
        };
        told.extend(played.play(script, &media.between(from, to))?);
        (from, acts) = (to, rest);
    }
    Ok(told)
}

/// What one pipeline plays: all of a script, or what lies between two restarts of the source.
struct Part<'a> {
    session_id: u64,
    from: ClockTime,
    length: ClockTime,
    acts: &'a [Act],
    is_last: bool,
}

impl Part<'_> {
    fn play(&self, script: &Script, media: &Media) -> anyhow::Result<Vec<Body>> {
        let stage = Stage::new(script, media, self.session_id)?;
        stage.show(media)?;
        let mut told = Vec::new();
        for act in self.acts {
            stage.carry_out(act, self.from, script.step_ms, &mut told)?;
        }
        stage.write(" ", self.length)?;
        match self.is_last {
            true => stage.end(&mut told)?,
            false => stage.break_off(self.length, script.step_ms, &mut told)?,
        }
        // Elements post on threads of their own: each in order, but not among each other.
        told.sort_by_key(stream_time_ns);
        Ok(told)
    }
}

/// Where in the stream it was told; each element's messages come in this order.
fn stream_time_ns(body: &Body) -> u64 {
    match body {
        Body::Speech(body) => body.stream_time_ns,
        Body::Frame(body) => body.stream_time_ns,
        Body::Query(body) => body.stream_time_ns,
        Body::Noise(body) => body.stream_time_ns,
        Body::Delta(body) => body.stream_time_ns,
        Body::Answer(body) => body.stream_time_ns,
        Body::Interrupted(body) => body.stream_time_ns,
        Body::RolesSwapped(body) => body.stream_time_ns,
        Body::Cancelled(body) => body.stream_time_ns,
        Body::Reset(body) => body.stream_time_ns,
        // The supervision's, which no element posts.
        Body::Source(_) | Body::Lost(_) => 0,
    }
}

/// The pipeline. Goes down when dropped.
struct Stage {
    pipeline: gst::Pipeline,
    sink: gst::Element,
    sound: AppSrc,
    pictures: Option<AppSrc>,
    text: AppSrc,
    told: Receiver<Told>,
}

impl Stage {
    fn new(script: &Script, media: &Media, session_id: u64) -> anyhow::Result<Self> {
        let size = media.frames.first().map(|(_, frame)| frame.dimensions());
        let pipeline = gst::parse::launch(&launch(script, size)).context("the pipeline")?;
        let pipeline = pipeline
            .downcast::<gst::Pipeline>()
            .map_err(|_| anyhow::anyhow!("not a pipeline"))?;
        let element = |name: &str| pipeline.by_name(name).with_context(|| format!("no {name}"));
        let source = |name: &str| -> anyhow::Result<AppSrc> {
            let source = element(name)?.downcast::<AppSrc>();
            source.map_err(|_| anyhow::anyhow!("{name} is no appsrc"))
        };
        let sink = element("llm")?;
        for name in ["llm", "audio-encoder", "video-encoder"] {
            if let Some(element) = pipeline.by_name(name) {
                element.set_property("model", &script.model);
            }
        }
        set(&sink, "system-prompt", script.system_prompt.as_ref());
        set(&sink, "max-tokens", script.max_tokens);
        set(&sink, "history-tokens", script.history_tokens);
        set(&sink, "logit-bias", script.logit_bias.as_ref());
        sink.set_property("step-time", script.step_ms * 1_000_000);
        let (sender, told) = sync_channel(TOLD_CAPACITY);
        let bus = pipeline.bus().context("a pipeline's bus")?;
        bus.set_sync_handler(move |_, message| {
            listen(message, session_id, &sender);
            gst::BusSyncReply::Drop
        });
        let stage = Self {
            sound: source("sound")?,
            pictures: size.map(|_| source("pictures")).transpose()?,
            text: source("text")?,
            sink,
            pipeline,
            told,
        };
        // An error of the change is on the bus, and says more there.
        let _ = stage.pipeline.set_state(gst::State::Playing);
        Ok(stage)
    }

    /// Gives all sound and pictures; the sink takes them as far as the text goes.
    fn show(&self, media: &Media) -> anyhow::Result<()> {
        for (at, samples) in &media.sound {
            let bytes: Vec<u8> = samples.iter().flat_map(|x| x.to_le_bytes()).collect();
            let duration = ClockTime::SECOND.mul_div_floor(samples.len() as u64, 16_000);
            push(&self.sound, bytes, *at, duration)?;
        }
        self.sound.end_of_stream().context("sound")?;
        if let Some(pictures) = &self.pictures {
            for (at, frame) in &media.frames {
                push(pictures, rows(frame), *at, None)?;
            }
            pictures.end_of_stream().context("pictures")?;
        }
        Ok(())
    }

    /// `from`: when in the script the pipeline's stream begins.
    fn carry_out(
        &self,
        act: &Act,
        from: ClockTime,
        step_ms: u64,
        told: &mut Vec<Body>,
    ) -> anyhow::Result<()> {
        let at = time(act.at_secs) - from;
        if let Some(text) = &act.ask {
            return self.write(text, at);
        }
        if act.lose.is_some() {
            return Ok(());
        }
        self.write(" ", at)?;
        self.wait_for(at, step_ms, told)?;
        match &act.logit_bias {
            Some(bias) => self.sink.set_property("logit-bias", bias),
            None => self.sink.emit_by_name::<()>("reset", &[]),
        }
        Ok(())
    }

    /// Text that is not blank is a question; any tells the sink that the text has come to `at`.
    fn write(&self, text: &str, at: ClockTime) -> anyhow::Result<()> {
        push(&self.text, text.as_bytes().to_vec(), at, None)
    }

    /// The streams end, and everything that was asked has its end.
    fn end(&self, told: &mut Vec<Body>) -> anyhow::Result<()> {
        self.text.end_of_stream().context("text")?;
        let deadline = Instant::now() + PATIENCE;
        while !self.listen(POLL, told)? {
            if Instant::now() > deadline {
                bail!("the room has not come to its end");
            }
        }
        Ok(())
    }

    /// The source is gone at a time: the pipeline goes down in the middle of everything, and says what it ends.
    fn break_off(&self, at: ClockTime, step_ms: u64, told: &mut Vec<Body>) -> anyhow::Result<()> {
        self.wait_for(at, step_ms, told)?;
        let _ = self.pipeline.set_state(gst::State::Null);
        while let Ok(message) = self.told.try_recv() {
            match message {
                Told::Body(body) => told.push(*body),
                Told::Error(error) => bail!(error),
                Told::End => {}
            }
        }
        Ok(())
    }

    /// Waits until the dialogue has come to `time`, but for a step that would go beyond it.
    fn wait_for(&self, time: ClockTime, step_ms: u64, told: &mut Vec<Body>) -> anyhow::Result<()> {
        let time = time.saturating_sub(ClockTime::from_mseconds(step_ms));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stats = self.sink.property::<gst::Structure>("stats");
            let position: u64 = stats.get("position").context("the sink's stats")?;
            if position > time.nseconds() {
                return Ok(());
            }
            if self.listen(POLL, told)? || Instant::now() > deadline {
                bail!("the room has not come to {time}");
            }
        }
    }

    /// Takes what is told within `time`. `true`: that was all.
    fn listen(&self, time: Duration, told: &mut Vec<Body>) -> anyhow::Result<bool> {
        match self.told.recv_timeout(time) {
            Ok(Told::Body(body)) => told.push(*body),
            Ok(Told::Error(error)) => bail!(error),
            Ok(Told::End) => return Ok(true),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("the pipeline is gone"),
        }
        Ok(false)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Whoever waits in there is let go.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

fn launch(script: &Script, size: Option<(u32, u32)>) -> String {
    let plan = ModelPlan {
        name: script.model.clone(),
        device: Default::default(),
        precision: Default::default(),
    };
    let frontend = config::frontend(&plan).map(|frontend| format!("frontend={frontend}"));
    let frontend = frontend.unwrap_or_default();
    let mut launch = format!(
        "vitallmsink name=llm \
         appsrc name=text format=time max-bytes=0 caps=text/x-raw,format=utf8 ! llm.text_0 \
         appsrc name=sound format=time max-bytes=0 \
           caps=audio/x-raw,format=F32LE,rate=16000,channels=1,layout=interleaved \
         ! vitavad ! vitamel {frontend} ! vitaencoder name=audio-encoder queue=block ! llm.audio_0 "
    );
    if let Some((width, height)) = size {
        launch += &format!(
            "appsrc name=pictures format=time max-bytes=0 \
               caps=video/x-raw,format=RGB,width={width},height={height},framerate=0/1 \
             ! vitaencoder name=video-encoder queue=block ! llm.video_0 "
        );
    }
    launch
}

fn set(element: &gst::Element, property: &str, value: Option<impl Into<gst::glib::Value>>) {
    if let Some(value) = value {
        element.set_property_from_value(property, &value.into());
    }
}

fn push(
    source: &AppSrc,
    bytes: Vec<u8>,
    at: ClockTime,
    duration: Option<ClockTime>,
) -> anyhow::Result<()> {
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    if let Some(buffer) = buffer.get_mut() {
        buffer.set_pts(at);
        buffer.set_duration(duration);
    }
    let pushed = source.push_buffer(buffer);
    pushed
        .map(|_| ())
        .with_context(|| source.name().to_string())
}

/// Rows padded to four bytes, as raw video has them.
fn rows(frame: &RgbImage) -> Vec<u8> {
    let row = frame.width() as usize * 3;
    let stride = row.next_multiple_of(4);
    let lines = frame.as_raw().chunks(row);
    lines
        .flat_map(|line| {
            let padding = std::iter::repeat_n(0, stride - row);
            line.iter().copied().chain(padding)
        })
        .collect()
}

/// Runs on the threads that post.
fn listen(message: &gst::Message, session_id: u64, told: &SyncSender<Told>) {
    let session = Session {
        id: session_id,
        model: None,
    };
    let event = match message.view() {
        gst::MessageView::Element(element) => {
            match element
                .structure()
                .and_then(|s| messages::parse(s, &session))
            {
                Some(Ok(body)) => Told::Body(Box::new(body)),
                Some(Err(error)) => Told::Error(error.to_string()),
                None => return,
            }
        }
        gst::MessageView::Error(error) => Told::Error(error.error().message().to_owned()),
        gst::MessageView::Eos(_) => Told::End,
        _ => return,
    };
    // Full: nobody has listened for very long, and the play is over.
    let _ = told.try_send(event);
}
