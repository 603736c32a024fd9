//! Follows the framing of HTTP/1.1 requests in the bytes of a connection, to see what hyper hides: it drops a
//! `Content-Length` that stands beside a `Transfer-Encoding`, merges equal ones and takes bare line feeds. Each of these is
//! how a request is smuggled past a proxy that reads it otherwise (RFC 9112 §6.1, §2.2).

/// The most bytes that are kept of a header line: a number in it fits, whatever its white space.
const LINE_BYTES: usize = 512;

/// Where in a connection the next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Before the first byte of a request.
    Idle,
    /// Inside a request's line and headers.
    Head,
    /// Inside a body of which so many bytes are to come.
    Body(u64),
    /// A chunked body, another protocol, or after a fault: no longer followed, and the connection ends after the answer.
    Opaque,
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    /// Requests whose head has ended.
    heads: u64,
    line: Vec<u8>,
    first_line: bool,
    length: Option<u64>,
    chunked: bool,
    opaque: bool,
    fault: Option<Fault>,
}

/// A request that must not be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// Which request of the connection, from 0.
    pub(super) request: u64,
    /// What is wrong.
    pub(super) reason: &'static str,
}

impl Default for Framing {
    fn default() -> Self {
        let (heads, line) = (0, Vec::new());
        Self { state: State::Idle, heads, line, first_line: true, length: None, chunked: false, opaque: false, fault: None }
    }
}

impl Framing {
    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    pub(super) fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Takes the next bytes of the connection.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.state {
                State::Opaque => return,
                State::Body(left) => {
                    let n = left.min(bytes.len() as u64);
                    bytes = &bytes[n as usize..];
                    self.state = if n == left { State::Idle } else { State::Body(left - n) };
                }
                State::Idle | State::Head => {
                    let end = bytes.iter().position(|b| *b == b'\n');
                    let piece = &bytes[..end.unwrap_or(bytes.len())];
                    self.keep(piece);
                    bytes = &bytes[end.map_or(bytes.len(), |end| end + 1)..];
                    self.state = State::Head;
                    if end.is_some() {
                        self.end_of_line();
                    }
                }
            }
        }
    }

    /// Keeps the beginning of a line, and its last byte.
    fn keep(&mut self, piece: &[u8]) {
        let room = LINE_BYTES.saturating_sub(self.line.len());
        self.line.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() > room
            && let (Some(kept), Some(last)) = (self.line.last_mut(), piece.last())
        {
            *kept = *last;
        }
    }

    fn end_of_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        match line.strip_suffix(b"\r") {
            None => self.fail("a line ends without a carriage return"),
            Some([]) if self.first_line => self.state = State::Idle,
            Some([]) => self.end_of_head(),
            Some(line) if self.first_line => {
                self.first_line = false;
                self.opaque = line.starts_with(b"CONNECT ");
            }
            Some(line) => self.header(line),
        }
        self.line = line;
        self.line.clear();
    }

    fn header(&mut self, line: &[u8]) {
        let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
        let (name, value) = (&line[..colon], line.get(colon + 1..).unwrap_or_default().trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            match std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit())).and_then(|text| text.parse().ok())
            {
                _ if self.length.is_some() => self.fail("Content-Length is given twice"),
                Some(length) => self.length = Some(length),
                None => self.fail("Content-Length is not a number"),
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.opaque = true;
        }
    }

    fn end_of_head(&mut self) {
        if self.chunked && self.length.is_some() {
            self.fail("both Transfer-Encoding and Content-Length are given");
            return;
        }
        self.state = match self.length {
            _ if self.chunked || self.opaque => State::Opaque,
            None | Some(0) => State::Idle,
            Some(n) => State::Body(n),
        };
        (self.heads, self.first_line, self.length) = (self.heads + 1, true, None);
    }

    fn fail(&mut self, reason: &'static str) {
        self.state = State::Opaque;
        self.fault = Some(Fault { request: self.heads, reason });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pieces: &[&str]) -> Framing {
        let mut framing = Framing::default();
        pieces.iter().for_each(|piece| framing.feed(piece.as_bytes()));
        framing
    }

    #[test]
    fn requests_follow_each_other_however_they_are_cut() {
        let text = "\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length:  5 \r\n\r\n12\n45GET /x HTTP/1.1\r\nhost: a\r\n\r\nPOST / HTTP/1.1\r\ncontent-length: 9\r\n\r\n123";
        for size in 1..text.len() {
            let mut framing = Framing::default();
            text.as_bytes().chunks(size).for_each(|piece| framing.feed(piece));
            assert_eq!((framing.state(), framing.heads(), framing.fault()), (State::Body(6), 3, None), "pieces of {size}");
        }
    }

    #[test]
    fn what_two_servers_could_read_differently_is_a_fault() {
        for (head, word) in [
            ("POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", "both"),
            ("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n", "both"),
            ("POST / HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\n", "twice"),
            ("POST / HTTP/1.1\r\nContent-Length: 4, 4\r\n\r\n", "not a number"),
            ("POST / HTTP/1.1\r\nContent-Length: +4\r\n\r\n", "not a number"),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", "carriage return"),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", "carriage return"),
        ] {
            let framing = after(&["GET / HTTP/1.1\r\n\r\n", head]);
            let fault = framing.fault().unwrap_or_else(|| panic!("{head:?} passes"));
            assert!(fault.request == 1 && fault.reason.contains(word), "{head:?}: {fault:?}");
        }
    }

    #[test]
    fn a_long_line_hides_nothing() {
        let long = format!("GET /{} HTTP/1.1\r\nX: {}\r\nContent-Length: 3\r\n\r\nab", "x".repeat(5000), "y".repeat(5000));
        assert_eq!(after(&[&long]).state(), State::Body(1));
        let bare = format!("GET / HTTP/1.1\r\nX: {}\n\r\n", "y".repeat(5000));
        assert!(after(&[&bare]).fault().is_some());
    }

    #[test]
    fn chunked_bodies_and_upgrades_are_not_followed() {
        assert_eq!(after(&["POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n"]).state(), State::Opaque);
        assert_eq!(after(&["GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"]).state(), State::Opaque);
    }
}
