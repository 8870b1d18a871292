//! What the process does when it is sent a signal.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::AppError;

/// SIGHUP means "read again" to people and programs, and would end the process: policy and certificate are
/// followed without it.
pub(super) async fn outlive_hangups() {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    while hangup.recv().await.is_some() {
        tracing::info!(
            "SIGHUP: policy and certificate are followed by themselves; other settings need a restart"
        );
    }
}

/// SIGTERM and SIGINT. From [`StopSignals::watch`] on they end the process no more by themselves, so that is called before
/// anything that has to be finished is begun.
pub struct StopSignals {
    term: Signal,
    int: Signal,
}

impl StopSignals {
    /// Takes them over, for as long as the process lives.
    ///
    /// # Errors
    /// Signals cannot be watched.
    pub fn watch() -> Result<Self, AppError> {
        let watch = |kind| signal(kind).map_err(AppError::failed("signals cannot be watched"));
        Ok(Self { term: watch(SignalKind::terminate())?, int: watch(SignalKind::interrupt())? })
    }

    /// Waits for one that came since.
    pub async fn told(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
