//! What a gst-launch text cannot say of a source: whom it trusts, which of its streams are asked for, and that a branch for
//! which it has none is not waited for.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use gio::prelude::*;
use gst::glib::subclass::SignalId;
use gst::prelude::*;
use vita_messages::kinds::{SourceReason, SourceReasonKind};

use super::reason;
use super::taps::SOURCE;
use crate::plan::{SourcePlan, Wanted};

/// A medium, and with it the name of the bin that takes it.
const MEDIA: [&str; 2] = ["video", "audio"];

fn wanted(plan: &SourcePlan, medium: &str) -> Wanted {
    match medium {
        "video" => plan.video,
        "audio" => plan.audio,
        _ => Wanted::Auto,
    }
}

/// To be called before the pipeline starts.
pub fn prepare(pipeline: &gst::Pipeline, plan: &SourcePlan) -> Result<(), SourceReason> {
    let Some(source) = pipeline.by_name(SOURCE) else {
        return Ok(());
    };
    if let Some(path) = &plan.tls_ca_file {
        trust(&source, path)?;
    }
    if SignalId::lookup("select-stream", source.type_()).is_some() {
        ask_for(&source, plan.clone());
    }
    Ok(())
}

fn trust(source: &gst::Element, path: &Path) -> Result<(), SourceReason> {
    let fail = |error: &dyn std::fmt::Display| {
        let text = format!("{}: {error}", path.display());
        reason::new(SourceReasonKind::Tls, text)
    };
    let database = gio::TlsFileDatabase::new(path).map_err(|error| fail(&error.message()))?;
    if !source.has_property_with_type("tls-database", gio::TlsDatabase::static_type()) {
        return Err(fail(&"the source does not take certificates"));
    }
    source.set_property("tls-database", &database);
    Ok(())
}

/// A stream that nobody takes is not even asked for.
fn ask_for(source: &gst::Element, plan: SourcePlan) {
    source.connect("select-stream", false, move |values| {
        let caps = values
            .get(2)
            .and_then(|value| value.get::<gst::Caps>().ok());
        let medium = caps
            .as_ref()
            .and_then(|caps| caps.structure(0)?.get::<&str>("media").ok());
        let asked = medium.is_none_or(|medium| wanted(&plan, medium) != Wanted::Off);
        Some(asked.to_value())
    });
}

/// How the pipelines' texts say that a branch takes what the source will have.
const DELAYED_LINK: &str = "source. ! ";

/// The text without the links that gst-launch would make when the source's pads appear. `rtspsrc` adds each stream's pad on
/// a thread of its own, and GStreamer's parser tries every such link on each of them without a lock: two streams that
/// appear at once can end the process. [`link_streams`] makes these links one at a time.
///
/// Only links at the head of a branch are left out: those of a text of one's own are gst-launch's affair.
pub fn without_delayed_links(launch: &str) -> String {
    let mut parts = launch.split(DELAYED_LINK);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let heads_a_branch = MEDIA
            .iter()
            .any(|medium| text.trim_end().ends_with(&format!("( name={medium}")));
        if !heads_a_branch {
            text.push_str(DELAYED_LINK);
        }
        text.push_str(part);
    }
    text
}

/// Links each stream of the source to the branch that takes it, as the streams appear.
pub fn link_streams(pipeline: &gst::Pipeline) {
    let Some(source) = pipeline.by_name(SOURCE) else {
        return;
    };
    let pipeline = pipeline.downgrade();
    let one_at_a_time = Mutex::new(());
    source.connect_pad_added(move |source, pad| {
        let Some(pipeline) = pipeline.upgrade() else {
            return;
        };
        let _turn = one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let branches = MEDIA
            .iter()
            .filter_map(|medium| pipeline.by_name(medium).and_downcast::<gst::Bin>());
        for branch in branches {
            if pad.is_linked() || link(source, pad, &branch) {
                return;
            }
        }
    });
}

