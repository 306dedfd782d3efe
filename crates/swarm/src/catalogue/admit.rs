//! Which records are kept, and which give way to them.

use commons_record::catalogue::{Denylist, NameBinding, Release, Revocation};
use commons_record::envelope::Verified;
use commons_record::{Epoch, Hash, OwnerId, PublicKey};

use super::{Admission, Bound, Catalogue, Listed, Listing, NameKey, NotKept, Revoked, name_key};

impl Catalogue {
    /// Takes a release.
    pub fn admit_release(&mut self, record: &Verified<Release>) -> Admission {
        if self.contains(&record.id()) {
            return Admission::Known;
        }
        if let Some(refused) = self.refuse_revoked(record) {
            return Admission::Refused(refused);
        }
        let listed = Listed {
            id: record.id(),
            owner: record.owner(),
            node: record.node(),
            epoch: record.epoch(),
            sequence: record.sequence(),
            size: record.encode().len(),
            release: record.body().clone(),
        };
        let Some(gone) = self.make_room(&listed) else {
            return Admission::Refused(NotKept::NoRoom { owner: listed.owner });
        };
        for id in &gone {
            self.remove_release(id);
        }
        self.insert_release(listed);
        Admission::Kept { gone }
    }

    /// Takes a binding of a name (Rule C3).
    pub fn admit_binding(&mut self, record: &Verified<NameBinding>) -> Admission {
        if self.contains(&record.id()) {
            return Admission::Known;
        }
        let (owner, binding) = (record.owner(), record.body());
        if !self.authorities.contains(&owner) {
            return Admission::Refused(NotKept::NoAuthority { owner });
        }
        if let Some(refused) = self.refuse_revoked(record) {
            return Admission::Refused(refused);
        }
        let key = name_key(&binding.name, binding.version.as_ref());
        let known = self.bindings.get(&key).map(|it| (it.binding.serial, it.id));
        if let Some((serial, _)) = known.filter(|it| *it >= (binding.serial, record.id())) {
            return Admission::Refused(NotKept::Stale { known: serial, found: binding.serial });
        }
        if known.is_none() && self.bindings.len() >= self.limits.bindings {
            return Admission::Refused(NotKept::NoRoom { owner });
        }
        let bound = Bound {
            id: record.id(),
            by: owner,
            author: record.author(),
            epoch: record.epoch(),
            binding: binding.clone(),
        };
        self.hold(binding.release);
        self.ids.insert(record.id());
        let gone = self.bindings.insert(key, bound).map(|it| self.forget_binding(&it));
        Admission::Kept { gone: gone.into_iter().collect() }
    }

    /// Takes a revocation. Bindings and denylists of the key that no longer count go; releases
    /// stay where they are and say why they do not count.
    pub fn admit_revocation(&mut self, record: &Verified<Revocation>) -> Admission {
        if self.contains(&record.id()) {
            return Admission::Known;
        }
        let owner = record.owner();
        let revoked = Revoked { id: record.id(), revocation: record.body().clone() };
        let slot = (revoked.revocation.key, owner);
        let known = self.revocations.get(&slot).map(Revoked::severity);
        if known.is_some_and(|known| known <= revoked.severity()) {
            // Revocations are not taken back: a thief of the key would do it.
            return Admission::Refused(NotKept::Stale { known: 0, found: 0 });
        }
        if known.is_none() && self.revocations.len() >= self.limits.revocations {
            return Admission::Refused(NotKept::NoRoom { owner });
        }
        self.ids.insert(record.id());
        let replaced = self.revocations.insert(slot, revoked);
        let mut gone: Vec<Hash> = replaced.into_iter().map(|it| it.id).collect();
        let is_out = |it: &Bound| self.revoker(it.author, it.by, &it.id, it.epoch).is_some();
        let out: Vec<_> = self.bindings.iter().filter(|(_, it)| is_out(it)).collect();
        let out: Vec<NameKey> = out.into_iter().map(|(key, _)| key.clone()).collect();
        for bound in out.iter().filter_map(|key| self.bindings.remove(key)).collect::<Vec<_>>() {
            gone.push(self.forget_binding(&bound));
        }
        let is_out = |owner: OwnerId, it: &Listing| {
            self.revoker(it.author, owner, &it.id, it.epoch).is_some()
        };
        let out = self.denylists.iter().filter(|((owner, _), it)| is_out(*owner, it));
        let out: Vec<_> = out.map(|(key, _)| key.clone()).collect();
        gone.extend(out.iter().filter_map(|key| self.denylists.remove(key)).map(|it| it.id));
        for id in &gone {
            self.ids.remove(id);
        }
        Admission::Kept { gone }
    }

    /// Takes a denylist.
    pub fn admit_denylist(&mut self, record: &Verified<Denylist>) -> Admission {
        if self.contains(&record.id()) {
            return Admission::Known;
        }
        if let Some(refused) = self.refuse_revoked(record) {
            return Admission::Refused(refused);
        }
        let (owner, list) = (record.owner(), record.body());
        let key = (owner, list.title.clone());
        let known = self.denylists.get(&key).map(|it| (it.list.serial, it.id));
        if let Some((serial, _)) = known.filter(|it| *it >= (list.serial, record.id())) {
            return Admission::Refused(NotKept::Stale { known: serial, found: list.serial });
        }
        let is_wanted = self.subscriptions.contains(&owner);
        let own = self.denylists.keys().filter(|(author, _)| *author == owner).count();
        let is_foreign = |it: &&(OwnerId, String)| !self.subscriptions.contains(&it.0);
        let foreign = self.denylists.keys().filter(is_foreign).count();
        let is_full = own >= self.limits.denylists_per_author
            || (!is_wanted && foreign >= self.limits.denylists);
        if known.is_none() && is_full {
            return Admission::Refused(NotKept::NoRoom { owner });
        }
        let listing = Listing {
            id: record.id(),
            author: record.author(),
            epoch: record.epoch(),
            list: list.clone(),
        };
        self.ids.insert(record.id());
        let replaced = self.denylists.insert(key, listing).map(|it| it.id);
        if let Some(id) = &replaced {
            self.ids.remove(id);
        }
        Admission::Kept { gone: replaced.into_iter().collect() }
    }

    /// Why a release does not count, if it does not.
    pub fn revoked(&self, listed: &Listed) -> Option<NotKept> {
        self.revoker(listed.node.into(), listed.owner, &listed.id, listed.epoch)
    }

    /// Why records of this key and owner do not count, if they do not: an authority may revoke any
    /// key, an owner its own and those of its nodes.
    fn revoker(
        &self,
        author: PublicKey,
        owner: OwnerId,
        id: &Hash,
        epoch: Epoch,
    ) -> Option<NotKept> {
        let owner_key = PublicKey::from(owner);
        [author, owner_key].into_iter().find_map(|key| {
            let (first, last) = (OwnerId::from_bytes([0; 32]), OwnerId::from_bytes([0xff; 32]));
            let of_key = self.revocations.range((key, first)..=(key, last));
            let counts = |by: &OwnerId| *by == owner || self.authorities.contains(by);
            let mut of_key =
                of_key.filter(|((_, by), it)| counts(by) && !it.revocation.spares(id, epoch));
            of_key.next().map(|((key, by), it)| NotKept::Revoked {
                key: *key,
                by: *by,
                reason: it.revocation.reason.clone(),
            })
        })
    }

    fn refuse_revoked<T>(&self, record: &Verified<T>) -> Option<NotKept> {
        self.revoker(record.author(), record.owner(), &record.id(), record.epoch())
    }
}
