//! The maps at work within one engine.
