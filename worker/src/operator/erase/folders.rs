//! Where the store has what is a tenant's.

use crate::out::store::{self, UNRESOLVED};

/// Folders of the webhook bucket that have a folder for each tenant.
const SHARED_FOLDERS: [&str; 4] = ["discarded", "failed", "replayed", "returning"];

/// Folders of a tenant's payloads.
pub(super) fn folders_of(tenant_id: &str) -> impl Iterator<Item = String> {
    let tenant = store::segment(tenant_id);
    let shared = SHARED_FOLDERS.map(|folder| format!("{folder}/{tenant}"));
    std::iter::once(tenant).chain(shared)
}

/// Folders of what came while an account had no tenant; `None`: of all accounts.
pub(super) fn unresolved_folders(account: Option<&str>) -> impl Iterator<Item = String> {
    let folder = match account {
        Some(account) => store::folder(None, account),
        None => UNRESOLVED.to_owned(),
    };
    let shared = SHARED_FOLDERS.map(|shared| format!("{shared}/{folder}"));
    std::iter::once(folder).chain(shared)
}
