//! From a session description to what is served.

use sdp_types::{Media, Session};
use serde::Serialize;
use vita_messages::redact;

use super::error::ProbeError;
use super::parameter_sets::{h264_size, h265_size};

/// One stream, as the server describes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProbedMedia {
    /// `video`, `audio` or `application`.
    pub kind: String,
    pub payload_type: String,
    /// In lower case, as in `h264`, `pcmu`, `mpeg4-generic`.
    pub codec: Option<String>,
    pub clock_rate_hz: Option<u32>,
    /// Audio channels.
    pub channels: Option<u32>,
    /// Pixels.
    pub width: Option<u32>,
    /// Pixels.
    pub height: Option<u32>,
    /// Frames a second.
    pub frame_rate: Option<f64>,
    /// As in `RTP/AVP`.
    pub transport: String,
    /// What to set up, resolved.
    pub control: String,
}

/// Name of the session, and what it has.
pub(super) fn read(
    description: &[u8],
    base: &str,
) -> Result<(Option<String>, Vec<ProbedMedia>), ProbeError> {
    let session = Session::parse(description).map_err(|error| {
        ProbeError::description(format!("the description cannot be read: {error}"))
    })?;
    if session.medias.is_empty() {
        return Err(ProbeError::description(
            "the description has no media".into(),
        ));
    }
    let base = match session.get_first_attribute_value("control").flatten() {
        Some(control) => resolve(base, control),
        None => base.to_owned(),
    };
    let name = Some(session.session_name.trim())
        .filter(|name| !matches!(*name, "" | "-"))
        .map(String::from);
    Ok((
        name,
        session
            .medias
            .iter()
            .map(|media| medium(media, &base))
            .collect(),
    ))
}

fn medium(media: &Media, base: &str) -> ProbedMedia {
    let payload_type = media
        .fmt
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned();
    let (codec, clock_rate_hz, channels) = match for_payload(media, "rtpmap", &payload_type) {
        Some(map) => rtpmap(map),
        None => static_payload(&payload_type),
    };
    let size = size(media, &payload_type, codec.as_deref());
    let channels = channels.or((media.media == "audio" && codec.is_some()).then_some(1));
    ProbedMedia {
        kind: media.media.clone(),
        codec,
        clock_rate_hz,
        channels,
        width: size.map(|(width, _)| width),
        height: size.map(|(_, height)| height),
        frame_rate: frame_rate(media),
        transport: media.proto.clone(),
        control: redact(
            &value(media, "control")
                .map_or_else(|| base.to_owned(), |control| resolve(base, control)),
        ),
        payload_type,
    }
}

fn value<'a>(media: &'a Media, name: &'a str) -> Option<&'a str> {
    media
        .get_first_attribute_value(name)
        .flatten()
        .map(str::trim)
}

/// The attribute of this payload type, without its number.
fn for_payload<'a>(media: &'a Media, name: &'a str, payload_type: &str) -> Option<&'a str> {
    media
        .get_attribute_values(name)
        .flatten()
        .find_map(|value| {
            let (number, rest) = value.trim().split_once(char::is_whitespace)?;
            (number == payload_type).then_some(rest.trim())
        })
}

type Format = (Option<String>, Option<u32>, Option<u32>);

fn rtpmap(map: &str) -> Format {
    let mut parts = map.split('/');
    let codec = parts.next().map(|codec| codec.trim().to_ascii_lowercase());
    let mut number = || parts.next().and_then(|part| part.trim().parse().ok());
    (codec, number(), number())
}

/// RFC 3551, sections 6: numbers that need no rtpmap.
fn static_payload(payload_type: &str) -> Format {
    let (codec, rate, channels) = match payload_type {
        "0" => ("pcmu", 8000, Some(1)),
        "3" => ("gsm", 8000, Some(1)),
        "8" => ("pcma", 8000, Some(1)),
        "9" => ("g722", 8000, Some(1)),
        "10" => ("l16", 44_100, Some(2)),
        "11" => ("l16", 44_100, Some(1)),
        "14" => ("mpa", 90_000, None),
        "18" => ("g729", 8000, Some(1)),
        "26" => ("jpeg", 90_000, None),
        "31" => ("h261", 90_000, None),
        "32" => ("mpv", 90_000, None),
        "33" => ("mp2t", 90_000, None),
        "34" => ("h263", 90_000, None),
        _ => return (None, None, None),
    };
    (Some(codec.into()), Some(rate), channels)
}

