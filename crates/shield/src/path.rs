//! Normal paths: absolute, without empty, `.` or `..` components, without NUL, within Linux's limits.

/// Longest path in bytes: `PATH_MAX` without the final NUL.
pub(crate) const PATH_LIMIT: usize = 4095;
/// Longest component in bytes: `NAME_MAX`.
pub(crate) const NAME_LIMIT: usize = 255;

/// Checks that `path` is normal.
pub(crate) fn check(path: &[u8]) -> Result<(), &'static str> {
    let Some((b'/', relative)) = path.split_first() else {
        return Err("the path is not absolute");
    };
    if relative.is_empty() {
        return Ok(());
    }
    if path.len() > PATH_LIMIT {
        return Err("the path is longer than 4095 bytes");
    }
    for component in relative.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." | b".." => return Err("the path has an empty, \".\" or \"..\" component"),
            _ if component.len() > NAME_LIMIT => {
                return Err("the path has a component longer than 255 bytes")
            }
            _ if component.contains(&0) => return Err("the path contains a NUL byte"),
            _ => {}
        }
    }
    Ok(())
}

/// The directory of a normal path; `None` for the root.
pub(crate) fn parent(path: &[u8]) -> Option<&[u8]> {
    match path.iter().rposition(|&byte| byte == b'/') {
        _ if path == b"/" => None,
        Some(0) => Some(b"/"),
        Some(slash) => Some(&path[..slash]),
        None => None,
    }
}

/// The last component of a normal path; empty for the root.
pub(crate) fn name(path: &[u8]) -> &[u8] {
    path.iter()
        .rposition(|&byte| byte == b'/')
        .map_or(path, |slash| &path[slash + 1..])
}

/// Whether the normal path `path` is `prefix` or lies beneath it, by whole components.
#[cfg(test)]
pub(crate) fn is_within(path: &[u8], prefix: &[u8]) -> bool {
    ancestors(path).any(|ancestor| ancestor == prefix)
}

/// A normal path, then its directory, and so on up to the root.
pub(crate) fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(path), |path| parent(path))
}

/// Appends a component to a normal path.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(directory.len() + 1 + name.len());
    path.extend_from_slice(directory);
    if directory != b"/" {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_normal_paths_pass() {
        for good in [&b"/"[..], b"/a", b"/a/b", b"/..a/...", b"/\xff"] {
            assert_eq!(check(good), Ok(()));
        }
        for bad in [
            &b""[..],
            b"a",
            b"//",
            b"/a/",
            b"/a//b",
            b"/.",
            b"/a/../b",
            b"/a\0",
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        assert!(check(&[b"/", &[b'x'; 255][..]].concat()).is_ok());
        assert!(check(&[b"/", &[b'x'; 256][..]].concat()).is_err());
        assert!(check(&b"/xxx".repeat(1024)).is_err());
    }

    #[test]
    fn parts_of_a_path() {
        assert_eq!(
            (parent(b"/"), parent(b"/a"), parent(b"/a/b")),
            (None, Some(&b"/"[..]), Some(&b"/a"[..]))
        );
        assert_eq!(
            (name(b"/"), name(b"/a"), name(b"/a/b")),
            (&b""[..], &b"a"[..], &b"b"[..])
        );
        assert_eq!(
            (join(b"/", b"a"), join(b"/a", b"b")),
            (b"/a".to_vec(), b"/a/b".to_vec())
        );
        assert!(is_within(b"/a/b", b"/a") && is_within(b"/a", b"/a") && is_within(b"/a", b"/"));
        assert!(!is_within(b"/ab", b"/a") && !is_within(b"/", b"/a"));
    }
}
