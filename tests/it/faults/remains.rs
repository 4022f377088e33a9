//! What a dead supervisor or a dead machine leaves, and a service that starts on it.
