//! A camera to try things with: serves an MP4 (H.264 and AAC) over RTSP, each client from the file's beginning.
//!
//! ```sh
//! cargo run --example rtsp_server -- street.mp4 --port 8554
//! gst-launch-1.0 rtspsrc location=rtsp://127.0.0.1:8554/aac ! fakesink
//! ```
//!
//! The path chooses what is sent: `/aac`, `/pcmu`, `/pcma`, `/g722` and `/opus` are the picture and the sound in that codec,
//! `/video` is the picture alone, `/audio` the sound alone. Prints its address on standard output once it listens.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use gst_rtsp_server::gio::TlsCertificate;
use gst_rtsp_server::gst_rtsp::RTSPAuthMethod;
use gst_rtsp_server::prelude::*;
use gst_rtsp_server::{
    RTSP_PERM_MEDIA_FACTORY_ACCESS, RTSP_PERM_MEDIA_FACTORY_CONSTRUCT,
    RTSP_TOKEN_MEDIA_FACTORY_ROLE, RTSPAuth, RTSPMediaFactory, RTSPServer, RTSPToken, glib,
};

const ROLE: &str = "viewer";
const VIDEO: &str =
    "demux. ! video/x-h264 ! queue ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1";
const RAW_AUDIO: &str =
    "demux. ! audio/mpeg ! queue ! aacparse ! avdec_aac ! audioconvert ! audioresample";
/// Path, encoder and payloader.
const AUDIO: [(&str, &str); 5] = [
    (
        "aac",
        "audio/x-raw,rate=48000 ! avenc_aac ! aacparse ! rtpmp4gpay",
    ),
    (
        "pcmu",
        "audio/x-raw,rate=8000,channels=1 ! mulawenc ! rtppcmupay",
    ),
    (
        "pcma",
        "audio/x-raw,rate=8000,channels=1 ! alawenc ! rtppcmapay",
    ),
    (
        "g722",
        "audio/x-raw,rate=16000,channels=1 ! avenc_g722 ! rtpg722pay",
    ),
    (
        "opus",
        "audio/x-raw,rate=48000,channels=1 ! opusenc ! rtpopuspay",
    ),
];

#[derive(Parser)]
#[command(about = "Serve an MP4 (H.264 and AAC) over RTSP")]
struct Args {
    file: PathBuf,
    #[arg(long, default_value = "127.0.0.1")]
    address: String,
    /// 0: a free one
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// NAME:PASSWORD that a client must give
    #[arg(long)]
    user: Option<String>,
    /// How it must give them
    #[arg(long, value_enum, default_value_t = Auth::Digest)]
    auth: Auth,
    /// PEM file with the server's certificate; with it the address is rtsps://
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Auth {
    Basic,
    Digest,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    gst::init()?;
    let file = fs::canonicalize(&args.file).with_context(|| format!("{}", args.file.display()))?;
    let server = RTSPServer::new();
    server.set_address(&args.address);
    server.set_service(&args.port.to_string());
    if args.user.is_some() || args.tls_cert.is_some() {
        server.set_auth(Some(&auth(&args)?));
    }

    let demux = format!(
        "filesrc location=\"{}\" ! qtdemux name=demux",
        file.display()
    );
    let mounts = server
        .mount_points()
        .context("a new server has mount points")?;
    let mount = |path: &str, streams: &[&str]| {
        let factory = RTSPMediaFactory::new();
        factory.set_launch(&format!("( {demux} {} )", streams.join(" ")));
        let role = gst::Structure::builder(ROLE)
            .field(RTSP_PERM_MEDIA_FACTORY_ACCESS, true)
            .field(RTSP_PERM_MEDIA_FACTORY_CONSTRUCT, true);
        factory.add_role_from_structure(&role.build());
        mounts.add_factory(path, factory);
    };
    mount("/video", &[VIDEO]);
    mount(
        "/audio",
        &[&format!("{RAW_AUDIO} ! {} name=pay0 pt=97", AUDIO[0].1)],
    );
    for (path, encode) in AUDIO {
        // PCMU, PCMA and G.722 have payload types of their own.
        let payload_type = if matches!(path, "aac" | "opus") {
            "pt=97"
        } else {
            ""
        };
        mount(
            &format!("/{path}"),
            &[
                VIDEO,
                &format!("{RAW_AUDIO} ! {encode} name=pay1 {payload_type}"),
            ],
        );
    }

    server
        .attach(None)
        .with_context(|| format!("cannot listen on {}:{}", args.address, args.port))?;
    let scheme = if args.tls_cert.is_some() {
        "rtsps"
    } else {
        "rtsp"
    };
    println!("{scheme}://{}:{}", args.address, server.bound_port());
    glib::MainLoop::new(None, false).run();
    Ok(())
}

fn auth(args: &Args) -> anyhow::Result<RTSPAuth> {
    let auth = RTSPAuth::new();
    let token = RTSPToken::builder()
        .field(RTSP_TOKEN_MEDIA_FACTORY_ROLE, ROLE)
        .build();
    match (&args.user, args.auth) {
        (None, _) => auth.set_default_token(Some(&mut token.copy())),
        (Some(user), how) => {
            let (name, password) = user.split_once(':').context("--user wants NAME:PASSWORD")?;
            match how {
                Auth::Basic => {
                    auth.set_supported_methods(RTSPAuthMethod::Basic);
                    auth.add_basic(&RTSPAuth::make_basic(name, password), &token);
                }
                Auth::Digest => {
                    auth.set_supported_methods(RTSPAuthMethod::Digest);
                    auth.add_digest(name, password, &token);
                }
            }
        }
    }
    if let (Some(cert), Some(key)) = (&args.tls_cert, &args.tls_key) {
        let certificate =
            TlsCertificate::from_files(cert, key).context("the TLS certificate or its key")?;
        auth.set_tls_certificate(Some(&certificate));
    }
    Ok(auth)
}
