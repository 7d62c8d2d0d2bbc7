//! How programs want to be started: by the kernel itself, by a loader, or by a script's interpreter.

use object::elf::{
    DynamicTag, FileHeader64, DT_NEEDED, DT_SONAME, DT_STRTAB, EM_X86_64, ET_DYN, ET_EXEC,
    PT_INTERP, PT_LOAD, PT_PHDR,
};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::LittleEndian;
use rustix::io::Errno;

/// The kernel reads this much of a file to learn what it is; a script's first line ends here at the latest.
const HEAD: usize = 256;
/// More program headers than this are refused by the kernel too.
const HEADERS_LIMIT: usize = 65_536;

/// What a program needs to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interpreter {
    /// Nothing: it is statically linked.
    None,
    /// This dynamic loader.
    Loader {
        /// The loader's path.
        path: Vec<u8>,
        /// Where the path stands in the program's memory, counted from the program headers there.
        distance: Option<u64>,
    },
    /// This interpreter: the file is a script.
    Script {
        /// The interpreter's path.
        path: Vec<u8>,
        /// Its one argument.
        argument: Option<Vec<u8>>,
    },
}

/// Why a file can't be executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// It is neither a script nor a program for this processor.
    #[error("it is neither a script nor an x86-64 ELF program")]
    Format,
    /// The path of its loader leaves no room for the one that replaces it.
    #[error("the path of its loader has {found} bytes, at least {needed} are needed")]
    LoaderPathTooShort {
        /// Bytes of the path.
        found: usize,
        /// Bytes of the replacement.
        needed: usize,
    },
}

impl ProgramError {
    /// What `execve` gives for it.
    pub fn errno(&self) -> Errno {
        match self {
            Self::Format => Errno::NOEXEC,
            Self::LoaderPathTooShort { .. } => Errno::LIBBAD,
        }
    }
}

/// Finds out how a file wants to be started. `read` gives up to so many bytes from an offset on, fewer only at the end.
///
/// # Errors
/// `ENOEXEC` if it can't be started.
pub fn interpreter(read: impl Fn(u64, usize) -> Vec<u8>) -> Result<Interpreter, Errno> {
    let head = read(0, HEAD);
    if let Some(line) = head.strip_prefix(b"#!") {
        return script(line).ok_or(Errno::NOEXEC);
    }
    let header = parse_header(&head).map_err(|error| error.errno())?;
    let count = usize::from(header.e_phnum.get(LittleEndian)).min(HEADERS_LIMIT);
    let start = header.e_phoff.get(LittleEndian);
    // The headers are parsed as if they stood right behind the file's.
    let length = count * usize::from(header.e_phentsize.get(LittleEndian));
    let mut relocated = *header;
    let size = size_of_val(header);
    relocated.e_phoff.set(LittleEndian, size as u64);
    let mut data = object::bytes_of(&relocated).to_vec();
    data.extend(read(start, length));
    let headers = relocated
        .program_headers(LittleEndian, &*data)
        .map_err(|_| Errno::NOEXEC)?;
    let Some(found) = headers
        .iter()
        .find(|header| header.p_type(LittleEndian) == PT_INTERP)
    else {
        return Ok(Interpreter::None);
    };
    let length = usize::try_from(found.p_filesz(LittleEndian)).unwrap_or(usize::MAX);
    if !(2..=4096).contains(&length) {
        return Err(Errno::NOEXEC);
    }
    let text = read(found.p_offset(LittleEndian), length);
    let path = crate::kernel::process::until_nul(&text).ok_or(Errno::NOEXEC)?;
    let own = headers
        .iter()
        .find(|header| header.p_type(LittleEndian) == PT_PHDR);
    let distance = own.map(|own| {
        found
            .p_vaddr(LittleEndian)
            .wrapping_sub(own.p_vaddr(LittleEndian))
    });
    Ok(Interpreter::Loader {
        path: path.to_vec(),
        distance,
    })
}

