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

use self::driver::Driver;
use crate::context::WorkerContext;
use crate::owed;
use crate::owed::spool::{self, Spool};
use crate::read::leases::Tenure;

/// Handing over waits this long for what is in work.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Owns a partition until the tenure is lost, or it is told to drain and has.
pub async fn own(work: Arc<WorkerContext>, spool: Arc<Spool>, tenure: Arc<Tenure>) {
    let owed = Arc::new(Notify::new());
    let driving = Driver::run(work.clone(), tenure.clone(), owed.clone());
    let working_off = owed::work_off(&work, &tenure, &owed);
    // Both end once nothing is in work that the next owner would repeat.
    let owning = async { tokio::join!(Box::pin(driving), Box::pin(working_off)) };
    let out_of_time = async {
        tenure.drain.cancelled().await;
        sleep(DRAIN_TIME).await;
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
