//! Raw sockets against the accept loop.

use axum::routing::{get, post};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

struct Running {
    addr: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<bool>,
}

async fn start(limits: Limits) -> Running {
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/echo", post(|body: String| async { body }))
        .route("/early", post(|| async { Problem::too_large("a body", 9).into_response() }))
        .route(
            "/slow",
            get(|| async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                "slow"
            }),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(serve(listener, router, limits, async {
        let _ = stopped.await;
    }));
    Running { addr, stop, task }
}

/// Deadlines short enough for a test to wait for.
fn hasty() -> Limits {
    let short = Duration::from_millis(100);
    Limits { head: short, body: short, idle: short, linger: Duration::from_secs(1), ..Limits::default() }
}

/// Sends bytes and reads until the server closes.
async fn exchange(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(addr).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    read_all(&mut socket).await
}

async fn read_all(socket: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection stays open after {:?}", String::from_utf8_lossy(&answer));
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn what_two_servers_could_read_differently_is_400_and_the_end() {
    let server = start(Limits::default()).await;
    for head in [
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 4\r\n\r\nabcd",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcd",
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length : 4\r\n\r\nabcd",
        "POST /echo HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
    ] {
        // A request that would be served, were the first one's end elsewhere.
        let answer = exchange(server.addr, format!("{head}GET / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head:?}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{head:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_fault_behind_a_good_request_spoils_only_itself() {
    let server = start(Limits::default()).await;
    let good = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd";
    let bad = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let answer = exchange(server.addr, format!("{good}{good}{bad}{good}").as_bytes()).await;
    assert_eq!((answer.matches("HTTP/1.1 200").count(), answer.matches("HTTP/1.1 400").count()), (2, 1), "{answer}");
    assert!(answer.contains("\"code\":\"bad_request\""), "{answer}");
}

#[tokio::test]
async fn chunked_bodies_are_read_and_end_their_connection() {
    let server = start(Limits::default()).await;
    let answer =
        exchange(server.addr, b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            .await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("abcde") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn an_early_answer_arrives_while_the_client_still_sends() {
    let server = start(Limits::default()).await;
    let socket = TcpStream::connect(server.addr).await.unwrap();
    let (mut read, mut write) = socket.into_split();
    let head = format!("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 4_u64 << 30);
    write.write_all(head.as_bytes()).await.unwrap();
    let sender = tokio::spawn(async move {
        let chunk = vec![b'x'; 64 << 10];
        // 16 MiB: more than the buffers of both sides hold.
        for _ in 0..256 {
            if write.write_all(&chunk).await.is_err() {
                return false;
            }
        }
        true
    });
    let whole = sender.await.unwrap();
    let mut answer = Vec::new();
    read.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(whole && answer.starts_with("HTTP/1.1 413") && answer.contains("too_large"), "{whole} {answer}");
}

#[tokio::test]
async fn who_sends_nothing_is_closed() {
    let server = start(hasty()).await;
    assert_eq!(exchange(server.addr, b"").await, "", "no request");
    assert_eq!(exchange(server.addr, b"GET / HTTP/1.1\r\nHost: a\r\n").await, "", "half a head");
    let answer = exchange(server.addr, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.ends_with("hello"), "idle after an answer: {answer}");
    let answer = exchange(server.addr, b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc").await;
    assert!(!answer.contains("200 OK"), "half a body: {answer}");
}

#[tokio::test]
async fn a_slow_answer_is_waited_for_however_long_the_client_is_silent() {
    let server = start(hasty()).await;
    let answer = exchange(server.addr, b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.ends_with("slow"), "{answer}");
}

#[tokio::test]
async fn a_client_that_closed_its_side_gets_its_answer() {
    let server = start(Limits::default()).await;
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    socket.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    socket.shutdown().await.unwrap();
    assert!(read_all(&mut socket).await.ends_with("slow"));
}

#[tokio::test]
async fn connections_beyond_the_cap_wait() {
    let server = start(Limits { connections: 1, ..Limits::default() }).await;
    let mut first = TcpStream::connect(server.addr).await.unwrap();
    first.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut buf = [0; 512];
    assert!(first.read(&mut buf).await.unwrap() > 0);
    let mut second = TcpStream::connect(server.addr).await.unwrap();
    second.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(50), second.read(&mut buf)).await;
    assert!(early.is_err(), "served although the cap is reached");
    drop(first);
    assert!(read_all(&mut second).await.ends_with("hello"));
}

#[tokio::test]
async fn a_shutdown_finishes_what_runs_and_takes_nothing_new() {
    let server = start(Limits::default()).await;
    let mut idle = TcpStream::connect(server.addr).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut buf = [0; 512];
    assert!(idle.read(&mut buf).await.unwrap() > 0);
    let addr = server.addr;
    let running = tokio::spawn(async move { exchange(addr, b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop.send(()).unwrap();
    assert_eq!(read_all(&mut idle).await, "", "an idle connection ends");
    assert!(running.await.unwrap().ends_with("slow"));
    assert!(server.task.await.unwrap(), "all finished");
    assert!(TcpStream::connect(addr).await.is_err());
}

#[tokio::test]
async fn a_shutdown_does_not_wait_beyond_its_deadline() {
    let server = start(Limits { drain: Duration::from_millis(50), ..Limits::default() }).await;
    let mut socket = TcpStream::connect(server.addr).await.unwrap();
    socket.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.stop.send(()).unwrap();
    assert!(!server.task.await.unwrap(), "one could not finish");
    assert!(!read_all(&mut socket).await.contains("200 OK"));
}
