//! `Index`.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use sconify_shield::{Entry, Kind, PackReader, ReadAt, RootTag, Storage};

use crate::builder::key_from_bytes;
use crate::{io_error, to_python, ShieldError};

/// Bytes that are decrypted at once when a file is copied.
const PIECE: u64 = 16 << 20;

/// A verified index.
#[pyclass(frozen, module = "sconify._shield")]
pub struct Index {
    index: sconify_shield::Index,
    embedded: Option<Embedded>,
}

/// Where embedded packs are: in one file, without gaps, in their order.
struct Embedded {
    file: PathBuf,
    offset: u64,
    digests: Vec<[u8; 32]>,
}

/// A part of a file.
struct Part {
    file: File,
    offset: u64,
    size: u64,
}

impl ReadAt for Part {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let count = self.size.saturating_sub(offset).min(buf.len() as u64) as usize;
        FileExt::read_at(&self.file, &mut buf[..count], self.offset + offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }
}

#[pymethods]
impl Index {
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf, key: &[u8], tag: &[u8]) -> PyResult<Self> {
        let key = key_from_bytes(key)?;
        let tag = RootTag::new(tag.try_into().map_err(|_| {
            PyValueError::new_err(format!("the tag has {} bytes, expected 16", tag.len()))
        })?);
        py.detach(|| {
            let bytes = std::fs::read(&path).map_err(|error| io_error(&path, error))?;
            sconify_shield::Index::open(&bytes, &key, &tag)
        })
        .map(|index| Self {
            index,
            embedded: None,
        })
        .map_err(to_python)
    }

    #[staticmethod]
    #[pyo3(signature = (index, key, *, file, offset, digests))]
    fn embedded(
        index: &[u8],
        key: &[u8],
        file: PathBuf,
        offset: u64,
        digests: &[u8],
    ) -> PyResult<Self> {
        let key = key_from_bytes(key)?;
        let tag = index
            .last_chunk()
            .ok_or_else(|| PyValueError::new_err("the index is shorter than a tag"))?;
        let index =
            sconify_shield::Index::open(index, &key, &RootTag::new(*tag)).map_err(to_python)?;
        let digests = digests
            .chunks_exact(32)
            .map(|digest| digest.try_into().expect("they are cut to this length"));
        let embedded = Embedded {
            file,
            offset,
            digests: digests.collect(),
        };
        let chunks = index.packs().iter().map(|pack| pack.chunk_count() as usize);
        if chunks.sum::<usize>() != embedded.digests.len() {
            return Err(ShieldError::new_err(
                "there are more or fewer digests than chunks",
            ));
        }
        Ok(Self {
            index,
            embedded: Some(embedded),
        })
    }

    fn paths<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.index
            .entries()
            .map(|entry| PyBytes::new(py, entry.path()))
            .collect()
    }

    fn regions<'py>(&self, py: Python<'py>) -> Vec<(Bound<'py, PyBytes>, &'static str, &str)> {
        let regions = self.index.regions().iter();
        regions
            .map(|region| {
                (
                    PyBytes::new(py, region.prefix()),
                    region.kind().name(),
                    region.reason(),
                )
            })
            .collect()
    }

    fn omitted<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.index
            .omitted()
            .map(|path| PyBytes::new(py, path))
            .collect()
    }

    fn entry<'py>(&self, py: Python<'py>, path: &[u8]) -> PyResult<Bound<'py, PyDict>> {
        let entry = self.find(path)?;
        let fields = PyDict::new(py);
        let region = self
            .index
            .region_of(path)
            .map(|region| region.kind().name());
        fields.set_item("mode", entry.mode())?;
        fields.set_item("uid", entry.uid())?;
        fields.set_item("gid", entry.gid())?;
        fields.set_item("mtime", entry.mtime())?;
        fields.set_item("mtime_nsec", entry.mtime_nsec())?;
        fields.set_item("inode", entry.inode())?;
        fields.set_item("nlink", entry.nlink())?;
        fields.set_item("size", entry.size())?;
        fields.set_item("region", region)?;
        let xattrs = PyDict::new(py);
        for (name, value) in entry.xattrs() {
            xattrs.set_item(PyBytes::new(py, name), PyBytes::new(py, value))?;
        }
        fields.set_item("xattrs", xattrs)?;
        let letter = match entry.kind() {
            Kind::File { storage, .. } => {
                match storage {
                    Storage::Packed { pack, .. } => fields.set_item("pack", pack)?,
                    Storage::Plain { sha256 } => {
                        fields.set_item("sha256", PyBytes::new(py, sha256))?
                    }
                }
                "-"
            }
            Kind::Directory => "d",
            Kind::Symlink { target } => {
                fields.set_item("target", PyBytes::new(py, target))?;
                "l"
            }
            Kind::CharDevice { major, minor } => {
                fields.set_item("device", (major, minor))?;
                "c"
            }
            Kind::BlockDevice { major, minor } => {
                fields.set_item("device", (major, minor))?;
                "b"
            }
            Kind::Fifo => "p",
        };
        fields.set_item("type", letter)?;
        Ok(fields)
    }

    fn read<'py>(
        &self,
        py: Python<'py>,
        path: &[u8],
        root: PathBuf,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let entry = self.find(path)?;
        let content = py
            .detach(|| self.content(entry, &root))
            .map_err(to_python)?;
        Ok(PyBytes::new(py, &content))
    }

    fn extract(&self, py: Python<'_>, path: &[u8], root: PathBuf, output: PathBuf) -> PyResult<()> {
        let entry = self.find(path)?;
        py.detach(|| {
            let created = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&output);
            let mut file = created.map_err(|error| io_error(&output, error))?;
            self.copy_into(entry, &root, &mut file)
                .inspect_err(|_| drop(std::fs::remove_file(&output)))
        })
        .map_err(to_python)
    }
}

