//! `Volume`.

use std::path::PathBuf;
use std::sync::Mutex;

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use sconify_volume::{
    Accept, Access, Attributes, Changes, Expected, FileKind, New, NewKind, Options, State, Time,
    VolumeError as Error, ROOT_INODE,
};

use crate::builder::key_from_bytes;

pyo3::create_exception!(
    _shield,
    VolumeError,
    pyo3::exceptions::PyException,
    "A volume is not what its owner knows: changed, older, forked or foreign."
);

/// An open volume.
#[pyclass(frozen, module = "sconify._shield")]
pub struct Volume(Mutex<Option<sconify_volume::Volume>>);

type PyState<'py> = (u64, Bound<'py, PyBytes>);
type PyEntry<'py> = (Bound<'py, PyBytes>, u64, String);

#[pymethods]
impl Volume {
    #[classattr]
    const ROOT: u64 = ROOT_INODE;

    #[staticmethod]
    fn create(py: Python<'_>, directory: PathBuf, key: &[u8]) -> PyResult<Self> {
        let key = key_from_bytes(key)?;
        let options = Options::default();
        py.detach(|| sconify_volume::Volume::create(&directory, &key, &options))
            .map(|volume| Self(Mutex::new(Some(volume))))
            .map_err(to_python)
    }

    #[staticmethod]
    #[pyo3(signature = (directory, key, *, expected=None, writable=false))]
    fn open(
        py: Python<'_>,
        directory: PathBuf,
        key: &[u8],
        expected: Option<(u64, [u8; 32])>,
        writable: bool,
    ) -> PyResult<Self> {
        let key = key_from_bytes(key)?;
        let access = if writable {
            Access::ReadWrite
        } else {
            Access::ReadOnly
        };
        let options = Options {
            access,
            ..Options::default()
        };
        let expected = match expected {
            None => Expected::Any,
            Some((counter, root)) => Expected::Recorded {
                state: State { counter, root },
                volume: None,
                accept: Accept::Successors,
            },
        };
        py.detach(|| sconify_volume::Volume::open(&directory, &key, &expected, &options))
            .map(|volume| Self(Mutex::new(Some(volume))))
            .map_err(to_python)
    }

