//! Why an RTSP server could not be used: `rtspsrc` has one error for everything from a misspelt name to a camera without power.

use std::time::Duration;

use gst::prelude::*;
use vita_messages::kinds::{SourceReason, SourceReasonKind};

use super::reason;
use crate::plan::{Secret, SourcePlan};
use crate::rtsp::{ProbeErrorKind, ProbeOptions, probe};

const STEP_WITHIN: Duration = Duration::from_secs(3);

/// How the source asks its server; `None`: it is no RTSP source.
pub fn question(source: &gst::Element, plan: &SourcePlan) -> Option<ProbeOptions> {
    let text = |name: &str| {
        let is_there = source.has_property_with_type(name, String::static_type());
        is_there
            .then(|| source.property::<Option<String>>(name))?
            .filter(|text| !text.is_empty())
    };
    let url = text("location").filter(|url| url.starts_with("rtsp"))?;
    let mut options = ProbeOptions::new(Secret::new(url));
    options.user = text("user-id");
    options.password = text("user-pw").map(Secret::new);
    let checked = "tls-validation-flags";
    options.is_insecure = source
        .has_property_with_type(checked, gio::TlsCertificateFlags::static_type())
        && source
            .property::<gio::TlsCertificateFlags>(checked)
            .is_empty();
    options.tls_ca_file.clone_from(&plan.tls_ca_file);
    options.step_timeout = STEP_WITHIN;
    Some(options)
}

/// What the server itself says to the same question. `None`: it answers well, so the cause lies elsewhere.
pub async fn diagnose(options: &ProbeOptions) -> Option<SourceReason> {
    let error = probe(options).await.err()?;
    let kind = match error.kind {
        ProbeErrorKind::NameNotFound => SourceReasonKind::NameNotFound,
        ProbeErrorKind::Refused => SourceReasonKind::Refused,
        ProbeErrorKind::NoRoute => SourceReasonKind::Unreachable,
        ProbeErrorKind::TimedOut => SourceReasonKind::TimedOut,
        ProbeErrorKind::Tls => SourceReasonKind::Tls,
        ProbeErrorKind::NotFound => SourceReasonKind::NotFound,
        ProbeErrorKind::LoginWanted | ProbeErrorKind::WrongLogin => SourceReasonKind::Unauthorized,
        ProbeErrorKind::NotRtsp
        | ProbeErrorKind::Closed
        | ProbeErrorKind::Status
        | ProbeErrorKind::Redirect
        | ProbeErrorKind::Description
        | ProbeErrorKind::TooLarge => SourceReasonKind::Protocol,
        ProbeErrorKind::Address | ProbeErrorKind::Other => SourceReasonKind::Pipeline,
    };
    Some(reason::new(kind, error.to_string()))
}
