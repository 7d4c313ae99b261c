//! One owned partition. [`window`] decides what happens next, without I/O or clock; [`driver`] does it.
//! An entry's bytes are read in [`opening`]; what it is made of is its [`content`]; its items go out by
//! [`item`], several together in a [`batch`]. Beside it run what is owed, the spool, and [`watch`].

mod batch;
mod content;
mod driver;
mod given;
mod item;
mod opening;
mod persist;
mod record;
mod watch;
mod window;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::driver::Driver;
use crate::context::WorkerContext;
use crate::owed;
use crate::owed::spool::{self, Spool};
use crate::read::leases::Tenure;

/// What is in work has so long to end when a partition is handed over: longer than the
/// default of `CONFIRM_TIMEOUT`, since what isn't confirmed by then is published again.
const HANDOVER_TIME: Duration = Duration::from_secs(30);
/// So long when the process stops: less than the default of `SHUTDOWN_GRACE`, after which leases expire.
const STOP_TIME: Duration = Duration::from_secs(5);

/// Owns a partition until the tenure is lost, or it is told to drain and has. `stopping`: the process is to
/// end.
pub async fn own(
    work: Arc<WorkerContext>,
    spool: Arc<Spool>,
    tenure: Arc<Tenure>,
    stopping: CancellationToken,
) {
    let owed = Arc::new(Notify::new());
    let driving = Driver::run(work.clone(), tenure.clone(), owed.clone());
    let working_off = owed::work_off(&work, &tenure, &owed);
    // Both end once nothing is in work that the next owner would repeat.
    let owning = async { tokio::join!(Box::pin(driving), Box::pin(working_off)) };
    let out_of_time = async {
        tenure.drain.cancelled().await;
        let stopped = async {
            stopping.cancelled().await;
            sleep(STOP_TIME).await;
        };
        tokio::select! {
            () = sleep(HANDOVER_TIME) => {}
            () = stopped => {}
        }
    };
    tokio::select! {
        ((), ()) = owning => {}
        () = tenure.lost.cancelled() => {}
        () = out_of_time => {}
        () = watch::watch(&work, &tenure) => {}
        () = Box::pin(spool::empty(&spool, &tenure)) => {}
    }
    work.metrics.left(tenure.partition);
}
