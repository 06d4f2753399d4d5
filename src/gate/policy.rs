//! The policy.

/// A permit.
pub struct Permit(());
/// A verdict.
pub enum Verdict {}
/// The policy.
pub struct Policy {}
