//! Server-sent events, as far as the feed uses them: the data of each event, bounded.

/// Takes a stream of bytes apart into the data of its events.
#[derive(Debug, Default)]
pub(super) struct Events {
    buffer: Vec<u8>,
    /// Up to here there is no end of a line.
    scanned: usize,
    data: Option<String>,
}

/// An event is larger than is read, or no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotRead;

impl Events {
    /// Adds bytes; the data of every event that they complete. `max`: bytes that one event may have.
    pub(super) fn push(&mut self, bytes: &[u8], max: usize) -> Result<Vec<String>, NotRead> {
        self.buffer.extend_from_slice(bytes);
        let mut complete = Vec::new();
        let mut start = 0;
        while let Some(at) = self.buffer[self.scanned..].iter().position(|byte| *byte == b'\n') {
            let end = self.scanned + at;
            let line = std::str::from_utf8(&self.buffer[start..end]).map_err(|_| NotRead)?;
            let line = line.strip_suffix('\r').unwrap_or(line);
            if line.is_empty() {
                complete.extend(self.data.take());
            } else if let Some(value) = line.strip_prefix("data:") {
                let value = value.strip_prefix(' ').unwrap_or(value);
                if self.data.as_ref().map_or(0, String::len) + value.len() > max {
                    return Err(NotRead);
                }
                // several lines of one event are one text with line ends between them
                match &mut self.data {
                    None => self.data = Some(value.to_owned()),
                    Some(data) => {
                        data.push('\n');
                        data.push_str(value);
                    }
                }
            }
            start = end + 1;
            self.scanned = start;
        }
        self.buffer.drain(..start);
        self.scanned = self.buffer.len();
        if self.buffer.len() > max { Err(NotRead) } else { Ok(complete) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_the_stream_is_cut() {
        let text = "id: 1-2\nevent: heartbeat\ndata: one\n\n: comment\r\ndata:two\r\n\r\ndata: a\ndata: b\n\nid: 9\n\n";
        for size in 1..text.len() {
            let mut events = Events::default();
            let mut found = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                found.extend(events.push(chunk, 100).unwrap());
            }
            assert_eq!(found, ["one", "two", "a\nb"], "chunks of {size}");
        }
    }

    #[test]
    fn an_event_without_end_is_not_collected_for_ever() {
        let mut events = Events::default();
        assert_eq!(events.push(&[b'x'; 200], 100), Err(NotRead));
        let mut events = Events::default();
        for _ in 0..3 {
            assert_eq!(events.push(b"data: 0123456789012345678901234567890\n", 100).map(|e| e.len()), Ok(0));
        }
        assert_eq!(events.push(b"data: 0123456789012345678901234567890\n", 100), Err(NotRead));
        assert_eq!(Events::default().push(b"data: \xff\n\n", 100), Err(NotRead));
    }
}
