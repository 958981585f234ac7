//! The one integration binary.

mod crash;
mod process;
mod tidy;
