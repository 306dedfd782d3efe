//! Who loses what when there is no room (Rule C6).

use std::collections::BTreeMap;

use commons_record::{Hash, OwnerId};

use super::{Bound, Catalogue, Listed};

impl Catalogue {
    pub(super) fn forget_binding(&mut self, bound: &Bound) -> Hash {
        self.release_hold(bound.binding.release);
        self.ids.remove(&bound.id);
        bound.id
    }

    pub(super) fn insert_release(&mut self, listed: Listed) {
        self.bytes += listed.size;
        let own = self.shelves.entry(listed.owner).or_default();
        own.bytes += listed.size;
        own.releases.insert(listed.order());
        self.by_name.entry(listed.release.name.folded()).or_default().insert(listed.id);
        self.ids.insert(listed.id);
        self.releases.insert(listed.id, listed);
    }

    pub(super) fn remove_release(&mut self, id: &Hash) {
        let Some(listed) = self.releases.remove(id) else { return };
        self.ids.remove(id);
        self.bytes -= listed.size;
        if let Some(shelf) = self.shelves.get_mut(&listed.owner) {
            shelf.bytes -= listed.size;
            shelf.releases.remove(&listed.order());
            if shelf.releases.is_empty() {
                self.shelves.remove(&listed.owner);
            }
        }
        let folded = listed.release.name.folded();
        if let Some(named) = self.by_name.get_mut(&folded) {
            named.remove(id);
            if named.is_empty() {
                self.by_name.remove(&folded);
            }
        }
    }

    /// What has to go so that `listed` fits; `None` if it is what has to go (Rule C6).
    pub(super) fn make_room(&self, listed: &Listed) -> Option<Vec<Hash>> {
        // What a pin or a binding waits for comes in whatever the state of its author's shelf:
        // these are bounded themselves.
        let is_held = self.holds.contains_key(&listed.id);
        let mut gone = Vec::new();
        let mut bytes: BTreeMap<OwnerId, usize> =
            self.shelves.iter().map(|(owner, shelf)| (*owner, shelf.bytes)).collect();
        *bytes.entry(listed.owner).or_default() += listed.size;
        let mut total = self.bytes + listed.size;
        loop {
            let own = bytes.get(&listed.owner).copied().unwrap_or_default();
            let loser = if own > self.limits.bytes_per_author {
                listed.owner
            } else if total > self.limits.bytes {
                bytes.iter().max_by_key(|(owner, bytes)| (**bytes, **owner)).map(|it| *it.0)?
            } else {
                return Some(gone);
            };
            let is_free = |id: &Hash| !self.holds.contains_key(id) && !gone.contains(id);
            let releases = self.shelves.get(&loser).into_iter().flat_map(|it| &it.releases);
            let oldest = releases.copied().find(|(_, _, id)| is_free(id));
            let is_newcomer_older = oldest.is_none_or(|it| listed.order() < it);
            if loser == listed.owner && is_newcomer_older && !is_held {
                return None;
            }
            let Some((_, _, id)) = oldest else {
                if is_held {
                    return Some(gone);
                }
                // All that this author has is held: it is not asked again.
                bytes.remove(&loser);
                continue;
            };
            let size = self.releases.get(&id).map_or(0, |it| it.size);
            total -= size;
            bytes.entry(loser).and_modify(|it| *it -= size);
            gone.push(id);
        }
    }
}
