//! Which tenant the entries of an account were given. An account may pass to another tenant between a crash and
//! the retry of what was pending then; what may have been published goes out under the same tenant again.
//!
//! Redis has of each account the tenant that its entries are given (`{p}:tenants`). It is written before the
//! first entry is given to that tenant, so a text costs nothing more. When the tenant changes, the note keeps
//! up to which entry the former one's were: whoever takes over gives each entry what it was given, or would
//! have been.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::item::tenant::{Tenant, Verdict};
use crate::read::entry_id::EntryId;

/// Former tenants that are remembered of an account: it passes on seldom, and what was pending then is
/// soon done.
const MOST_FORMER: usize = 8;

/// What is noted of an account.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TenantNote {
    /// Of the entries behind those of the former ones; `None`: they have been given nobody.
    now: Option<Tenant>,
    /// Former tenants, and the last entry of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    former: Vec<(String, Tenant)>,
    /// The last entry that was given `now` in this tenure.
    #[serde(skip)]
    last: Option<EntryId>,
}

/// What is done with an entry whose tenant is looked up.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TenantAssignment {
    /// It is this one's.
    Given(Verdict),
    /// This must be noted before.
    Note(TenantNote),
    /// A note of its account is on its way.
    Wait,
}

/// The notes of a partition.
#[derive(Debug, Default)]
pub(super) struct Given {
    notes: HashMap<String, TenantNote>,
    /// The last entry that was delivered to former tenures.
    delivered: Option<EntryId>,
    /// Accounts whose note is being written, and the entries that wait for it.
    writing: HashMap<String, BTreeSet<u64>>,
}

impl Given {
    /// With what former tenures noted.
    pub(super) fn read(noted: HashMap<String, String>) -> Self {
        let notes = noted.into_iter();
        let notes = notes.filter_map(|(account, text)| {
            let note = serde_json::from_str(&text).ok();
            if note.is_none() {
                tracing::warn!(
                    waba_id = account,
                    "the note of an account's tenant can't be read"
                );
            }
            Some((account, note?))
        });
        Self {
            notes: notes.collect(),
            ..Self::default()
        }
    }

    /// Up to which entry former tenures got them; what is told first holds.
    pub(super) fn delivered_before(&mut self, last: EntryId) {
        self.delivered.get_or_insert(last);
    }

    /// Whose an entry is. `verdict`: its account's tenant now.
    pub(super) fn give(
        &mut self,
        account: &str,
        number: u64,
        id: EntryId,
        verdict: Verdict,
    ) -> TenantAssignment {
        if let Some(waiting) = self.writing.get_mut(account) {
            waiting.insert(number);
            return TenantAssignment::Wait;
        }
        let note = self.notes.get_mut(account);
        if let Some(note) = &note
            && let Some(tenant) = note.before(id, self.delivered)
        {
            return TenantAssignment::Given(held_by(tenant, verdict));
        }
        let now = note.as_ref().and_then(|note| note.now.as_ref());
        let wanted = match &verdict {
            Verdict::Active(tenant) => Some(&**tenant),
            // Nothing of it is published, and what was is the same tenant's.
            Verdict::Suspended(tenant) => now.filter(|now| now.id == tenant.id),
            Verdict::Unknown | Verdict::Unusable => None,
        };
        if now.map(|now| &now.id) != wanted.map(|wanted| &wanted.id) {
            let wanted = wanted.cloned();
            let note = note.map(|note| note.clone()).unwrap_or_default();
            return TenantAssignment::Note(note.passes_to(wanted, self.delivered));
        }
        if let Some(note) = note {
            note.last = note.last.max(Some(id));
        }
        TenantAssignment::Given(verdict)
    }

    /// Whose an entry is that won't go out: for where it is kept.
    pub(super) fn held(&self, account: &str, id: EntryId, verdict: Verdict) -> Verdict {
        let note = self.notes.get(account);
        match note.and_then(|note| note.before(id, self.delivered)) {
            Some(tenant) => held_by(tenant, verdict),
            None => verdict,
        }
    }

    /// The account's tenant isn't known any more: what comes from now on has been given nobody. The note
    /// to write, if one is needed.
    pub(super) fn doubt(&self, account: &str) -> Option<TenantNote> {
        let note = self.notes.get(account)?;
        if note.now.is_none() || self.writing.contains_key(account) {
            return None;
        }
        Some(note.clone().passes_to(None, self.delivered))
    }

    /// A note is being written, for an entry if one waits for it.
    pub(super) fn writes(&mut self, account: &str, number: Option<u64>) {
        let waiting = self.writing.entry(account.to_owned()).or_default();
        waiting.extend(number);
    }

