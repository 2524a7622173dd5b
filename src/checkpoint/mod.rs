pub mod binding;
pub mod row;
