use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use serde_json::Value;
use tokio::sync::mpsc;

use super::*;
use crate::live::Live;

/// Both ends of a socket in memory: what is sent is kept, what the client says comes from a channel.
struct Socket {
    sent: mpsc::UnboundedSender<Message>,
    heard: mpsc::UnboundedReceiver<Message>,
    /// While set, nothing is taken.
    stalled: bool,
}

impl Sink<Message> for Socket {
    type Error = ();

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
        if self.stalled { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), ()> {
        self.sent.send(message).map_err(drop)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), ()>> {
        self.poll_ready(cx)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
        Poll::Ready(Ok(()))
    }
}

impl Stream for Socket {
    type Item = Result<Message, ()>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.heard.poll_recv(cx).map(|message| message.map(Ok))
    }
}

fn socket() -> (Socket, mpsc::UnboundedReceiver<Message>, mpsc::UnboundedSender<Message>) {
    let ((sent, taken), (say, heard)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    (Socket { sent, heard, stalled: false }, taken, say)
}

fn anomaly(seq: u64) -> Stored {
    Stored { seq, metric: if seq.is_multiple_of(2) { "even" } else { "odd" }.into(), body: format!("{{\"n\":{seq}}}") }
}

/// A store in which anomalies are committed at chosen moments: before the nth page is read.
struct Script {
    live: Live,
    kept: Mutex<Vec<u64>>,
    oldest: u64,
    before_page: Mutex<VecDeque<Vec<u64>>>,
}

impl Script {
    fn new(kept: impl IntoIterator<Item = u64>) -> Self {
        let kept: Vec<u64> = kept.into_iter().collect();
        let extent = Extent { newest: kept.last().copied().unwrap_or(0), oldest: 1, store: "5ca1ab1e".into() };
        Self { live: Live::new(extent), kept: Mutex::new(kept), oldest: 1, before_page: Mutex::default() }
    }

    fn commit(&self, seqs: impl IntoIterator<Item = u64>) {
        let seqs: Vec<_> = seqs.into_iter().collect();
        self.kept.lock().unwrap().extend(&seqs);
        self.live.publish(seqs.into_iter().map(anomaly).collect());
    }
}

impl Source for Script {
    async fn after(&self, cursor: u64) -> Result<Vec<Stored>, Problem> {
        if let Some(seqs) = self.before_page.lock().unwrap().pop_front() {
            self.commit(seqs);
        }
        Ok(self.kept.lock().unwrap().iter().copied().filter(|seq| *seq > cursor && *seq >= self.oldest).take(PAGE).map(anomaly).collect())
    }

    async fn extent(&self) -> Result<Extent, Problem> {
        let newest = self.kept.lock().unwrap().last().copied().unwrap_or(0);
        Ok(Extent { newest, oldest: self.oldest, store: String::new() })
    }

    fn subscribe(&self) -> Receiver<Arc<Stored>> {
        self.live.subscribe()
    }
}

/// What was sent so far, as short words: `hello 5`, `7`, `gap`, `caught_up 2`, `ping`.
fn words(taken: &mut mpsc::UnboundedReceiver<Message>) -> Vec<String> {
    let word = |message: Message| match message {
        Message::Text(text) => {
            let body: Value = serde_json::from_str(&text).unwrap();
            match body["type"].as_str().unwrap() {
                "hello" => {
                    assert_eq!(body["store"], "5ca1ab1e");
                    format!("hello {}", body["cursor"].as_str().unwrap())
                }
                "caught_up" => format!("caught_up {}", body["replayed"]),
                "anomaly" => {
                    assert_eq!(body["cursor"], body["data"]["n"].to_string());
                    body["data"]["n"].to_string()
                }
                other => other.to_owned(),
            }
        }
        Message::Ping(_) => "ping".to_owned(),
        other => format!("{other:?}"),
    };
    std::iter::from_fn(|| taken.try_recv().ok()).map(word).collect()
}

/// Runs a client until it waits for something new, and gives what it was sent.
async fn settled<F: Future>(client: &mut Pin<Box<F>>, taken: &mut mpsc::UnboundedReceiver<Message>) -> Vec<String> {
    for _ in 0..200 {
        let _ = client.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        tokio::task::yield_now().await;
    }
    words(taken)
}

#[tokio::test(start_paused = true)]
async fn without_a_cursor_only_what_comes_is_sent() {
    let source = Script::new([1, 2]);
    let (mut socket, mut taken, _say) = socket();
    let mut client = Box::pin(attend(&mut socket, &source, source.live.join(), None, None, None));
    assert_eq!(settled(&mut client, &mut taken).await, ["hello 2"]);
    source.commit([3, 4]);
    assert_eq!(settled(&mut client, &mut taken).await, ["3", "4"]);
}

#[tokio::test(start_paused = true)]
async fn what_comes_between_the_upgrade_and_hello_is_sent() {
    let source = Script::new([1, 2]);
    let (mut socket, mut taken, _say) = socket();
    let joined = source.live.join();
    source.commit([3, 4]);
    let mut client = Box::pin(attend(&mut socket, &source, joined, None, None, None));
    assert_eq!(settled(&mut client, &mut taken).await, ["hello 2", "3", "4"]);
}

#[tokio::test(start_paused = true)]
async fn a_replay_meets_the_live_ones_without_loss_or_doubling() {
    let source = Script::new(1..=5);
    // Committed while the replay runs: before the pages are read, and between the last page and the subscription.
    *source.before_page.lock().unwrap() = VecDeque::from([vec![6], vec![7, 8], vec![9], vec![10], vec![11]]);
    let (mut socket, mut taken, _say) = socket();
    let mut client = Box::pin(attend(&mut socket, &source, source.live.join(), None, Some(2), None));
    let mut sent = settled(&mut client, &mut taken).await;
    source.commit([12]);
    sent.extend(settled(&mut client, &mut taken).await);
    sent.retain(|word| word != "caught_up 9");
    let expected: Vec<_> = std::iter::once("hello 5".to_owned()).chain((3..=12).map(|n| n.to_string())).collect();
    assert_eq!(sent, expected);
}

#[tokio::test(start_paused = true)]
async fn a_filter_holds_for_replay_and_live() {
    let source = Script::new(1..=4);
    let (mut socket, mut taken, _say) = socket();
    let mut client = Box::pin(attend(&mut socket, &source, source.live.join(), Some("ev*"), Some(0), None));
    assert_eq!(settled(&mut client, &mut taken).await, ["hello 4", "2", "4", "caught_up 2"]);
    source.commit([5, 6]);
    assert_eq!(settled(&mut client, &mut taken).await, ["6"]);
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_is_no_longer_kept_is_a_gap() {
    let mut source = Script::new(1..=6);
    source.oldest = 5;
    for (after, expected) in [
        (3, vec!["hello 6", "gap", "5", "6", "caught_up 2"]),
        (4, vec!["hello 6", "5", "6", "caught_up 2"]),
        (6, vec!["hello 6", "caught_up 0"]),
        (99, vec!["hello 6", "gap", "5", "6", "caught_up 2"]),
    ] {
        let (mut socket, mut taken, _say) = socket();
        let mut client = Box::pin(attend(&mut socket, &source, source.live.join(), None, Some(after), None));
        assert_eq!(settled(&mut client, &mut taken).await, expected, "after {after}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_beyond_the_backlog_is_brought_from_the_store() {
    let source = Script::new([]);
    let (mut socket, mut taken, _say) = socket();
    let mut client = Box::pin(attend(&mut socket, &source, source.live.join(), None, None, None));
    settled(&mut client, &mut taken).await;
    source.commit(1..=5000);
    let sent = settled(&mut client, &mut taken).await;
    assert_eq!(sent, (1..=5000).map(|n: u64| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_closed() {
    let source = Script::new([]);
    let (mut socket, _taken, _say) = socket();
    socket.stalled = true;
    let frame = attend(&mut socket, &source, source.live.join(), None, None, None).await.unwrap_err().unwrap();
    assert_eq!(frame.code, 1013);
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_pinged_and_then_closed() {
    let source = Script::new([]);
    let (mut socket, mut taken, _say) = socket();
    let frame = attend(&mut socket, &source, source.live.join(), None, None, None).await.unwrap_err().unwrap();
    assert_eq!(frame.code, 1008);
    assert_eq!(words(&mut taken), ["hello 0", "ping", "ping"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_client_says_is_ignored_but_for_the_end() {
    let source = Script::new([]);
    let (mut socket, mut taken, say) = socket();
    for text in ["hello", "{\"type\":\"x\"}"] {
        say.send(Message::Text(text.into())).unwrap();
    }
    let mut client = Box::pin(attend(&mut socket, &source, source.live.join(), None, None, None));
    assert_eq!(settled(&mut client, &mut taken).await, ["hello 0"]);
    source.commit([1]);
    assert_eq!(settled(&mut client, &mut taken).await, ["1"]);
    say.send(Message::Close(None)).unwrap();
    assert!(client.await.unwrap_err().is_none());
}

#[test]
fn a_cursor_is_a_number_as_it_was_given() {
    assert_eq!((sequence("0").unwrap(), sequence("412").unwrap()), (0, 412));
    for bad in ["garbage", "-1", "+1", "", "1.0", "99999999999999999999", "18446744073709551615"] {
        assert_eq!(sequence(bad).unwrap_err().status(), 400, "{bad}");
    }
}
