//! Reads frames beside the one who writes them.

use rusqlite::Connection;

use super::error::LogError;

/// Reads the log on a connection of its own.
#[derive(Debug)]
pub struct LogReader {
    pub(super) connection: Connection,
}

impl LogReader {
    /// Frames from number `from` on, in order, until they make `max_bytes`; at least one, where there is one.
    ///
    /// # Errors
    /// SQLite's own. That a frame is what was appended is known when it is opened.
    pub fn read(&mut self, from: u64, max_bytes: usize) -> Result<Vec<(u64, Vec<u8>)>, LogError> {
        let mut statement = self.connection.prepare_cached("SELECT number, bytes FROM frames WHERE number >= ?1 ORDER BY number")?;
        let mut rows = statement.query([from as i64])?;
        let (mut frames, mut bytes) = (Vec::new(), 0);
        while bytes < max_bytes || frames.is_empty() {
            let Some(row) = rows.next()? else { break };
            let frame: Vec<u8> = row.get(1)?;
            bytes += frame.len();
            frames.push((row.get::<_, i64>(0)? as u64, frame));
        }
        Ok(frames)
    }

    /// The lowest number that is kept; `None` where the log is empty.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn first(&self) -> Result<Option<u64>, LogError> {
        self.number("SELECT min(number) FROM frames")
    }

    /// The highest number that is kept; `None` where the log is empty.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn last(&self) -> Result<Option<u64>, LogError> {
        self.number("SELECT max(number) FROM frames")
    }

    /// Rows in the frames behind `frame`.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn rows_after(&self, frame: u64) -> Result<u64, LogError> {
        let sql = "SELECT coalesce(sum(rows), 0) FROM frames WHERE number > ?1";
        Ok(self.connection.prepare_cached(sql)?.query_row([frame as i64], |row| row.get::<_, i64>(0))? as u64)
    }

    fn number(&self, sql: &str) -> Result<Option<u64>, LogError> {
        let number: Option<i64> = self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        Ok(number.map(|number| number as u64))
    }
}
