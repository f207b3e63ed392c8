//! Why a source failed, in words that a program can act on.

use gst::glib;
use vita_messages::kinds::{SourceReason, SourceReasonKind};

use super::redact::Redactor;

pub fn new(kind: SourceReasonKind, text: impl Into<String>) -> SourceReason {
    SourceReason {
        kind,
        text: text.into(),
    }
}

/// The reason in an error message of the bus. `debug` is what the element added for developers.
pub fn of_error(
    error: &glib::Error,
    debug: Option<&str>,
    element: &str,
    redactor: &Redactor,
) -> SourceReason {
    // Its first line is the place in the element's code.
    let detail = debug
        .and_then(|debug| debug.split_once('\n'))
        .map(|(_, detail)| detail.trim());
    let mut text = format!("{element}: {}", error.message().trim_end_matches('.'));
    if let Some(detail) = detail.filter(|detail| !detail.is_empty()) {
        text.push_str(": ");
        text.push_str(&detail.replace('\n', " "));
    }
    new(
        kind(error, detail.unwrap_or_default()),
        redactor.redact(&text),
    )
}

fn kind(error: &glib::Error, detail: &str) -> SourceReasonKind {
    let by_text = by_text(error.message()).or_else(|| by_text(detail));
    by_text
        .or_else(|| by_code(error))
        .unwrap_or(SourceReasonKind::Pipeline)
}

fn by_code(error: &glib::Error) -> Option<SourceReasonKind> {
    if let Some(code) = error.kind::<gst::ResourceError>() {
        return Some(match code {
            gst::ResourceError::NotFound => SourceReasonKind::NotFound,
            gst::ResourceError::NotAuthorized => SourceReasonKind::Unauthorized,
            gst::ResourceError::Busy => SourceReasonKind::Device,
            _ => SourceReasonKind::Pipeline,
        });
    }
    error
        .kind::<gst::StreamError>()
        .map(|_| SourceReasonKind::Media)
}

/// Elements give one code to many causes; what tells them apart is the text, which is that of the system underneath.
fn by_text(text: &str) -> Option<SourceReasonKind> {
    let text = text.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    Some(match () {
        () if says(&["cannot identify device", "audio device", "video device"]) => {
            SourceReasonKind::Device
        }
        () if says(&["unauthorized", "forbidden"]) => SourceReasonKind::Unauthorized,
        () if says(&["connection refused"]) => SourceReasonKind::Refused,
        () if says(&["no route to host", "unreachable"]) => SourceReasonKind::Unreachable,
        () if says(&["error resolving", "unknown host", "name or service"]) => {
            SourceReasonKind::NameNotFound
        }
        () if says(&["tls", "certificate"]) => SourceReasonKind::Tls,
        () if says(&["timed out", "timeout"]) => SourceReasonKind::TimedOut,
        () if says(&["parse error", "no supported stream"]) => SourceReasonKind::Protocol,
        () => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBUG: &str = "../gst/rtsp/gstrtspsrc.c(8336): gst_rtspsrc_retrieve_sdp (): /GstPipeline:pipeline0/GstRTSPSrc:source:\n";

    #[track_caller]
    fn check(error: glib::Error, detail: &str, kind: SourceReasonKind, text: &str) {
        let debug = format!("{DEBUG}{detail}");
        let reason = of_error(
            &error,
            Some(&debug),
            "source",
            &Redactor::of_launch("rtspsrc user-pw=hunter2"),
        );
        assert_eq!(reason, new(kind, text));
    }

    #[test]
    fn errors_of_gstreamer_1_22_are_told_apart() {
        use SourceReasonKind::*;
        let resource = |code, text: &str| glib::Error::new::<gst::ResourceError>(code, text);
        check(
            resource(gst::ResourceError::NotFound, "Resource not found."),
            "",
            NotFound,
            "source: Resource not found",
        );
        check(
            resource(gst::ResourceError::NotAuthorized, "Unauthorized"),
            "",
            Unauthorized,
            "source: Unauthorized",
        );
        check(
            resource(
                gst::ResourceError::OpenRead,
                "Failed to connect: Connection refused",
            ),
            "",
            Refused,
            "source: Failed to connect: Connection refused",
        );
        check(
            resource(
                gst::ResourceError::NotFound,
                "Cannot identify device '/dev/video0'.",
            ),
            "system error: No such file or directory",
            Device,
            "source: Cannot identify device '/dev/video0': system error: No such file or directory",
        );
        check(
            glib::Error::new(
                gst::StreamError::WrongType,
                "This appears to be a text file",
            ),
            "",
            Media,
            "source: This appears to be a text file",
        );
        check(
            resource(gst::ResourceError::Read, "Could not read from resource."),
            "Could not receive message. (Parse error)",
            Protocol,
            "source: Could not read from resource: Could not receive message. (Parse error)",
        );
        check(
            glib::Error::new(gst::CoreError::Clock, "no clock"),
            "",
            Pipeline,
            "source: no clock",
        );
    }

    #[test]
    fn no_password_is_told() {
        check(
            glib::Error::new(
                gst::ResourceError::OpenRead,
                "cannot open rtsp://me:hunter2@cam/1",
            ),
            "tried hunter2",
            SourceReasonKind::Pipeline,
            "source: cannot open rtsp://<redacted>@cam/1: tried <redacted>",
        );
    }
}
