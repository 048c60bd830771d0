//! The product, started as a user would start it.
