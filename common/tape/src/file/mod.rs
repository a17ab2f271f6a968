//! The embedded physical library: `tape::target` over cartridges that are files.

mod format;
mod index;
mod medium;
mod shelf;
mod window;

pub use medium::FileMedium;
pub use shelf::FileShelf;

#[cfg(test)]
mod tests;
