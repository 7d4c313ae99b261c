//! What must be in Redis before it goes on.

use shared::redis::warn_will_retry;

use crate::read::leases::Tenure;
use crate::read::stream::StreamError;
use crate::retry::Backoff;

/// Does something in Redis until it is done or the lease is gone.
pub(super) async fn persist<F>(
    tenure: &Tenure,
    mut attempt: impl FnMut() -> F,
) -> Result<(), StreamError>
where
    F: Future<Output = Result<(), StreamError>>,
{
    let mut backoff = Backoff::for_server();
    loop {
        match attempt().await {
            Err(StreamError::Redis(error)) => {
                warn_will_retry(&error);
                if !tenure.holds() {
                    return Err(StreamError::NotOwner);
                }
                backoff.wait().await;
            }
            Ok(()) => return Ok(()),
            Err(StreamError::NotOwner) => return Err(StreamError::NotOwner),
        }
    }
}