    /// A note is written; the entries that waited for it.
    pub(super) fn written(&mut self, account: &str, note: TenantNote) -> BTreeSet<u64> {
        if note.is_empty() {
            self.notes.remove(account);
        } else {
            self.notes.insert(account.to_owned(), note);
        }
        self.writing.remove(account).unwrap_or_default()
    }
}

impl TenantNote {
    /// As it lies in Redis; empty where nothing need lie there.
    pub(super) fn text(&self) -> String {
        match self.is_empty() {
            true => String::new(),
            false => serde_json::to_string(self).unwrap_or_default(),
        }
    }

    fn is_empty(&self) -> bool {
        self.now.is_none() && self.former.is_empty()
    }

    /// Whose an entry was before, if it was, or may have been, somebody's.
    fn before(&self, id: EntryId, delivered: Option<EntryId>) -> Option<&Tenant> {
        let mut former = self.former.iter();
        let former = former.find(|(last, _)| EntryId::parse(last).is_some_and(|last| id <= last));
        let now = self.now.as_ref();
        let now = now.filter(|_| delivered.is_some_and(|delivered| id <= delivered));
        former.map(|(_, tenant)| tenant).or(now)
    }

    /// From the entries on that nobody was given.
    fn passes_to(mut self, next: Option<Tenant>, delivered: Option<EntryId>) -> Self {
        let last = self.last.take().max(delivered);
        if let (Some(now), Some(last)) = (self.now.take(), last) {
            self.former.push((last.to_string(), now));
        }
        // It went to nobody, and comes back.
        if let (Some(next), Some((_, former))) = (&next, self.former.last())
            && next.id == former.id
        {
            self.former.pop();
        }
        if self.former.len() > MOST_FORMER {
            self.former.remove(0);
        }
        self.now = next;
        self
    }
}