impl Index {
    fn find(&self, path: &[u8]) -> PyResult<Entry<'_>> {
        self.index.lookup(path).ok_or_else(|| {
            PyKeyError::new_err(format!(
                "the index does not list {}",
                String::from_utf8_lossy(path)
            ))
        })
    }

    fn content(
        &self,
        entry: Entry<'_>,
        root: &Path,
    ) -> Result<Vec<u8>, sconify_shield::ShieldError> {
        let Kind::File { size, storage } = entry.kind() else {
            return Err(sconify_shield::ShieldError::BadInput {
                what: String::from_utf8_lossy(entry.path()).into_owned(),
                reason: "it is not a file".to_owned(),
            });
        };
        let mut content = vec![0; size as usize];
        match storage {
            Storage::Packed { pack, .. } => {
                let reader = self.pack_reader(pack, root)?;
                reader.read_file(entry, &mut content, threads())?;
            }
            Storage::Plain { .. } => {
                let file = open_beneath(root, entry.path())?;
                sconify_shield::read_plain(entry, &file, &mut content)?;
            }
        }
        Ok(content)
    }

    fn pack_reader(
        &self,
        number: u32,
        root: &Path,
    ) -> Result<PackReader<Part>, sconify_shield::ShieldError> {
        if let Some(embedded) = &self.embedded {
            return embedded.open(&self.index, number);
        }
        let path = self.index.packs()[number as usize].file();
        let file = open_beneath(root, path)?;
        let size = file.metadata().map_err(|error| named_error(path, error))?;
        let part = Part {
            file,
            offset: 0,
            size: size.len(),
        };
        PackReader::open(part, &self.index, number)
    }

    fn copy_into(
        &self,
        entry: Entry<'_>,
        root: &Path,
        output: &mut File,
    ) -> Result<(), sconify_shield::ShieldError> {
        let Kind::File {
            size,
            storage: Storage::Packed { pack, offset },
        } = entry.kind()
        else {
            let content = self.content(entry, root)?;
            return output
                .write_all(&content)
                .map_err(|error| named_error(entry.path(), error));
        };
        let reader = self.pack_reader(pack, root)?;
        let mut piece = vec![0; size.min(PIECE) as usize];
        let mut done = 0;
        while done < size {
            let piece = &mut piece[..(size - done).min(PIECE) as usize];
            reader.read(offset + done, piece)?;
            output
                .write_all(piece)
                .map_err(|error| named_error(entry.path(), error))?;
            done += piece.len() as u64;
        }
        Ok(())
    }
}

fn open_beneath(root: &Path, path: &[u8]) -> Result<File, sconify_shield::ShieldError> {
    let path = root.join(Path::new(OsStr::from_bytes(&path[1..])));
    File::open(&path).map_err(|error| io_error(&path, error))
}

fn named_error(path: &[u8], error: io::Error) -> sconify_shield::ShieldError {
    io_error(Path::new(OsStr::from_bytes(path)), error)
}

impl Embedded {
    fn open(
        &self,
        index: &sconify_shield::Index,
        number: u32,
    ) -> Result<PackReader<Part>, sconify_shield::ShieldError> {
        let (before, rest) = index.packs().split_at(number as usize);
        let pack = &rest[0];
        let part = Part {
            file: File::open(&self.file).map_err(|error| io_error(&self.file, error))?,
            offset: self.offset + before.iter().map(|pack| pack.stored_len()).sum::<u64>(),
            size: pack.stored_len(),
        };
        let first: usize = before.iter().map(|pack| pack.chunk_count() as usize).sum();
        let digests = &self.digests[first..][..pack.chunk_count() as usize];
        PackReader::open(part, index, number)?.measured(digests)
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
