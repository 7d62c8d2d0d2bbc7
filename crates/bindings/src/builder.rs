//! `Builder` and `Built`.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use sconify_shield::build::{self, CompressionCache, Content, Metadata};
use sconify_shield::{FileSystemKey, RegionKind};

use crate::cache::Directory;
use crate::source::{Container, Extent, OpenFiles};
use crate::{io_error, to_python, ShieldError};

/// Collects what a protected file system shall hold, then writes it.
#[pyclass(module = "sconify._shield")]
pub struct Builder {
    /// None once it was finished.
    inner: Option<build::Builder<Extent>>,
    /// The file that each pack is written to.
    outputs: Vec<PathBuf>,
    containers: HashMap<PathBuf, Arc<Container>>,
    files: Arc<OpenFiles>,
}

/// What `Builder.finish` made.
#[pyclass(frozen, module = "sconify._shield")]
pub struct Built(build::Built);

type PackTuple<'py> = (Bound<'py, PyBytes>, u64, u64, u32, u32);

#[pymethods]
impl Built {
    #[getter]
    fn tag<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.tag.as_bytes())
    }

    #[getter]
    fn packs<'py>(&self, py: Python<'py>) -> Vec<PackTuple<'py>> {
        let tuple = |pack: &build::PackStatistics| {
            let name = PyBytes::new(py, &pack.name);
            (
                name,
                pack.stored_bytes,
                pack.plaintext_bytes,
                pack.files,
                pack.chunks,
            )
        };
        self.0.packs.iter().map(tuple).collect()
    }

    #[getter]
    fn digests<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.digests.as_flattened())
    }

    #[getter]
    fn entries(&self) -> u32 {
        self.0.entries
    }
}

#[pymethods]
impl Builder {
    #[new]
    fn new(key: &[u8]) -> PyResult<Self> {
        Ok(Self {
            inner: Some(build::Builder::new(key_from_bytes(key)?)),
            outputs: Vec::new(),
            containers: HashMap::new(),
            files: Arc::default(),
        })
    }

    fn add_region(&mut self, prefix: &[u8], kind: &str, reason: &str) -> PyResult<()> {
        let kind = RegionKind::from_name(kind)
            .ok_or_else(|| PyValueError::new_err(format!("unknown kind of region: {kind:?}")))?;
        self.open()?
            .add_region(prefix, kind, reason)
            .map_err(to_python)
    }

    fn add_pack(&mut self, name: &[u8], image_path: &[u8], output: PathBuf) -> PyResult<u32> {
        let number = self.open()?.add_pack(name, image_path).map_err(to_python)?;
        self.outputs.push(output);
        Ok(number)
    }

    fn key_is_fresh(&mut self) -> PyResult<()> {
        self.open()?.key_is_fresh();
        Ok(())
    }

    fn digest_chunks(&mut self) -> PyResult<()> {
        self.open()?.digest_chunks();
        Ok(())
    }

    fn use_cache(&mut self, directory: PathBuf, key: &[u8]) -> PyResult<()> {
        let store = Box::new(Directory::new(directory));
        let cache = CompressionCache::new(&key_from_bytes(key)?, store);
        self.open()?.use_cache(cache);
        Ok(())
    }

