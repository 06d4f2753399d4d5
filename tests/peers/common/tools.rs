//! Strangers and foreign clients.
