//! Messages of one partition as they wait: copied once, into one piece of memory.

use std::ops::Range;

/// Messages in the order of their offsets.
#[derive(Debug, Default)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    index: Vec<Entry>,
}

/// Where a message lies: its key, then its value.
#[derive(Debug)]
struct Entry {
    offset: i64,
    start: usize,
    key: Option<usize>,
    value: Option<usize>,
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) offset: i64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
}

impl Messages {
    pub(super) fn push(&mut self, message: Message<'_>) {
        let start = self.bytes.len();
        for part in [message.key, message.value].into_iter().flatten() {
            self.bytes.extend_from_slice(part);
        }
        self.index.push(Entry { offset: message.offset, start, key: message.key.map(<[u8]>::len), value: message.value.map(<[u8]>::len) });
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    pub(super) fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn range(&self) -> Range<usize> {
        0..self.index.len()
    }

    /// # Panics
    /// If there are not so many.
    pub(super) fn get(&self, i: usize) -> Message<'_> {
        let Entry { offset, start, key, value } = self.index[i];
        let middle = start + key.unwrap_or(0);
        Message { offset, key: key.map(|_| &self.bytes[start..middle]), value: value.map(|length| &self.bytes[middle..middle + length]) }
    }

    /// The offset behind the first `n` messages; `None` where those are none.
    pub(super) fn behind(&self, n: usize) -> Option<i64> {
        Some(self.index.get(n.checked_sub(1)?)?.offset + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_given_back_as_they_were_pushed() {
        let all = [
            Message { offset: 3, key: None, value: Some(b"a") },
            Message { offset: 4, key: Some(b"k"), value: None },
            Message { offset: 9, key: Some(b""), value: Some(b"") },
            Message { offset: 10, key: Some(b"key"), value: Some(b"value") },
        ];
        let mut messages = Messages::default();
        all.into_iter().for_each(|message| messages.push(message));
        assert_eq!(messages.range().map(|i| messages.get(i)).collect::<Vec<_>>(), all);
        assert_eq!((messages.len(), messages.byte_len()), (4, 10));
        assert_eq!([0, 1, 3, 4, 5].map(|n| messages.behind(n)), [None, Some(4), Some(10), Some(11), None]);
    }
}
