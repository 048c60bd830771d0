//! Text of records.
