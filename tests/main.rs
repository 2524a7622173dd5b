//! The one test binary. Each module says what belongs there.

/// The contract computed slowly from whole inputs; what every other test compares the program with.
mod oracle;
