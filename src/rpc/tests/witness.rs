#![allow(clippy::unwrap_used)]

use std::{convert::Infallible, fs, net::SocketAddr};

use futures_util::FutureExt;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{net::TcpListener, sync::mpsc};

use super::*;

const NOTE: &str = "a.example/token/k\n3\nroot\n\n\u{2014} a.example/token/k signature\n";

#[test]
fn a_witness_is_a_path_or_a_url_without_secrets() {
    assert_eq!(
        Witness::parse("/var/lib/witness"),
        Ok(Witness::File("/var/lib/witness".into()))
    );
    for url in [
        "https://witness.example/a?b=c",
        "http://127.0.0.1:9/",
        "http://localhost:9/x",
        "http://[::1]:9/",
    ] {
        assert!(matches!(Witness::parse(url), Ok(Witness::Url(_))), "{url}");
    }
    for bad in [
        "",
        "witness",
        "./witness",
        "http://witness.example/",
        "https://user:secret@witness.example/",
        "https://witness.example/#part",
        "ftp://witness.example/",
        "file:///var/lib/witness",
    ] {
        assert!(Witness::parse(bad).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn a_file_gets_one_checkpoint_after_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("witness");
    let witness = Witness::File(path.clone());
    for _ in 0..2 {
        witness.push(NOTE, &mut None).await.unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{NOTE}\n{NOTE}\n"));
    let nowhere = Witness::File(path.join("nowhere"));
    assert!(nowhere.push(NOTE, &mut None).await.is_err());
    // A process was killed while it wrote.
    fs::write(&path, "a.example/to").unwrap();
    witness.push(NOTE, &mut None).await.unwrap();
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        format!("a.example/to\n{NOTE}\n")
    );
}

#[tokio::test]
async fn an_append_that_hangs_is_the_only_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("witness");
    let witness = Witness::File(path.clone());
    let (finish, finished) = std::sync::mpsc::channel::<()>();
    let hanging = spawn_blocking(move || {
        let _ = finished.recv();
        Ok(())
    });
    let mut append = Some(hanging);
    assert!(witness.push(NOTE, &mut append).now_or_never().is_none());
    assert!(!path.exists());
    finish.send(()).unwrap();
    witness.push(NOTE, &mut append).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{NOTE}\n"));
    assert!(append.is_none());
}

/// Serves on loopback, and sends on what it gets.
async fn serve(status: StatusCode) -> (SocketAddr, mpsc::UnboundedReceiver<(Method, Uri, Bytes)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let sender = sender.clone();
            let answer = service_fn(move |request: Request<Incoming>| {
                let sender = sender.clone();
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect().await.unwrap().to_bytes();
                    sender.send((parts.method, parts.uri, body)).unwrap();
                    let mut response = Response::new(Full::new(Bytes::new()));
                    *response.status_mut() = status;
                    Ok::<_, Infallible>(response)
                }
            });
            let connection = auto::Builder::new(TokioExecutor::new());
            tokio::spawn(
                async move { drop(connection.serve_connection(TokioIo::new(stream), answer).await) },
            );
        }
    });
    (address, received)
}

#[tokio::test]
async fn a_url_gets_the_signed_note_as_it_is() {
    let (address, mut received) = serve(StatusCode::CREATED).await;
    let witness = Witness::parse(&format!("http://{address}/checkpoints?log=token")).unwrap();
    witness.push(NOTE, &mut None).await.unwrap();
    let (method, uri, body) = received.recv().await.unwrap();
    assert_eq!(
        (method, uri.path_and_query().unwrap().as_str()),
        (Method::POST, "/checkpoints?log=token")
    );
    assert_eq!(body, NOTE);

    let (address, _received) = serve(StatusCode::FORBIDDEN).await;
    let witness = Witness::parse(&format!("http://{address}/")).unwrap();
    assert!(
        witness
            .push(NOTE, &mut None)
            .await
            .unwrap_err()
            .to_string()
            .contains("403")
    );
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_passed_over_and_the_newest_head_follows_a_minute_later() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("missing/witness");
    let (sender, heads) = tokio::sync::watch::channel(String::new());
    let witness = Witness::File(path.clone());
    let pushing = tokio::spawn(async move { push(&witness, heads).await });
    sender.send("1\n".to_owned()).unwrap();
    sleep(Duration::from_secs(1)).await;
    fs::create_dir(path.parent().unwrap()).unwrap();
    for head in ["2\n", "3\n"] {
        sender.send(head.to_owned()).unwrap();
    }
    sleep(PERIOD * 2).await;
    drop(sender);
    pushing.await.unwrap();
    assert_eq!(fs::read_to_string(path).unwrap(), "3\n\n");
}
