//! The cells of one row of a table.

use memchr::memchr;

/// The cells of the last row that was split. Memory: that of the longest row.
#[derive(Debug, Default)]
pub(super) struct Cells {
    cells: Vec<Cell>,
    /// The text of cells in which quotes were doubled.
    unescaped: String,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    start: usize,
    end: usize,
    /// Whether it lies in `unescaped`.
    is_unescaped: bool,
}

impl Cells {
    /// Splits a row whose quotes are known to be closed. White space around cells that are not quoted is left out.
    #[inline]
    pub(super) fn split(&mut self, row: &str, delimiter: u8) {
        self.cells.clear();
        self.unescaped.clear();
        let bytes = row.as_bytes();
        if memchr(b'"', bytes).is_some() {
            return self.split_quoted(row, delimiter);
        }
        let mut start = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            if byte == delimiter {
                self.push_trimmed(bytes, start, at);
                start = at + 1;
            }
        }
        self.push_trimmed(bytes, start, bytes.len());
    }

    #[inline]
    fn push_trimmed(&mut self, bytes: &[u8], mut start: usize, mut end: usize) {
        while start < end && matches!(bytes[start], b' ' | b'\t') {
            start += 1;
        }
        while start < end && matches!(bytes[end - 1], b' ' | b'\t' | b'\r') {
            end -= 1;
        }
        self.cells.push(Cell { start, end, is_unescaped: false });
    }

    #[cold]
    fn split_quoted(&mut self, row: &str, delimiter: u8) {
        let bytes = row.as_bytes();
        let mut at = 0;
        loop {
            let blanks = bytes[at..].iter().take_while(|&&b| b == b' ').count();
            if bytes.get(at + blanks) == Some(&b'"') {
                at = self.push_quoted(row, at + blanks + 1);
                at += bytes[at..].iter().take_while(|&&b| b != delimiter).count();
            } else {
                let end = at + bytes[at..].iter().take_while(|&&b| b != delimiter).count();
                self.push_trimmed(bytes, at, end);
                at = end;
            }
            if at >= bytes.len() {
                return;
            }
            at += 1;
        }
    }

    /// Pushes the quoted cell whose text begins at `at`; where it ends behind its quote.
    fn push_quoted(&mut self, row: &str, at: usize) -> usize {
        let quote = |from: usize| memchr(b'"', &row.as_bytes()[from..]).map_or(row.len(), |n| from + n);
        let is_doubled = |quote: usize| row.as_bytes().get(quote + 1) == Some(&b'"');
        let mut end = quote(at);
        if !is_doubled(end) {
            self.cells.push(Cell { start: at, end, is_unescaped: false });
            return (end + 1).min(row.len());
        }
        let (start, mut from) = (self.unescaped.len(), at);
        while is_doubled(end) {
            self.unescaped.push_str(&row[from..=end]);
            from = end + 2;
            end = quote(from);
        }
        self.unescaped.push_str(&row[from..end]);
        self.cells.push(Cell { start, end: self.unescaped.len(), is_unescaped: true });
        (end + 1).min(row.len())
    }

    /// How many there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    /// The `i`th cell of the row that was split; empty where there are not so many.
    #[inline]
    pub(super) fn get<'r>(&'r self, row: &'r str, i: usize) -> &'r str {
        match self.cells.get(i) {
            Some(cell) if cell.is_unescaped => &self.unescaped[cell.start..cell.end],
            Some(cell) => &row[cell.start..cell.end],
            None => "",
        }
    }

    /// All cells of the row.
    pub(super) fn all<'r>(&'r self, row: &'r str) -> impl Iterator<Item = &'r str> {
        (0..self.len()).map(|i| self.get(row, i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_split_into_cells() {
        for (row, delimiter, expected) in [
            ("a,b,c", b',', &["a", "b", "c"][..]),
            (" a , b\t,, c d \r", b',', &["a", "b", "", "c d"]),
            ("a;b,c;", b';', &["a", "b,c", ""]),
            ("a\t\tb", b'\t', &["a", "", "b"]),
            ("\"a,b\",\"c \"\"d\"\"\",\" e \"", b',', &["a,b", "c \"d\"", " e "]),
            ("\"\",\"\"\"\",x", b',', &["", "\"", "x"]),
            ("a, \"b,c\" , d", b',', &["a", "b,c", "d"]),
            ("a\"b,c", b',', &["a\"b", "c"]),
            ("\"a\nb\"\t\"é\"\"\"", b'\t', &["a\nb", "é\""]),
            ("", b',', &[""]),
            ("\"x\",", b',', &["x", ""]),
        ] {
            let mut cells = Cells::default();
            cells.split(row, delimiter);
            assert_eq!(cells.all(row).collect::<Vec<_>>(), expected, "{row:?}");
        }
    }
}