    #[pyo3(signature = (path, *, r#type, mode, uid, gid, mtime, mtime_nsec, inode, source=None, offset=0, size=0,
                        pack=None, target=None, device=(0, 0), xattrs=None))]
    #[allow(clippy::too_many_arguments)]
    fn add_entry(
        &mut self,
        path: &[u8],
        r#type: &str,
        mode: u32,
        uid: u32,
        gid: u32,
        mtime: i64,
        mtime_nsec: u32,
        inode: u64,
        source: Option<PathBuf>,
        offset: u64,
        size: u64,
        pack: Option<u32>,
        target: Option<&[u8]>,
        device: (u32, u32),
        xattrs: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
    ) -> PyResult<()> {
        let content = match r#type {
            "-" => Content::File {
                source: self.extent(source, offset, size),
                size,
                pack,
            },
            "d" => Content::Directory,
            "l" => Content::Symlink(target.unwrap_or_default().to_vec()),
            "c" => Content::CharDevice(device.0, device.1),
            "b" => Content::BlockDevice(device.0, device.1),
            "p" => Content::Fifo,
            other => return Err(PyValueError::new_err(format!("unknown type: {other:?}"))),
        };
        let xattrs = xattrs.unwrap_or_default();
        let metadata = Metadata {
            mode,
            uid,
            gid,
            mtime,
            mtime_nsec,
            inode,
            xattrs,
        };
        self.open()?
            .add_entry(path, metadata, content)
            .map_err(to_python)
    }

    fn add_omitted(&mut self, path: &[u8]) -> PyResult<()> {
        self.open()?.add_omitted(path).map_err(to_python)
    }

    fn bounds(&mut self) -> PyResult<(usize, usize)> {
        self.open()?.bounds().map_err(to_python)
    }

    #[pyo3(signature = (index_output, *, gap=0, progress=None, threads=0))]
    fn finish(
        &mut self,
        py: Python<'_>,
        index_output: PathBuf,
        gap: u64,
        progress: Option<Py<PyAny>>,
        threads: usize,
    ) -> PyResult<Built> {
        self.open()?;
        let builder = self
            .inner
            .take()
            .expect("open() has refused the other case");
        let outputs = std::mem::take(&mut self.outputs);
        let containers = std::mem::take(&mut self.containers);
        let mut raised = None;
        let built = py.detach(|| {
            let files = (&outputs[..], gap, &index_output);
            let result = write(builder, files, threads, &mut |done| {
                let report = Python::attach(|py| {
                    py.check_signals()?;
                    progress
                        .as_ref()
                        .map_or(Ok(()), |progress| progress.call1(py, (done,)).map(drop))
                });
                match report {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => {
                        raised = Some(error);
                        ControlFlow::Break(())
                    }
                }
            });
            let result = result.and_then(|built| {
                containers
                    .values()
                    .try_for_each(|container| container.check_unchanged())?;
                Ok(built)
            });
            if result.is_err() {
                for path in outputs.iter().chain([&index_output]) {
                    // What could not be created can't be removed either; the first error is the one to tell.
                    let _ = std::fs::remove_file(path);
                }
            }
            result
        });
        built
            .map(Built)
            .map_err(|error| raised.unwrap_or_else(|| to_python(error)))
    }
}

impl Builder {
    fn open(&mut self) -> PyResult<&mut build::Builder<Extent>> {
        self.inner
            .as_mut()
            .ok_or_else(|| ShieldError::new_err("the builder was finished already"))
    }

    fn extent(&mut self, source: Option<PathBuf>, offset: u64, size: u64) -> Extent {
        let container = source.map(|path| {
            let new = || Arc::new(Container::new(path.clone()));
            Arc::clone(self.containers.entry(path.clone()).or_insert_with(new))
        });
        Extent {
            container,
            files: Arc::clone(&self.files),
            offset,
            size,
        }
    }
}

/// Writes each pack to its file, behind a gap at its start, and the index.
fn write(
    builder: build::Builder<Extent>,
    (packs, gap, index): (&[PathBuf], u64, &PathBuf),
    threads: usize,
    progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<build::Built, sconify_shield::ShieldError> {
    let mut outputs: Vec<Arc<File>> = Vec::with_capacity(packs.len());
    for (number, pack) in packs.iter().enumerate() {
        let error = |error| io_error(pack, error);
        // Packs that follow each other may share a file: they are written in their order.
        let shared = |&last: &usize| packs[last] == *pack;
        if let Some(last) = number.checked_sub(1).filter(shared) {
            outputs.push(Arc::clone(&outputs[last]));
            continue;
        }
        let mut file = File::create(pack).map_err(error)?;
        file.seek(SeekFrom::Start(gap)).map_err(error)?;
        outputs.push(Arc::new(file));
    }
    let built = builder.finish(&mut outputs, threads, progress)?;
    std::fs::write(index, &built.index).map_err(|error| io_error(index, error))?;
    Ok(built)
}

/// Takes the 32 bytes of a key.
pub fn key_from_bytes(key: &[u8]) -> PyResult<FileSystemKey> {
    let bytes = key.try_into().map_err(|_| {
        PyValueError::new_err(format!("the key has {} bytes, expected 32", key.len()))
    })?;
    Ok(FileSystemKey::new(bytes))
}