    fn facts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let facts = self.with(py, sconify_volume::Volume::facts)?;
        let result = PyDict::new(py);
        result.set_item("volume", facts.id.to_string())?;
        result.set_item("counter", facts.state.counter)?;
        result.set_item("root", PyBytes::new(py, &facts.state.root))?;
        result.set_item("key_generation", facts.key_generation)?;
        result.set_item("chunk_bytes", facts.chunk_bytes)?;
        result.set_item("database_bytes", facts.database_bytes)?;
        result.set_item("contents_bytes", facts.contents_bytes)?;
        result.set_item("free_bytes", facts.free_bytes)?;
        Ok(result)
    }

    fn check<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let report = self.with(py, sconify_volume::Volume::check)?;
        let result = PyDict::new(py);
        result.set_item("inodes", report.inodes)?;
        result.set_item("directories", report.directories)?;
        result.set_item("chunks", report.chunks)?;
        result.set_item("bytes", report.bytes)?;
        result.set_item("problems", report.problems)?;
        Ok(result)
    }

    fn attributes<'py>(&self, py: Python<'py>, inode: u64) -> PyResult<Bound<'py, PyDict>> {
        let attributes = self.with(py, |volume| volume.attributes(inode))?;
        to_dict(py, &attributes)
    }

    fn entries<'py>(&self, py: Python<'py>, directory: u64) -> PyResult<Vec<PyEntry<'py>>> {
        // Cookie 2 is behind `.` and `..`.
        let entries = self.with(py, |volume| volume.read_directory(directory, 2, usize::MAX))?;
        let entry = |entry: sconify_volume::DirectoryEntry| {
            (
                PyBytes::new(py, &entry.name),
                entry.inode,
                letter(entry.kind),
            )
        };
        Ok(entries.into_iter().map(entry).collect())
    }

    fn read<'py>(
        &self,
        py: Python<'py>,
        inode: u64,
        offset: u64,
        length: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let content = self.with(py, |volume| {
            let mut content = vec![0; length];
            let read = volume.read_at(inode, offset, &mut content)?;
            content.truncate(read);
            Ok(content)
        })?;
        Ok(PyBytes::new(py, &content))
    }

    fn extent(&self, py: Python<'_>, inode: u64, offset: u64) -> PyResult<Option<(u64, u64)>> {
        self.with(py, |volume| match volume.seek_data(inode, offset) {
            Ok(begin) => Ok(Some((begin, volume.seek_hole(inode, begin)?))),
            Err(Error::Refused(_)) => Ok(None),
            Err(error) => Err(error),
        })
    }

    fn target<'py>(&self, py: Python<'py>, inode: u64) -> PyResult<Bound<'py, PyBytes>> {
        let target = self.with(py, |volume| volume.read_link(inode))?;
        Ok(PyBytes::new(py, &target))
    }

    fn xattrs<'py>(&self, py: Python<'py>, inode: u64) -> PyResult<Bound<'py, PyDict>> {
        let result = PyDict::new(py);
        for (name, value) in self.with(py, |volume| volume.xattrs(inode))? {
            result.set_item(PyBytes::new(py, &name), PyBytes::new(py, &value))?;
        }
        Ok(result)
    }

    #[pyo3(signature = (directory, name, *, kind, mode=0o755, uid=0, gid=0, target=None, device=(0, 0)))]
    #[allow(clippy::too_many_arguments)]
    fn add(
        &self,
        py: Python<'_>,
        directory: u64,
        name: &[u8],
        kind: &str,
        mode: u32,
        uid: u32,
        gid: u32,
        target: Option<&[u8]>,
        device: (u32, u32),
    ) -> PyResult<u64> {
        let kind = match kind {
            "-" => NewKind::Regular,
            "d" => NewKind::Directory,
            "l" => NewKind::Symlink(target.unwrap_or_default()),
            "p" => NewKind::Fifo,
            "s" => NewKind::Socket,
            "c" => NewKind::CharDevice(device.0, device.1),
            "b" => NewKind::BlockDevice(device.0, device.1),
            other => return Err(PyValueError::new_err(format!("unknown type: {other:?}"))),
        };
        let new = New {
            kind,
            mode,
            uid,
            gid,
        };
        let made = self.with(py, |volume| volume.create_inode(directory, name, &new))?;
        Ok(made.inode)
    }

    fn link(&self, py: Python<'_>, inode: u64, directory: u64, name: &[u8]) -> PyResult<()> {
        self.with(py, |volume| volume.link(inode, directory, name))
            .map(drop)
    }

    fn lookup(&self, py: Python<'_>, directory: u64, name: &[u8]) -> PyResult<u64> {
        Ok(self
            .with(py, |volume| volume.lookup(directory, name))?
            .inode)
    }

    fn write(&self, py: Python<'_>, inode: u64, offset: u64, data: &[u8]) -> PyResult<()> {
        self.with(py, |volume| {
            let mut done = 0;
            while done < data.len() {
                done += volume.write_at(inode, offset + done as u64, &data[done..])?;
            }
            Ok(())
        })
    }

    fn truncate(&self, py: Python<'_>, inode: u64, size: u64) -> PyResult<()> {
        self.with(py, |volume| volume.truncate(inode, size))
    }

    #[pyo3(signature = (inode, *, mode, uid, gid, mtime, mtime_nsec))]
    #[allow(clippy::too_many_arguments)]
    fn set_attributes(
        &self,
        py: Python<'_>,
        inode: u64,
        mode: u32,
        uid: u32,
        gid: u32,
        mtime: i64,
        mtime_nsec: u32,
    ) -> PyResult<()> {
        let time = Time {
            seconds: mtime,
            nanoseconds: mtime_nsec,
        };
        let changes = Changes {
            mode: Some(mode),
            uid: Some(uid),
            gid: Some(gid),
            atime: Some(time),
            mtime: Some(time),
        };
        self.with(py, |volume| volume.set_attributes(inode, &changes))
            .map(drop)
    }

    fn set_xattr(&self, py: Python<'_>, inode: u64, name: &[u8], value: &[u8]) -> PyResult<()> {
        self.with(py, |volume| volume.set_xattr(inode, name, value, None))
    }

    fn commit<'py>(&self, py: Python<'py>) -> PyResult<PyState<'py>> {
        let state = self.with(py, sconify_volume::Volume::commit)?;
        Ok((state.counter, PyBytes::new(py, &state.root)))
    }

    fn rotate<'py>(
        &self,
        py: Python<'py>,
        old_key: &[u8],
        new_key: &[u8],
    ) -> PyResult<PyState<'py>> {
        let (old_key, new_key) = (key_from_bytes(old_key)?, key_from_bytes(new_key)?);
        let state = self.with(py, |volume| volume.rotate(&old_key, &new_key))?;
        Ok((state.counter, PyBytes::new(py, &state.root)))
    }

    fn backup<'py>(&self, py: Python<'py>, directory: PathBuf) -> PyResult<PyState<'py>> {
        let state = self.with(py, |volume| volume.backup(&directory))?;
        Ok((state.counter, PyBytes::new(py, &state.root)))
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| {
            let volume = self.0.lock().expect("no thread panicked").take();
            volume.map_or(Ok(()), |volume| volume.close().map(drop))
        })
        .map_err(to_python)
    }
}

impl Volume {
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&sconify_volume::Volume) -> sconify_volume::Result<T> + Send,
    ) -> PyResult<T> {
        py.detach(|| {
            let volume = self.0.lock().expect("no thread panicked");
            volume.as_ref().map(work)
        })
        .ok_or_else(|| PyValueError::new_err("the volume was closed"))?
        .map_err(to_python)
    }
}

fn letter(kind: FileKind) -> String {
    char::from(kind as u8).to_string()
}

fn to_dict<'py>(py: Python<'py>, attributes: &Attributes) -> PyResult<Bound<'py, PyDict>> {
    let result = PyDict::new(py);
    result.set_item("type", letter(attributes.kind))?;
    result.set_item("mode", attributes.mode)?;
    result.set_item("uid", attributes.uid)?;
    result.set_item("gid", attributes.gid)?;
    result.set_item("nlink", attributes.links)?;
    result.set_item("size", attributes.size)?;
    result.set_item("device", attributes.device)?;
    result.set_item("mtime", attributes.mtime.seconds)?;
    result.set_item("mtime_nsec", attributes.mtime.nanoseconds)?;
    Ok(result)
}

/// What goes back to Python: `VolumeError` for what the host may have changed, `OSError` for the rest.
fn to_python(error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::Stale { .. } | Error::NotAuthentic { .. } => VolumeError::new_err(message),
        _ => PyOSError::new_err((error.errno().raw_os_error(), message)),
    }
}
