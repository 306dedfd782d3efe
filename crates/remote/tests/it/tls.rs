//! A server behind TLS: believed under the certificates that were named, and no others.

use std::sync::Arc;

use commons_record::Millis;
use commons_remote::{RemoteConfig, RemoteEngine, RemoteState, Trust};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::support::{Act, ok, patient, ports, read};

#[tokio::test]
async fn a_certificate_is_checked() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("is made");
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("is made");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.key_pair.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("has versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("is a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let Some(_) = read(&mut stream).await else { continue };
            let Act::Send(answer) = ok(&json!({ "data": [{ "id": "m" }] })) else { continue };
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
        }
    });
    let check = |host: &'static str, root: Vec<u8>, is_up: bool| async move {
        let address = format!("https://{host}:{port}").parse().expect("is an address");
        let config = RemoteConfig::new(address).with_trust(Trust::Only(vec![root]));
        let config = config.with_kind(commons_remote::Kind::OpenAi).with_limits(patient());
        let engine = RemoteEngine::start(config, ports()).expect("it starts");
        engine.looked_at(Millis::from_secs(60)).await;
        let view = engine.view();
        assert_eq!(view.state == RemoteState::Up, is_up, "{host}: {view:?}");
        if let RemoteState::Down { reason } = view.state {
            assert!(reason.contains("under TLS"), "{reason}");
        }
    };
    check("localhost", made.cert.der().to_vec(), true).await;
    check("localhost", other.cert.der().to_vec(), false).await;
    check("127.0.0.1", made.cert.der().to_vec(), false).await;
}