/// A program that only lends its memory, and a `syscall` instruction at its entry point, to the one who traces it.
pub fn blank() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    const CODE: &[u8] = &[0x0f, 0x05, 0x0f, 0x0b]; // syscall; ud2
    let size = HEADERS + CODE.len() as u64;
    // ELF header: 64 bits, little-endian; ET_EXEC, EM_X86_64, entry point; one program header right behind.
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    bytes.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    bytes.extend([BASE + HEADERS, 64, 0].map(u64::to_le_bytes).concat());
    bytes.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // Program header: PT_LOAD, readable and executable; the whole file.
    bytes.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    bytes.extend(
        [0, BASE, BASE, size, size, 0x1000]
            .map(u64::to_le_bytes)
            .concat(),
    );
    bytes.extend(CODE);
    bytes
}

/// The path of a descriptor, as the program names its loader.
fn descriptor_path(number: i32) -> Vec<u8> {
    format!("/proc/self/fd/{number}").into_bytes()
}

/// Replaces the path of the loader in a program by that of the descriptor `loader`; `None` demands that it has no loader.
///
/// # Errors
/// [`ProgramError`] if it is no program or has no room.
pub fn redirect_interpreter(content: &mut [u8], loader: Option<i32>) -> Result<(), ProgramError> {
    let header = *parse_header(content)?;
    let headers = header
        .program_headers(LittleEndian, &*content)
        .map_err(|_| ProgramError::Format)?;
    let places: Vec<_> = headers
        .iter()
        .filter(|header| header.p_type(LittleEndian) == PT_INTERP)
        .map(|header| (header.p_offset(LittleEndian), header.p_filesz(LittleEndian)))
        .collect();
    // The kernel takes the first one; a second one, or one that is not expected, must not lead to the disk.
    let (&[(offset, length)], Some(number)) = (&places[..], loader) else {
        return if places.is_empty() && loader.is_none() {
            Ok(())
        } else {
            Err(ProgramError::Format)
        };
    };
    let path = descriptor_path(number);
    let start = usize::try_from(offset).map_err(|_| ProgramError::Format)?;
    let end = usize::try_from(length)
        .ok()
        .and_then(|length| start.checked_add(length))
        .ok_or(ProgramError::Format)?;
    let place = content.get_mut(start..end).ok_or(ProgramError::Format)?;
    if place.len() <= path.len() {
        return Err(ProgramError::LoaderPathTooShort {
            found: place.len(),
            needed: path.len() + 1,
        });
    }
    place.fill(0);
    place[..path.len()].copy_from_slice(&path);
    Ok(())
}

/// What an object file says about shared objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Its own name as a shared object (`DT_SONAME`).
    pub name: Option<Vec<u8>>,
    /// The names of those that it needs (`DT_NEEDED`).
    pub needed: Vec<Vec<u8>>,
}

/// Reads the dynamic section of a program or shared object; anything else links to nothing.
pub fn links(content: &[u8]) -> Links {
    read_links(content).unwrap_or_default()
}

fn read_links(content: &[u8]) -> Option<Links> {
    let headers = parse_header(content)
        .ok()?
        .program_headers(LittleEndian, content)
        .ok()?;
    let entries = headers
        .iter()
        .find_map(|header| header.dynamic(LittleEndian, content).ok()?)?;
    let values = |tag: DynamicTag| {
        entries
            .iter()
            .filter(move |entry| entry.d_tag(LittleEndian) == tag)
            .map(|entry| entry.d_val(LittleEndian))
    };
    let address = values(DT_STRTAB).next()?;
    let offset = headers.iter().find_map(|header| {
        let within = address.checked_sub(header.p_vaddr(LittleEndian))?;
        let holds =
            header.p_type(LittleEndian) == PT_LOAD && within < header.p_filesz(LittleEndian);
        holds.then(|| header.p_offset(LittleEndian).wrapping_add(within))
    })?;
    let text = |at: u64| {
        let start = usize::try_from(offset.checked_add(at)?).ok()?;
        crate::kernel::process::until_nul(content.get(start..)?).map(<[u8]>::to_vec)
    };
    Some(Links {
        name: values(DT_SONAME).next().and_then(text),
        needed: values(DT_NEEDED).filter_map(text).collect(),
    })
}

