//! Who connects, and whether they belong.
