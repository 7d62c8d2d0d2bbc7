//! Protected files with placeholders: read through the shield, filled in, and laid over the tree as injected files.

use rustix::fs::FileType;

use crate::executor::{InjectedFile, Templates};
use crate::placeholders::fill;

use super::contents::Contents;
use super::tree::{Name, Node, Place, Tree};
use super::SupervisorError;

/// Fills in all templates.
///
/// # Errors
/// The first that is no protected file, or holds a placeholder without value.
pub fn fill_in(
    tree: &mut Tree,
    contents: &Contents,
    templates: Templates,
) -> Result<(), SupervisorError> {
    let mut filled = Vec::with_capacity(templates.files.len());
    for file in &templates.files {
        let failed = |reason: String| SupervisorError::Template {
            path: Name(&file.path).to_string(),
            reason,
        };
        let place = tree
            .resolve(&file.path, true)
            .map_err(|error| failed(error.to_string()))?;
        let node = match place {
            Place::Node(node @ (Node::Entry(_) | Node::Writable(_)))
                if tree.metadata(node).is(FileType::RegularFile) =>
            {
                node
            }
            Place::Node(Node::Injected(_)) => {
                return Err(failed("the session gives its content as well".to_owned()))
            }
            Place::Node(_) => return Err(failed("it is no regular file".to_owned())),
            Place::Missing | Place::Undeclared => return Err(failed("it is not there".to_owned())),
            // Whoever writes the text around a secret can have the program give it away.
            Place::Host(_) => {
                return Err(failed(
                    "it is in a region of kind host, so anybody could write it".to_owned(),
                ))
            }
        };
        let text = contents
            .plaintext(tree, node)
            .map_err(|error| failed(error.to_string()))?;
        let content =
            fill(&text, &templates.placeholders).map_err(|error| failed(error.to_string()))?;
        filled.push(InjectedFile {
            path: tree.path(node).into_owned(),
            content,
            mode: file.mode,
        });
    }
    for file in filled {
        tree.inject(file);
    }
    Ok(())
}
