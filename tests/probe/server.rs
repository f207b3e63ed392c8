//! An RTSP server in this process: picture and sound, with or without login and TLS.

use std::path::PathBuf;

use gst_rtsp_server::gio;
use gst_rtsp_server::gst_rtsp::RTSPAuthMethod;
use gst_rtsp_server::prelude::*;
use gst_rtsp_server::{
    RTSP_PERM_MEDIA_FACTORY_ACCESS, RTSP_PERM_MEDIA_FACTORY_CONSTRUCT,
    RTSP_TOKEN_MEDIA_FACTORY_ROLE, RTSPAuth, RTSPMediaFactory, RTSPServer, RTSPToken, glib,
};

const ROLE: &str = "viewer";
pub const USER: &str = "anna";
pub const PASSWORD: &str = "s3cret/word";
const LAUNCH: &str = "( videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=10/1 ! x264enc tune=zerolatency \
    ! rtph264pay name=pay0 pt=96 config-interval=-1 audiotestsrc is-live=true ! audio/x-raw,rate=8000,channels=1 ! mulawenc ! rtppcmupay name=pay1 )";

#[derive(Default)]
pub struct Setup {
    pub login: Option<RTSPAuthMethod>,
    /// Certificate and key, in PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// Serves `/cam`; ended when dropped.
pub struct Server {
    pub port: u16,
    main_loop: glib::MainLoop,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub fn start(setup: Setup) -> Self {
        gst::init().unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let context = glib::MainContext::new();
            let main_loop = glib::MainLoop::new(Some(&context), false);
            let server = serve(&setup);
            let _attached = server.attach(Some(&context)).unwrap();
            sender
                .send((
                    u16::try_from(server.bound_port()).unwrap(),
                    main_loop.clone(),
                ))
                .unwrap();
            main_loop.run();
        });
        let (port, main_loop) = receiver.recv().unwrap();
        Self {
            port,
            main_loop,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.main_loop.quit();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(setup: &Setup) -> RTSPServer {
    let server = RTSPServer::new();
    server.set_address("127.0.0.1");
    server.set_service("0");
    let factory = RTSPMediaFactory::new();
    factory.set_launch(LAUNCH);
    if setup.login.is_some() || setup.certificate.is_some() {
        let auth = RTSPAuth::new();
        let certificate = setup.certificate.as_ref();
        let certificate =
            certificate.map(|(cert, key)| gio::TlsCertificate::from_files(cert, key).unwrap());
        auth.set_tls_certificate(certificate.as_ref());
        let token = RTSPToken::builder()
            .field(RTSP_TOKEN_MEDIA_FACTORY_ROLE, ROLE)
            .build();
        match setup.login {
            Some(RTSPAuthMethod::Basic) => {
                auth.add_basic(&RTSPAuth::make_basic(USER, PASSWORD), &token)
            }
            Some(method) => {
                auth.set_supported_methods(method);
                auth.add_digest(USER, PASSWORD, &token);
            }
            None => auth.set_default_token(Some(&mut token.copy())),
        }
        server.set_auth(Some(&auth));
    }
    let role = gst::Structure::builder(ROLE)
        .field(RTSP_PERM_MEDIA_FACTORY_ACCESS, true)
        .field(RTSP_PERM_MEDIA_FACTORY_CONSTRUCT, true);
    factory.add_role_from_structure(&role.build());
    server.mount_points().unwrap().add_factory("/cam", factory);
    server
}
