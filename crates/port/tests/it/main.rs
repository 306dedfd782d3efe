//! Formats of the ports that are pinned.

mod process;
