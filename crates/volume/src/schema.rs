//! The schema of the database (volume format, section 1).

use rusqlite::Connection;

use crate::error::{Result, VolumeError};

/// `PRAGMA application_id`: "SCNV".
const APPLICATION: i32 = i32::from_be_bytes(*b"SCNV");
const VERSION: i32 = 2;

/// The tables of the database.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Table {
    /// The header (row 0) and the superblock (row 1).
    Volume,
    /// Nodes of the tree.
    Node,
    /// Contents of files that were committed few at a time.
    Chunk,
}

impl Table {
    pub(crate) const ALL: [Self; 3] = [Self::Volume, Self::Node, Self::Chunk];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Volume => "volume",
            Self::Node => "node",
            Self::Chunk => "chunk",
        }
    }

    pub(crate) fn schema(self) -> String {
        let name = self.name();
        format!("CREATE TABLE {name}(id INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT")
    }
}

/// Makes the tables of a new database.
pub(crate) fn create(connection: &Connection) -> Result<()> {
    connection.pragma_update(None, "application_id", APPLICATION)?;
    connection.pragma_update(None, "user_version", VERSION)?;
    for table in Table::ALL {
        connection.execute(&table.schema(), ())?;
    }
    Ok(())
}

/// Refuses a database whose schema is not, to the letter, the one that [`create`] makes.
pub(crate) fn check(connection: &Connection) -> Result<()> {
    let changed = |reason: String| VolumeError::forged("the volume's database", reason);
    let mut statement =
        connection.prepare("SELECT sql FROM sqlite_schema ORDER BY rowid LIMIT 4")?;
    let found = statement
        .query_map((), |row| row.get::<_, Option<String>>(0))?
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let expected = Table::ALL.map(|table| Some(table.schema()));
    if found.is_empty() {
        return Err(VolumeError::Missing {
            directory: connection.path().unwrap_or_default().to_owned(),
            reason: "the database has no tables".to_owned(),
        });
    }
    if found != expected {
        return Err(changed("its schema is not that of a volume".to_owned()));
    }
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let numbers = (number("application_id")?, number("user_version")?);
    if numbers.0 == APPLICATION && numbers.1 != VERSION {
        return Err(changed(format!(
            "its format version is {}, expected {VERSION}: export it with the release that made it, and import that",
            numbers.1
        )));
    }
    if numbers.0 != APPLICATION {
        return Err(changed(format!(
            "its application id is {}, expected {APPLICATION}",
            numbers.0
        )));
    }
    Ok(())
}
