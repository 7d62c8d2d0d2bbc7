//! Extended attributes.

use std::collections::BTreeMap;

use rustix::io::Errno;

use crate::attributes::Time;
use crate::error::Result;
use crate::node::{Key, Kind, MAX_VALUE};
use crate::volume::{Volume, Working};
use crate::wire::Decoder;

/// Bytes that all extended attributes of an inode may take, names and values: what Linux can list.
const MAX_XATTRS: usize = 65_536;

type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

impl Volume {
    /// The extended attributes of an inode, sorted by name.
    ///
    /// # Errors
    /// ENOENT if there is no such inode.
    pub fn xattrs(&self, inode: u64) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let working = self.read();
        self.find(&working, inode)?;
        self.load_xattrs(&working, inode)
    }

    /// Sets an extended attribute. `exists` tells whether it must be there already (`XATTR_REPLACE`) or must not be
    /// (`XATTR_CREATE`).
    ///
    /// # Errors
    /// ENOENT, EEXIST, ENODATA, ERANGE for a name that is empty or longer than 255 bytes, ENOSPC if an inode's
    /// attributes would pass 64 KiB.
    pub fn set_xattr(
        &self,
        inode: u64,
        name: &[u8],
        value: &[u8],
        exists: Option<bool>,
    ) -> Result<()> {
        if name.is_empty() || name.len() > crate::MAX_NAME || name.contains(&0) {
            return Err(Errno::RANGE.into());
        }
        self.change_xattrs(inode, |xattrs| {
            match (exists, xattrs.contains_key(name)) {
                (Some(false), true) => return Err(Errno::EXIST),
                (Some(true), false) => return Err(Errno::NODATA),
                _ => {}
            }
            xattrs.insert(name.to_vec(), value.to_vec());
            Ok(())
        })
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// ENOENT, ENODATA.
    pub fn remove_xattr(&self, inode: u64, name: &[u8]) -> Result<()> {
        self.change_xattrs(inode, |xattrs| {
            xattrs.remove(name).map(drop).ok_or(Errno::NODATA)
        })
    }

    fn change_xattrs(
        &self,
        inode: u64,
        change: impl FnOnce(&mut Xattrs) -> std::result::Result<(), Errno>,
    ) -> Result<()> {
        let mut working = self.change()?;
        let mut attributes = self.find(&working, inode)?;
        let mut xattrs = self.load_xattrs(&working, inode)?;
        let before = encode(&xattrs).len();
        change(&mut xattrs)?;
        let value = encode(&xattrs);
        if value.len() > MAX_XATTRS {
            return Err(Errno::NOSPC.into());
        }
        let parts = before.max(value.len()) / MAX_VALUE + 1;
        let mut keys = vec![Key::new(inode, Kind::Attributes, 0)];
        keys.extend((0..parts as u64).map(|part| Key::new(inode, Kind::Xattrs, part)));
        working.tree.prepare(self, &keys)?;
        self.put_parts(&mut working, inode, Kind::Xattrs, &value)?;
        attributes.ctime = Time::now();
        self.put(&mut working, &attributes)
    }

    fn load_xattrs(&self, working: &Working, inode: u64) -> Result<Xattrs> {
        let value = self.get_parts(working, inode, Kind::Xattrs)?;
        let mut decoder = Decoder::new("extended attributes in the volume's tree", &value);
        let mut xattrs = Xattrs::new();
        while !decoder.is_empty() {
            let name = decoder.u8()?;
            let name = decoder.take(name.into())?.to_vec();
            let length = decoder.u32()?;
            xattrs.insert(name, decoder.take(length as usize)?.to_vec());
        }
        Ok(xattrs)
    }
}

fn encode(xattrs: &Xattrs) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in xattrs {
        out.push(u8::try_from(name.len()).expect("names have at most 255 bytes"));
        out.extend_from_slice(name);
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        out.extend(length.to_le_bytes());
        out.extend_from_slice(value);
    }
    out
}