/// Links a pad to the branch's head: of the elements with an open input the one that was added first, which a bin lists last.
fn link(source: &gst::Element, pad: &gst::Pad, branch: &gst::Bin) -> bool {
    let caps = pad.query_caps(None);
    let elements: Vec<gst::Element> = branch.iterate_elements().into_iter().flatten().collect();
    let head = elements.iter().rev().find_map(|element| {
        element
            .sink_pads()
            .into_iter()
            .find(|sink| !sink.is_linked())
            .map(|sink| (element, sink))
    });
    head.filter(|(_, sink)| sink.query_caps(None).can_intersect(&caps))
        .is_some_and(|(element, sink)| {
            source
                .link_pads(Some(&pad.name()), element, Some(&sink.name()))
                .is_ok()
        })
}

/// Calls back, perhaps more than once, when the source has said which streams it has.
pub fn when_streams_are_known(pipeline: &gst::Pipeline, known: impl Fn() + Send + Sync + 'static) {
    let Some(source) = pipeline.by_name(SOURCE) else {
        return;
    };
    let known = Arc::new(known);
    source.connect_no_more_pads({
        let known = Arc::clone(&known);
        move |_| known()
    });
    // parsebin of GStreamer 1.22 does not say when it has no more pads, but tells over each how many streams there are.
    source.connect_pad_added(move |source, pad| {
        let (source, known) = (source.downgrade(), Arc::clone(&known));
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if let Some(gst::EventView::StreamCollection(event)) =
                info.event().map(|event| event.view())
                && let Some(source) = source.upgrade()
                && source.src_pads().len() >= event.stream_collection().len()
            {
                known();
            }
            gst::PadProbeReturn::Ok
        });
    });
}

/// To be called when the source has said which streams it has. Removes the branches that got none: their sinks would hold
/// up the end of the pipeline for ever. Changes states: call it where blocking is allowed.
///
/// # Errors
/// Where a medium is missing without which the source has failed, or nothing is left.
pub fn prune(pipeline: &gst::Pipeline, plan: &SourcePlan) -> Result<(), SourceReason> {
    let (mut branches, mut removed) = (0, 0);
    for medium in MEDIA {
        let Some(branch) = pipeline.by_name(medium).and_downcast::<gst::Bin>() else {
            continue;
        };
        branches += 1;
        let has_stream = branch.sink_pads().iter().any(|pad| pad.is_linked());
        if has_stream || branch.element_flags().contains(gst::ElementFlags::SOURCE) {
            continue;
        }
        if wanted(plan, medium) == Wanted::On {
            let text = format!("the source has no {medium}, and its config says that it must");
            return Err(reason::new(SourceReasonKind::Media, text));
        }
        tracing::debug!(medium, "the source has none");
        removed += 1;
        let beyond = branch.src_pads().into_iter().filter_map(|pad| pad.peer());
        let beyond: Vec<_> = beyond.collect();
        // Going to NULL does not fail, and a branch that is not there any more need not be removed.
        let _ = pipeline.remove(&branch);
        let _ = branch.set_state(gst::State::Null);
        beyond.iter().for_each(give_back);
    }
    if removed > 0 && removed == branches {
        let text = "the source has neither video nor audio that its pipeline takes";
        return Err(reason::new(SourceReasonKind::Media, text));
    }
    Ok(())
}

/// A pad that was requested for a branch which is gone would be waited for.
fn give_back(pad: &gst::Pad) {
    let template = pad.pad_template();
    let is_requested =
        template.is_some_and(|template| template.presence() == gst::PadPresence::Request);
    if let (true, Some(element)) = (is_requested, pad.parent_element()) {
        element.release_request_pad(pad);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_links_at_the_head_of_a_branch_are_left_out() {
        let text = "rtspsrc name=source ( name=video\n  source. ! queue ! fakesink ) source. ! tee";
        let expected = "rtspsrc name=source ( name=video\n  queue ! fakesink ) source. ! tee";
        assert_eq!(without_delayed_links(text), expected);
    }
}
