//! One owned partition. [`window`] decides what happens next, without I/O or clock; [`driver`] does it.
//! An entry's bytes are read in [`opening`]; what it is made of is its [`content`]; its items go out by
//! [`item`]. Beside it run what is owed, the spool, and [`watch`].

mod content;
mod driver;
mod given;
mod item;
mod opening;
mod watch;
mod window;

use std::sync::Arc;

use shared::redis::class;
use tokio::sync::Notify;

use self::driver::Driver;
use crate::context::Work;
use crate::owed;
use crate::owed::spool::{self, Spool};
use crate::read::leases::Tenure;
use crate::read::stream::StreamError;
use crate::retry::Backoff;

/// Entries of this worker that wait for their tenant, as ids; beyond, a partition that has some isn't
/// read. About 60 bytes each.
const MOST_PARKED: usize = 1_000_000;

/// Owns a partition until the tenure is lost, or it is told to drain and has.
pub async fn own(work: Arc<Work>, spool: Arc<Spool>, tenure: Arc<Tenure>) {
    let owed = Arc::new(Notify::new());
    let driving = Driver::run(work.clone(), tenure.clone(), owed.clone());
    tokio::select! {
        () = Box::pin(driving) => {}
        () = Box::pin(owed::work_off(&work, &tenure, &owed)) => {}
        () = watch::watch(&work, &tenure) => {}
        () = Box::pin(spool::empty(&spool, &tenure)) => {}
    }
    work.metrics.left(tenure.partition);
}

/// Does something in Redis until it is done or the lease is gone.
async fn persist<F>(tenure: &Tenure, mut attempt: impl FnMut() -> F) -> Result<(), StreamError>
where
    F: Future<Output = Result<(), StreamError>>,
{
    let mut backoff = Backoff::for_server();
    loop {
        match attempt().await {
            Err(StreamError::Redis(error)) => {
                tracing::warn!(class = class(&error), %error, "redis command failed, will retry");
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
