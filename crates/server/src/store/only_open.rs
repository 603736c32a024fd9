//! Incidents that no engine will resolve are over.

use anomaly_engine::Timestamp;
use hashbrown::HashSet;
use rusqlite::Transaction;

use super::sqlite::resolve;
use crate::share::Share;

/// Resolves the incidents of a share that are open here and not among `open`.
pub(super) fn only_open(transaction: &Transaction<'_>, share: Share, open: &[String], at: Timestamp) -> rusqlite::Result<()> {
    let open: HashSet<&str> = open.iter().map(String::as_str).collect();
    let here = open_in(transaction, share)?;
    here.iter().filter(|id| !open.contains(id.as_str())).try_for_each(|id| resolve(transaction, id, at))
}

/// The incidents of a share that are open.
fn open_in(transaction: &Transaction<'_>, share: Share) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT i.id, s.hash FROM incidents i JOIN series s ON s.num = i.series WHERE i.resolved IS NULL ORDER BY i.first, i.num";
    let mut statement = transaction.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut open = Vec::new();
    while let Some(row) = rows.next()? {
        if share.holds(u128::from_be_bytes(row.get(1)?)) {
            open.push(row.get(0)?);
        }
    }
    Ok(open)
}