/// What was a tenant's stays so; whether that is suspended now, its account says as long as it is still
/// this tenant's.
fn held_by(tenant: &Tenant, verdict: Verdict) -> Verdict {
    if verdict.tenant_id() == Some(&tenant.id) {
        verdict
    } else {
        Verdict::Active(Arc::new(tenant.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(id: &str) -> Verdict {
        Verdict::Active(Arc::new(Tenant {
            id: id.to_owned(),
            ..Tenant::default()
        }))
    }

    /// A partition's tenure, and what Redis has for the next one.
    #[derive(Default)]
    struct Tenure {
        given: Given,
        noted: HashMap<String, String>,
    }

    impl Tenure {
        fn next(self, delivered: u64) -> Self {
            let mut given = Given::read(self.noted.clone());
            given.delivered_before(EntryId::new(delivered, 0));
            let noted = self.noted;
            Self { given, noted }
        }

        fn written(&mut self, note: TenantNote) {
            self.given.writes("a", None);
            self.noted.insert("a".to_owned(), note.text());
            self.noted.retain(|_, text| !text.is_empty());
            self.given.written("a", note);
        }

        /// Whose an entry is in the end, and how many notes that took.
        fn give(&mut self, id: u64, verdict: &Verdict) -> (Option<String>, usize) {
            for notes in 0..2 {
                match self
                    .given
                    .give("a", 0, EntryId::new(id, 0), verdict.clone())
                {
                    TenantAssignment::Given(verdict) => {
                        return (verdict.tenant_id().map(str::to_owned), notes);
                    }
                    TenantAssignment::Note(note) => self.written(note),
                    TenantAssignment::Wait => panic!("nothing is being written"),
                }
            }
            panic!("noted twice")
        }

        fn doubt(&mut self) {
            if let Some(note) = self.given.doubt("a") {
                self.written(note);
            }
        }
    }

    fn whose(tenant: &str) -> Option<String> {
        Some(tenant.to_owned())
    }

    #[test]
    fn what_was_pending_stays_its_tenants_whatever_the_account_is_now() {
        for now in [tenant("t2"), Verdict::Unknown, Verdict::Unusable] {
            let mut first = Tenure::default();
            assert_eq!(first.give(1, &tenant("t1")), (whose("t1"), 1));
            assert_eq!(first.give(2, &tenant("t1")), (whose("t1"), 0));
            let mut next = first.next(2);
            next.doubt();
            assert_eq!(next.give(1, &now).0, whose("t1"));
            let (new, _) = next.give(3, &now);
            assert_eq!(new.as_deref(), now.tenant_id());
            // Those of before are still pending when the next one dies, too.
            let mut last = next.next(3);
            assert_eq!(last.give(2, &tenant("t3")).0, whose("t1"));
            let third = now.tenant_id().unwrap_or("t3");
            assert_eq!(last.give(3, &tenant("t3")).0, whose(third));
            assert_eq!(last.give(4, &tenant("t3")).0, whose("t3"));
        }
    }

    #[test]
    fn a_tenant_that_was_suspended_since_keeps_what_was_its() {
        let mut first = Tenure::default();
        first.give(1, &tenant("t1"));
        let suspended = Verdict::Suspended(Arc::new(Tenant {
            id: "t1".to_owned(),
            ..Tenant::default()
        }));
        let mut next = first.next(1);
        let given = next
            .given
            .give("a", 0, EntryId::new(1, 0), suspended.clone());
        assert_eq!(given, TenantAssignment::Given(suspended));
    }

    /// What is set aside for a tenant is not the former one's when it is given again.
    #[test]
    fn a_suspended_tenant_takes_over_from_another_only() {
        let suspended = |id: &str| match tenant(id) {
            Verdict::Active(tenant) => Verdict::Suspended(tenant),
            other => other,
        };
        let mut first = Tenure::default();
        first.give(1, &tenant("t1"));
        assert_eq!(first.give(2, &suspended("t1")), (whose("t1"), 0));
        assert_eq!(first.give(3, &suspended("t2")), (whose("t2"), 1));
    }

    #[test]
    fn what_was_pending_is_its_tenants_though_nobody_doubted_it() {
        let mut first = Tenure::default();
        first.give(1, &tenant("t1"));
        first.give(2, &tenant("t1"));
        let mut next = first.next(2);
        assert_eq!(next.give(1, &tenant("t2")), (whose("t1"), 0));
        assert_eq!(next.give(2, &tenant("t2")), (whose("t1"), 0));
        assert_eq!(next.give(3, &tenant("t2")), (whose("t2"), 1));
    }

    #[test]
    fn what_came_while_nobody_knew_the_tenant_is_given_the_next_one() {
        let mut first = Tenure::default();
        first.give(1, &tenant("t1"));
        // Declared changed; entry 2 waits for the Tenant Service when the worker dies.
        first.doubt();
        let mut next = first.next(2);
        assert_eq!(next.give(1, &tenant("t2")).0, whose("t1"));
        assert_eq!(next.give(2, &tenant("t2")).0, whose("t2"));
    }

    #[test]
    fn an_account_that_stays_with_its_tenant_has_one_note() {
        let mut first = Tenure::default();
        first.give(1, &tenant("t1"));
        let noted = first.noted.clone();
        for id in [2, 3, 4] {
            first.doubt();
            assert_eq!(first.give(id, &tenant("t1")), (whose("t1"), 1));
        }
        assert_eq!(first.noted, noted);
        let mut next = first.next(4);
        next.doubt();
        assert_eq!(next.give(4, &tenant("t1")), (whose("t1"), 0));
        assert_eq!(next.give(5, &tenant("t1")), (whose("t1"), 1));
        assert_eq!(next.noted, noted);
    }

    #[test]
    fn of_an_account_that_passes_on_often_the_last_tenants_are_remembered() {
        let mut first = Tenure::default();
        let many = MOST_FORMER as u64 + 2;
        let named = |n: u64| format!("t{n}");
        for n in 1..=many {
            assert_eq!(first.give(n, &tenant(&named(n))).0, whose(&named(n)));
        }
        let mut next = first.next(many);
        next.doubt();
        for n in 3..=many {
            assert_eq!(next.give(n, &tenant("new")).0, whose(&named(n)));
        }
        let note: TenantNote = serde_json::from_str(&next.noted["a"]).expect("a note");
        assert_eq!(note.former.len(), MOST_FORMER);
    }

    #[test]
    fn entries_wait_for_the_note_of_their_account() {
        let mut given = Given::default();
        let TenantAssignment::Note(note) = given.give("a", 1, EntryId::new(1, 0), tenant("t1"))
        else {
            panic!("nothing is noted yet");
        };
        given.writes("a", Some(1));
        assert_eq!(
            given.give("a", 2, EntryId::new(2, 0), tenant("t1")),
            TenantAssignment::Wait
        );
        assert_eq!(given.doubt("a"), None);
        assert_eq!(given.written("a", note), BTreeSet::from([1, 2]));
        assert!(matches!(
            given.give("a", 2, EntryId::new(2, 0), tenant("t1")),
            TenantAssignment::Given(_)
        ));
        // The next note isn't made of one that is about to be replaced.
        assert!(given.doubt("a").is_some());
        given.writes("a", None);
        assert_eq!(given.doubt("a"), None);
    }
}