fn parse_header(data: &[u8]) -> Result<&FileHeader64<LittleEndian>, ProgramError> {
    let header = FileHeader64::<LittleEndian>::parse(data).map_err(|_| ProgramError::Format)?;
    let kind = header.e_type.get(LittleEndian);
    if header.e_machine.get(LittleEndian) != EM_X86_64 || (kind != ET_EXEC && kind != ET_DYN) {
        return Err(ProgramError::Format);
    }
    Ok(header)
}

/// Reads what follows `#!`, as the kernel does: the interpreter, then the rest of the line as one argument.
fn script(line: &[u8]) -> Option<Interpreter> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let (line, is_whole) = match line.iter().position(|&byte| byte == b'\n' || byte == 0) {
        Some(end) => (&line[..end], true),
        None => (line, line.len() < HEAD - 2),
    };
    let start = line.iter().position(|byte| !is_blank(byte))?;
    let line = &line[start..];
    let length = line.iter().position(is_blank).unwrap_or(line.len());
    // A path that may have been cut off is refused.
    if length == line.len() && !is_whole {
        return None;
    }
    let (path, rest) = line.split_at(length);
    let argument = rest.iter().position(|byte| !is_blank(byte)).map(|start| {
        let end = rest
            .iter()
            .rposition(|byte| !is_blank(byte))
            .map_or(start, |last| last + 1);
        rest[start..end].to_vec()
    });
    Some(Interpreter::Script {
        path: path.to_vec(),
        argument,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(content: &[u8]) -> Result<Interpreter, Errno> {
        interpreter(|offset, length| {
            let start = (offset as usize).min(content.len());
            content[start..(start + length).min(content.len())].to_vec()
        })
    }

    #[test]
    fn scripts_name_their_interpreter() {
        let script = |path: &str, argument: Option<&str>| {
            Ok(Interpreter::Script {
                path: path.into(),
                argument: argument.map(Into::into),
            })
        };
        assert_eq!(of(b"#!/bin/sh\necho"), script("/bin/sh", None));
        assert_eq!(
            of(b"#! /usr/bin/env  python3 -B \t\n"),
            script("/usr/bin/env", Some("python3 -B"))
        );
        assert_eq!(of(b"#!/bin/sh"), script("/bin/sh", None));
        assert_eq!(of(b"#!\n"), Err(Errno::NOEXEC));
        assert_eq!(
            of(format!("#!/{}", "a".repeat(300)).as_bytes()),
            Err(Errno::NOEXEC)
        );
    }

    #[test]
    fn the_loader_of_a_program_is_found_and_redirected() {
        let mut content = std::fs::read("/bin/true").unwrap();
        let Ok(Interpreter::Loader { path, .. }) = of(&content) else {
            panic!("/bin/true has no loader")
        };
        assert!(path.starts_with(b"/lib64/ld-linux"));
        assert_eq!(
            redirect_interpreter(&mut content, None),
            Err(ProgramError::Format)
        );
        redirect_interpreter(&mut content, Some(1000)).unwrap();
        let Ok(Interpreter::Loader { path, .. }) = of(&content) else {
            panic!("the loader is gone")
        };
        assert_eq!(path, b"/proc/self/fd/1000");
        let short = b"/proc/self/fd/1000\0".len();
        let at = content
            .windows(short)
            .position(|window| window == b"/proc/self/fd/1000\0")
            .unwrap();
        content[at - 1] = b'x';
        assert!(
            redirect_interpreter(&mut content, Some(i32::MAX)).is_ok(),
            "28 bytes take any number"
        );
    }

    #[test]
    fn the_dynamic_section_names_shared_objects() {
        let links = links(&std::fs::read("/bin/true").unwrap());
        assert_eq!(links.needed, [b"libc.so.6".to_vec()]);
        assert_eq!(links.name, None);
        assert_eq!(super::links(&blank()), Links::default());
        assert_eq!(super::links(b"#!/bin/sh\n"), Links::default());
    }

    #[test]
    fn the_blank_program_is_a_static_one() {
        assert_eq!(of(&blank()), Ok(Interpreter::None));
    }

    #[test]
    fn anything_else_is_refused() {
        for content in [&b""[..], b"#", b"\x7fELF", b"hello, world"] {
            assert_eq!(of(content), Err(Errno::NOEXEC));
        }
    }
}
