//! The one integration binary.

mod crash;
mod faults;
mod import;
mod process;
mod tidy;
