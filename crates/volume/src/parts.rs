//! Long values: kept in parts, since a record is short (volume format, section 6).

use std::ops::ControlFlow;

use crate::error::Result;
use crate::node::{Key, Kind, MAX_VALUE};
use crate::volume::{Volume, Working};

impl Volume {
    pub(crate) fn get_parts(&self, working: &Working, inode: u64, kind: Kind) -> Result<Vec<u8>> {
        let mut value = Vec::new();
        let range = Key::new(inode, kind, 0)..=Key::new(inode, kind, u64::MAX);
        working.tree.scan(self, range, false, &mut |_, part| {
            value.extend_from_slice(part);
            ControlFlow::Continue(())
        })?;
        Ok(value)
    }

    pub(crate) fn put_parts(
        &self,
        working: &mut Working,
        inode: u64,
        kind: Kind,
        value: &[u8],
    ) -> Result<()> {
        let mut parts = 0;
        for part in value.chunks(MAX_VALUE) {
            let key = Key::new(inode, kind, parts);
            working.tree.put(self, key, part)?;
            parts += 1;
        }
        while working.tree.remove(self, Key::new(inode, kind, parts))? {
            parts += 1;
        }
        Ok(())
    }
}
