//! How long an anomaly takes from `POST` to the WebSocket: `latency http://127.0.0.1:8000 [OUTLIERS]`.
//!
//! For each outlier a metric of its own, with twenty ordinary values before it. The clock starts before the request is
//! written and stops when the frame has been read; the client is two blocking sockets, so that it adds little. Beside it, a
//! byte goes to and fro between two threads over loopback TCP, in turns with the outliers. One line of JSON, in microseconds.
#![expect(clippy::print_stdout, reason = "the line is what it is for")]

use std::error::Error;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anomaly_eval::timed;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Between outliers, so that each meets a server at rest.
const PAUSE: Duration = Duration::from_millis(5);

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("usage: latency http://HOST:PORT [OUTLIERS]")?;
    let address = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let outliers: usize = arguments.next().map_or(Ok(1000), |n| n.parse())?;
    let run = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let metric = |i: usize| format!("latency_{}_{i}", run.as_millis());

    let mut requests = connect(&address)?;
    for i in 0..outliers {
        let (mut lines, name) = (String::new(), metric(i));
        for second in 0..20 {
            let (time, value) = (run.as_secs() - 30 + second, 50 + second % 5);
            writeln!(lines, r#"{{"timestamp":{time},"metric":"{name}","value":{value}}}"#)?;
        }
        post(&mut requests, &address, "/events", &lines)?;
    }
    let mut frames = WebSocket::open(&address, "/ws/anomalies")?;
    // Whatever is committed behind this message is told.
    frames.text()?;
    let mut echo = Echo::start()?;
    let (mut told, mut echoed) = (Vec::new(), Vec::new());
    for i in 0..outliers {
        let (name, body) = (metric(i), format!(r#"{{"metric":"{}","value":500}}"#, metric(i)));
        let before = Instant::now();
        send(&mut requests, &address, "/events/raw", &body)?;
        while !frames.text()?.contains(&name) {}
        told.push(before.elapsed());
        accepted(&mut requests)?;
        std::thread::sleep(PAUSE);
        echoed.push(echo.round_trip()?);
        std::thread::sleep(PAUSE);
    }
    let [p50, p99] = percentiles(&mut told);
    let [echo_p50, echo_p99] = percentiles(&mut echoed);
    println!(r#"{{"p50_us":{p50:.1},"p99_us":{p99:.1},"echo_p50_us":{echo_p50:.1},"echo_p99_us":{echo_p99:.1},"outliers":{outliers}}}"#);
    Ok(())
}

fn percentiles(times: &mut [Duration]) -> [f64; 2] {
    times.sort_unstable();
    [50, 99].map(|p| times[(times.len() * p / 100).min(times.len() - 1)].as_nanos() as f64 / 1e3)
}

fn connect(address: &str) -> Result<TcpStream> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(socket)
}

fn post(socket: &mut TcpStream, address: &str, path: &str, body: &str) -> Result<()> {
    send(socket, address, path, body)?;
    accepted(socket)
}

fn send(socket: &mut TcpStream, address: &str, path: &str, body: &str) -> Result<()> {
    let length = body.len();
    let request =
        format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
    Ok(socket.write_all(request.as_bytes())?)
}

/// Reads an answer to its end and checks that it is 202.
fn accepted(socket: &mut TcpStream) -> Result<()> {
    let head = head(socket)?;
    if !head.starts_with("HTTP/1.1 202") {
        return Err(head.into());
    }
    let length = head.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    socket.read_exact(&mut vec![0; length.ok_or("an answer without a length")?])?;
    Ok(())
}

/// Reads a head and not a byte more.
fn head(socket: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8(head)?)
}

/// As much of a WebSocket as reading needs.
struct WebSocket(TcpStream);

impl WebSocket {
    fn open(address: &str, path: &str) -> Result<Self> {
        let mut socket = connect(address)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket.write_all(request.as_bytes())?;
        let head = head(&mut socket)?;
        if !head.starts_with("HTTP/1.1 101") {
            return Err(head.into());
        }
        Ok(Self(socket))
    }

    /// The next text.
    fn text(&mut self) -> Result<String> {
        loop {
            let [kind, length] = self.take()?;
            let length = match length & 0x7f {
                126 => usize::from(u16::from_be_bytes(self.take()?)),
                127 => u64::from_be_bytes(self.take()?) as usize,
                short => usize::from(short),
            };
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload)?;
            if kind & 0x0f == 1 {
                return Ok(String::from_utf8(payload)?);
            }
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// A thread that sends back what it gets.
struct Echo(TcpStream);

impl Echo {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let socket = connect(&listener.local_addr()?.to_string())?;
        let (mut other, _) = listener.accept()?;
        other.set_nodelay(true)?;
        std::thread::spawn(move || {
            let mut byte = [0];
            while other.read_exact(&mut byte).and_then(|()| other.write_all(&byte)).is_ok() {}
        });
        Ok(Self(socket))
    }

    fn round_trip(&mut self) -> Result<Duration> {
        let mut result = Ok(());
        let time = timed(|| result = self.0.write_all(&[1]).and_then(|()| self.0.read_exact(&mut [0])));
        result?;
        Ok(time)
    }
}
