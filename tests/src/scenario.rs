//! The plays: what happens on the stage, and what must come out.
