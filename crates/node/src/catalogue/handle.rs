//! The catalogue's part of the node's contract: each question goes to the function that answers it.

use std::sync::Arc;

use commons_port::BoxFuture;
use commons_record::catalogue::DenyEntry;
use commons_record::{Hash, OwnerId};
use commons_swarm::policy::{Act, Policy};

use super::{publish, query};
use crate::api::Refusal;
use crate::api::catalogue::{
    CatalogueApi, DenylistView, Judged, LineageView, PinView, PublishedView, ReleaseDraft,
    ReleaseView, RevocationDraft, Search,
};
use crate::start::Inner;

/// The catalogue of a running node.
pub(crate) struct Handle {
    inner: Arc<Inner>,
}

impl Handle {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }
}

/// An answer that outlives the handle.
macro_rules! answer {
    ($handle:ident, $inner:ident => $work:expr) => {{
        let $inner = $handle.inner.clone();
        Box::pin(async move { $work.await })
    }};
}

type Answered<T> = BoxFuture<'static, Result<T, Refusal>>;

impl CatalogueApi for Handle {
    fn publish(&self, draft: ReleaseDraft) -> Answered<PublishedView> {
        answer!(self, inner => publish::release(&inner, draft))
    }

    fn search(&self, search: Search) -> Answered<Vec<ReleaseView>> {
        answer!(self, inner => query::search(&inner, &search))
    }

    fn show(&self, what: String) -> Answered<ReleaseView> {
        answer!(self, inner => query::show(&inner, &what))
    }

    fn resolve(&self, name: String) -> Answered<ReleaseView> {
        answer!(self, inner => query::resolve(&inner, &name))
    }

    fn lineage(&self, what: String) -> Answered<LineageView> {
        answer!(self, inner => query::lineage(&inner, &what))
    }

    fn pin(&self, name: String, release: Hash) -> Answered<PinView> {
        answer!(self, inner => publish::pin(&inner, &name, release))
    }

    fn unpin(&self, name: String) -> Answered<PinView> {
        answer!(self, inner => publish::unpin(&inner, &name))
    }

    fn pins(&self) -> Answered<Vec<PinView>> {
        answer!(self, inner => query::pins(&inner))
    }

    fn bind(&self, name: String, release: Option<Hash>) -> Answered<Hash> {
        answer!(self, inner => publish::bind(&inner, &name, release))
    }

    fn revoke(&self, draft: RevocationDraft) -> Answered<Hash> {
        answer!(self, inner => publish::revoke(&inner, draft))
    }

    fn publish_denylist(&self, title: String, entries: Vec<DenyEntry>) -> Answered<Hash> {
        answer!(self, inner => publish::denylist(&inner, title, entries))
    }

    fn subscribe(&self, author: OwnerId, is_on: bool) -> Answered<Vec<DenylistView>> {
        answer!(self, inner => publish::subscribe(&inner, author, is_on))
    }

    fn denylists(&self) -> Answered<Vec<DenylistView>> {
        answer!(self, inner => query::denylists(&inner))
    }

    fn policy(&self) -> Answered<Policy> {
        answer!(self, inner => query::policy(&inner))
    }

    fn set_policy(&self, policy: Policy) -> Answered<()> {
        answer!(self, inner => publish::set_policy(&inner, policy))
    }

    fn may(&self, act: Act, what: Judged) -> Answered<()> {
        answer!(self, inner => query::may(&inner, act, what))
    }
}
