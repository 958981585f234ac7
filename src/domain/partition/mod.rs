//! To be written: partition.