/// From the parameter sets, else from attributes that some cameras add.
fn size(media: &Media, payload_type: &str, codec: Option<&str>) -> Option<(u32, u32)> {
    let parameters = for_payload(media, "fmtp", payload_type).unwrap_or_default();
    let parameter = |name: &str| {
        let mut pairs = parameters
            .split(';')
            .filter_map(|pair| pair.trim().split_once('='));
        pairs
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    };
    let from_sets = match codec {
        Some("h264") => parameter("sprop-parameter-sets").and_then(h264_size),
        Some("h265") => parameter("sprop-sps").and_then(h265_size),
        _ => None,
    };
    let pair = |text: &str, separator| {
        let (width, height) = text.split_once(separator)?;
        Some((width.trim().parse().ok()?, height.trim().parse().ok()?))
    };
    from_sets
        .or_else(|| for_payload(media, "framesize", payload_type).and_then(|size| pair(size, '-')))
        .or_else(|| value(media, "x-dimensions").and_then(|size| pair(size, ',')))
}

fn frame_rate(media: &Media) -> Option<f64> {
    let rate = value(media, "framerate").or_else(|| value(media, "x-framerate"))?;
    rate.parse()
        .ok()
        .filter(|rate: &f64| rate.is_finite() && *rate > 0.0)
}

/// As players do it: an absolute address stands for itself, anything else is appended to the base, whatever the base ends with.
fn resolve(base: &str, control: &str) -> String {
    let control = control.trim();
    if control.is_empty() || control == "*" {
        return base.to_owned();
    }
    if control.starts_with("rtsp://") || control.starts_with("rtsps://") {
        return control.to_owned();
    }
    format!(
        "{}/{}",
        base.trim_end_matches('/'),
        control.trim_start_matches('/')
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a camera sends it.
    const CAMERA: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\ns=Front door\r\nt=0 0\r\na=control:*\r\n\
        m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=framerate:25\r\n\
        a=fmtp:96 packetization-mode=1;profile-level-id=64001F;sprop-parameter-sets=Z2QAH6zZQFAFuwEQAAADABAAAAMDIPGDGWA=,aOvjyyLA\r\n\
        a=control:trackID=1\r\nm=audio 0 RTP/AVP 0\r\na=control:rtsp://u:p@192.0.2.7/audio\r\n\
        m=application 0 RTP/AVP 107\r\na=rtpmap:107 vnd.onvif.metadata/90000\r\n";

    #[test]
    fn a_camera_is_described() {
        let (name, media) = read(CAMERA.as_bytes(), "rtsp://192.0.2.7/h264?channel=1").unwrap();
        assert_eq!(name.as_deref(), Some("Front door"));
        assert_eq!(
            (media[0].codec.as_deref(), media[0].clock_rate_hz),
            (Some("h264"), Some(90_000))
        );
        assert_eq!(
            (media[0].width, media[0].height, media[0].frame_rate),
            (Some(1280), Some(720), Some(25.0))
        );
        assert_eq!(
            media[0].control,
            "rtsp://192.0.2.7/h264?channel=1/trackID=1"
        );
        assert_eq!(
            (
                media[1].codec.as_deref(),
                media[1].clock_rate_hz,
                media[1].channels
            ),
            (Some("pcmu"), Some(8000), Some(1))
        );
        assert_eq!(media[1].control, "rtsp://***@192.0.2.7/audio");
        assert_eq!(media[2].codec.as_deref(), Some("vnd.onvif.metadata"));
    }

    #[test]
    fn sizes_that_cameras_give_beside_the_standard_are_read() {
        let described = |line: &str| {
            let text = format!(
                "v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\n{line}\r\n"
            );
            let (name, media) = read(text.as_bytes(), "rtsp://c/").unwrap();
            assert_eq!(name, None);
            (media[0].width, media[0].height)
        };
        assert_eq!(described("a=framesize:26 640-480"), (Some(640), Some(480)));
        assert_eq!(described("a=x-dimensions:704,576"), (Some(704), Some(576)));
        assert_eq!(described("a=framesize:97 640-480"), (None, None));
    }

    #[test]
    fn what_is_no_description_is_told() {
        for text in [
            "",
            "hello",
            "v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\ns=-\r\nt=0 0\r\n",
        ] {
            let error = read(text.as_bytes(), "rtsp://c/").unwrap_err();
            assert_eq!(error.kind, super::super::ProbeErrorKind::Description);
        }
    }
}
