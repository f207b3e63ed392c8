//! GStreamer, its plugins and ours.

use super::{Area, Finding, Level};

/// What pipelines need of GStreamer, and who brings it.
struct Capability {
    name: &'static str,
    /// Any of these will do, each a list of elements that belong together.
    any_of: &'static [&'static [&'static str]],
    /// Debian's package with the first of them.
    package: &'static str,
    is_required: bool,
}

const fn required(
    name: &'static str,
    any_of: &'static [&'static [&'static str]],
    package: &'static str,
) -> Capability {
    Capability {
        name,
        any_of,
        package,
        is_required: true,
    }
}

const fn optional(
    name: &'static str,
    any_of: &'static [&'static [&'static str]],
    package: &'static str,
) -> Capability {
    Capability {
        name,
        any_of,
        package,
        is_required: false,
    }
}

const CAPABILITIES: &[Capability] = &[
    required(
        "conversion",
        &[&[
            "decodebin",
            "videoconvert",
            "videoscale",
            "audioconvert",
            "audioresample",
        ]],
        "gstreamer1.0-plugins-base",
    ),
    required(
        "rtsp",
        &[&["rtspsrc", "rtph264depay", "rtpjitterbuffer"]],
        "gstreamer1.0-plugins-good",
    ),
    required(
        "h264",
        &[
            &["h264parse", "avdec_h264"],
            &["h264parse", "openh264dec"],
            &["h264parse", "vah264dec"],
            &["h264parse", "nvh264dec"],
        ],
        "gstreamer1.0-libav",
    ),
    optional(
        "h265",
        &[
            &["h265parse", "avdec_h265"],
            &["h265parse", "libde265dec"],
            &["h265parse", "vah265dec"],
            &["h265parse", "nvh265dec"],
        ],
        "gstreamer1.0-libav",
    ),
    optional(
        "vp8",
        &[&["vp8dec"], &["avdec_vp8"]],
        "gstreamer1.0-plugins-good",
    ),
    optional(
        "vp9",
        &[&["vp9dec"], &["avdec_vp9"]],
        "gstreamer1.0-plugins-good",
    ),
    optional(
        "av1",
        &[&["av1parse", "av1dec"], &["av1parse", "dav1ddec"]],
        "gstreamer1.0-plugins-bad",
    ),
    optional(
        "jpeg",
        &[&["jpegdec"], &["avdec_mjpeg"]],
        "gstreamer1.0-plugins-good",
    ),
    optional(
        "aac",
        &[
            &["aacparse", "avdec_aac"],
            &["aacparse", "faad"],
            &["aacparse", "fdkaacdec"],
        ],
        "gstreamer1.0-libav",
    ),
    optional(
        "opus",
        &[&["opusdec"], &["avdec_opus"]],
        "gstreamer1.0-plugins-base",
    ),
    optional(
        "g711",
        &[&["mulawdec", "alawdec"]],
        "gstreamer1.0-plugins-good",
    ),
    optional("g722", &[&["avdec_g722"]], "gstreamer1.0-libav"),
    optional("v4l2", &[&["v4l2src"]], "gstreamer1.0-plugins-good"),
    optional("pulseaudio", &[&["pulsesrc"]], "gstreamer1.0-pulseaudio"),
    optional("alsa", &[&["alsasrc"]], "gstreamer1.0-alsa"),
];

/// The floor of what is supported.
const OLDEST: (u32, u32) = (1, 22);

pub(super) fn examine() -> Vec<Finding> {
    let mut findings = vec![version(), ours()];
    findings.extend(CAPABILITIES.iter().map(capability));
    findings
}

fn version() -> Finding {
    let (major, minor, micro, _) = gst::version();
    let text = format!("{major}.{minor}.{micro}");
    if (major, minor) < OLDEST {
        let remedy = format!("install {}.{} or newer", OLDEST.0, OLDEST.1);
        return Finding::lacking(Area::Media, Level::Missing, "gstreamer", text, remedy);
    }
    Finding::present(Area::Media, "gstreamer", text)
}

fn ours() -> Finding {
    let factories = gst::Registry::get().features_by_plugin("vita");
    let mut names: Vec<String> = factories
        .iter()
        .map(|factory| gst::prelude::GstObjectExt::name(factory).into())
        .collect();
    names.sort();
    if names.is_empty() {
        let remedy = "this program registers them itself; report it as a bug";
        return Finding::lacking(
            Area::Media,
            Level::Missing,
            "elements of vita",
            "not registered",
            remedy,
        );
    }
    Finding::present(Area::Media, "elements of vita", names.join(" "))
}

fn capability(capability: &Capability) -> Finding {
    let is_there = |name: &&&str| gst::ElementFactory::find(name).is_some();
    let complete = capability
        .any_of
        .iter()
        .find(|elements| elements.iter().all(|name| is_there(&name)));
    if let Some(elements) = complete {
        return Finding::present(Area::Media, capability.name, elements.join(" "));
    }
    let absent: Vec<&str> = capability.any_of[0]
        .iter()
        .copied()
        .filter(|name| !is_there(&name))
        .collect();
    let level = if capability.is_required {
        Level::Missing
    } else {
        Level::Absent
    };
    // Parsers come in another package than the decoders of libav.
    let package = if absent.iter().any(|name| name.ends_with("parse")) {
        "gstreamer1.0-plugins-bad"
    } else {
        capability.package
    };
    let detail = format!("no {}", absent.join(", "));
    Finding::lacking(
        Area::Media,
        level,
        capability.name,
        detail,
        format!("apt-get install {package}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_names_its_package() {
        gst::init().unwrap();
        let lacking = Capability {
            any_of: &[&["fakesink", "nosuchparse"]],
            ..required("x", &[], "some-package")
        };
        let finding = capability(&lacking);
        assert_eq!(
            (finding.level, finding.detail.as_str()),
            (Level::Missing, "no nosuchparse")
        );
        assert_eq!(
            finding.remedy.as_deref(),
            Some("apt-get install gstreamer1.0-plugins-bad")
        );
        let second = Capability {
            any_of: &[&["nosuchdec"], &["fakesink"]],
            ..optional("x", &[], "some-package")
        };
        assert_eq!(capability(&second).level, Level::Present);
    }
}
