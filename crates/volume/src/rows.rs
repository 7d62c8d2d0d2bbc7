//! Single rows of the database: their statements.

use rusqlite::Connection;

use crate::error::{Result, VolumeError};
use crate::schema::Table;
use crate::store::Batch;

/// Calls `read` with a row, if there is one.
pub(crate) fn select<T, F: FnOnce(&[u8]) -> T>(
    connection: &Connection,
    table: Table,
    id: u64,
    read: &mut Option<F>,
) -> Result<Option<T>> {
    let sql = match table {
        Table::Volume => "SELECT data FROM volume WHERE id = ?",
        Table::Node => "SELECT data FROM node WHERE id = ?",
        Table::Chunk => "SELECT data FROM chunk WHERE id = ?",
    };
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query((row_id(id),))?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let bytes = row.get_ref(0)?.as_blob().map_err(|error| {
        VolumeError::forged(format!("row {id} of {}", table.name()), error.to_string())
    })?;
    Ok(read.take().map(|read| read(bytes)))
}

/// Writes rows in one transaction.
pub(crate) fn write_rows(connection: &mut Connection, rows: &Batch) -> Result<()> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    execute(&transaction, rows)?;
    Ok(transaction.commit()?)
}

/// Writes rows within a transaction.
pub(crate) fn execute(connection: &Connection, rows: &Batch) -> Result<()> {
    for ((table, id), row) in rows {
        let (name, id) = (table.name(), row_id(*id));
        let Some(bytes) = row else {
            connection
                .prepare_cached(&format!("DELETE FROM {name} WHERE id = ?"))?
                .execute((id,))?;
            continue;
        };
        // All rows of a table have one length. SQLite overwrites such a row where it stands, if it has looked at the old one: that spares freeing the
        // pages it is on, taking others, and logging the lists of both.
        let update = format!("UPDATE {name} SET data = ?2 WHERE id = ?1 AND typeof(data) = 'blob'");
        if connection
            .prepare_cached(&update)?
            .execute((id, &**bytes))?
            == 0
        {
            connection
                .prepare_cached(&format!("INSERT INTO {name}(id, data) VALUES (?1, ?2)"))?
                .execute((id, &**bytes))?;
        }
    }
    Ok(())
}

fn row_id(id: u64) -> i64 {
    i64::from_ne_bytes(id.to_ne_bytes())
}
