//! Other workers: what their reports say, and how they are asked.
